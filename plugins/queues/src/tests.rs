//! The contract of queues, held to both; and what is the file's alone.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pype_plugin::host::Instance;
use pype_plugin::prelude::*;
use pype_plugin::queue::JobFilter;
use pype_plugin::testing;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tokio::task::JoinSet;

use crate::in_memory::InMemory;
use crate::local::Local;
use crate::store::Store;

mod of_local {
    use super::*;

    async fn open(name: &str) -> Result<Instance> {
        static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
        local(folder.path().join(name).join("deep/er/jobs.db")).await
    }

    pype_plugin::queue_contract!(open);
}

mod of_in_memory {
    use super::*;

    async fn open(name: &str) -> Result<Instance> {
        testing::queue::<InMemory>(json!({ "name": name })).await
    }

    pype_plugin::queue_contract!(open);
}

async fn local(path: impl Into<PathBuf>) -> Result<Instance> {
    testing::queue::<Local>(json!({ "path": path.into() })).await
}

/// The ids of all jobs.
async fn ids(queue: &Instance) -> Vec<String> {
    let jobs = queue.jobs(JobFilter::default()).await.expect("listed");
    let mut ids: Vec<String> = jobs.into_iter().map(|job| job.id).collect();
    ids.sort();
    ids
}

#[test]
fn callers_who_give_up_leave_nothing_and_looks_wait_for_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    testing::block_on(async {
        let queue = Arc::new(local(&path).await.expect("opened"));
        // Another process writes.
        let mut other = Connection::open(&path).expect("opened");
        let writing = other.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
        let mut patient = JoinSet::new();
        for number in 0..20 {
            // Asked, and dropped.
            let given_up =
                tokio::time::timeout(Duration::ZERO, queue.enqueue(testing::job(&format!("dropped-{number}")))).await;
            given_up.expect_err("nobody can write");
            let queue = queue.clone();
            patient.spawn(async move { queue.enqueue(testing::job(&format!("patient-{number:02}"))).await });
        }
        assert_eq!(ids(&queue).await, Vec::<String>::new());
        writing.commit().expect("committed");
        let accepted = patient.join_all().await;
        let mut accepted: Vec<String> = accepted.into_iter().map(|one| one.expect("accepted").id).collect();
        accepted.sort();
        assert_eq!((accepted.len(), ids(&queue).await), (20, accepted));
        queue.close().await.expect("closed");
        let wal = path.with_extension("db-wal");
        assert!(wal.exists(), "the other process has it open");
        drop(other);
        assert!(!wal.exists(), "the queue has not");
    });
}

const VICTIM: &str = "PYPE_TEST_QUEUE_OF_A_VICTIM";

/// Enqueues from many callers at once, and tells of each job that was accepted; does nothing unless it is asked to.
#[test]
fn a_process_to_be_killed() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    testing::block_on(async {
        let queue = Arc::new(local(path).await.expect("opened"));
        let mut callers = JoinSet::new();
        for number in 0..2_000 {
            let queue = queue.clone();
            callers.spawn(async move {
                let accepted = queue.enqueue(testing::job(&format!("job-{number}"))).await.expect("accepted");
                // In one write. Who reads may have had enough.
                drop(std::io::stdout().write_all(format!("accepted {}\n", accepted.id).as_bytes()));
            });
        }
        callers.join_all().await;
    });
}

/// The jobs that a process had been told were accepted before it was killed.
fn killed_after(count: usize, path: &Path) -> Vec<String> {
    let mut victim = Command::new(std::env::current_exe().expect("a test knows where it is"))
        .args(["--exact", "tests::a_process_to_be_killed", "--nocapture", "--test-threads=1"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it has just run");
    let mut lines = BufReader::new(victim.stdout.take().expect("it is piped")).lines().map(|line| line.expect("text"));
    let told = |line: String| line.rsplit_once("accepted ").map(|(_, id)| id.to_owned());
    let mut accepted: Vec<String> = lines.by_ref().filter_map(told).take(count).collect();
    victim.kill().expect("it is our own");
    victim.wait().expect("it ends");
    // What it had still said.
    accepted.extend(lines.filter_map(told));
    accepted
}

#[test]
fn what_many_callers_at_once_were_told_is_accepted_is_there_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    for count in [1, 300, 1_000, 1_999] {
        let path = folder.path().join(format!("{count}.db"));
        let accepted = killed_after(count, &path);
        assert!(accepted.len() >= count, "{} of {count}", accepted.len());
        testing::block_on(async {
            let there = ids(&local(&path).await.expect("opened")).await;
            let lost: Vec<&String> = accepted.iter().filter(|id| there.binary_search(id).is_err()).collect();
            assert_eq!(lost, Vec::<&String>::new());
        });
    }
}

#[test]
fn processes_that_start_together_share_a_new_file() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jobs.db");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Store::open(&path).map(drop).expect("opened"));
            }
        });
    }
}

#[test]
fn a_file_that_is_no_store_or_a_newer_one_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    std::fs::write(&path, "this is no database, whatever its name says of it").expect("written");
    let open = || testing::block_on(local(path.clone())).err().expect("refused");
    let error = open();
    assert_eq!(error.code, "queue-damaged");
    assert!(error.message.contains("jobs.db"), "{error}");
    std::fs::remove_file(&path).expect("removed");
    let newer = rusqlite::Connection::open(&path).expect("made");
    newer.pragma_update(None, "user_version", 99).expect("written");
    drop(newer);
    let error = open();
    assert_eq!((error.code.as_str(), error.message.contains("jobs.db")), ("newer-store", true));
}
