//! Pipelines as people run them: served, worked on by processes that are killed, retried, and dead.

use std::fs;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use pype_tests::collector::Collector;
use pype_tests::http::request;
use pype_tests::serving::{JSON, Running, Serving, file};
use pype_tests::{Done, Sandbox, plugin, repository, wait_for};
use serde_json::{Value, json};

/// Seed 001's upload, with its files in the sandbox.
fn upload() -> Sandbox {
    let sandbox = Sandbox::new();
    let text = fs::read_to_string(repository().join("flows/upload/upload.yaml")).expect("committed");
    sandbox.write("upload.yaml", &text);
    sandbox
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
fn who_looks_at_the_queue_in_between_takes_nothing_from_it() {
    let sandbox = upload();
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    for count in 1..=5 {
        serving.accepted(&file("a.bin"));
        // Another process opens the file and closes it again.
        assert_eq!(jobs(&sandbox, &[]).len(), count);
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
    assert_eq!(schema["properties"]["job_type"]["type"], json!(["string", "null"]), "it has a default");
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
fn workers_killed_at_a_hundred_moments_lose_no_job_and_finish_each_once() {
    const KILLS: u64 = 100;
    let sandbox = upload();
    let slow = sandbox.read("upload.yaml").replace("attempts: 3", "attempts: 100");
    sandbox.write("upload.yaml", &slow);
    let serving = Serving::start(&sandbox, &["--jobs", "0"]);
    let worker = || Running::start(&sandbox, &["worker", "upload.yaml", "--visibility", "1", "--concurrency", "2"]);
    let succeeded = || jobs(&sandbox, &["--state", "succeeded"]).len();
    let (mut ids, mut workers): (Vec<String>, Vec<Running>) = (Vec::new(), Vec::new());
    let mut kills = 0;
    while kills < KILLS || succeeded() < ids.len() {
        while workers.len() < 2 {
            workers.push(worker());
        }
        // There is work as long as they are killed.
        for _ in 0..if kills < KILLS { 3 } else { 0 } {
            ids.push(serving.accepted(&file(&format!("f/{}.bin", ids.len()))));
        }
        // After a time that is another one each time.
        std::thread::sleep(Duration::from_millis(10 + (kills * 37) % 90));
        if kills < KILLS {
            drop(workers.remove(0));
        }
        kills += 1;
        assert!(kills < 20 * KILLS, "{} of {} jobs are done", succeeded(), ids.len());
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(serving.job(id)["state"], "succeeded");
        assert_eq!(fs::read(sandbox.path(&format!("output/uploads/f/{n}.bin"))).expect("stored"), [1, 2, 3]);
    }
    assert_eq!(jobs(&sandbox, &[]).len(), ids.len());
}

#[test]
fn ten_thousand_requests_and_a_server_that_ends_among_them_are_ten_thousand_jobs() {
    const REQUESTS: usize = 10_000;
    const AT_ONCE: usize = 256;
    let sandbox = upload();
    let start = || Serving::start(&sandbox, &["--jobs", "0", "--requests", "300"]);
    let first = start();
    let (address, next) = (Mutex::new(first.address), AtomicUsize::new(0));
    let ask_until_accepted = |number: usize| {
        let (key, body) = (format!("Idempotency-Key: request-{number}"), file("a.bin").to_string());
        wait_for("the job to be accepted", || {
            let at = *address.lock().expect("nobody panics with it");
            let answer = request(at, "POST", "/pipelines/upload", &[JSON, &key], body.as_bytes()).ok()?;
            assert!(matches!(answer.status, 202 | 503), "{}: {}", answer.status, answer.body);
            (answer.status == 202).then_some(())
        });
    };
    let second = std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        return;
                    }
                    ask_until_accepted(number);
                }
            });
        }
        wait_for("half of them", || (next.load(Ordering::Relaxed) > REQUESTS / 2).then_some(()));
        assert!(first.process.peak_memory() < 300 << 20, "{} bytes", first.process.peak_memory());
        assert_eq!(first.process.interrupt(), Some(0));
        let second = start();
        *address.lock().expect("nobody panics with it") = second.address;
        second
    });
    let done = sandbox.ok(&["jobs", "upload.yaml", "list", "--json", "-n", "20000"]);
    assert_eq!(done.out.lines().count(), REQUESTS);
    assert!(second.process.peak_memory() < 300 << 20, "{} bytes", second.process.peak_memory());
    assert_eq!(second.process.interrupt(), Some(0));
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

/// An attribute that is text; empty if there is none of that name.
fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|one| one.key == name).and_then(|one| one.value.clone()?.value);
    match found {
        Some(any_value::Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

/// The spans that a collector has, each with the service that it is of, the earliest first.
fn spans(collector: &Collector) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    for body in collector.bodies() {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
        for resource in request.resource_spans {
            let service = text(&resource.resource.unwrap_or_default().attributes, "service.name");
            let of_resource = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(of_resource.map(|span| (service.clone(), span)));
        }
    }
    spans.sort_by_key(|(_, span)| span.start_time_unix_nano);
    spans
}

#[test]
fn one_trace_covers_a_request_and_its_job_on_another_machine() {
    const SECRET: &str = "swordfish-4711";
    let sandbox = upload();
    let collector = Collector::start();
    // A file where the store needs a folder.
    sandbox.write("output/uploads/a", "in the way");
    let stages = "  - execute: set_fields
    configs: {set: {password: '{{secret.ftp.password}}'}}
  - execute: tracing
    configs: {fields: [file_path, file_content, password], name: an upload}
  - dispatch: schedule_job";
    sandbox.write("upload.yaml", &sandbox.read("upload.yaml").replace("  - dispatch: schedule_job", stages));
    let traced = |service: &str, arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_SERVICE_NAME", service);
        Running::of(command.env("PYPE_SECRET_FTP_PASSWORD", SECRET).stderr(Stdio::null()))
    };
    let serving = Serving::of(traced("front", &["serve", "upload.yaml", "--listen", "127.0.0.1:0", "--jobs", "0"]));
    let worker = traced("back", &["worker", "upload.yaml"]);
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = file("a/hello.bin").to_string();
    let answer = serving.ask("POST", "/pipelines/upload", &[JSON, parent], context.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = serde_json::from_str::<Value>(&answer.body).expect("JSON")["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(serving.end_of(&id)["state"], "dead");
    assert_eq!((serving.process.interrupt(), worker.interrupt()), (Some(0), Some(0)));

    let spans = spans(&collector);
    let attempt = [("back", "process upload", SpanKind::Consumer), ("back", "storage_write", SpanKind::Internal)];
    let mut expected = vec![
        ("front", "run upload", SpanKind::Server),
        ("front", "logging", SpanKind::Internal),
        ("front", "set_fields", SpanKind::Internal),
        ("front", "an upload", SpanKind::Internal),
        ("front", "send upload", SpanKind::Producer),
    ];
    expected.extend(attempt.iter().cycle().take(6));
    expected.push(("back", "dead_letter", SpanKind::Internal));
    let found: Vec<_> =
        spans.iter().map(|(service, span)| (service.as_str(), span.name.as_str(), span.kind())).collect();
    assert_eq!(found, expected);

    let trace = [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(spans.iter().all(|(_, span)| span.trace_id == trace));
    assert_eq!(spans[0].1.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    let (run, upload, send) = (&spans[0].1, &spans[3].1, &spans[4].1);
    assert_eq!((&spans[1].1.parent_span_id, &send.parent_span_id), (&run.span_id, &upload.span_id));
    for (_, process) in spans.iter().filter(|(_, span)| span.name == "process upload") {
        assert_eq!((&process.parent_span_id, &process.links[0].span_id), (&send.span_id, &send.span_id));
        assert_eq!(text(&process.attributes, "messaging.message.id"), id);
        assert_eq!(process.status.as_ref().map(|status| status.code), Some(2));
    }
    let failed = &spans[6].1;
    assert_eq!(failed.parent_span_id, spans[5].1.span_id);
    assert_eq!(text(&failed.attributes, "error.type"), "storage-failed");
    assert_eq!(text(&failed.attributes, "pype.module"), "storage_write");

    assert_eq!(text(&upload.attributes, "pype.context.file_path"), "a/hello.bin");
    assert_eq!(text(&upload.attributes, "pype.context.file_content"), "3 bytes");
    assert_eq!(text(&upload.attributes, "pype.context.password"), "***");
    assert!(collector.bodies().iter().all(|body| !String::from_utf8_lossy(body).contains(SECRET)));
}

#[test]
fn a_collector_that_is_down_costs_one_warning() {
    let sandbox = upload();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("loopback");
    let traced = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{gone}")).env("OTEL_BSP_SCHEDULE_DELAY", "20");
        command
    };
    let told = |log: &str| log.lines().filter(|line| line.contains("spans are not exported")).count();
    let log = fs::File::create(sandbox.path("serve.log")).expect("the sandbox can be written");
    let mut command = traced(&["serve", "upload.yaml", "--listen", "127.0.0.1:0"]);
    let serving = Serving::of(Running::of(command.stderr(log)));
    for n in 0..20 {
        let id = serving.accepted(&file(&format!("{n}.bin")));
        assert_eq!(serving.end_of(&id)["state"], "succeeded");
        // A batch is lost before the next comes.
        wait_for("the warning", || (told(&sandbox.read("serve.log")) > 0).then_some(()));
    }
    assert_eq!(serving.process.interrupt(), Some(0));
    assert_eq!(told(&sandbox.read("serve.log")), 1);

    sandbox.write("ctx.json", &file("cli.bin").to_string());
    let done = Done::of(traced(&["run", "upload.yaml", "--input", "ctx.json", "--wait"]).output().expect("it runs"));
    assert_eq!((done.code, told(&done.err)), (Some(0), 1), "{}", done.err);
    // An address that is none is told too, and no more.
    let mut command = traced(&["run", "upload.yaml", "--input", "ctx.json"]);
    let done = Done::of(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "no address").output().expect("it runs"));
    assert_eq!((done.code, told(&done.err)), (Some(0), 1), "{}", done.err);
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
