//! On a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer, stream};
use pype_plugin::host::Instance;
use pype_plugin::stream::{
    Acknowledged, Acknowledgement, Assignment, NewRecord, Partition, Progressed, Records, RecordsBuilder, StreamEvent,
};
use pype_plugin::testing::{self, block_on};
use pype_plugin::{Error, ErrorKind, Result};
use pype_tests::services::Server;
use serde_json::{Value, json};

use super::JetStreamSource;
use crate::connection::Connection;
use crate::send::Message;
use crate::tests::{server, url};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A stream of the server, and those who read it.
struct World {
    name: String,
    url: String,
    jetstream: jetstream::Context,
}

impl World {
    async fn new(server: &Server, name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let client = async_nats::connect(url(server)).await.expect("connected");
        let world = Self { name: name.clone(), url: url(server), jetstream: jetstream::new(client) };
        world.stream(&name).await;
        world
    }

    /// A stream of all subjects that begin with its name.
    async fn stream(&self, name: &str) {
        let config =
            stream::Config { name: name.to_owned(), subjects: vec![format!("{name}.>")], ..Default::default() };
        self.jetstream.create_stream(config).await.expect("made");
    }

    /// Publishes messages to `STREAM.N%10`, with their numbers and so many bytes.
    async fn publish(&self, numbers: std::ops::Range<usize>, size: usize) {
        let servers = serde_json::from_value(json!({ "url": self.url })).expect("as configs have it");
        let connection = Connection::open(&servers).await.expect("connected");
        let message = |number: usize| Message {
            subject: format!("{}.{}", self.name, number % 10),
            headers: HeaderMap::new(),
            payload: format!("{number:0size$}").into(),
        };
        connection.store_all(numbers.map(message).collect()).await.expect("stored");
    }

    fn config(&self, more: Value) -> Value {
        let mut config = json!({ "url": self.url, "stream": self.name, "durable": "reader" });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        config
    }

    async fn open(&self, more: Value) -> Reading {
        let source = testing::stream::<JetStreamSource>(self.config(more)).await.expect("it opens");
        Reading { source, partition: self.partition(), seen: Vec::new(), troubles: Vec::new() }
    }

    async fn refused(&self, more: Value) -> Error {
        testing::stream::<JetStreamSource>(self.config(more)).await.err().expect("it does not open")
    }

    fn partition(&self) -> Partition {
        Partition { topic: self.name.clone(), partition: 0 }
    }

    async fn consumer(&self) -> jetstream::consumer::Info {
        let stream = self.jetstream.get_stream(&self.name).await.expect("there");
        stream.consumer_info("reader").await.expect("there")
    }

    async fn messages(&self, stream: &str) -> u64 {
        self.jetstream.get_stream(stream).await.expect("there").cached_info().state.messages
    }
}

/// A source, and what it has told.
struct Reading {
    source: Instance,
    partition: Partition,
    seen: Vec<Seen>,
    troubles: Vec<Error>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    offset: i64,
    number: usize,
    key: Option<String>,
    headers: BTreeMap<String, String>,
}

impl Reading {
    /// What happens until something does.
    async fn next(&mut self) -> StreamEvent {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.source.poll(POLL).await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => {
                    assert!(error.retryable, "{error}");
                    self.troubles.push(error);
                }
            }
        }
        panic!("nothing happened");
    }

    async fn assigned(&mut self) -> Assignment {
        loop {
            match self.next().await {
                StreamEvent::Assigned(mut assigned) => return assigned.pop().expect("one"),
                StreamEvent::Records(_) => panic!("records before the assignment"),
                _ => {}
            }
        }
    }

    async fn take(&mut self, event: StreamEvent) {
        let StreamEvent::Records(frame) = event else { return };
        let schema = frame.arrow_schema().await.expect("a schema");
        assert_eq!(schema.metadata()["nats.stream"], self.partition.topic);
        assert!(schema.metadata()["nats.created"].ends_with('Z'), "{schema}");
        for records in Records::read(&frame).await.expect("records") {
            for record in records.iter() {
                assert_eq!((record.topic(), record.partition()), (self.partition.topic.as_str(), 0));
                assert!(record.timestamp_ms().is_some_and(|ms| ms > 1_700_000_000_000));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let headers = record.headers().map(|(name, value)| (name.to_owned(), text(value.expect("a value"))));
                self.seen.push(Seen {
                    offset: record.offset(),
                    number: text(record.value().expect("a value")).parse().expect("a number"),
                    key: record.key().map(text),
                    headers: headers.collect(),
                });
            }
        }
    }

    /// So many records more.
    async fn records(&mut self, count: usize) -> Vec<Seen> {
        let before = self.seen.len();
        while self.seen.len() < before + count {
            let event = self.next().await;
            self.take(event).await;
        }
        assert_eq!(self.seen.len(), before + count, "no more than are there");
        self.seen[before..].to_vec()
    }

    /// What comes within a time.
    async fn records_for(&mut self, time: Duration) -> Vec<Seen> {
        let (before, until) = (self.seen.len(), Instant::now() + time);
        while Instant::now() < until {
            if let Ok(Some(event)) = self.source.poll(POLL).await {
                self.take(event).await;
            }
        }
        self.seen[before..].to_vec()
    }

    async fn say(&self, offsets: impl IntoIterator<Item = i64>, verdict: Acknowledged) -> Result<()> {
        let verdict = |offset| Acknowledgement { partition: self.partition.clone(), offset, verdict };
        self.source.acknowledge(offsets.into_iter().map(verdict).collect()).await
    }

    async fn done(&self, seen: &[Seen]) {
        self.say(seen.iter().map(|seen| seen.offset), Acknowledged::Done).await.expect("confirmed");
    }

    async fn progress(&mut self) -> Progressed {
        loop {
            if let StreamEvent::Progress(mut told) = self.next().await {
                return told.pop().expect("one");
            }
        }
    }

    async fn close(self) {
        self.source.close().await.expect("it closes");
    }
}

fn numbers(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(|seen| seen.number).collect()
}

#[test]
fn ten_thousand_messages_come_in_order_and_what_is_acknowledged_never_again() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "order").await;
        world.publish(0..10_000, 200).await;
        let mut reading = world.open(json!({ "key": "token:2" })).await;
        let assigned = reading.assigned().await;
        let expect =
            Assignment { partition: world.partition(), epoch: 1, position: None, metadata: None, end: Some(10_001) };
        assert_eq!(assigned, expect);
        let started = Instant::now();
        let seen = reading.records(10_000).await;
        assert!(started.elapsed() < Duration::from_secs(30), "it takes {:?}", started.elapsed());
        assert_eq!(numbers(&seen), (0..10_000).collect::<Vec<_>>());
        assert!(seen.iter().map(|seen| seen.offset).eq(1..=10_000));
        let (key, subject) = (Some("7".to_owned()), format!("{}.7", world.name));
        let headers = BTreeMap::from([("Nats-Subject".to_owned(), subject)]);
        assert_eq!(seen[17], Seen { offset: 18, number: 17, key, headers });
        assert_eq!(reading.progress().await.position, Some(1), "nothing is done");
        reading.done(&seen).await;
        let told = loop {
            let told = reading.progress().await;
            if told.position != Some(1) {
                break told;
            }
        };
        assert_eq!((told.epoch, told.position, told.end), (1, Some(10_001), Some(10_001)));
        // It is confirmed, so the server knows.
        let told = world.consumer().await;
        assert_eq!((told.ack_floor.stream_sequence, told.num_ack_pending), (10_000, 0));
        reading.close().await;

        world.publish(10_000..10_003, 5).await;
        let mut again = world.open(json!({})).await;
        let seen = again.records(3).await;
        assert_eq!((numbers(&seen), &seen[0].key), (vec![10_000, 10_001, 10_002], &None));
        again.done(&seen).await;
        assert_eq!(again.records_for(Duration::from_secs(1)).await, []);
        again.close().await;
    });
}

#[test]
fn verdicts_decide_what_comes_again_and_when() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "verdicts").await;
        world.publish(0..5, 3).await;
        let mut reading = world.open(json!({ "ack_wait_ms": 2000 })).await;
        let first = reading.records(5).await;
        reading.say([1], Acknowledged::Done).await.expect("confirmed");
        reading.say([2], Acknowledged::Terminated).await.expect("confirmed");
        reading.say([3], Acknowledged::Again).await.expect("confirmed");
        // What nobody gave out, or was said before, is none of the server's business.
        reading.say([1, 99, -1], Acknowledged::Done).await.expect("nothing to say");
        let again = reading.records(1).await;
        assert_eq!((again[0].offset, again[0].headers["Nats-Num-Delivered"].as_str()), (3, "2"));
        assert_eq!((&again[0].headers["Nats-Subject"], again[0].number), (&first[2].headers["Nats-Subject"], 2));
        reading.done(&again).await;
        // 4 is worked on for longer than the server waits, 5 is forgotten.
        let started = Instant::now();
        let mut later = Vec::new();
        while started.elapsed() < Duration::from_secs(5) {
            reading.say([4], Acknowledged::Working).await.expect("confirmed");
            later.extend(reading.records_for(Duration::from_millis(300)).await);
            let forgotten: BTreeSet<i64> = later.iter().map(|seen| seen.offset).collect();
            reading.say(forgotten, Acknowledged::Done).await.expect("confirmed");
        }
        assert_eq!(later.iter().map(|seen| seen.offset).collect::<Vec<_>>(), [5]);
        assert_eq!(later[0].headers["Nats-Num-Delivered"], "2");
        reading.say([4], Acknowledged::Done).await.expect("confirmed");
        assert_eq!(world.consumer().await.num_ack_pending, 0);
        reading.close().await;
    });
}

#[test]
fn what_is_held_gives_no_records_and_what_was_fetched_is_kept() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "hold").await;
        let mut reading = world.open(json!({ "batch": 100, "ack_wait_ms": 1500 })).await;
        reading.assigned().await;
        assert_eq!(reading.records_for(Duration::from_millis(200)).await, [], "it has asked");
        reading.source.hold(vec![world.partition()], true).await.expect("held");
        world.publish(0..500, 10).await;
        // For longer than the server waits: what lies here is said to be worked on.
        assert_eq!(reading.records_for(Duration::from_secs(4)).await, []);
        let asked_for = world.consumer().await.num_ack_pending;
        assert!((1..=200).contains(&asked_for), "{asked_for}");
        reading.source.hold(vec![world.partition()], false).await.expect("goes on");
        let seen = reading.records(500).await;
        assert_eq!(numbers(&seen), (0..500).collect::<Vec<_>>());
        assert!(seen.iter().all(|seen| !seen.headers.contains_key("Nats-Num-Delivered")));
        reading.done(&seen).await;
        reading.close().await;
    });
}

#[test]
fn nothing_is_lost_when_the_server_is_killed_in_the_middle() {
    let Some(mut server) = Server::nats() else { return };
    block_on(async {
        let world = World::new(&server, "killed").await;
        world.publish(0..3000, 50).await;
        let mut reading = world.open(json!({ "batch": 200, "ack_wait_ms": 3000 })).await;
        let seen = reading.records(1000).await;
        reading.done(&seen[..500]).await;
        server.kill();
        let unconfirmed = reading.say(seen.iter().map(|seen| seen.offset), Acknowledged::Done).await;
        assert!(unconfirmed.expect_err("nobody hears it").retryable);
        // What was fetched still comes. That the server is away is told once.
        let (silence, mut troubles) = (Instant::now(), Vec::new());
        while silence.elapsed() < Duration::from_secs(4) {
            match reading.source.poll(POLL).await {
                Ok(Some(event)) => reading.take(event).await,
                Ok(None) => {}
                Err(error) => troubles.push(error),
            }
        }
        assert!(troubles.len() == 1 && troubles[0].retryable, "{troubles:?}");
        assert_eq!(troubles[0].code, "nats-unreachable");
        server.start().expect("it was there");
        let mut all: BTreeSet<usize> = reading.seen.iter().map(|seen| seen.number).collect();
        let until = Instant::now() + PATIENCE;
        while all.len() < 3000 && Instant::now() < until {
            let more = reading.records_for(POLL).await;
            all.extend(numbers(&more));
        }
        assert_eq!(all.len(), 3000);
        world.publish(3000..3100, 50).await;
        while all.len() < 3100 && Instant::now() < until {
            let more = reading.records_for(POLL).await;
            all.extend(numbers(&more));
        }
        assert_eq!(all, (0..3100).collect());
        // All of it can be acknowledged, also what was given out before.
        let offsets: BTreeSet<i64> = reading.seen.iter().map(|seen| seen.offset).collect();
        reading.say(offsets, Acknowledged::Done).await.expect("confirmed");
        while world.consumer().await.ack_floor.stream_sequence < 3100 {
            assert!(Instant::now() < until, "something is not acknowledged");
            let more = reading.records_for(POLL).await;
            reading.done(&more).await;
        }
        reading.close().await;
    });
}

#[test]
fn a_durable_that_is_deleted_is_made_anew_and_goes_on_where_it_was() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "deleted").await;
        world.publish(0..100, 5).await;
        let mut reading = world.open(json!({})).await;
        let seen = reading.records(100).await;
        reading.done(&seen[..60]).await;
        while reading.progress().await.position != Some(61) {}
        let stream = world.jetstream.get_stream(&world.name).await.expect("there");
        stream.delete_consumer("reader").await.expect("deleted");
        loop {
            match reading.next().await {
                StreamEvent::Lost(lost) => break assert_eq!(lost, [world.partition()]),
                StreamEvent::Progress(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let assigned = reading.assigned().await;
        assert_eq!((assigned.epoch, assigned.end), (2, Some(101)));
        world.publish(100..110, 5).await;
        let seen = reading.records(50).await;
        assert_eq!(numbers(&seen), (60..110).collect::<Vec<_>>());
        reading.done(&seen).await;
        assert_eq!(world.consumer().await.num_ack_pending, 0);
        let error = world.refused(json!({ "durable": "other", "create": false })).await;
        assert_eq!((error.code.as_str(), error.kind), ("unknown-durable", ErrorKind::NotFound));

        // Without its stream there is nothing to be made.
        world.jetstream.delete_stream(&world.name).await.expect("deleted");
        let until = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < until, "it does not end");
            match reading.source.poll(POLL).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((error.code.as_str(), error.retryable), ("unknown-stream", false));
        reading.close().await;
    });
}

fn letter(subject: &str, source: &Seen, stream: &str) -> RecordsBuilder {
    let mut letters = RecordsBuilder::default();
    let offset = source.offset.to_string();
    let record = NewRecord { topic: subject, value: Some(b"poison"), ..NewRecord::default() };
    let headers = [
        ("x-error-reason", Some(b"two\nlines".as_slice())),
        ("Nats-Expected-Last-Sequence", Some(b"77".as_slice())),
        ("source-topic", Some(stream.as_bytes())),
        ("offset", Some(offset.as_bytes())),
    ];
    letters.push(record, headers);
    letters
}

#[test]
fn a_poisonous_record_is_one_dead_letter_and_does_not_come_again() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "poison").await;
        let dead = format!("{}-dead", world.name);
        world.stream(&dead).await;
        world.publish(0..3, 1).await;
        let mut reading = world.open(json!({ "ack_wait_ms": 1000 })).await;
        let seen = reading.records(3).await;
        let subject = format!("{dead}.orders");
        for _ in 0..2 {
            // The second time as after a crash.
            let letters = letter(&subject, &seen[1], &world.name).finish_frame();
            reading.source.publish(letters).await.expect("confirmed");
        }
        reading.say([seen[1].offset], Acknowledged::Terminated).await.expect("confirmed");
        reading.done(&[seen[0].clone(), seen[2].clone()]).await;
        assert_eq!(world.messages(&dead).await, 1);
        let stored = world.jetstream.get_stream(&dead).await.expect("there").get_raw_message(1).await.expect("there");
        let header = |name: &str| stored.headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(header("x-error-reason").as_deref(), Some("two\\nlines"));
        assert_eq!(header("Nats-Msg-Id"), Some(format!("{}:2", world.name)));
        assert_eq!((stored.subject.as_str(), &*stored.payload), (subject.as_str(), b"poison".as_slice()));
        assert_eq!(reading.records_for(Duration::from_secs(3)).await, []);
        let nowhere = reading.source.publish(letter("nobody.takes.it", &seen[1], &world.name).finish_frame()).await;
        let nowhere = nowhere.expect_err("there is no such stream");
        assert!(nowhere.code == "no-stream" && nowhere.message.contains("nobody.takes.it"), "{nowhere}");
        reading.close().await;
    });
}

#[test]
fn what_was_fetched_and_never_given_out_comes_again_at_once_after_closing() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "close").await;
        let mut reading = world.open(json!({})).await;
        reading.assigned().await;
        assert_eq!(reading.records_for(Duration::from_millis(200)).await, [], "it has asked");
        reading.source.hold(vec![world.partition()], true).await.expect("held");
        world.publish(0..300, 10).await;
        while world.consumer().await.num_ack_pending < 300 {
            assert_eq!(reading.records_for(POLL).await, []);
        }
        reading.close().await;
        let started = Instant::now();
        let mut second = world.open(json!({})).await;
        let seen = second.records(300).await;
        assert!(started.elapsed() < Duration::from_secs(15), "the server waits for 30 s");
        assert_eq!(numbers(&seen).into_iter().collect::<BTreeSet<_>>(), (0..300).collect());
        second.done(&seen).await;
        second.close().await;
    });
}

#[test]
fn a_message_that_is_larger_than_a_request_comes_too() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "oversized").await;
        world.publish(0..20, 300).await;
        world.publish(20..22, 6000).await;
        world.publish(22..40, 300).await;
        let mut reading = world.open(json!({ "max_bytes": 2000 })).await;
        let seen = reading.records(40).await;
        assert_eq!(numbers(&seen), (0..40).collect::<Vec<_>>());
        reading.done(&seen).await;
        assert_eq!(reading.troubles, []);
        reading.close().await;
    });
}

#[test]
fn a_durable_is_changed_where_that_is_harmless_and_refused_where_it_is_not() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "durable").await;
        world.publish(0..20, 2).await;
        let filter = format!("{}.3", world.name);
        let mut reading = world.open(json!({ "filter_subjects": [filter] })).await;
        let seen = reading.records(2).await;
        assert_eq!(numbers(&seen), [3, 13]);
        reading.done(&seen).await;
        reading.close().await;
        let made = world.consumer().await.config;
        assert_eq!((made.ack_wait, made.max_ack_pending, made.max_deliver), (Duration::from_secs(30), 65_536, -1));

        let same = json!({ "filter_subjects": [filter], "ack_wait_ms": 5000, "max_deliver": 7 });
        world.open(same).await.close().await;
        let changed = world.consumer().await.config;
        assert_eq!((changed.ack_wait, changed.max_ack_pending), (Duration::from_secs(5), 65_536));
        assert_eq!((changed.max_deliver, changed.filter_subject), (7, filter.clone()));

        let error = world.refused(json!({})).await;
        assert_eq!(error.code, "durable-differs");
        assert!(error.message.contains("`filter_subjects`") && error.message.contains(&filter), "{error}");
        let error = world.refused(json!({ "filter_subjects": [filter], "ack_wait_ms": 6000, "create": false })).await;
        assert!(error.message.contains("`ack_wait_ms` is 5000 there, and 6000 here"), "{error}");
        for (more, code) in [
            (json!({ "filter_subjects": ["a.b", "a.c"] }), "old-server"),
            (json!({ "filter_subjects": ["a..b"] }), "bad-subject"),
            (json!({ "durable": "a.b" }), "bad-name"),
            (json!({ "stream": "nobody" }), "unknown-stream"),
            (json!({ "key": "token" }), "bad-key"),
            (json!({ "batch": 20_000 }), "large-batch"),
            (json!({ "deliver_policy": { "by_start_time": "yesterday" } }), "bad-time"),
            (json!({ "credentials": "/nowhere.creds" }), "bad-credentials"),
        ] {
            let error = world.refused(more).await;
            assert_eq!(error.code, code, "{error}");
        }
        let unknown = world.refused(json!({ "bacth": 7 })).await;
        assert!(unknown.message.contains("bacth"), "{unknown}");

        let small = consumer::pull::Config {
            durable_name: Some("small".to_owned()),
            max_batch: 10,
            ..consumer::pull::Config::default()
        };
        world.jetstream.create_consumer_on_stream(small, &world.name).await.expect("made");
        let mut small = world.open(json!({ "durable": "small" })).await;
        small.assigned().await;
        let until = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < until, "it does not end");
            if let Err(error) = small.source.poll(POLL).await {
                break error;
            }
        };
        assert_eq!((error.code.as_str(), error.kind), ("pull-refused", ErrorKind::Config), "{error}");
        small.close().await;
        let mut small = world.open(json!({ "durable": "small", "batch": 10 })).await;
        assert_eq!(numbers(&small.records(20).await), (0..20).collect::<Vec<_>>());
        small.close().await;

        for (durable, policy, expect) in [
            ("from-15", json!({ "by_start_sequence": 15 }), (14..20).collect::<Vec<_>>()),
            ("last", json!("last"), vec![19]),
        ] {
            let mut reading = world.open(json!({ "durable": durable, "deliver_policy": policy })).await;
            assert_eq!(numbers(&reading.records(expect.len()).await), expect);
            reading.close().await;
        }
    });
}

/// `cargo test --release -p pype-nats -- --ignored --nocapture a_hundred_thousand`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "it is what the measurement is for")]
fn a_hundred_thousand_messages_are_read_and_acknowledged() {
    let Some(server) = server() else { return };
    block_on(async {
        let world = World::new(server, "rate").await;
        world.publish(0..100_000, 200).await;
        let mut reading = world.open(json!({})).await;
        let (started, mut count) = (Instant::now(), 0);
        while count < 100_000 {
            let StreamEvent::Records(frame) = reading.next().await else { continue };
            for records in Records::read(&frame).await.expect("records") {
                count += records.len();
                reading.say(records.iter().map(|record| record.offset()), Acknowledged::Done).await.expect("confirmed");
            }
        }
        let rate = 100_000.0 / started.elapsed().as_secs_f64();
        assert_eq!(world.consumer().await.ack_floor.stream_sequence, 100_000);
        eprintln!("{rate:.0} messages a second, read and acknowledged");
        reading.close().await;
    });
}
