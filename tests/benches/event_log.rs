//! The example `flows/event-log`, from JetStream to Parquet, beside what one would write for it in Python: the same server, the
//! same machine, one after the other.
//!
//! `cargo bench --bench event_log` takes 200,000 events of three sizes, or as many as `-- --events N` says. The peer, which
//! neither syncs its files nor keeps from writing an event twice, is skipped by name where it cannot be installed: see
//! `tests/benches/peers/run --help`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its report")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use pype_tests::measure::{cpu_s, mb, peer};
use pype_tests::nats::Nats;
use pype_tests::services::Server;
use pype_tests::serving::Running;
use pype_tests::{Sandbox, binary, events, repository};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("event_log: skipped, since this is no `cargo bench`");
        return;
    }
    let given = arguments.iter().position(|argument| argument == "--events").and_then(|at| arguments.get(at + 1));
    let count: i64 = given.map_or(200_000, |text| text.parse().expect("--events takes a number"));
    let Some(server) = Server::nats() else { return };
    binary();
    events::publish(&mut Nats::connect(&server.address()), count, None);
    println!("{count} events\n{:<28} {:>11} {:>8} {:>8}", "", "messages/s", "CPU s", "MB");
    pype(&server, count);
    let sandbox = Sandbox::new();
    let (address, folder) = (format!("nats://{}", server.address()), sandbox.path("log").display().to_string());
    match peer("eventlog", &[&address, "LOGGING", "logging.events.raw", "peer", &folder, &count.to_string()]) {
        Ok(told) => {
            let number = |name: &str| told.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
            report("nats-py + pyarrow", number("messages_per_s"), number("cpu_s"), number("peak_rss_mb"));
        }
        Err(why) => println!("{:<28} skipped: {why}", "nats-py + pyarrow"),
    }
}

fn report(name: &str, messages_per_s: f64, cpu_s: f64, peak_mb: f64) {
    println!("{name:<28} {messages_per_s:>11.0} {cpu_s:>8.1} {peak_mb:>8.0}");
}

fn pype(server: &Server, count: i64) {
    let sandbox = Sandbox::new();
    let example = repository().join("flows/event-log/event-log.yaml");
    let (nats, root) = (format!("nats=nats://{}", server.address()), format!("root={}", sandbox.path("log").display()));
    let mut command = sandbox.command(&["run", example.to_str().expect("text"), "--set", &nats, "--set", &root]);
    let running = Running::of(command.stderr(Stdio::null()));
    let mut nats = Nats::connect(&server.address());
    let (began, mut first) = (Instant::now(), None);
    // From the first message it gets until the last one is acknowledged.
    loop {
        assert!(began.elapsed() < PATIENCE, "not all events are written");
        let info = nats.ask("CONSUMER.INFO.LOGGING.event_log", &json!({}));
        let delivered = info["delivered"]["stream_seq"].as_i64().unwrap_or(0);
        if delivered > 0 && first.is_none() {
            first = Some((Instant::now(), cpu_s(running.child.id())));
        }
        if delivered >= count && info["num_ack_pending"] == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (first, cpu) = first.expect("it got messages");
    let seconds = first.elapsed().as_secs_f64();
    let pid = running.child.id();
    report("pype", count as f64 / seconds, cpu_s(pid) - cpu, mb(running.peak_memory()));
    assert_eq!(running.interrupt(), Some(0));
}
