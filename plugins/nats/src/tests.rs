//! On a real server: the contract of queues, what crashes leave behind, and messages.

use std::sync::{Arc, Mutex, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{LargeStringArray, RecordBatch, StringViewArray};
use pype_plugin::Field;
use pype_plugin::host::Instance;
use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, JobFilter, JobState, LeaseRequest, LeasedJob, NewJob, Verdict};
use pype_plugin::stream::{NewRecord, RecordsBuilder};
use pype_plugin::testing::{self, block_on};
use pype_tests::services::Server;
use serde_json::json;

use crate::bucket::Bucket;
use crate::connection::{Connection, Servers};
use crate::jetstream::JetStream;
use crate::publish::NatsPublish;
use crate::sink::NatsSink;
use crate::subscribe::NatsSubscribe;

/// The server of this process.
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::nats).as_ref()
}

fn is_there() -> bool {
    server().is_some()
}

pub(crate) fn url(server: &Server) -> String {
    format!("nats://{}", server.address())
}

pub(crate) fn servers(server: &Server) -> Servers {
    serde_json::from_value(json!({ "url": url(server) })).expect("as configs have it")
}

async fn open_at(url: &str, name: &str) -> Result<Instance> {
    testing::queue::<JetStream>(json!({ "url": url, "name": name })).await
}

async fn open(name: &str) -> Result<Instance> {
    open_at(&url(server().expect("asked before")), name).await
}

pype_plugin::queue_contract!(open, when is_there);

#[test]
fn jobs_outlive_a_server_that_is_killed() {
    let Some(server) = Server::nats() else { return };
    let (url, server) = (url(&server), Arc::new(Mutex::new(server)));
    let restarted = server.clone();
    let restart = move || restarted.lock().expect("nobody panics with it").restart();
    let open = async |name: &str| open_at(&url, name).await;
    testing::contract::a_store_that_is_killed_and_comes_back_loses_nothing(open, restart);
}

#[test]
fn servers_that_are_away_or_none_are_refused_with_what_to_do() {
    let Some(mut server) = Server::nats() else { return };
    let at = |url: &str| block_on(open_at(url, "jobs")).err().expect("refused");
    assert_eq!(at("http://localhost").code, "bad-url");
    let name = json!({ "url": url(&server), "name": "a.b" });
    assert_eq!(block_on(testing::queue::<JetStream>(name)).err().expect("refused").code, "bad-name");
    let queue = block_on(open_at(&url(&server), "jobs")).expect("opened");
    let address = server.address();
    server.kill();
    let gone = block_on(queue.job("a")).expect_err("nobody is there");
    let away = at(&format!("nats://user:secret@{address}"));
    for error in [gone, away] {
        assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, true), "{error}");
        assert!(error.message.contains(&address) && !error.message.contains("secret"), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("nats-server -js")), "{error:?}");
    }
    server.start().expect("it was there");
    let back = async {
        while queue.job("a").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), back).await }).expect("it is back");
}

#[test]
fn a_server_without_jetstream_is_told() {
    let Some(server) = Server::nats_without_jetstream() else { return };
    let error = block_on(open_at(&url(&server), "jobs")).err().expect("refused");
    assert_eq!((error.code.as_str(), error.kind, error.retryable), ("no-jetstream", ErrorKind::Config, false));
}

fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        pipeline: "upload".to_owned(),
        version: "1.0.0".to_owned(),
        shard: Some(1),
        ordered: true,
        idempotency_key: Some(format!("key of {id}")),
        asked: Some("this".to_owned()),
        delay_ms: 0,
        max_attempts: 3,
        payload: vec![1, 2, 3].into(),
    }
}

async fn lease_one(queue: &Instance) -> LeasedJob {
    let request = LeaseRequest {
        worker: "w".to_owned(),
        pipelines: vec!["upload".to_owned()],
        count: 1,
        visibility_ms: 60_000,
        wait_ms: 10_000,
        job: None,
    };
    queue.lease(request).await.expect("leased").pop().expect("one is there")
}

/// What is kept of a queue, for those who break it.
async fn kept(name: &str) -> Bucket {
    let connection = Connection::open(&servers(server().expect("asked before"))).await.expect("connected");
    Bucket::open(connection, &format!("{name}-jobs"), 1).await.expect("opened")
}

/// Takes all hints of a queue away.
async fn lose_hints(name: &str) {
    let client = async_nats::connect(url(server().expect("asked before"))).await.expect("connected");
    let stream = async_nats::jetstream::new(client).get_stream(format!("{name}-work")).await.expect("there");
    assert_eq!(stream.purge().await.expect("purged").purged, 1);
}

/// A crash leaves the first so many of the writes that accept a job. Each time the same is asked for again, and that is
/// one job, which is lent.
#[test]
fn what_a_crash_leaves_of_a_job_is_mended_when_it_is_asked_for_again() {
    if !is_there() {
        return;
    }
    const WRITES: [&str; 4] = ["line.upload.1.a", "job.a", "payload.a", "key.upload.key=20of=20a"];
    block_on(async {
        for left_out in 0..=WRITES.len() {
            let name = format!("crash-{left_out}-{}", std::process::id());
            let queue = open(&name).await.expect("opened");
            assert_eq!(queue.enqueue(job("a")).await, Ok(Accepted { id: "a".to_owned(), duplicate: false }));
            lose_hints(&name).await;
            let kept = kept(&name).await;
            for key in &WRITES[..left_out] {
                let entry = kept.get(key).await.expect("read").expect("it was written");
                assert_eq!(kept.remove(entry.revision).await, Ok(true));
                assert_eq!(kept.remove(entry.revision).await, Ok(false));
            }
            // Another asks for the same, who does not know the id.
            let again = queue.enqueue(NewJob { id: "b".to_owned(), ..job("a") }).await.expect("accepted");
            assert_eq!(again.id, if left_out == WRITES.len() { "b" } else { "a" }, "without {left_out}");
            let leased = lease_one(&queue).await;
            assert_eq!((leased.lease.job, &*leased.payload), (again.id, [1, 2, 3].as_slice()));
            assert_eq!(queue.jobs(JobFilter::default()).await.expect("listed").len(), 1);
        }
    });
}

#[test]
fn a_job_whose_hint_is_lost_is_found_by_the_next_sweep() {
    if !is_there() {
        return;
    }
    block_on(async {
        let name = format!("sweep-{}", std::process::id());
        let queue = open(&name).await.expect("opened");
        queue.enqueue(job("a")).await.expect("accepted");
        lose_hints(&name).await;
        assert_eq!(lease_one(&queue).await.lease.job, "a");
    });
}

#[test]
fn a_head_that_left_no_trace_of_its_end_lets_the_next_pass() {
    if !is_there() {
        return;
    }
    block_on(async {
        let name = format!("line-{}", std::process::id());
        let queue = open(&name).await.expect("opened");
        for id in ["a", "b"] {
            queue.enqueue(job(id)).await.expect("accepted");
        }
        let first = lease_one(&queue).await;
        queue.conclude(first.lease, Verdict::Succeeded { result: json!(1) }).await.expect("taken");
        // As if the worker had been killed before it left the line, and before the job itself was forgotten.
        let kept = kept(&name).await;
        let behind = kept.first("line.upload.1.*").await.expect("read").expect("it waits");
        kept.remove(behind.revision).await.expect("removed");
        for id in ["nobody", "a", "b"] {
            kept.put(&format!("line.upload.1.{id}"), id.into()).await.expect("written");
        }
        assert_eq!(lease_one(&queue).await.lease.job, "b");
    });
}

#[test]
fn what_is_too_large_for_the_server_is_refused_with_both_sizes() {
    if !is_there() {
        return;
    }
    block_on(async {
        let queue = open(&format!("large-{}", std::process::id())).await.expect("opened");
        let large = NewJob { payload: vec![0; 2 << 20].into(), ..job("a") };
        let error = queue.enqueue(large).await.expect_err("refused");
        assert_eq!((error.code.as_str(), error.retryable), ("too-large", false));
        assert!(error.message.contains("2097152") && error.message.contains("1048576"), "{error}");
        assert_eq!(queue.job("a").await, Ok(None));
        queue.enqueue(job("a")).await.expect("its key is free");
        let leased = lease_one(&queue).await;
        let large = Verdict::Succeeded { result: json!("x".repeat(2 << 20)) };
        assert_eq!(queue.conclude(leased.lease.clone(), large).await.expect_err("refused").code, "too-large");
        queue.conclude(leased.lease, Verdict::Succeeded { result: json!(1) }).await.expect("taken");
        let done = queue.job("a").await.expect("asked").expect("there");
        assert_eq!((done.state, done.result), (JobState::Succeeded, Some(json!(1))));
    });
}

/// Listens in a thread until it is enough; `publish` is called again and again until then, since nobody tells when it has
/// begun to listen.
fn listened(config: Value, publish: impl Fn()) -> RecordBatch {
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| testing::source::<NatsSubscribe>(config).run());
        while !listening.is_finished() {
            publish();
        }
        let frame = listening.join().expect("it ends").output("data");
        block_on(async {
            let schema = frame.arrow_schema().await.expect("a schema");
            frame.next_record_batch(&schema).await.expect("read").expect("one")
        })
    })
}

#[test]
fn what_is_published_is_heard() {
    let Some(server) = server() else { return };
    let listen = |subject: &str| json!({ "url": url(server), "subject": subject, "messages": 1, "for_s": 30 });
    let publish = |more: Value| {
        let mut config = json!({ "url": url(server), "subject": "uploads.done" });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let stage = testing::stage::<NatsPublish>(config);
        let stage = stage.field("file_path", json!("a.txt")).field("size", json!(2));
        let done = stage.bytes("file_content", vec![0, 255]).run();
        assert_eq!(done.result, Ok(json!({"file_path": "a.txt", "size": 2})));
        assert_eq!(done.went_on_with[0].fields["file_content"], Field::Bytes(vec![0, 255].into()));
    };
    for (more, value, headers) in [
        (json!({}), br#"{"file_path":"a.txt","size":2}"#.as_slice(), None),
        (json!({"fields": ["size"]}), br#"{"size":2}"#, None),
        (json!({"body": "file_path"}), b"a.txt", None),
        (json!({"body": "file_content", "headers": {"A": "b"}}), &[0, 255], Some(r#"{"A":["b"]}"#)),
    ] {
        let heard = listened(listen("uploads.*"), || publish(more.clone()));
        assert_eq!(heard.column(0).as_string::<i32>().value(0), "uploads.done");
        assert_eq!(heard.column(1).as_binary::<i32>().value(0), value);
        assert_eq!(heard.column(2).as_string::<i32>().iter().next().flatten(), headers);
        assert!(heard.column(3).as_primitive::<arrow_array::types::TimestampMillisecondType>().value(0) > 0);
    }
}

#[test]
fn listening_ends_in_time_and_with_the_run() {
    let Some(server) = server() else { return };
    let listen = |more: Value| {
        let mut config = json!({ "url": url(server), "subject": "nobody.>" });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        testing::source::<NatsSubscribe>(config)
    };
    for more in [json!({"for_s": 0.05}), json!({"messages": 5, "idle_s": 0.05}), json!({"messages": 0})] {
        let frame = listen(more).run().output("data");
        let rows = block_on(async {
            let schema = frame.arrow_schema().await.expect("a schema");
            frame.next_record_batch(&schema).await.expect("read")
        });
        assert_eq!(rows, None);
    }
    let cancelled = listen(json!({"messages": 1})).cancelled().run().result.expect_err("it was to end");
    assert_eq!(cancelled.kind, ErrorKind::Cancelled);
    for (more, code) in [
        (json!({}), "unbounded"),
        (json!({"idle_s": 1}), "unbounded"),
        (json!({"for_s": -1}), "bad-duration"),
        (json!({"messages": 1, "subject": "a b"}), "bad-subject"),
        (json!({"messages": 1, "queue_group": ""}), "bad-queue-group"),
    ] {
        assert_eq!(listen(more).run().result.expect_err("refused").code, code);
    }
}

#[test]
fn a_stream_takes_what_a_run_publishes_once() {
    let Some(server) = server() else { return };
    let publish = |subject: &str, key: &str| {
        let config = json!({ "url": url(server), "subject": subject, "jetstream": true });
        let stage = testing::stage::<NatsPublish>(config).field("a", json!(1));
        stage.facts(|facts| facts.idempotency_key = Some(key.to_owned())).run().result
    };
    let stream = block_on(async {
        let client = async_nats::connect(url(server)).await.expect("connected");
        let subjects = vec!["taken.>".to_owned()];
        let config = async_nats::jetstream::stream::Config { name: "taken".to_owned(), subjects, ..Default::default() };
        async_nats::jetstream::new(client).create_stream(config).await.expect("made")
    });
    for (subject, key) in [("taken.a", "1"), ("taken.a", "1"), ("taken.b", "1"), ("taken.a", "2\r\n")] {
        assert_eq!(publish(subject, key), Ok(json!({"a": 1})));
    }
    assert_eq!(block_on(stream.get_info()).expect("told").state.messages, 3);
    let nobody = publish("elsewhere", "1").expect_err("there is no such stream");
    assert_eq!((nobody.code.as_str(), nobody.retryable), ("no-stream", true));
}

fn streamed(server: &Server, name: &str, subjects: &str) -> async_nats::jetstream::stream::Stream {
    block_on(async {
        let client = async_nats::connect(url(server)).await.expect("connected");
        let (name, subjects) = (name.to_owned(), vec![subjects.to_owned()]);
        let config = async_nats::jetstream::stream::Config { name, subjects, ..Default::default() };
        async_nats::jetstream::new(client).create_stream(config).await.expect("made")
    })
}

fn rows(columns: Vec<(&str, Arc<dyn arrow_array::Array>)>) -> Frame {
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    Frame::from_record_batches(batch.schema(), [batch])
}

#[test]
fn rows_are_messages_in_their_order_and_the_same_one_only_once() {
    let Some(server) = server() else { return };
    let stream = streamed(server, "sunk", "sunk.>");
    let sink = |more: Value, frame: Frame| {
        let mut config = json!({ "url": url(server) });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        testing::sink::<NatsSink>(config).input("input", frame).run()
    };
    let stored = |sequence: u64| block_on(stream.get_raw_message(sequence)).expect("there");
    let count = || block_on(stream.get_info()).expect("told").state.messages;

    // As many columns as it takes, laid out as polars does.
    let values: Vec<String> = (0..2000).map(|number| format!("value {number}")).collect();
    let frame = || {
        rows(vec![
            ("id", Arc::new(LargeStringArray::from(values.clone()))),
            ("value", Arc::new(StringViewArray::from_iter_values(&values))),
        ])
    };
    for _ in 0..2 {
        let done = sink(json!({ "subject": "sunk.all", "message_id": "id" }), frame());
        assert_eq!(done.result, Ok(()));
        let bytes = values.iter().map(|value| value.len() as u64).sum();
        let uri = Some("nats:sunk.all".to_owned());
        assert_eq!(done.commits, [Commit { rows: Some(2000), bytes: Some(bytes), uri }]);
        assert_eq!(count(), 2000);
    }
    assert!((1..=2000).all(|sequence| *stored(sequence).payload == *values[sequence as usize - 1].as_bytes()));

    // Records go where they say.
    let mut records = RecordsBuilder::default();
    let record = NewRecord { topic: "sunk.one", value: Some(b"v"), ..NewRecord::default() };
    records.push(record, [("a", Some(b"1".as_slice()))]);
    records.push(NewRecord { topic: "sunk.two", ..record }, []);
    assert_eq!(sink(json!({}), records.finish_frame()).result, Ok(()));
    let (one, two) = (stored(2001), stored(2002));
    let header = one.headers.get("a").map(|value| value.as_str());
    assert_eq!((one.subject.as_str(), header, two.subject.as_str()), ("sunk.one", Some("1"), "sunk.two"));

    let text = |value: &'static str| Arc::new(LargeStringArray::from(vec![value])) as Arc<dyn arrow_array::Array>;
    let number = || Arc::new(arrow_array::Int64Array::from(vec![1])) as Arc<dyn arrow_array::Array>;
    for (config, columns, code) in [
        (json!({ "subject": "elsewhere" }), vec![("value", text("v"))], "no-stream"),
        (json!({ "subject": "sunk.*" }), vec![("value", text("v"))], "bad-subject"),
        (json!({ "subject": "sunk.a", "subject_column": "b" }), vec![("value", text("v"))], "two-subjects"),
        (json!({ "subject": "sunk.a" }), vec![("text", text("v"))], "no-column"),
        (json!({ "subject": "sunk.a" }), vec![("value", number())], "wrong-type"),
        (json!({ "subject": "sunk.a" }), vec![("value", text("v")), ("headers", text("{}"))], "wrong-type"),
        (json!({ "subject_column": "to" }), vec![("value", text("v")), ("to", text("a b"))], "bad-subject"),
        (json!({}), vec![("value", text("v"))], "no-column"),
    ] {
        let error = sink(config.clone(), rows(columns)).result.expect_err("refused");
        assert_eq!(error.code, code, "{config}: {error}");
    }
    assert_eq!(count(), 2002);
}

#[test]
fn rows_go_to_whoever_listens_if_no_stream_is_to_take_them() {
    let Some(server) = server() else { return };
    let listen = json!({ "url": url(server), "subject": "heard.>", "messages": 1, "for_s": 30 });
    let heard = listened(listen, || {
        let mut records = RecordsBuilder::default();
        let record = NewRecord { topic: "heard.it", value: Some(b"v"), ..NewRecord::default() };
        records.push(record, [("a", Some(b"1".as_slice())), ("Nats-Rollup", Some(b"all")), ("a", Some(b"2"))]);
        let config = json!({ "url": url(server), "jetstream": false });
        assert_eq!(testing::sink::<NatsSink>(config).input("input", records.finish_frame()).run().result, Ok(()));
    });
    assert_eq!(heard.column(0).as_string::<i32>().value(0), "heard.it");
    assert_eq!(heard.column(1).as_binary::<i32>().value(0), b"v");
    assert_eq!(heard.column(2).as_string::<i32>().value(0), r#"{"a":["1","2"]}"#);
}

/// A server with a configuration of its own.
struct Configured(std::process::Child, String);

impl Configured {
    fn start(file: &str) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        drop(socket);
        let mut command = std::process::Command::new("nats-server");
        command.args(["-c", file, "-a", "127.0.0.1", "-p"]).arg(address.port().to_string());
        let null = std::process::Stdio::null;
        let child = command.stdin(null()).stdout(null()).stderr(null()).spawn().expect("it is installed");
        let server = Self(child, format!("nats://{address}"));
        pype_tests::wait_for("the server", || std::net::TcpStream::connect(address).ok());
        server
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

#[test]
fn credentials_of_a_file_let_in() {
    if !is_there() {
        return;
    }
    let file = |name: &str| format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let server = Configured::start(&file("operator.conf"));
    let sink = |more: Value| {
        let mut config = json!({ "url": server.1, "subject": "a", "jetstream": false });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let frame = rows(vec![("value", Arc::new(StringViewArray::from(vec!["v"])))]);
        testing::sink::<NatsSink>(config).input("input", frame).run().result
    };
    assert_eq!(sink(json!({ "credentials": file("user.creds") })), Ok(()));
    let denied = sink(json!({})).expect_err("nobody knows who that is");
    assert!(denied.code == "nats-denied" && denied.hint.as_deref().is_some_and(|hint| hint.contains("`credentials`")));
    for none in [file("operator.conf"), file("nobody.creds")] {
        let error = sink(json!({ "credentials": none })).expect_err("refused");
        assert!(error.code == "bad-credentials" && error.message.contains(&none), "{error}");
    }
}
