//! The contract of queues, held to each of these.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pype_plugin::host::Instance;
use pype_plugin::prelude::*;
use pype_plugin::queue::{JobAction, JobFilter, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};
use pype_plugin::testing::{self, Chaos};
use serde_json::json;

use crate::in_memory::InMemory;
use crate::local::Local;

fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        pipeline: "upload".to_owned(),
        version: "1.0.0".to_owned(),
        shard: None,
        ordered: false,
        idempotency_key: None,
        asked: None,
        delay_ms: 0,
        max_attempts: 3,
        payload: vec![1, 2, 3].into(),
    }
}

fn ask(count: u32, visibility_ms: u64) -> LeaseRequest {
    let pipelines = vec!["upload".to_owned()];
    LeaseRequest { worker: "worker-1".to_owned(), pipelines, count, visibility_ms, wait_ms: 0, job: None }
}

async fn lease(queue: &Instance) -> Vec<LeasedJob> {
    queue.lease(ask(10, 60_000)).await.expect("leased")
}

async fn lease_one(queue: &Instance) -> LeasedJob {
    let mut leased = queue.lease(ask(1, 60_000)).await.expect("leased");
    leased.pop().expect("one is there")
}

async fn state(queue: &Instance, id: &str) -> JobState {
    queue.job(id).await.expect("asked").expect("there").state
}

fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, "away", "the store is away").retryable(true)
}

/// Runs a test of the contract on each queue, empty.
fn on_each(test: impl AsyncFn(&Instance)) {
    let folder = tempfile::tempdir().expect("a folder");
    testing::block_on(async {
        let local = local(&folder.path().join("jobs.db")).await;
        test(&local).await;
        local.close().await.expect("closed");
        let name = folder.path().display().to_string();
        let in_memory = testing::queue::<InMemory>(json!({ "name": name })).await.expect("opened");
        test(&in_memory).await;
        in_memory.close().await.expect("closed");
    });
}

async fn local(path: &Path) -> Instance {
    testing::queue::<Local>(json!({ "path": path })).await.expect("opened")
}

#[test]
fn a_job_goes_from_queued_to_running_to_succeeded() {
    on_each(async |queue| {
        let accepted = queue.enqueue(job("a")).await.expect("accepted");
        assert_eq!((accepted.id.as_str(), accepted.duplicate), ("a", false));
        assert_eq!(state(queue, "a").await, JobState::Queued);
        let leased = lease_one(queue).await;
        assert_eq!((leased.attempt, leased.max_attempts, &*leased.payload), (1, 3, [1, 2, 3].as_slice()));
        assert_eq!(state(queue, "a").await, JobState::Running);
        assert_eq!(lease(queue).await, []);
        let verdict = Verdict::Succeeded { result: json!({"ok": true}) };
        queue.conclude(leased.lease.clone(), verdict.clone()).await.expect("taken");
        let done = queue.job("a").await.expect("asked").expect("there");
        assert_eq!((done.state, done.result), (JobState::Succeeded, Some(json!({"ok": true}))));
        let late = queue.conclude(leased.lease, verdict).await.expect_err("it is over");
        assert_eq!(late.code, "stale-lease");
    });
}

#[test]
fn a_lease_that_runs_out_goes_to_another_and_the_first_is_refused() {
    on_each(async |queue| {
        queue.enqueue(job("a")).await.expect("accepted");
        let first = queue.lease(ask(1, 1)).await.expect("leased").remove(0);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let second = lease_one(queue).await;
        assert_eq!(second.attempt, 2);
        assert!(second.lease.token > first.lease.token);
        for refused in [
            queue.extend(first.lease.clone(), 1000).await,
            queue.conclude(first.lease.clone(), Verdict::Succeeded { result: json!(1) }).await,
            queue.conclude(first.lease.clone(), Verdict::Retry { error: failure(), delay_ms: 0 }).await,
            queue.conclude(first.lease, Verdict::Release { delay_ms: 0 }).await,
        ] {
            assert_eq!(refused.expect_err("stale").code, "stale-lease");
        }
        queue.extend(second.lease.clone(), 60_000).await.expect("it is the last");
        queue.conclude(second.lease, Verdict::Succeeded { result: json!(2) }).await.expect("taken");
        assert_eq!(queue.job("a").await.expect("asked").expect("there").result, Some(json!(2)));
    });
}

#[test]
fn a_job_whose_workers_never_come_back_is_lent_once_more_and_then_dead() {
    on_each(async |queue| {
        queue.enqueue(job("a")).await.expect("accepted");
        for attempt in 1..=4 {
            let leased = queue.lease(ask(1, 1)).await.expect("leased");
            assert_eq!(leased[0].attempt, attempt);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(lease(queue).await, []);
        let dead = queue.job("a").await.expect("asked").expect("there");
        assert_eq!(
            (dead.state, dead.error.map(|error| error.code)),
            (JobState::Dead, Some("lease-ran-out".to_owned()))
        );
    });
}

#[test]
fn retries_wait_count_and_end_dead_or_failed() {
    on_each(async |queue| {
        queue.enqueue(job("a")).await.expect("accepted");
        let leased = lease_one(queue).await;
        queue.conclude(leased.lease, Verdict::Retry { error: failure(), delay_ms: 40 }).await.expect("taken");
        assert_eq!(lease(queue).await, [], "it is not due");
        let waiting = queue.job("a").await.expect("asked").expect("there");
        assert_eq!((waiting.state, waiting.error), (JobState::Queued, Some(failure())));
        tokio::time::sleep(Duration::from_millis(60)).await;
        let leased = lease_one(queue).await;
        assert_eq!(leased.attempt, 2);
        queue.conclude(leased.lease, Verdict::Dead { error: failure() }).await.expect("taken");
        assert_eq!(state(queue, "a").await, JobState::Dead);
        queue.act("a", JobAction::Retry).await.expect("it may be");
        let leased = lease_one(queue).await;
        assert_eq!(leased.attempt, 1, "it has all its attempts again");
        queue.conclude(leased.lease, Verdict::Failed { error: failure() }).await.expect("taken");
        assert_eq!(state(queue, "a").await, JobState::Failed);
    });
}

#[test]
fn what_is_released_counts_no_attempt() {
    on_each(async |queue| {
        queue.enqueue(job("a")).await.expect("accepted");
        for _ in 0..5 {
            let leased = lease_one(queue).await;
            assert_eq!(leased.attempt, 1);
            queue.conclude(leased.lease, Verdict::Release { delay_ms: 0 }).await.expect("taken");
        }
        assert_eq!(state(queue, "a").await, JobState::Queued);
    });
}

#[test]
fn the_same_key_is_one_job_per_pipeline_and_so_is_the_same_id() {
    on_each(async |queue| {
        let keyed = |id: &str, pipeline: &str| NewJob {
            idempotency_key: Some("order-1".to_owned()),
            pipeline: pipeline.to_owned(),
            ..job(id)
        };
        queue.enqueue(keyed("a", "upload")).await.expect("accepted");
        let again = queue.enqueue(keyed("b", "upload")).await.expect("accepted");
        assert_eq!((again.id.as_str(), again.duplicate), ("a", true));
        assert!(!queue.enqueue(keyed("c", "other")).await.expect("accepted").duplicate);
        assert!(queue.enqueue(keyed("c", "other")).await.expect("accepted").duplicate);
        let leased = lease_one(queue).await;
        queue.conclude(leased.lease, Verdict::Succeeded { result: json!(null) }).await.expect("taken");
        let other = NewJob { asked: Some("something else".to_owned()), ..keyed("e", "upload") };
        assert_eq!(queue.enqueue(other).await.expect_err("refused").code, "key-reused");
        let after_its_end = queue.enqueue(keyed("d", "upload")).await.expect("accepted");
        assert_eq!((after_its_end.id.as_str(), after_its_end.duplicate), ("a", true));
    });
}

#[test]
fn who_waits_for_one_job_gets_no_other() {
    on_each(async |queue| {
        for id in ["a", "b"] {
            queue.enqueue(job(id)).await.expect("accepted");
        }
        let asked = LeaseRequest { job: Some("b".to_owned()), ..ask(10, 60_000) };
        let leased = queue.lease(asked.clone()).await.expect("leased");
        assert_eq!((leased.len(), leased[0].lease.job.as_str()), (1, "b"));
        assert_eq!(queue.lease(asked).await.expect("leased"), []);
    });
}

#[test]
fn processes_that_start_together_share_a_new_file() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jobs.db");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| crate::store::Store::open(&path).map(drop).expect("opened"));
            }
        });
    }
}

#[test]
fn delayed_jobs_wait_and_workers_wait_for_jobs() {
    on_each(async |queue| {
        queue.enqueue(NewJob { delay_ms: 80, ..job("a") }).await.expect("accepted");
        assert_eq!(lease(queue).await, []);
        let patient = LeaseRequest { wait_ms: 10_000, ..ask(1, 60_000) };
        let leased = queue.lease(patient).await.expect("leased");
        assert_eq!(leased[0].lease.job, "a");
    });
}

#[test]
fn ordered_jobs_of_a_shard_run_one_after_the_other() {
    on_each(async |queue| {
        let ordered = |id: &str, shard| NewJob { ordered: true, shard: Some(shard), ..job(id) };
        for (id, shard) in [("a1", 1), ("a2", 1), ("b1", 2)] {
            queue.enqueue(ordered(id, shard)).await.expect("accepted");
        }
        let ids = |leased: &[LeasedJob]| leased.iter().map(|job| job.lease.job.clone()).collect::<Vec<_>>();
        let first = lease(queue).await;
        assert_eq!(ids(&first), ["a1", "b1"]);
        // One that waits for another attempt holds up those behind it.
        let retry = Verdict::Retry { error: failure(), delay_ms: 30 };
        queue.conclude(first[0].lease.clone(), retry).await.expect("taken");
        assert_eq!(ids(&lease(queue).await), Vec::<String>::new());
        tokio::time::sleep(Duration::from_millis(50)).await;
        let again = lease(queue).await;
        assert_eq!(ids(&again), ["a1"]);
        let done = Verdict::Succeeded { result: json!(null) };
        queue.conclude(again[0].lease.clone(), done).await.expect("taken");
        assert_eq!(ids(&lease(queue).await), ["a2"]);
    });
}

#[test]
fn a_cancelled_job_is_taken_from_its_worker_and_may_be_retried() {
    on_each(async |queue| {
        queue.enqueue(job("a")).await.expect("accepted");
        let leased = lease_one(queue).await;
        queue.act("a", JobAction::Cancel).await.expect("it may be");
        assert_eq!(queue.extend(leased.lease, 1000).await.expect_err("stale").code, "stale-lease");
        assert_eq!(state(queue, "a").await, JobState::Cancelled);
        let refused = queue.act("a", JobAction::Cancel).await.expect_err("it is over");
        assert_eq!((refused.code.as_str(), refused.message.contains("is cancelled")), ("wrong-state", true));
        queue.act("a", JobAction::Retry).await.expect("it may be");
        assert_eq!(state(queue, "a").await, JobState::Queued);
        assert_eq!(queue.act("nobody", JobAction::Retry).await.expect_err("none").code, "no-such-job");
    });
}

#[test]
fn jobs_are_listed_and_forgotten_by_state_and_pipeline() {
    on_each(async |queue| {
        for id in ["a", "b", "c"] {
            queue.enqueue(job(id)).await.expect("accepted");
        }
        let leased = lease_one(queue).await;
        queue.conclude(leased.lease, Verdict::Succeeded { result: json!(null) }).await.expect("taken");
        let ids = async |filter: JobFilter| -> Vec<String> {
            queue.jobs(filter).await.expect("listed").into_iter().map(|job| job.id).collect()
        };
        assert_eq!(ids(JobFilter::default()).await, ["c", "b", "a"]);
        assert_eq!(ids(JobFilter { limit: 1, ..JobFilter::default() }).await, ["c"]);
        let queued = JobFilter { states: vec![JobState::Queued], ..JobFilter::default() };
        assert_eq!(ids(queued).await, ["c", "b"]);
        let other = JobFilter { pipeline: Some("other".to_owned()), ..JobFilter::default() };
        assert_eq!(ids(other).await, Vec::<String>::new());
        // What is not over is not forgotten.
        assert_eq!(queue.purge(JobFilter::default()).await.expect("purged"), 1);
        assert_eq!(ids(JobFilter::default()).await, ["c", "b"]);
    });
}

#[test]
fn what_was_accepted_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er/jobs.db");
    testing::block_on(async {
        let first = local(&path).await;
        first.enqueue(job("a")).await.expect("accepted");
        // Another process, which need not wait until the first has closed it.
        let second = local(&path).await;
        let leased = lease_one(&second).await;
        assert_eq!(state(&first, "a").await, JobState::Running);
        let stale = Lease { token: 0, ..leased.lease.clone() };
        assert!(first.extend(stale, 1000).await.is_err());
        first.extend(leased.lease, 1000).await.expect("a lease is valid wherever it is shown");
    });
}

#[test]
fn a_file_that_is_no_store_or_a_newer_one_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    std::fs::write(&path, "this is no database, whatever its name says of it").expect("written");
    let open = || testing::block_on(testing::queue::<Local>(json!({ "path": path }))).err().expect("refused");
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

#[test]
fn many_workers_lose_nothing_and_share_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    testing::block_on(async {
        let producer = local(&path).await;
        for number in 0..200 {
            producer.enqueue(job(&format!("job-{number}"))).await.expect("accepted");
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let queue = local(&path).await;
            workers.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let leased = queue.lease(ask(3, 60_000)).await.expect("leased");
                    if leased.is_empty() {
                        return done;
                    }
                    for job in leased {
                        queue
                            .conclude(job.lease.clone(), Verdict::Succeeded { result: json!(1) })
                            .await
                            .expect("taken");
                        done.push(job.lease.job);
                    }
                }
            });
        }
        let mut done: Vec<String> = workers.join_all().await.into_iter().flatten().collect();
        done.sort();
        done.dedup();
        assert_eq!(done.len(), 200);
        let succeeded = JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
        let succeeded = producer.jobs(succeeded).await.expect("listed");
        assert_eq!((succeeded.len(), succeeded.iter().all(|job| job.attempt == 1)), (200, true));
    });
}

/// What jobs do to the world: who comes with an older token than the last is refused.
#[derive(Default)]
struct World {
    effects: Mutex<BTreeMap<String, u64>>,
}

impl World {
    fn act(&self, lease: &Lease) -> bool {
        let mut effects = self.effects.lock().expect("nobody panics with it");
        let last = effects.entry(lease.job.clone()).or_default();
        let is_last = lease.token >= *last;
        *last = lease.token.max(*last);
        is_last
    }
}

/// Workers that the network fails, whose answers it loses, and that it cuts off for a while.
async fn cluster(seed: u64) {
    const JOBS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    let producer = local(&path).await;
    let network = Chaos::seeded(seed).losing_answers(0.3).failing(0.2);
    for number in 0..JOBS {
        let id = format!("job-{number}");
        // Who gets no answer asks again; that is one job all the same.
        while network.around(producer.enqueue(NewJob { max_attempts: 1000, ..job(&id) })).await.is_err() {}
    }
    let (world, over) = (Arc::new(World::default()), CancellationFlag::default());
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..3 {
        let (queue, world, over) = (local(&path).await, world.clone(), over.clone());
        let network = Chaos::seeded(seed * 31 + number).failing(0.1).losing_answers(0.2).slow(Duration::from_millis(4));
        workers.spawn(async move {
            for turn in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                network.partition((turn + number) % 7 == 0);
                let Ok(leased) = network.around(queue.lease(ask(2, 20))).await else { continue };
                for job in leased {
                    let last = world.act(&job.lease);
                    let done = Verdict::Succeeded { result: json!(job.lease.token) };
                    let taken = queue.conclude(job.lease.clone(), done).await;
                    assert!(last || taken.is_err(), "a stale completion of {} was taken", job.lease.job);
                }
            }
        });
    }
    let all_done = async {
        let succeeded = || JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
        while producer.jobs(succeeded()).await.expect("listed").len() < JOBS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_done).await.expect("no job is lost");
    over.store(true, Ordering::Relaxed);
    workers.join_all().await;
    assert_eq!(producer.jobs(JobFilter::default()).await.expect("listed").len(), JOBS);
}

type CancellationFlag = Arc<AtomicBool>;

#[test]
fn a_cluster_with_a_bad_network_loses_nothing_and_takes_no_stale_completion() {
    for seed in 1..=5 {
        testing::block_on(cluster(seed));
    }
}
