//! `pype serve` and `pype worker`: pipelines over HTTP, and who does their jobs.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::pipeline::{DocumentsArgs, Host, HostArgs, close_all, with_secrets};
use super::render::{Failure, shown};
use super::run::SecretsArgs;
use crate::pipeline::{Opened, Server, ServerLimits, Worker, WorkerLimits};

/// Serves pipelines over HTTP, and does their jobs.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype serve flows/upload
  curl -F file_path=a.txt -F file_content=@a.txt http://127.0.0.1:8080/pipelines/upload
  curl http://127.0.0.1:8080/jobs/0199…            the job that it answered with
  pype serve flows/upload --jobs 0                 leaves the jobs to `pype worker`

Paths: POST /pipelines/NAME, GET /jobs/ID, /openapi.json, /metrics, /healthz.

Traces go to a collector of OpenTelemetry, over OTLP/HTTP, if OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where. OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and
OTEL_EXPORTER_OTLP_HEADERS are heeded; OTEL_SDK_DISABLED=true turns it off.")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    documents: DocumentsArgs,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A file with the token that callers must have, as `Authorization: Bearer …`.
    #[arg(long, value_name = "FILE", env = "PYPE_SERVE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Larger bodies are refused, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    body_limit: usize,
    /// So many requests at a time; those beyond are answered with 503.
    #[arg(long, value_name = "N", default_value_t = 64)]
    requests: usize,
    /// So many jobs at a time; 0 leaves them to `pype worker`.
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: u32,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(flatten)]
    host: HostArgs,
}

/// How jobs are held.
#[derive(Args)]
struct WorkArgs {
    /// A job whose worker is gone goes to another after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    visibility: u64,
    /// When it is to stop, what runs has so many seconds to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
}

impl WorkArgs {
    fn limits(&self, concurrency: u32) -> WorkerLimits {
        WorkerLimits {
            concurrency,
            visibility: Duration::from_secs(self.visibility),
            drain: Duration::from_secs(self.drain),
        }
    }
}

/// Does the jobs of pipelines, from whatever queue they name.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype worker flows/upload
  pype worker flows/upload/upload.yaml --concurrency 16

Any number of workers, on any number of machines, may share a queue.

Traces go to a collector of OpenTelemetry, over OTLP/HTTP, if OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where. OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and
OTEL_EXPORTER_OTLP_HEADERS are heeded; OTEL_SDK_DISABLED=true turns it off.")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    documents: DocumentsArgs,
    /// So many jobs at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(flatten)]
    host: HostArgs,
}

/// How long a client may take to say what it asks for, and how long a connection is kept that asks for nothing.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn serve(args: &ServeArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let prepared = args.documents.prepare()?;
    let token = token(args)?;
    if token.is_none() && !args.listen.ip().is_loopback() {
        let message = format!("whoever reaches {} could run these pipelines", args.listen);
        return Err(Failure::invalid("no-token", message).hint("ask for a token: --token-file FILE"));
    }
    let ready = with_secrets(prepared, args.secrets.origin())?;
    let host = Host::start(&args.host)?.traced();
    let opened = host.open_all(&ready)?;
    let limits = ServerLimits {
        body_bytes: args.body_limit,
        requests: args.requests,
        head: HEAD_PATIENCE,
        drain: Duration::from_secs(args.work.drain),
    };
    let listening = Server::listen(args.listen, opened.clone(), token, host.metrics.clone(), limits);
    let server = host.runtime.block_on(async {
        let server = listening.await;
        if server.is_err() {
            close_all(&opened).await;
        }
        server
    })?;
    let address = server.address().map_or(args.listen, |address| address);
    for one in &opened {
        writeln!(out, "POST http://{address}/pipelines/{}", one.plan().name())?;
    }
    out.flush()?;
    let limits = (args.jobs > 0).then(|| args.work.limits(args.jobs));
    host.runtime.block_on(async {
        let workers = limits.map(|limits| work(&opened, limits, &host.stop)).unwrap_or_default();
        server.run(host.stop.clone()).await;
        end(workers, &opened).await;
    });
    Ok(Exit::Ok)
}

fn token(args: &ServeArgs) -> Result<Option<String>, Failure> {
    let Some(path) = &args.token_file else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|cause| Failure::invalid("io", format!("cannot read `{}`: {cause}", path.display())))?;
    match text.trim() {
        "" => Err(Failure::invalid("no-token", format!("there is no token in `{}`", path.display()))),
        token => Ok(Some(token.to_owned())),
    }
}

pub(crate) fn worker(args: &WorkerArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let prepared = args.documents.prepare()?;
    if let Some(without) = prepared.iter().find(|one| one.plan.dispatch().is_none()) {
        let message = format!("`{}` has no dispatch, so it has no jobs", shown(&without.plan.source().path));
        return Err(Failure::invalid("no-dispatch", message).hint("leave it out"));
    }
    let ready = with_secrets(prepared, args.secrets.origin())?;
    let host = Host::start(&args.host)?.traced();
    let opened = host.open_all(&ready)?;
    for one in &opened {
        writeln!(out, "works on {}", one.plan().name())?;
    }
    out.flush()?;
    host.runtime.block_on(async {
        let workers = work(&opened, args.work.limits(args.concurrency), &host.stop);
        host.stop.cancelled().await;
        end(workers, &opened).await;
    });
    Ok(Exit::Ok)
}

/// Starts a worker for each queue.
fn work(opened: &[Arc<Opened>], limits: WorkerLimits, stop: &CancellationToken) -> JoinSet<()> {
    let mut by_queue: BTreeMap<&str, Vec<Arc<Opened>>> = BTreeMap::new();
    for one in opened {
        if let Some(key) = one.queue_key() {
            by_queue.entry(key).or_default().push(one.clone());
        }
    }
    let mut workers = JoinSet::new();
    for pipelines in by_queue.into_values() {
        workers.spawn(Worker::new(pipelines, limits).run(stop.clone()));
    }
    workers
}

async fn end(mut workers: JoinSet<()>, opened: &[Arc<Opened>]) {
    while let Some(ended) = workers.join_next().await {
        if let Err(lost) = ended {
            tracing::error!("a worker has failed: {lost}");
        }
    }
    close_all(opened).await;
}
