//! The example `flows/event-log` on a real JetStream: each event in exactly one file, whatever is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use polars::prelude::{LazyFrame, PlRefPath, ScanArgsParquet};
use pype_tests::events::{self, BEGAN_NS, SPAN_NS};
use pype_tests::nats::Nats;
use pype_tests::services::Server;
use pype_tests::serving::Running;
use pype_tests::{Sandbox, repository};
use serde_json::json;

/// This one is no event.
const POISON: i64 = 777;

/// How many events: `PYPE_EVENTS`, or some thousands.
fn count() -> i64 {
    std::env::var("PYPE_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// Where events go.
struct Target<'s> {
    sandbox: Sandbox,
    root: String,
    variables: Vec<(&'s str, String)>,
}

impl Target<'_> {
    fn start(&self, server: &Server) -> Running {
        let example = repository().join("flows/event-log/event-log.yaml");
        let nats = format!("nats=nats://{}", server.address());
        let root = format!("root={}", self.root);
        let arguments = ["run", example.to_str().expect("text"), "--set", &nats, "--set", &root];
        let log = fs::OpenOptions::new().create(true).append(true).open(self.sandbox.path("stderr")).expect("a log");
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        Running::of(self.sandbox.command(&arguments).envs(variables).stderr(Stdio::from(log)))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn each_event_is_in_exactly_one_file_whatever_is_killed() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("log");
    let target = Target { root: folder.display().to_string(), sandbox, variables: Vec::new() };
    log_all(&target, || {
        files(&folder).into_iter().filter(|path| path.extension().is_none_or(|end| end != "lock")).collect()
    });
}

#[test]
fn each_event_is_in_exactly_one_object_whatever_is_killed() {
    let Some(s3) = Server::s3() else { return };
    let sandbox = Sandbox::new();
    let copy = sandbox.path("copy");
    let target = Target { root: "s3://pype/log".to_owned(), sandbox, variables: s3.s3_variables() };
    log_all(&target, || {
        let variables = s3.s3_variables();
        let mut store = AmazonS3Builder::new().with_bucket_name("pype").with_allow_http(true);
        for (name, value) in variables {
            store = store.with_config(name.to_ascii_lowercase().parse().expect("a variable of S3"), value);
        }
        let store = store.build().expect("a store");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let fetch = async |object: ObjectMeta| {
            let path = copy.join(object.location.as_ref());
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let bytes = store.get(&object.location).await.expect("there").bytes().await.expect("all of it");
            fs::write(&path, bytes).expect("written");
            path
        };
        runtime.block_on(store.list(None).map(|object| object.expect("listed")).then(fetch).collect())
    });
}

/// Has the example write all events, while it and the server are killed; then looks at every file.
fn log_all(target: &Target, files: impl FnOnce() -> Vec<PathBuf>) {
    let Some(mut server) = Server::nats() else { return };
    let count = count();
    let mut nats = Nats::connect(&server.address());
    events::publish(&mut nats, count, Some(POISON));
    for kill in 0..4 + u64::try_from(count).expect("positive") / 50_000 {
        let running = target.start(&server);
        std::thread::sleep(Duration::from_millis(900 + kill * 700 % 2800));
        drop(running);
        if kill % 4 == 3 {
            server.kill();
            server.start();
        }
    }
    let began = Instant::now();
    let running = target.start(&server);
    let mut nats = Nats::connect(&server.address());
    let patience = Duration::from_secs(60) + Duration::from_micros(u64::try_from(count).expect("positive") * 100);
    loop {
        let info = nats.ask("CONSUMER.INFO.LOGGING.event_log", &json!({}));
        // The dead letter is one message more in this stream, of another subject.
        if info["num_pending"] == 0 && info["num_ack_pending"] == 0 {
            break;
        }
        assert!(began.elapsed() < patience, "{info}\n{}", target.sandbox.read("stderr"));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{count} events; at most {} MB of memory", running.peak_memory() >> 20);
    assert_eq!(running.interrupt(), Some(0), "{}", target.sandbox.read("stderr"));

    let is_parquet = |path: &PathBuf| path.extension().is_some_and(|end| end == "parquet");
    let (files, left): (Vec<_>, Vec<_>) = files().into_iter().partition(is_parquet);
    assert!(left.is_empty(), "{left:?}");
    let mut ids = BTreeSet::new();
    for path in &files {
        let shown = path.to_str().expect("text");
        let scan = LazyFrame::scan_parquet(PlRefPath::new(shown), ScanArgsParquet::default()).expect("Parquet");
        let frame = scan.collect().expect("readable");
        let column = |name: &str| frame.column(name).expect("a column").clone();
        let (event_ids, times) = (column("event_id"), column("timestamp_ns"));
        for (id, at) in event_ids.str().expect("text").iter().zip(times.i64().expect("int").iter()) {
            let (id, at) = (id.expect("an id").to_owned(), at.expect("a time"));
            let midnight = BEGAN_NS + SPAN_NS / 2;
            let folder = if at < midnight { "2026-11-05/23" } else { "2026-11-06/00" };
            assert!(shown.contains(folder), "{id} of {at} is in {shown}");
            assert!(ids.insert(id.clone()), "{id} is there twice");
        }
    }
    assert_eq!(ids.len(), usize::try_from(count).expect("positive") - 1);
    assert!(!ids.contains(&format!("e{POISON}")));
    let letters = nats.ask("STREAM.INFO.LOGGING", &json!({ "subjects_filter": "logging.events.dead" }));
    assert_eq!(letters["state"]["subjects"]["logging.events.dead"], 1, "{letters}");
}
