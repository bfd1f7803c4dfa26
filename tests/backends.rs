//! Pipelines on what machines share: queues, locks and stores, on real servers.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pype_tests::services::Server;
use pype_tests::serving::{JSON, Running, Serving, file};
use pype_tests::{Sandbox, plugin, wait_for};
use serde_json::{Value, json};

/// A queue that several machines share.
#[derive(Clone, Copy, Debug)]
enum Queue {
    Redis,
    JetStream,
}

impl Queue {
    fn server(self) -> Option<Server> {
        match self {
            Queue::Redis => Server::redis(),
            Queue::JetStream => Server::nats(),
        }
    }

    /// The dispatch of a pipeline to it.
    fn dispatch(self, server: &Server, more: &str) -> String {
        let (name, scheme) = match self {
            Queue::Redis => ("redis", "redis"),
            Queue::JetStream => ("jetstream", "nats"),
        };
        format!("  - {{dispatch: {name}, configs: {{url: \"{scheme}://{}\"}}, {more}}}\n", server.address())
    }
}

/// An upload with this dispatch.
fn upload(sandbox: &Sandbox, dispatch: &str) {
    let text = "pipeline: {name: upload, version: 1.0.0}\n\
        context: {version: '1.0', fields: {file_path: str, file_content: bytes}, shard_key: file_path}\n\
        stages:\n  - execute: logging\n";
    let store = "  - {execute: storage_write, configs: {url: 'file:./uploads'}}\n";
    sandbox.write("upload.yaml", &format!("{text}{dispatch}{store}"));
}

fn is_stored(sandbox: &Sandbox, ids: &[String]) {
    for number in 0..ids.len() {
        let path = sandbox.path(&format!("uploads/f/{number}.bin"));
        assert_eq!(fs::read(&path).unwrap_or_default(), [1, 2, 3], "{}", path.display());
    }
}

fn workers_share_a_queue_and_take_over_from_the_killed(queue: Queue) {
    let Some(server) = queue.server() else { return };
    let (here, there) = (Sandbox::new(), Sandbox::new());
    // Two machines have nothing in common but the server.
    let dispatch = queue.dispatch(&server, "retry: {attempts: 100, delay_ms: 10}");
    upload(&here, &dispatch);
    upload(&there, &dispatch);
    let serving = Serving::start(&here, &["--jobs", "0"]);
    let ids: Vec<String> = (0..40).map(|n| serving.accepted(&file(&format!("f/{n}.bin")))).collect();
    let worker = || Running::start(&there, &["worker", "upload.yaml", "--visibility", "1", "--concurrency", "2"]);
    let state = |id: &String| serving.job(id)["state"].clone();
    let (mut workers, mut kills) = (Vec::new(), 0);
    while !ids.iter().all(|id| state(id) == "succeeded") {
        assert!(kills < 200, "the jobs never end");
        while workers.len() < 2 {
            workers.push(worker());
        }
        // After a time that is another one each time, and prime to that of the jobs.
        std::thread::sleep(Duration::from_millis(30 + (kills * 37) % 300));
        drop(workers.remove(0));
        kills += 1;
    }
    is_stored(&there, &ids);
}

#[test]
fn workers_share_redis_and_take_over_from_the_killed() {
    workers_share_a_queue_and_take_over_from_the_killed(Queue::Redis);
}

#[test]
fn workers_share_jetstream_and_take_over_from_the_killed() {
    workers_share_a_queue_and_take_over_from_the_killed(Queue::JetStream);
}

fn a_server_that_is_killed_in_the_middle_costs_no_job(queue: Queue) {
    const UPLOADS: usize = 60;
    let Some(mut server) = queue.server() else { return };
    let sandbox = Sandbox::new();
    upload(&sandbox, &queue.dispatch(&server, "retry: {attempts: 100, delay_ms: 10}"));
    let serving = Serving::start(&sandbox, &[]);
    let done = AtomicBool::new(false);
    let ids = std::thread::scope(|scope| {
        let posted = scope.spawn(|| {
            let ids: Vec<String> = (0..UPLOADS).map(|n| accepted_in_the_end(&serving, n)).collect();
            done.store(true, Ordering::Relaxed);
            ids
        });
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
            server.restart();
        }
        posted.join().expect("accepted")
    });
    for id in &ids {
        let state = wait_for("the end of the job", || {
            let answer = serving.ask("GET", &format!("/jobs/{id}"), &[], b"");
            let job: Value = serde_json::from_str(&answer.body).expect("JSON");
            let over = answer.status == 200 && !matches!(job["state"].as_str(), Some("queued" | "running"));
            over.then(|| job["state"].clone())
        });
        assert_eq!(state, "succeeded");
    }
    is_stored(&sandbox, &ids);
}

/// Asks again with the same key until the job is accepted, as callers do.
fn accepted_in_the_end(serving: &Serving, number: usize) -> String {
    let key = format!("Idempotency-Key: upload-{number}");
    let body = file(&format!("f/{number}.bin")).to_string();
    wait_for("the job to be accepted", || {
        let answer = serving.ask("POST", "/pipelines/upload", &[JSON, &key], body.as_bytes());
        assert!(matches!(answer.status, 202 | 503 | 504), "{}: {}", answer.status, answer.body);
        let told: Value = serde_json::from_str(&answer.body).expect("JSON");
        told["job_id"].as_str().map(str::to_owned)
    })
}

#[test]
fn redis_that_is_killed_in_the_middle_costs_no_job() {
    a_server_that_is_killed_in_the_middle_costs_no_job(Queue::Redis);
}

#[test]
fn jetstream_that_is_killed_in_the_middle_costs_no_job() {
    a_server_that_is_killed_in_the_middle_costs_no_job(Queue::JetStream);
}

#[test]
fn a_job_of_a_newer_context_waits_for_a_newer_worker() {
    for queue in [Queue::Redis, Queue::JetStream] {
        let Some(server) = queue.server() else { continue };
        let (old, new) = (Sandbox::new(), Sandbox::new());
        let dispatch = queue.dispatch(&server, "");
        upload(&old, &dispatch);
        upload(&new, &dispatch);
        new.write("upload.yaml", &new.read("upload.yaml").replace("version: '1.0'", "version: '2.0'"));
        let serving = Serving::start(&new, &["--jobs", "0"]);
        let id = serving.accepted(&file("f/0.bin"));
        let old_worker = Running::start(&old, &["worker", "upload.yaml"]);
        // It was lent, and given back: that is no attempt.
        let given_back = wait_for("the old worker to refuse it", || {
            let job = sandbox_job(&new, &id);
            (job["not_before_ms"].as_u64() > job["created_ms"].as_u64()).then_some(job)
        });
        assert_eq!((&given_back["state"], &given_back["attempt"]), (&json!("queued"), &json!(0)));
        drop(old_worker);
        let _new_worker = Running::start(&new, &["worker", "upload.yaml"]);
        assert_eq!(serving.end_of(&id)["state"], "succeeded", "{queue:?}");
        is_stored(&new, &[id]);
    }
}

fn sandbox_job(sandbox: &Sandbox, id: &str) -> Value {
    let shown = sandbox.ok(&["jobs", "upload.yaml", "show", id, "--json"]).out;
    serde_json::from_str(&shown).expect("JSON")
}

/// A run that has a lock and is paused, another that gets the lock meanwhile and writes, and the first again.
fn a_paused_owner_cannot_write_any_more(lock: &str) {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    let head = "pipeline: {name: NAME, version: 1.0.0}\n\
        context: {version: '1.0', fields: {file_path: str, file_content: bytes}}\n";
    let stages = |between: &str| {
        let write = "{execute: storage_write, configs: {url: 'file:./out', fence: fencing_token}}";
        format!("stages:\n  - {lock}\n{between}  - {write}\n")
    };
    // It writes a sign that it has the lock, and takes its time.
    let slow = "  - {execute: storage_write, id: sign, configs: {url: 'file:./sign'}}\n\
        \x20 - {execute: trouble, configs: {ms: 1000}}\n";
    sandbox.write("slow.yaml", &(head.replace("NAME", "slow") + &stages(slow)));
    sandbox.write("quick.yaml", &(head.replace("NAME", "quick") + &stages("")));
    let context = |content: &str| json!({"file_path": "a", "file_content": {"base64": content}}).to_string();
    sandbox.write("old.json", &context("b2xk"));
    sandbox.write("new.json", &context("bmV3"));

    let mut paused = Running::start(&sandbox, &["run", "slow.yaml", "--input", "old.json"]);
    wait_for("the first to have the lock", || sandbox.path("sign/a").exists().then_some(()));
    paused.signal(libc::SIGSTOP);
    sandbox.ok(&["run", "quick.yaml", "--input", "new.json"]);
    assert_eq!(sandbox.read("out/a"), "new");
    paused.signal(libc::SIGCONT);
    let code = paused.child.wait().expect("it ends").code();
    assert_eq!((code, sandbox.read("out/a").as_str()), (Some(30), "new"));
}

#[test]
fn a_paused_owner_of_a_lock_in_redis_cannot_write_any_more() {
    let Some(server) = Server::redis() else { return };
    let url = format!("redis://{}", server.address());
    let configs = format!("{{url: '{url}', name: it, by: file_path, ttl_ms: 500}}");
    a_paused_owner_cannot_write_any_more(&format!("{{execute: redis_lock, configs: {configs}}}"));
}

#[test]
fn a_paused_owner_of_a_lock_in_postgres_cannot_write_any_more() {
    let Some(server) = Server::postgres() else { return };
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let configs = format!("{{url: '{url}', name: it, by: file_path, ttl_ms: 500}}");
    a_paused_owner_cannot_write_any_more(&format!("{{execute: postgres_lock, configs: {configs}}}"));
}

/// A form with a file of so many bytes.
fn form(size: usize) -> Vec<u8> {
    let mut form = b"--b\r\nContent-Disposition: form-data; name=\"file_path\"\r\n\r\nlarge.bin\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file_content\"; filename=\"x\"\r\n\r\n"
        .to_vec();
    form.extend(large(size));
    form.extend(b"\r\n--b--\r\n");
    form
}

fn large(size: usize) -> impl Iterator<Item = u8> {
    (0..size).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
}

fn post_large(serving: &Serving, size: usize) -> String {
    let kind = "Content-Type: multipart/form-data; boundary=b";
    let answer = serving.ask("POST", "/pipelines/upload", &[kind], &form(size));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["job_id"].as_str().expect("an id").to_owned()
}

fn files_below(sandbox: &Sandbox, folder: &str) -> usize {
    let entries = fs::read_dir(sandbox.path(folder)).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => files_below(sandbox, &format!("{folder}/{}", entry.file_name().to_string_lossy())),
        false => 1,
    };
    entries.map(count).sum()
}

#[test]
fn large_fields_wait_in_a_store_and_not_in_the_queue() {
    const SIZE: usize = 5_000_000;
    let sandbox = Sandbox::new();
    let large_fields = "large: {over_bytes: 10000, configs: {url: 'file:./large'}}";
    upload(&sandbox, &format!("  - {{dispatch: local, configs: {{path: jobs.db}}, {large_fields}}}\n"));
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let id = post_large(&serving, SIZE);
    serving.accepted(&file("small.bin"));
    assert_eq!(files_below(&sandbox, "large"), 1, "the small one is in the queue");
    let queued: u64 =
        ["jobs.db", "jobs.db-wal"].iter().map(|name| sandbox.path(name).metadata().map_or(0, |file| file.len())).sum();
    assert!(queued < 1_000_000, "{queued} bytes are in the queue");

    let worker = Running::start(&sandbox, &["worker", "upload.yaml"]);
    assert_eq!(serving.end_of(&id)["state"], "succeeded");
    assert!(fs::read(sandbox.path("uploads/large.bin")).expect("stored").into_iter().eq(large(SIZE)));
    wait_for("what is done with to be forgotten", || (files_below(&sandbox, "large") == 0).then_some(()));

    // One that fails may be retried, until it is forgotten too.
    fs::remove_file(sandbox.path("uploads/large.bin")).expect("it is there");
    fs::create_dir(sandbox.path("uploads/large.bin")).expect("in the way");
    let id = post_large(&serving, SIZE);
    assert_eq!(serving.end_of(&id)["state"], "dead");
    assert_eq!(files_below(&sandbox, "large"), 1);
    fs::remove_dir(sandbox.path("uploads/large.bin")).expect("it is there");
    sandbox.ok(&["jobs", "upload.yaml", "retry", &id]);
    assert_eq!(serving.end_of(&id)["state"], "succeeded");
    drop(worker);
    let id = post_large(&serving, SIZE);
    sandbox.ok(&["jobs", "upload.yaml", "cancel", &id]);
    sandbox.ok(&["jobs", "upload.yaml", "purge"]);
    assert_eq!(files_below(&sandbox, "large"), 0);
}

#[test]
fn uploads_go_to_s3_and_wait_there_and_an_older_token_writes_nothing() {
    const SIZE: usize = 3_000_000;
    let Some(server) = Server::s3() else { return };
    let env = server.s3_variables();
    let sandbox = Sandbox::new();
    let large_fields = "large: {over_bytes: 10000, configs: {url: 's3://pype/waiting'}}";
    upload(&sandbox, &format!("  - {{dispatch: local, configs: {{path: jobs.db}}, {large_fields}}}\n"));
    let to_s3 = sandbox.read("upload.yaml").replace("file:./uploads", "s3://pype/uploads");
    sandbox.write("upload.yaml", &to_s3);
    let serving = Serving::start_with(&sandbox, &[], &env);
    let job = serving.end_of(&post_large(&serving, SIZE));
    assert_eq!((&job["state"], &job["result"]["stored_bytes"]), (&json!("succeeded"), &json!(SIZE)), "{job}");

    let pype = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        pype_tests::Done::of(command.output().expect("the binary runs"))
    };
    let head = "pipeline: {name: NAME, version: 1.0.0}\n\
        context: {version: '1.0', fields: {file_path: str, file_content: bytes?, token: int?}}\nstages:\n";
    let read = "  - {execute: storage_read, configs: {url: 's3://pype/uploads'}}\n\
        \x20 - {execute: storage_write, configs: {url: 'file:./back'}}\n";
    sandbox.write("read.yaml", &(head.replace("NAME", "read") + read));
    sandbox.write("read.json", "{\"file_path\": \"large.bin\"}");
    assert_eq!(pype(&["run", "read.yaml", "--input", "read.json"]).code, Some(0));
    assert!(fs::read(sandbox.path("back/large.bin")).expect("read").into_iter().eq(large(SIZE)));

    let fenced = "  - {execute: storage_write, configs: {url: 's3://pype/fenced', fence: token}}\n";
    sandbox.write("fenced.yaml", &(head.replace("NAME", "fenced") + fenced));
    for (token, code) in [(2, 0), (3, 0), (3, 0), (2, 30)] {
        let context = json!({"file_path": "a", "file_content": {"base64": "AQID"}, "token": token});
        sandbox.write("fenced.json", &context.to_string());
        let done = pype(&["run", "fenced.yaml", "--input", "fenced.json"]);
        assert_eq!(done.code, Some(code), "{token}: {}{}", done.out, done.err);
        assert_eq!(code == 30, format!("{}{}", done.out, done.err).contains("stale-token"));
    }
    assert_eq!(serving.process.interrupt(), Some(0));
}
