//! `pype run`: prepares, runs, shows.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clap::{Args, ValueEnum};
use pype_core::run::event::RunEvent;
use pype_core::run::scheduler::{Outcome, Verdict};
use pype_plugin::host::LibraryFacts;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;

use super::Exit;
use super::flow::FlowArgs;
use super::progress::Progress;
use super::render::{Failure, Style};
use crate::loader::Loader;
use crate::observe::log::{self, Filter, Log, Writer};
use crate::prepare::Prepared;
use crate::run::services::Shared;
use crate::run::{self, Job, LibraryServices, Limits};

/// Events that wait for the display, at most.
const EVENTS: usize = 1024;

/// Runs a flow, and shows what happens.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype run flow.yaml
  pype run flow.yaml --context prod --set day=2025-01-15
  pype run jobs/my_flow                     a job folder that pype build made
  pype run flow.yaml --json | jq .event     one event a line")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Which log records are kept: `info`, or `warn,my_plugin=debug`.
    #[arg(long, value_name = "FILTER", env = "PYPE_LOG", default_value = "info")]
    log: Filter,
    /// How log records look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Threads for blocking work; the flow's `threads` comes next, then twice the cores.
    #[arg(long, value_name = "N", env = "PYPE_THREADS")]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(args: &RunArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(prepared) = args.flow.prepare(out)? else { return Ok(Exit::Invalid) };
    if !prepared.warnings.is_empty() && !args.flow.json {
        args.flow.print(&prepared.warnings, out)?;
    }
    let whole = args.flow.exit(&prepared);
    if whole != Exit::Ok {
        return Ok(whole);
    }
    let budget = Budget::new(args.threads.or(prepared.plan.settings.threads));
    budget.announce();
    let mut progress = match args.flow.json {
        true => Progress::for_programs(out),
        false => Progress::for_people(out, Style::of(&std::io::stdout())),
    };
    let (log, writer) = start_log(args, &progress);
    let outcome = go(prepared, &budget, &log, &mut progress);
    drop(writer);
    outcome.map(|outcome| exit_of(outcome.verdict()))
}

fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Succeeded => Exit::Ok,
        Verdict::Failed => Exit::Failed,
        Verdict::TimedOut => Exit::TimedOut,
        Verdict::Cancelled => Exit::Cancelled,
    }
}

/// How many threads a process may use. Fixed once: pools take their size when they are first used.
struct Budget {
    blocking: usize,
    compute: usize,
}

impl Budget {
    fn new(asked: Option<NonZeroUsize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let blocking = asked.map_or(cores * 2, NonZeroUsize::get);
        Self { blocking, compute: blocking.min(cores) }
    }

    /// Tells the engines inside plugins, which read their pool's size from the environment.
    fn announce(&self) {
        for name in ["POLARS_MAX_THREADS", "RAYON_NUM_THREADS"] {
            if std::env::var_os(name).is_none() {
                // SAFETY: this process has one thread so far.
                unsafe { std::env::set_var(name, self.compute.to_string()) };
            }
        }
    }
}

fn start_log(args: &RunArgs, progress: &Progress<'_>) -> (Log, Writer) {
    let live = progress.live();
    let format = match args.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let (log, writer) = log::start(args.log.clone(), format, move |line| {
        // Standard error is the last resort: if it is gone, there is nobody to tell.
        let print = || drop(writeln!(std::io::stderr(), "{line}"));
        match &live {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    });
    let subscriber = tracing_subscriber::registry().with(log.clone());
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("the process has a subscriber of its own: the host's records go there");
    }
    (log, writer)
}

fn go(prepared: Prepared, budget: &Budget, log: &Log, progress: &mut Progress<'_>) -> Result<Outcome, Failure> {
    let failed = |what: &str, cause: std::io::Error| Failure {
        exit: Exit::Failed,
        ..Failure::invalid("host", format!("cannot {what}: {cause}"))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| failed("start the runtime", cause))?;
    pype_plugin::host::adopt_runtime(runtime.handle().clone());
    let temp_dir = temp_dir().map_err(|cause| failed("make a temporary folder", cause))?;
    let (sender, events) = sync_channel(EVENTS);
    let job = job(prepared, budget, log, sender, temp_dir.path().to_owned())?;
    let interrupt = CancellationToken::new();
    let running = runtime.spawn(interruptible(job, interrupt));
    let shown = show(&events, progress);
    let outcome = runtime.block_on(running).map_err(|lost| failed("finish the run", lost.into()))?;
    // A query that cannot be interrupted must not hold the process: its sink was closed already.
    runtime.shutdown_background();
    if let Err(cause) = shown {
        // What became of the run decides the exit code, whoever reads the output.
        tracing::warn!("the output could not be written: {cause}");
    }
    Ok(outcome)
}

/// Shows events until the run has dropped its end of the channel.
fn show(events: &Receiver<RunEvent>, progress: &mut Progress<'_>) -> std::io::Result<()> {
    let mut shown = Ok(());
    for event in events {
        // When nobody reads any more the run goes on: it is not for the reader that it runs.
        shown = shown.and_then(|()| progress.event(&event));
        if matches!(event, RunEvent::RunFinished { .. }) {
            break;
        }
    }
    shown
}

fn job(
    prepared: Prepared,
    budget: &Budget,
    log: &Log,
    events: SyncSender<RunEvent>,
    temp_dir: PathBuf,
) -> Result<Arc<Job>, Failure> {
    let observer = Arc::new(move |event: RunEvent| match event {
        // Progress is worth nothing late, everything else is waited for; without a display nobody misses it.
        RunEvent::NodeProgress { .. } => drop(events.try_send(event)),
        event => drop(events.send(event)),
    });
    let facts = LibraryFacts { threads: budget.blocking };
    let loader = Loader::new(Arc::new(LibraryServices::new(log.clone())), facts)?;
    let libraries = run::load_libraries(&prepared.plan, &prepared.libraries, &loader)?;
    Ok(Arc::new(Job {
        run_id: run_id(),
        plan: prepared.plan,
        context: prepared.context,
        folder: prepared.folder,
        temp_dir,
        libraries,
        limits: Limits { blocking_threads: budget.blocking },
        shared: Arc::new(Shared::new(log.clone(), observer)),
    }))
}

/// Runs to the end, or until a signal; a second signal does not wait.
async fn interruptible(job: Arc<Job>, interrupt: CancellationToken) -> Outcome {
    let run = run::run(job, interrupt.clone());
    tokio::pin!(run);
    let mut signals = Signals::new();
    loop {
        tokio::select! {
            outcome = &mut run => return outcome,
            () = signals.next() => {
                if interrupt.is_cancelled() {
                    std::process::exit(Exit::Cancelled as i32);
                }
                tracing::warn!("stopping; once more to stop at once");
                interrupt.cancel();
            }
        }
    }
}

struct Signals {
    each: Vec<Signal>,
}

impl Signals {
    fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self { each: kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect() }
    }

    async fn next(&mut self) {
        std::future::poll_fn(|cx| {
            let arrived = self.each.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if arrived { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

/// `20250115T093000-4711`: when, and which process.
fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
    format!("{now}-{}", std::process::id())
}

/// A folder for this run; those of processes that are gone are swept first.
fn temp_dir() -> std::io::Result<tempfile::TempDir> {
    let all = std::env::temp_dir();
    for entry in std::fs::read_dir(&all)?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("pype-run-")?.split('-').next()?.parse().ok());
        if process.is_some_and(|process: u32| !Path::new(&format!("/proc/{process}")).exists()) {
            // Somebody else's, or swept by another run at this moment.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
    tempfile::Builder::new().prefix(&format!("pype-run-{}-", std::process::id())).tempdir()
}
