//! The example `flows/event-log` on a real JetStream: each event in exactly one file, whatever is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use polars::prelude::{LazyFrame, PlRefPath, ScanArgsParquet};
use prost::Message;
use pype_tests::nats::Nats;
use pype_tests::services::Server;
use pype_tests::serving::Running;
use pype_tests::{Sandbox, repository, wait_for};
use serde_json::json;

/// `fes.common.events.GenericEventRequest`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "1")]
    event_id: String,
    #[prost(string, tag = "2")]
    event_type_key: String,
    #[prost(bytes = "vec", tag = "3")]
    event_payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timestamp_ns: i64,
    #[prost(string, tag = "5")]
    source_worker_id: String,
    #[prost(string, tag = "6")]
    simulation_id: String,
}

/// 2026-11-05 23:50 UTC.
const BEGAN_NS: i64 = 1_793_922_600_000_000_000;
const EVENTS: i64 = 20_000;
/// This one is no event.
const POISON: i64 = 777;

fn event(number: i64) -> Event {
    Event {
        event_id: format!("e{number}"),
        event_type_key: "fish.moved".to_owned(),
        event_payload: vec![7; 64],
        // Across midnight.
        timestamp_ns: BEGAN_NS + number * 60_000_000,
        source_worker_id: format!("w{}", number % 4),
        simulation_id: ["sim-a", "../sim b", ""][usize::try_from(number % 3).expect("small")].to_owned(),
    }
}

fn start(sandbox: &Sandbox, server: &Server) -> Running {
    let example = repository().join("flows/event-log/event-log.yaml");
    let nats = format!("nats=nats://{}", server.address());
    let root = format!("root={}", sandbox.path("log").display());
    let arguments = ["run", example.to_str().expect("text"), "--set", &nats, "--set", &root];
    let log = fs::OpenOptions::new().create(true).append(true).open(sandbox.path("stderr")).expect("a log");
    Running::of(sandbox.command(&arguments).stderr(Stdio::from(log)))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn each_event_is_in_exactly_one_file_whatever_is_killed() {
    let Some(mut server) = Server::nats() else { return };
    let sandbox = Sandbox::new();
    let mut nats = Nats::connect(&server.address());
    let made = nats.ask("STREAM.CREATE.LOGGING", &json!({ "name": "LOGGING", "subjects": ["logging.events.*"] }));
    assert!(made.get("error").is_none(), "{made}");
    for number in 0..EVENTS {
        let payload = if number == POISON { b"\xff\xff".to_vec() } else { event(number).encode_to_vec() };
        nats.publish("logging.events.raw", &payload);
    }
    let info = wait_for("all events", || {
        let info = nats.ask("STREAM.INFO.LOGGING", &json!({}));
        (info["state"]["messages"] == EVENTS).then_some(info)
    });
    assert_eq!(info["state"]["last_seq"], EVENTS);
    for kill in 0..4_u64 {
        let running = start(&sandbox, &server);
        std::thread::sleep(Duration::from_millis(900 + kill * 700));
        drop(running);
    }
    server.kill();
    server.start();
    let running = start(&sandbox, &server);
    let mut nats = Nats::connect(&server.address());
    wait_for("everything to be acknowledged", || {
        let info = nats.ask("CONSUMER.INFO.LOGGING.event_log", &json!({}));
        // The dead letter is one message more in this stream, of another subject.
        let done = info["num_pending"] == 0 && info["num_ack_pending"] == 0;
        done.then_some(())
    });
    assert_eq!(running.interrupt(), Some(0), "{}", sandbox.read("stderr"));

    let files = files(&sandbox.path("log"));
    let temporary = |path: &&PathBuf| path.extension().is_none_or(|end| end != "parquet");
    let left: Vec<_> = files.iter().filter(temporary).filter(|path| !path.ends_with(".lock")).collect();
    let mut ids = BTreeSet::new();
    let mut rows = 0;
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
        let shown = path.to_str().expect("text");
        let scan = LazyFrame::scan_parquet(PlRefPath::new(shown), ScanArgsParquet::default()).expect("Parquet");
        let frame = scan.collect().expect("readable");
        let column = |name: &str| frame.column(name).expect("a column").clone();
        rows += frame.height();
        for (id, at) in
            column("event_id").str().expect("text").iter().zip(column("timestamp_ns").i64().expect("int").iter())
        {
            let (id, at) = (id.expect("an id").to_owned(), at.expect("a time"));
            let midnight = BEGAN_NS + 600_000_000_000;
            let folder = if at < midnight { "2026-11-05/23" } else { "2026-11-06/00" };
            assert!(shown.contains(folder), "{id} of {at} is in {shown}");
            assert!(ids.insert(id.clone()), "{id} is there twice");
        }
    }
    assert_eq!((rows, ids.len()), (19_999, 19_999), "{left:?}");
    assert!(!ids.contains(&format!("e{POISON}")));
    let letters = nats.ask("STREAM.INFO.LOGGING", &json!({ "subjects_filter": "logging.events.dead" }));
    assert_eq!(letters["state"]["subjects"]["logging.events.dead"], 1, "{letters}");
}
