//! Pipelines as people run them: served, worked on by processes that are killed, retried, and dead.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use pype_tests::http::{Answer, request};
use pype_tests::{Sandbox, plugin, repository};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";

/// Seed 001's upload, with its files in the sandbox.
fn upload() -> Sandbox {
    let sandbox = Sandbox::new();
    let text = fs::read_to_string(repository().join("flows/upload/upload.yaml")).expect("committed");
    sandbox.write("upload.yaml", &text);
    sandbox
}

/// A process of `pype`, ended with its test.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it prints text");
        line
    }

    /// Ends it as Ctrl-C would, and gives its exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: the process is our own child, and was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server on a port of its own.
struct Serving {
    process: Running,
    address: SocketAddr,
}

impl Serving {
    fn start(sandbox: &Sandbox, more: &[&str]) -> Self {
        let mut arguments = vec!["serve", "upload.yaml", "--listen", "127.0.0.1:0"];
        arguments.extend(more);
        let mut process = Running::start(sandbox, &arguments);
        let line = process.line();
        let address = line.trim().strip_prefix("POST http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        Self { process, address: address.unwrap_or_else(|| panic!("it says where it listens: {line}")) }
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        request(self.address, method, path, headers, body).expect("the server answers")
    }

    fn post(&self, context: &Value) -> Answer {
        self.ask("POST", "/pipelines/upload", &[JSON], context.to_string().as_bytes())
    }

    /// Posts a context, and gives the id of its job.
    fn accepted(&self, context: &Value) -> String {
        let answer = self.post(context);
        assert_eq!(answer.status, 202, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        body["job_id"].as_str().expect("an id").to_owned()
    }

    fn job(&self, id: &str) -> Value {
        let answer = self.ask("GET", &format!("/jobs/{id}"), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Waits until a job is over.
    fn end_of(&self, id: &str) -> Value {
        wait_for("the end of the job", || {
            let job = self.job(id);
            let over = !matches!(job["state"].as_str(), Some("queued" | "running"));
            over.then_some(job)
        })
    }
}

/// Waits until something is there, for a minute at most.
fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn file(path: &str) -> Value {
    json!({"file_path": path, "file_content": {"base64": "AQID"}})
}

fn jobs(sandbox: &Sandbox, arguments: &[&str]) -> Vec<Value> {
    let done = sandbox.ok(&[&["jobs", "upload.yaml", "list", "--json", "-n", "1000"], arguments].concat());
    done.out.lines().map(|line| serde_json::from_str(line).expect("a job a line")).collect()
}

#[test]
fn an_upload_is_answered_at_once_and_stored_in_the_background() {
    let sandbox = upload();
    // Nobody works on jobs yet.
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let parts = "--b\r\nContent-Disposition: form-data; name=\"file_path\"\r\n\r\na/hello.txt\r\n\
                 --b\r\nContent-Disposition: form-data; name=\"file_content\"; filename=\"x\"\r\n\r\n\x01hello\r\n--b--\r\n";
    let form = ["Content-Type: multipart/form-data; boundary=b"];
    let answer = serving.ask("POST", "/pipelines/upload", &form, parts.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    let id = body["job_id"].as_str().expect("an id");
    assert!(answer.head.to_lowercase().contains(&format!("location: /jobs/{id}")), "{}", answer.head);
    assert_eq!(serving.job(id)["state"], "queued");
    assert!(!sandbox.path("output/uploads/a/hello.txt").exists());

    let _worker = Running::start(&sandbox, &["worker", "upload.yaml"]);
    let job = serving.end_of(id);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["result"]["stored_at"], "file:./output/uploads/a/hello.txt");
    assert_eq!(job["result"]["job_type"], "upload", "the default");
    assert_eq!(fs::read(sandbox.path("output/uploads/a/hello.txt")).expect("stored"), b"\x01hello");
    assert_eq!(serving.process.interrupt(), Some(0));
}

#[test]
fn with_the_store_down_a_job_is_tried_again_then_dead_and_finished_by_hand() {
    let sandbox = upload();
    // A file where the store needs a folder.
    sandbox.write("output/uploads/a", "in the way");
    let serving = Serving::start(&sandbox, &[]);
    let id = serving.accepted(&file("a/hello.bin"));
    let job = serving.end_of(&id);
    assert_eq!((&job["state"], &job["attempt"]), (&json!("dead"), &json!(3)), "{job}");
    assert_eq!(job["error"]["code"], "storage-failed");
    let letter = sandbox.read(&format!("output/dead/upload/{id}.json"));
    let letter: Value = serde_json::from_str(&letter).expect("JSON");
    assert_eq!((&letter["error"]["code"], &letter["job_id"]), (&json!("storage-failed"), &json!(id)));
    assert_eq!(letter["context"]["fields"]["file_content"], json!({"bytes": 3}));

    fs::remove_file(sandbox.path("output/uploads/a")).expect("it is there");
    let dead = sandbox.ok(&["jobs", "upload.yaml", "list", "--state", "dead"]);
    assert!(dead.out.contains(&id) && dead.out.contains("attempt 3 of 3"), "{}", dead.out);
    sandbox.ok(&["jobs", "upload.yaml", "retry", &id]);
    assert_eq!(serving.end_of(&id)["state"], "succeeded");
    assert_eq!(fs::read(sandbox.path("output/uploads/a/hello.bin")).expect("stored"), [1, 2, 3]);
    let metrics = serving.ask("GET", "/metrics", &[], b"").body;
    for line in [
        "pype_runs_total{pipeline=\"upload\",outcome=\"accepted\"} 1",
        "pype_jobs_total{pipeline=\"upload\",outcome=\"dead\"} 1",
        "pype_failures_total{pipeline=\"upload\",stage=\"storage_write\",code=\"storage-failed\",retried=\"no\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
}

#[test]
fn what_is_asked_twice_with_a_key_is_done_once() {
    let sandbox = upload();
    let serving = Serving::start(&sandbox, &[]);
    let key = ["Idempotency-Key: order-1", JSON];
    let ask = |path: &str| {
        let answer = serving.ask("POST", "/pipelines/upload", &key, file(path).to_string().as_bytes());
        serde_json::from_str::<Value>(&answer.body).expect("JSON")
    };
    let first = ask("once.bin");
    let again = ask("once.bin");
    assert_eq!((&again["job_id"], &again["duplicate"]), (&first["job_id"], &json!(true)));
    assert_eq!(ask("another.bin")["error"]["code"], "key-reused");
    serving.end_of(first["job_id"].as_str().expect("an id"));
    assert!(sandbox.path("output/uploads/once.bin").exists());
    assert_eq!(jobs(&sandbox, &[]).len(), 1);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let sandbox = upload();
    sandbox.write("token", "swordfish\n");
    let serving = Serving::start(&sandbox, &["--token-file", "token", "--body-limit", "1000"]);
    let token = "Authorization: Bearer swordfish";
    let post = |path: &str, headers: &[&str], body: &str| {
        let answer = serving.ask("POST", path, headers, body.as_bytes());
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        (answer.status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), answer.body)
    };
    let large = file("x").to_string().replace("AQID", &"A".repeat(2000));
    let good = file("x").to_string();
    for (path, headers, body, status, code, says) in [
        ("/pipelines/upload", vec![JSON], good.as_str(), 401, "unauthorized", "bearer token"),
        ("/pipelines/upload", vec![JSON, "Authorization: Bearer other"], good.as_str(), 401, "unauthorized", ""),
        ("/pipelines/uplaod", vec![JSON, token], good.as_str(), 404, "no-such-pipeline", "upload"),
        ("/pipelines/upload", vec![JSON, token], "{\"a\": oops}", 400, "bad-json", "column 7"),
        ("/pipelines/upload", vec![JSON, token], "{\"file_pth\": 1}", 422, "bad-context", "did you mean `file_path`?"),
        ("/pipelines/upload", vec!["Content-Type: text/csv", token], "a,b", 415, "unsupported-media-type", "multipart"),
        ("/pipelines/upload", vec![JSON, token], large.as_str(), 413, "too-large", ""),
        ("/pipelines/upload", vec![JSON, token, "Idempotency-Key: "], good.as_str(), 400, "bad-idempotency-key", ""),
        ("/elsewhere", vec![token], "", 404, "not-found", "/pipelines/{name}"),
    ] {
        let (got, got_code, text) = post(path, &headers, body);
        assert_eq!((got, got_code.as_str()), (status, code), "{path}: {text}");
        assert!(text.contains(says), "{path}: {text}");
    }
    assert_eq!(serving.ask("GET", "/jobs/nobody", &[token], b"").status, 404);
    assert_eq!(serving.ask("GET", "/healthz", &[], b"").status, 200, "health needs no token");
    let openapi: Value = serde_json::from_str(&serving.ask("GET", "/openapi.json", &[token], b"").body).expect("JSON");
    let schema = &openapi["paths"]["/pipelines/upload"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["file_path", "file_content"]));
}

#[test]
fn without_a_token_web_pages_and_other_machines_are_refused() {
    let sandbox = upload();
    sandbox.pype(&["serve", "upload.yaml", "--listen", "0.0.0.0:0"]).fails(20, &["--token-file"]);
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let good = file("x").to_string();
    let answer = serving.ask("POST", "/pipelines/upload", &[JSON, "Origin: https://example.org"], good.as_bytes());
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(serving.ask("GET", "/pipelines/upload", &[], b"").status, 405);
}

#[test]
fn names_that_lead_out_of_the_store_fail_at_once() {
    let sandbox = upload();
    let serving = Serving::start(&sandbox, &[]);
    for name in ["../../etc/x", "/etc/passwd", "a\u{0}b"] {
        let job = serving.end_of(&serving.accepted(&file(name)));
        assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
        assert_eq!(job["error"]["code"], "bad-key");
    }
}

/// A pipeline of these stages, in the caller, served.
fn serving(sandbox: &Sandbox, stages: &str) -> Serving {
    sandbox.register(&plugin("misbehaving"));
    let head = "pipeline: {name: upload, version: 1.0.0}\ncontext: {version: '1', fields: {n: int?}}\nstages:\n";
    sandbox.write("upload.yaml", &format!("{head}{stages}"));
    Serving::start(sandbox, &[])
}

#[test]
fn stages_are_tried_again_as_the_pipeline_says_and_no_oftener() {
    for (stages, status, says) in [
        // Two attempts that fail, and one that does not.
        (
            "  - {execute: trouble, configs: {fails: 2, retryable: true}, retry: {attempts: 3, delay_ms: 1}}",
            200,
            "\"calls\":3",
        ),
        (
            "  - {execute: trouble, configs: {fails: 3, retryable: true}, retry: {attempts: 3, delay_ms: 1}}",
            503,
            "call 3 of 3",
        ),
        ("  - {execute: trouble, configs: {fails: 1}, retry: {attempts: 3, delay_ms: 1}}", 503, "call 1 of 1"),
        ("  - {execute: trouble, configs: {fails: 1}, retry: {attempts: 3, delay_ms: 1, on: any}}", 200, "\"calls\":2"),
        // What fails behind a stage is not that stage's to try again.
        (
            "  - {execute: trouble, id: first, retry: {attempts: 3, delay_ms: 1, on: any}}\n  - {execute: trouble, configs: {fails: 1}}",
            503,
            "call 1 of 1",
        ),
        ("  - {execute: trouble, configs: {panics: true}}", 500, "told to panic"),
        ("  - {execute: trouble, configs: {ms: 60000}, timeout_s: 0.05}", 504, "took longer than 0.05 s"),
        // Its time is its own: the rest may take longer.
        (
            "  - {execute: trouble, id: first, timeout_s: 0.2}\n  - {execute: trouble, configs: {ms: 400}}",
            200,
            "\"calls\":1",
        ),
        (
            "  - {execute: timeout, configs: {seconds: 0.05}}\n  - {execute: trouble, configs: {ms: 60000}}",
            504,
            "longer than 0.05 s",
        ),
        (
            "  - {execute: trouble, configs: {goes_on: false}}\n  - {execute: trouble, id: second, configs: {panics: true}}",
            200,
            "ended here",
        ),
    ] {
        let sandbox = Sandbox::new();
        let answer = serving(&sandbox, stages).post(&json!({}));
        assert_eq!(answer.status, status, "{stages}: {}", answer.body);
        assert!(answer.body.contains(says), "{stages}: {}", answer.body);
    }
}

#[test]
fn a_server_bears_a_panic_and_serves_exclusive_stages_to_many() {
    let sandbox = Sandbox::new();
    let serving = serving(&sandbox, "  - {execute: one_at_a_time}\n");
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| serving.post(&json!({})).status)).collect();
        asked.into_iter().map(|one| one.join().expect("it answers")).collect()
    });
    assert_eq!(answers, [200; 8]);
}

#[test]
fn killed_workers_lose_no_job_and_finish_each_once() {
    let sandbox = upload();
    let slow = sandbox.read("upload.yaml").replace("attempts: 3", "attempts: 100");
    sandbox.write("upload.yaml", &slow);
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let ids: Vec<String> = (0..60).map(|n| serving.accepted(&file(&format!("f/{n}.bin")))).collect();
    let mut workers: Vec<Running> = Vec::new();
    let worker = || Running::start(&sandbox, &["worker", "upload.yaml", "--visibility", "1", "--concurrency", "2"]);
    let mut kills = 0;
    let succeeded = || jobs(&sandbox, &["--state", "succeeded"]).len();
    while succeeded() < ids.len() {
        while workers.len() < 2 {
            workers.push(worker());
        }
        // After a time that is another one each time, and prime to that of the jobs.
        std::thread::sleep(Duration::from_millis(40 + (kills * 37) % 400));
        drop(workers.remove(0));
        kills += 1;
        assert!(kills < 400, "{} of {} jobs are done", succeeded(), ids.len());
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(serving.job(id)["state"], "succeeded");
        assert_eq!(fs::read(sandbox.path(&format!("output/uploads/f/{n}.bin"))).expect("stored"), [1, 2, 3]);
    }
    assert_eq!(jobs(&sandbox, &[]).len(), ids.len());
}

#[test]
fn what_a_killed_server_has_accepted_is_done_by_another() {
    let sandbox = upload();
    let mut accepted = Vec::new();
    for round in 0..10 {
        let serving = Serving::start(&sandbox, &["--jobs", "0"]);
        for n in 0..3 {
            accepted.push((serving.accepted(&file(&format!("{round}-{n}.bin"))), format!("{round}-{n}.bin")));
        }
        // SIGKILL.
        drop(serving);
    }
    let serving = Serving::start(&sandbox, &[]);
    for (id, name) in accepted {
        assert_eq!(serving.end_of(&id)["state"], "succeeded");
        assert!(sandbox.path(&format!("output/uploads/{name}")).exists(), "{name}");
    }
}

#[test]
fn a_job_for_another_background_waits_for_a_worker_that_knows_it() {
    let sandbox = upload();
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let id = serving.accepted(&file("later.bin"));
    let text = sandbox.read("upload.yaml");
    sandbox.write(
        "newer/upload.yaml",
        &text.replace("file:./output", "file:../output").replace("output/jobs.db", "../output/jobs.db").replace(
            "  - execute: storage_write",
            "  - execute: set_fields\n    configs: {set: {seen: true}}\n  - execute: storage_write",
        ),
    );
    let newer = Running::start(&sandbox, &["worker", "newer/upload.yaml"]);
    std::thread::sleep(Duration::from_secs(1));
    let job = serving.job(&id);
    assert_eq!((&job["state"], &job["attempt"]), (&json!("queued"), &json!(0)), "{job}");
    assert_eq!(newer.interrupt(), Some(0));
    let _older = Running::start(&sandbox, &["worker", "upload.yaml"]);
    assert_eq!(serving.end_of(&id)["state"], "succeeded");
}

#[test]
fn a_pipeline_runs_from_the_command_line() {
    let sandbox = upload();
    sandbox.write("ctx.json", &file("cli.bin").to_string());
    let done = sandbox.ok(&["run", "upload.yaml", "--input", "ctx.json"]);
    let id = serde_json::from_str::<Value>(&done.out).expect("JSON")["job_id"].as_str().expect("an id").to_owned();
    let shown = sandbox.ok(&["jobs", "upload.yaml", "show", &id]);
    assert!(shown.out.contains("queued"), "{}", shown.out);
    let done = sandbox.ok(&["run", "upload.yaml", "--input", "ctx.json", "--wait"]);
    assert_eq!(serde_json::from_str::<Value>(&done.out).expect("JSON")["stored_bytes"], 3);
    assert!(sandbox.ok(&["jobs", "upload.yaml", "cancel", &id]).out.contains("is cancelled"));
    sandbox.pype(&["jobs", "upload.yaml", "cancel", &id]).fails(30, &["is cancelled, so it cannot be cancelled"]);
    assert!(sandbox.ok(&["jobs", "upload.yaml", "purge"]).out.contains("forgot"));
    let valid = sandbox.ok(&["validate", "upload.yaml"]);
    assert!(
        valid.out.contains("[logging] → [schedule_job: local] → |async boundary| → [storage_write]"),
        "{}",
        valid.out
    );
    assert!(sandbox.ok(&["graph", "upload.yaml"]).out.contains("async boundary"));
}

#[test]
fn what_is_wrong_with_a_pipeline_is_said_at_its_place() {
    let sandbox = upload();
    let text = sandbox.read("upload.yaml");
    let with = |from: &str, to: &str| {
        sandbox.write("wrong.yaml", &text.replace(from, to));
        sandbox.pype(&["validate", "wrong.yaml"])
    };
    with("execute: storage_write", "execute: storage_wite").fails(20, &["storage_write", "wrong.yaml:"]);
    with("  - execute: logging", "  - dispatch: in_memory\n  - execute: logging").fails(20, &["second dispatch"]);
    with("shard_key: file_path", "shard_key: file_pth").fails(20, &["file_pth", "wrong.yaml:"]);
    sandbox.write("ctx.json", "{\"file_pth\": \"x\"}");
    sandbox
        .pype(&["run", "upload.yaml", "--input", "ctx.json"])
        .fails(20, &["`file_path` is missing", "did you mean `file_path`?"]);
    sandbox.pype(&["run", "upload.yaml", "--input", "absent.json"]).fails(20, &["absent.json"]);
    sandbox.pype(&["jobs", "upload.yaml", "show", "nobody"]).fails(30, &["no job `nobody`"]);
}
