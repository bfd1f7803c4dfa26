//! What pype adds to the work of pipelines: a stage, a durable job, a request; beside what a hand would write.
//!
//! `cargo bench --bench pipelines` runs all parts, `cargo bench --bench pipelines -- stages` (or `queue`, `serve`) one of
//! them. Contenders take turns in rounds on the same disk and the same cores. `PYPE_BENCH_PYTHON` names a Python that has
//! fastapi and uvicorn (default `python3`); without them that part is skipped by name.
//!
//! Aims: a stage that does nothing ≤ 500 ns; ≥ 20,000 durable jobs a second from many callers, and no slower than a bare
//! transaction from one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its report")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use pype::loader::Loader;
use pype::observe::log;
use pype::observe::spans::Spans;
use pype::pipeline::{Answer, Asked, Metrics, Opened, Surroundings, Worker, WorkerLimits};
use pype::prepare::{Given, prepare_pipeline};
use pype::run::LibraryServices;
use pype::secret::Secrets;
use pype_core::pipeline::context::Context;
use pype_plugin::host::{Chain, Going, Instance, LibraryFacts, NodeFacts, adopt_runtime};
use pype_plugin::queue::{JobFilter, JobState, NewJob};
use pype_plugin::testing::Fields;
use pype_plugin::{Next, PipelineContext};
use pype_tests::{Sandbox, binary, plugin, repository, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("pipelines: skipped, since this is no `cargo bench`");
        return;
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = busy.split(' ').next().unwrap_or_default();
    println!("{ROUNDS} rounds, medians; {} cores, with a load of {busy} before", cores());
    let host = Host::start();
    for (name, part) in [("stages", stages as fn(&Host)), ("queue", queue), ("serve", serve)] {
        if chosen.is_empty() || chosen.iter().any(|chosen| *chosen == name) {
            println!("\n{name}");
            part(&host);
        }
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The host in this process.
struct Host {
    runtime: Runtime,
    loader: Loader<LibraryServices>,
    services: Arc<LibraryServices>,
    log: log::Log,
    _writer: log::Writer,
}

impl Host {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        adopt_runtime(runtime.handle().clone());
        let (log, writer) = log::start(log::Filter::default(), log::Format::Text, |_| {});
        let services = Arc::new(LibraryServices::new(log.clone()));
        let loader = Loader::new(services.clone(), LibraryFacts::default()).expect("a cache");
        Self { runtime, loader, services, log, _writer: writer }
    }

    /// Opens a pipeline with these stages.
    fn open(&self, sandbox: &Sandbox, name: &str, stages: &str) -> Arc<Opened> {
        let head =
            format!("pipeline: {{name: {name}, version: 1.0.0}}\ncontext: {{version: '1', fields: {{n: int}}}}\n");
        let path = sandbox.write(&format!("{name}.yaml"), &format!("{head}stages:\n{stages}"));
        let prepared = prepare_pipeline(&path, &Given::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let around = Surroundings {
            context: prepared.context,
            secrets: Secrets::default(),
            folder: prepared.folder,
            libraries: prepared.libraries,
            threads: 4,
            log: self.log.clone(),
            observer: Arc::new(|_| {}),
            metrics: Metrics::default(),
            spans: Spans::default(),
            post_mortems: PathBuf::new(),
        };
        let opening = Opened::open(prepared.plan, &around, &self.loader);
        self.runtime.block_on(opening).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Opens the queue `local` alone.
    fn local(&self, path: &Path) -> Arc<Instance> {
        Arc::new(self.alone(&queues(), "local", &json!({ "path": path })))
    }

    /// Opens a module of a library.
    fn alone(&self, library: &Path, module: &str, configs: &Value) -> Instance {
        let library = self.loader.load(library, None).expect("it was built").library;
        let facts = NodeFacts { threads: 4, ..NodeFacts::default() };
        let opening = library.open(module, configs, &facts, self.services.clone());
        self.runtime.block_on(opening).expect("it opens")
    }
}

/// The bundled library, built with the binary.
fn queues() -> PathBuf {
    binary().with_file_name("libpype_queues.so")
}

fn context(opened: &Opened) -> Context {
    Context::from_json(opened.plan().context(), json!({ "n": 1 })).expect("it has the field")
}

/// Stages one after the other, and nothing else.
struct Bare {
    stages: Arc<Vec<Instance>>,
    at: usize,
}

impl Chain for Bare {
    fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going {
        match self.stages.get(self.at) {
            None => Going::Over(Ok(Value::Null.into())),
            Some(stage) => {
                let next = Self { stages: self.stages.clone(), at: self.at + 1 };
                stage.execute(ctx, Next::new(Arc::new(next)))
            }
        }
    }
}

/// A run of each of these many stages that do nothing, one in the other, and through the boundary alone: nanoseconds.
fn bare<const N: usize>(host: &Host, lengths: [u32; N], runs: u32) -> [f64; N] {
    let open = |_| host.alone(&plugin("bench"), "pass_on", &json!({}));
    let chains = lengths.map(|length| Arc::new(Bare { stages: Arc::new((0..length).map(open).collect()), at: 0 }));
    let run = |chain: &Arc<Bare>| {
        let start = Instant::now();
        for _ in 0..runs {
            assert!(matches!(chain.run(PipelineContext::new(Fields::default())), Going::Over(Ok(_))));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(runs)
    };
    let took = host.runtime.block_on(async { medians((0..ROUNDS).map(|_| chains.each_ref().map(run)).collect()) });
    for stage in chains.iter().flat_map(|chain| chain.stages.iter()) {
        host.runtime.block_on(stage.close()).expect("it closes");
    }
    took
}

fn medians<const N: usize>(rounds: Vec<[f64; N]>) -> [f64; N] {
    std::array::from_fn(|at| median(rounds.iter().map(|round| round[at])))
}

/// A stage that does nothing: through the boundary alone, and with all that the host does for it, as the slope between a chain
/// of one and a longer one.
fn stages(host: &Host) {
    const LENGTHS: [u32; 3] = [1, 11, 51];
    const RUNS: u32 = 20_000;
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("bench"));
    let opened = LENGTHS.map(|length| {
        let stages: String = (0..length).map(|n| format!("  - {{execute: pass_on, id: s{n}}}\n")).collect();
        host.open(&sandbox, &format!("chain{length}"), &stages)
    });
    let run = |opened: &Arc<Opened>| {
        host.runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..RUNS {
                let answer = opened.run(context(opened), Asked::default()).await.expect("it runs");
                assert!(matches!(answer, Answer::Done(_)));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(RUNS)
        })
    };
    let took = medians((0..ROUNDS).map(|_| opened.each_ref().map(run)).collect());
    for (what, took) in [("through the boundary alone", bare(host, LENGTHS, RUNS)), ("in a pipeline", took)] {
        println!("{:<44} {:>10.0} ns", format!("{what}: a run of one stage"), took[0]);
        for at in [1, 2] {
            let stage = (took[at] - took[0]) / f64::from(LENGTHS[at] - LENGTHS[0]);
            println!("{:<44} {stage:>10.0} ns", format!("{what}: one more in a chain of {}", LENGTHS[at]));
        }
    }
    host.runtime.block_on(async {
        for one in &opened {
            one.close().await;
        }
    });
}

/// `local` beside bare SQLite, on the same disk.
fn queue(host: &Host) {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("bench"));
    sandbox.register(&queues());
    println!(
        "{:<44} {:>10.0} us",
        "append 4 KiB and fsync",
        median((0..ROUNDS).map(|_| synced(&sandbox.path("sync"))))
    );

    let contenders: [(&str, &dyn Fn(usize) -> f64); 6] = [
        ("rusqlite, one INSERT a transaction", &|round| by_hand(&sandbox.path(&format!("one{round}.db")), 1_000, 1)),
        ("rusqlite, 512 INSERTs a transaction", &|round| {
            by_hand(&sandbox.path(&format!("many{round}.db")), 40_960, 512)
        }),
        ("local, 1 caller", &|round| accepts(host, &sandbox.path(&format!("{round}/1.db")), 1_000, 1)),
        ("local, 64 callers", &|round| accepts(host, &sandbox.path(&format!("{round}/64.db")), 20_000, 64)),
        ("local, 256 callers", &|round| accepts(host, &sandbox.path(&format!("{round}/256.db")), 40_000, 256)),
        ("local, 64 callers and a worker of 64, done", &|round| end_to_end(host, &sandbox, round, 10_000)),
    ];
    let mut rates = [const { Vec::new() }; 6];
    for round in 0..ROUNDS {
        for ((_, measure), rates) in contenders.iter().zip(&mut rates) {
            rates.push(measure(round));
        }
    }
    println!("durable jobs a second; a job has {PAYLOAD} bytes");
    for ((name, _), rates) in contenders.iter().zip(rates) {
        println!("{name:<44} {:>10.0} /s", median(rates));
    }
}

const PAYLOAD: usize = 256;

/// What it costs to have one thing on the disk, in us.
fn synced(path: &Path) -> f64 {
    let mut file = File::create(path).expect("the sandbox can be written");
    let one = |_| {
        let start = Instant::now();
        file.write_all(&[1; 4096]).and_then(|()| file.sync_data()).expect("the disk takes it");
        start.elapsed().as_secs_f64() * 1e6
    };
    median((0..200).map(one))
}

/// A table with a key and nothing else, as somebody would write who needs no queue; jobs a second.
fn by_hand(path: &Path, jobs: usize, per_transaction: usize) -> f64 {
    let mut connection = rusqlite::Connection::open(path).expect("opened");
    connection.pragma_update(None, "journal_mode", "WAL").expect("set");
    connection.pragma_update(None, "synchronous", "FULL").expect("set");
    connection.execute_batch("CREATE TABLE jobs (id TEXT PRIMARY KEY, payload BLOB NOT NULL)").expect("made");
    let start = Instant::now();
    for first in (0..jobs).step_by(per_transaction) {
        let transaction = connection.transaction().expect("begun");
        for number in first..jobs.min(first + per_transaction) {
            let mut insert = transaction.prepare_cached("INSERT INTO jobs VALUES (?, ?)").expect("it is SQL");
            insert.execute((id(number), [0_u8; PAYLOAD])).expect("inserted");
        }
        transaction.commit().expect("committed");
    }
    per_second(jobs, start)
}

/// Callers that each enqueue one job after the other; jobs a second.
fn accepts(host: &Host, path: &Path, jobs: usize, callers: usize) -> f64 {
    let queue = host.local(path);
    let enqueue = |number| {
        let queue = queue.clone();
        async move { drop(queue.enqueue(job(number)).await.expect("accepted")) }
    };
    let rate = host.runtime.block_on(async {
        let start = Instant::now();
        by_many(callers, jobs, enqueue).await;
        per_second(jobs, start)
    });
    host.runtime.block_on(queue.close()).expect("closed");
    rate
}

/// Jobs that are accepted, leased, run and concluded, all at the same time; jobs a second.
fn end_to_end(host: &Host, sandbox: &Sandbox, round: usize, jobs: usize) -> f64 {
    let stages = format!("  - {{dispatch: local, configs: {{path: done{round}.db}}}}\n  - execute: pass_on\n");
    let opened = host.open(sandbox, &format!("done{round}"), &stages);
    let (stop, limits) = (CancellationToken::new(), WorkerLimits { concurrency: 64, ..WorkerLimits::default() });
    let rate = host.runtime.block_on(async {
        let start = Instant::now();
        let worker = tokio::spawn(Worker::new([opened.clone()], limits).run(stop.clone()));
        by_many(64, jobs, |_| {
            let opened = opened.clone();
            async move { drop(opened.run(context(&opened), Asked::default()).await.expect("accepted")) }
        })
        .await;
        let left = JobFilter { states: vec![JobState::Queued, JobState::Running], limit: 1, ..JobFilter::default() };
        let queue = opened.queue().expect("it has one");
        while !queue.jobs(left.clone()).await.expect("listed").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rate = per_second(jobs, start);
        stop.cancel();
        worker.await.expect("the worker ends");
        rate
    });
    host.runtime.block_on(opened.close());
    rate
}

fn job(number: usize) -> NewJob {
    NewJob {
        id: id(number),
        pipeline: "upload".to_owned(),
        version: "1.0.0".to_owned(),
        shard: Some(7),
        ordered: false,
        idempotency_key: None,
        asked: None,
        delay_ms: 0,
        max_attempts: 3,
        payload: vec![0; PAYLOAD].into(),
    }
}

/// As long as a UUID, and in the order of time as its seventh version is.
fn id(number: usize) -> String {
    format!("0198c5a2-7d1e-7{number:08}-8a3e5f60a1b2")
}

/// The pipeline of `flows/upload` beside FastAPI with BackgroundTasks.
fn serve(host: &Host) {
    const REQUESTS: usize = 3_000;
    let sandbox = Sandbox::new();
    let contenders = contenders(&sandbox);
    println!("{REQUESTS} uploads of 1 KiB a round: answered, and then stored in the background");
    println!(
        "pype answers once the job is fsynced: it survives a kill. BackgroundTasks are in memory: what was answered"
    );
    println!("and not stored yet is lost with the process.");
    for at_once in [1, 64] {
        let mut rounds = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            for (contender, rounds) in contenders.iter().zip(&mut rounds) {
                let folder = format!("{at_once}-{round}");
                host.runtime.block_on(load(contender.address, &format!("{folder}-warm"), 100, at_once));
                let start = Instant::now();
                let latencies = host.runtime.block_on(load(contender.address, &folder, REQUESTS, at_once));
                let answered = per_second(REQUESTS, start);
                contender.has_stored(&folder, REQUESTS);
                rounds.push(Load { answered, stored: per_second(REQUESTS, start), latencies });
            }
        }
        for (contender, rounds) in contenders.iter().zip(&rounds) {
            let of = |of: &dyn Fn(&Load) -> f64| median(rounds.iter().map(of));
            println!(
                "{:<28} {at_once:>3} at once {:>8.0} /s   p50 {:>7.2} ms   p99 {:>7.2} ms   all stored {:>8.0} /s",
                contender.name,
                of(&|load| load.answered),
                of(&|load| load.percentile(50)),
                of(&|load| load.percentile(99)),
                of(&|load| load.stored),
            );
        }
    }
}

/// One round of requests.
struct Load {
    answered: f64,
    stored: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Load {
    /// In ms.
    fn percentile(&self, percent: usize) -> f64 {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)].as_secs_f64() * 1e3
    }
}

/// A server, ended with this.
struct Contender {
    name: String,
    address: SocketAddr,
    uploads: PathBuf,
    process: Child,
}

impl Drop for Contender {
    fn drop(&mut self) {
        // As Ctrl-C would, so that it ends its own children too.
        let pid = i32::try_from(self.process.id()).expect("a process id");
        // SAFETY: the process is our own child, and was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        drop(self.process.wait());
    }
}

impl Contender {
    /// Waits until the files of a round are there.
    fn has_stored(&self, folder: &str, count: usize) {
        let folder = self.uploads.join(folder);
        wait_for("the files", || fs::read_dir(&folder).is_ok_and(|files| files.count() == count).then_some(()));
    }
}

fn contenders(sandbox: &Sandbox) -> Vec<Contender> {
    let mut contenders = vec![pype(sandbox)];
    let python = std::env::var_os("PYPE_BENCH_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    if ["fastapi", "uvicorn"].into_iter().all(|module| has(&python, module)) {
        contenders.push(fastapi(sandbox, &python, 1));
        contenders.push(fastapi(sandbox, &python, cores()));
    }
    contenders
}

fn pype(sandbox: &Sandbox) -> Contender {
    let text = fs::read_to_string(repository().join("flows/upload/upload.yaml")).expect("committed");
    sandbox.write("upload.yaml", &text);
    let mut command = sandbox.command(&["serve", "upload.yaml", "--listen", "127.0.0.1:0"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line).expect("it prints text");
    let address = line.strip_prefix("POST http://").and_then(|rest| rest.split('/').next()?.parse().ok());
    let address = address.unwrap_or_else(|| panic!("it says where it listens: {line}"));
    Contender { name: "pype serve".to_owned(), address, uploads: sandbox.path("output/uploads"), process }
}

const FASTAPI: &str = r#"
import logging, pathlib, uuid
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel

logging.basicConfig(level=logging.INFO)
log = logging.getLogger("upload")
uploads = pathlib.Path("fastapi/uploads")
app = FastAPI()

class Upload(BaseModel):
    file_path: str
    file_content: str
    job_type: str = "upload"

def store(upload: Upload):
    path = uploads / upload.file_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(upload.file_content.encode())

@app.post("/pipelines/upload", status_code=202)
async def run(upload: Upload, tasks: BackgroundTasks):
    log.info("%s %d bytes %s", upload.file_path, len(upload.file_content), upload.job_type)
    tasks.add_task(store, upload)
    return {"job_id": str(uuid.uuid4())}
"#;

fn fastapi(sandbox: &Sandbox, python: &Path, workers: usize) -> Contender {
    sandbox.write("app.py", FASTAPI);
    // Free a moment ago; uvicorn does not tell which one it was given.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (port, count) = (free.port().to_string(), workers.to_string());
    let arguments = ["-m", "uvicorn", "app:app", "--port", &port, "--workers", &count, "--no-access-log"];
    let mut command = Command::new(python);
    command.args(arguments).current_dir(sandbox.path(".")).stdin(Stdio::null()).stdout(Stdio::null());
    let process = command.stderr(Stdio::null()).spawn().expect("it has just run");
    wait_for("uvicorn", || std::net::TcpStream::connect(free).ok());
    let name = format!("FastAPI, uvicorn of {workers}");
    Contender { name, address: free, uploads: sandbox.path("fastapi/uploads"), process }
}

fn has(python: &Path, module: &str) -> bool {
    let asked = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    let has = asked.is_ok_and(|status| status.success());
    if !has {
        println!("{module} is skipped: {} has it not", python.display());
    }
    has
}

/// Uploads over so many connections that are kept; how long each took, sorted.
async fn load(address: SocketAddr, folder: &str, requests: usize, connections: usize) -> Vec<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (folder, next) = (folder.to_owned(), next.clone());
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await.expect("the server listens");
            stream.set_nodelay(true).expect("set");
            let mut stream = tokio::io::BufReader::new(stream);
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return latencies;
                }
                let request = upload(address, &format!("{folder}/{number}.txt"));
                let start = Instant::now();
                stream.write_all(request.as_bytes()).await.expect("the server reads");
                answered(&mut stream).await;
                latencies.push(start.elapsed());
            }
        });
    }
    let mut latencies = clients.join_all().await.concat();
    latencies.sort_unstable();
    latencies
}

fn upload(address: SocketAddr, path: &str) -> String {
    let body: Value = json!({ "file_path": path, "file_content": "x".repeat(1024), "job_type": "bench" });
    let (body, length) = (body.to_string(), body.to_string().len());
    let head = "Content-Type: application/json\r\nContent-Length:";
    format!("POST /pipelines/upload HTTP/1.1\r\nHost: {address}\r\n{head} {length}\r\n\r\n{body}")
}

/// Reads one answer, which must be 202.
async fn answered(stream: &mut tokio::io::BufReader<TcpStream>) {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        assert!(stream.read_line(&mut head).await.expect("an answer") > 0, "the server has hung up: {head}");
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    assert!(head.starts_with("HTTP/1.1 202"), "{head}{}", String::from_utf8_lossy(&body));
}

/// So many callers at once, each with one thing after the other, until all are done.
async fn by_many<F: Future<Output = ()> + Send + 'static>(callers: usize, count: usize, one: impl Fn(usize) -> F) {
    let mut under_way = JoinSet::new();
    for number in 0..count {
        if under_way.len() == callers {
            under_way.join_next().await.expect("some are under way").expect("it does not panic");
        }
        under_way.spawn(one(number));
    }
    under_way.join_all().await;
}

fn per_second(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
