//! `pype run`: prepares, runs, shows.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use pype_core::run::event::RunEvent;
use pype_core::run::previous::Previous;
use pype_core::run::scheduler::{Outcome, Verdict};
use pype_plugin::host::LibraryFacts;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;

use super::Exit;
use super::events;
use super::flow::{FlowArgs, print_text};
use super::pipeline::{self, HostArgs};
use super::progress::Progress;
use super::render::{self, Failure, Style};
use super::select::{Part, SelectArgs};
use super::signals;
use super::stream;
use crate::artifact::{Policy, RamLimit};
use crate::loader::Loader;
use crate::observe::log::{self, Filter, Log, Writer};
use crate::prepare::{DocumentKind, Prepared};
use crate::run::services::Shared;
use crate::run::{self, Job, LibraryServices, Limits, Mocks, Store};
use crate::runs::{self, Journal, PastRun, RunFolder, RunsError, Which};
use crate::secret::{self, Origin, SecretError, Secrets};
use crate::worker::{Around, POST_MORTEMS};

/// Runs a flow, and shows what happens; or a pipeline, once; or a stream, until it is stopped.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype run flow.yaml
  pype run flow.yaml --context prod --set day=2025-01-15
  pype run jobs/my_flow                     a job folder that pype build made
  pype run flow.yaml --select +report       the sub flow of `report` and all that it depends on
  pype run flow.yaml --select 'tier in (gold, silver)' --exclude beta+
                                            what is labelled so, but for beta and what depends on it
  pype run flow.yaml --resume               where the last run of this flow stopped
  pype run flow.yaml --json | jq .event     one event a line
  pype run upload.yaml --input ctx.json     a pipeline: its result, or the id of its job
  pype run orders.yaml                      a stream, until Ctrl-C or SIGTERM: what is done by then is committed

Secrets, for {{secret.db.password}} in configs:
  PYPE_SECRET_DB_PASSWORD=… pype run flow.yaml
  pype run flow.yaml --secrets file:secrets.yaml      db: {password: …}, with mode 600
  VAULT_ADDR=https://vault:8200 pype run flow.yaml    `password` at secret/db
  pype run flow.yaml --secrets vault:kv/team          another mount")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Of a pipeline: the context, a JSON file; `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Of a pipeline: work on the job here too, and wait for its result.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    part: SelectArgs,
    /// Goes on with a run that did not succeed, or whose flow or inputs have changed: what is still as it was is used
    /// again. Without an id, the last run of the flow.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    resume: Option<Which>,
    #[command(flatten)]
    runs: RunsFolder,
    /// Which log records are kept: `info`, or `warn,my_plugin=debug`.
    #[arg(long, value_name = "FILTER", env = "PYPE_LOG", default_value = "info")]
    log: Filter,
    /// How log records look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Let a failure that an `error` edge handles fail the run too.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    secrets: SecretsArgs,
    /// Threads for blocking work; the flow's `threads` comes next, then twice the cores.
    #[arg(long, value_name = "N", env = "PYPE_THREADS")]
    threads: Option<NonZeroUsize>,
}

/// Where secrets come from.
#[derive(Args)]
pub(crate) struct SecretsArgs {
    /// Where secrets come from: `env`, `file:PATH`, or `vault[:MOUNT]`, a KV store of version 2. Without it: Vault where
    /// VAULT_ADDR is set, otherwise the environment.
    #[arg(long, value_name = "ORIGIN", env = "PYPE_SECRETS")]
    secrets: Option<Origin>,
}

impl SecretsArgs {
    /// What was asked for.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.secrets.as_ref()
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(args: &RunArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let host = || HostArgs { log: args.log.clone(), log_format: args.log_format, threads: args.threads };
    let origin = args.secrets.origin();
    match args.flow.kind() {
        DocumentKind::Flow => {}
        DocumentKind::Pipeline => {
            return pipeline::run(&args.flow, args.input.as_deref(), args.wait, &host(), origin, out);
        }
        DocumentKind::Stream => {
            let post_mortems = args.runs.of(&args.flow.flow).join(POST_MORTEMS);
            return stream::run(&args.flow, post_mortems, &host(), origin, out);
        }
    }
    let Some(Part { prepared, left_out }) = args.part.prepare(&args.flow, out)? else { return Ok(Exit::Invalid) };
    if !prepared.warnings.is_empty() {
        // As text with --json too: there, the output is for events.
        print_text(&prepared.warnings)?;
    }
    let if_it_succeeds = args.flow.exit(&prepared);
    let budget = Budget::new(args.threads.or(prepared.plan.settings.threads));
    budget.announce();
    let Some(secrets) = secrets(args, &prepared, out)? else { return Ok(Exit::Invalid) };
    forget_variables();
    let mut progress = match args.flow.json {
        true => Progress::for_programs(out),
        false => Progress::for_people(out, Style::of(&std::io::stdout())),
    };
    progress.leaves_out(&left_out);
    let (log, writer) = start_log(args, &progress);
    let outcome =
        session(args, &prepared).and_then(|session| go(prepared, secrets, session, &budget, &log, &mut progress));
    drop(writer);
    let outcome = outcome?;
    Ok(match if args.strict { outcome.strict_verdict() } else { outcome.verdict() } {
        Verdict::Succeeded => if_it_succeeds,
        Verdict::Failed => Exit::Failed,
        Verdict::TimedOut => Exit::TimedOut,
        Verdict::Cancelled => Exit::Cancelled,
    })
}

/// How many threads a process may use. Fixed once: pools take their size when they are first used.
pub(super) struct Budget {
    pub(super) blocking: usize,
    compute: usize,
}

impl Budget {
    pub(super) fn new(asked: Option<NonZeroUsize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let blocking = asked.map_or(cores * 2, NonZeroUsize::get);
        Self { blocking, compute: blocking.min(cores) }
    }

    /// Tells the engines inside plugins, which read their pool's size from the environment.
    pub(super) fn announce(&self) {
        for name in ["POLARS_MAX_THREADS", "RAYON_NUM_THREADS"] {
            if std::env::var_os(name).is_none() {
                // SAFETY: this process has one thread so far.
                unsafe { std::env::set_var(name, self.compute.to_string()) };
            }
        }
    }
}

/// Asks for the secrets that the flow names; those that are not there are printed, and nothing runs.
fn secrets(args: &RunArgs, prepared: &Prepared, out: &mut dyn Write) -> Result<Option<Secrets>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| failed("start the runtime", cause))?;
    let plan = &prepared.plan;
    match runtime.block_on(secret::fetch(args.secrets.origin(), &secret::uses(plan), &plan.source.path)) {
        Ok(secrets) => Ok(Some(secrets)),
        Err(SecretError::Missing(missing)) => args.flow.print(&missing, out).map(|()| None),
        Err(error) => Err(error.into()),
    }
}

/// Plugins share this process's environment, and what they start inherits it; secrets are handed out by name.
pub(super) fn forget_variables() {
    for name in secret::variables() {
        // SAFETY: this process has one thread: the runtime that asked for secrets took its own along.
        unsafe { std::env::remove_var(name) };
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        let exit = match &error {
            SecretError::Unreachable { .. } | SecretError::Refused { .. } => Exit::Failed,
            SecretError::Missing(_)
            | SecretError::Io { .. }
            | SecretError::Exposed { .. }
            | SecretError::Malformed { .. }
            | SecretError::NoAddress
            | SecretError::BadAddress
            | SecretError::NoToken { .. }
            | SecretError::Certificate { .. } => Exit::Invalid,
        };
        Self { exit, ..Self::invalid("secrets", error.to_string()).hint(error.hint()) }
    }
}

pub(super) fn failed(what: &str, cause: std::io::Error) -> Failure {
    Failure { exit: Exit::Failed, ..Failure::invalid("host", format!("cannot {what}: {cause}")) }
}

fn start_log(args: &RunArgs, progress: &Progress<'_>) -> (Log, Writer) {
    let live = progress.live();
    start_log_to(args.log.clone(), args.log_format, move |lines| match &live {
        Some(bars) => bars.suspend(|| print_log(lines)),
        None => print_log(lines),
    })
}

/// Standard error is the last resort: if it is gone, there is nobody to tell.
pub(super) fn print_log(lines: &str) {
    drop(std::io::stderr().write_all(lines.as_bytes()));
}

/// The log of this process.
pub(super) fn start_log_to(
    filter: Filter,
    format: LogFormat,
    print: impl FnMut(&str) + Send + 'static,
) -> (Log, Writer) {
    let format = match format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let (log, writer) = log::start(filter, format, print);
    let subscriber = tracing_subscriber::registry().with(log.clone());
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("the process has a subscriber of its own: the host's records go there");
    }
    (log, writer)
}

/// A run's folder, and what is in it from earlier sessions.
struct Session {
    folder: RunFolder,
    previous: Previous,
}

fn session(args: &RunArgs, prepared: &Prepared) -> Result<Session, Failure> {
    let runs = args.runs.of(&args.flow.flow);
    let flow = prepared.plan.name.as_str();
    Ok(match &args.resume {
        None => Session { folder: RunFolder::create(&runs, flow)?, previous: Previous::default() },
        Some(which) => {
            let (folder, records) = RunFolder::resume(&runs, which, flow)?;
            let of = records.iter().rev().find_map(|record| match &record.event {
                RunEvent::RunStarted { flow, .. } => Some(flow.to_string()),
                _ => None,
            });
            if let Some(other) = of.filter(|of| of != flow) {
                let message = format!("the run `{}` is one of the flow `{other}`, not of `{flow}`", folder.id);
                return Err(Failure::invalid("runs", message).hint("`pype runs list` shows the runs that there are"));
            }
            Session { folder, previous: Previous::of(&records) }
        }
    })
}

fn go(
    prepared: Prepared,
    secrets: Secrets,
    session: Session,
    budget: &Budget,
    log: &Log,
    progress: &mut Progress<'_>,
) -> Result<Outcome, Failure> {
    let runtime = runtime()?;
    let interrupt = CancellationToken::new();
    signals::watch(interrupt.clone()).map_err(|cause| failed("watch for signals", cause))?;
    let scratch = session.folder.scratch().map_err(|cause| failed("make a temporary folder", cause))?;
    let (sender, events) = events::queue();
    let (journal, journal_writer) = session.folder.journal()?;
    let temp_dir = scratch.path().to_owned();
    let surroundings = Surroundings { secrets, budget, log, journal, temp_dir, mocks: None };
    let ending = sender.ending();
    let observer: run::Observer = Arc::new(move |event| sender.send(event));
    let kept =
        Kept { id: session.folder.id.clone(), folder: session.folder.path().to_owned(), previous: session.previous };
    session.folder.make_checkpoints()?;
    session.folder.keep_plan(&prepared.plan)?;
    log.belong_to(session.folder.tags(&prepared.plan.name), session.folder.log()?);
    let job = match job(prepared, kept, surroundings, observer) {
        Ok(job) => Arc::new(job),
        Err(failure) => {
            // Nothing has run: there is nothing to resume.
            session.folder.discard_unless_begun();
            return Err(failure);
        }
    };
    let running = runtime.spawn({
        let job = job.clone();
        async move {
            let _ending = ending;
            run::run(job, interrupt).await
        }
    });
    let shown = events.show(progress);
    let outcome = runtime.block_on(running).map_err(|lost| failed("finish the run", lost.into()))?;
    let written = journal_writer.finish();
    // A query that cannot be interrupted must not hold the process: its sink was closed already.
    runtime.shutdown_background();
    shown.unwrap_or_else(unread);
    written.map_err(|why| lost_journal(&session.folder, &why))?;
    // What became of the run decides the exit code, whatever becomes of its report.
    match runs::write_report(session.folder.path(), &job.plan) {
        Ok(report) => progress.note(&format!("report: {}", render::shown(&report))).unwrap_or_else(unread),
        Err(cause) => tracing::warn!("there is no report: {cause}"),
    }
    Ok(outcome)
}

/// What a run has around it.
struct Surroundings<'a> {
    secrets: Secrets,
    budget: &'a Budget,
    log: &'a Log,
    journal: Journal,
    temp_dir: PathBuf,
    mocks: Option<Arc<Mocks>>,
}

/// What a run has behind it.
struct Kept {
    id: String,
    folder: PathBuf,
    previous: Previous,
}

fn job(prepared: Prepared, kept: Kept, around: Surroundings<'_>, observer: run::Observer) -> Result<Job, Failure> {
    let Surroundings { secrets, budget, log, journal, temp_dir, mocks } = around;
    let facts = LibraryFacts { threads: budget.blocking };
    let loader = Loader::new(Arc::new(LibraryServices::new(log.clone())), facts)?;
    let apart = Around {
        log: log.clone(),
        threads: budget.blocking,
        redactor: secrets.redactor().clone(),
        post_mortems: kept.folder.join(POST_MORTEMS),
    };
    let libraries = run::load_libraries(&prepared.plan, &prepared.libraries, &loader, &apart)?;
    let settings = &prepared.plan.settings;
    let policy =
        Policy { spill_threshold_rows: settings.spill_threshold_rows, ram: RamLimit::share(settings.max_ram_share) };
    Ok(Job {
        run_id: kept.id,
        context: prepared.context,
        folder: prepared.folder,
        run_folder: kept.folder,
        session: kept.previous.sessions + 1,
        previous: kept.previous,
        libraries,
        key: match secret::uses(&prepared.plan).is_empty() {
            true => None,
            false => Some(secret::Key::of_user()?),
        },
        mocks,
        wirings: run::wirings(&prepared.plan),
        limits: Limits { blocking_threads: budget.blocking },
        shared: Arc::new(Shared::new(
            log.clone(),
            observer,
            secrets,
            Store { journal, policy, spill_folder: temp_dir.clone() },
        )),
        temp_dir,
        plan: prepared.plan,
    })
}

/// The job that a resume of `past` would run, and a runtime for it. Nothing of it is written anywhere.
pub(crate) fn planned_job(
    prepared: Prepared,
    past: &PastRun,
    secrets: Option<&Origin>,
) -> Result<(Job, Runtime), Failure> {
    let runtime = runtime()?;
    let (log, _) = log::start(Filter::default(), log::Format::Text, |_| {});
    let (journal, _) =
        tempfile::tempfile().and_then(Journal::start).map_err(|cause| failed("make a temporary file", cause))?;
    let secrets =
        runtime.block_on(secret::fetch(secrets, &secret::uses(&prepared.plan), &prepared.plan.source.path))?;
    let budget = Budget::new(prepared.plan.settings.threads);
    let temp_dir = std::env::temp_dir();
    let around = Surroundings { secrets, budget: &budget, log: &log, journal, temp_dir, mocks: None };
    let session = Kept { id: past.id.clone(), folder: past.path.clone(), previous: Previous::of(&past.records) };
    let job = job(prepared, session, around, Arc::new(|_| {}))?;
    Ok((job, runtime))
}

/// The job of a test, which keeps what it must in `folder`.
pub(crate) fn tested_job(
    prepared: Prepared,
    folder: &Path,
    observer: run::Observer,
    mocks: Arc<Mocks>,
    runtime: &Runtime,
    secrets: Option<&Origin>,
) -> Result<Job, Failure> {
    let (log, _) = log::start(Filter::default(), log::Format::Text, |_| {});
    let run = RunFolder::create(folder, prepared.plan.name.as_str())?;
    let (journal, _) = run.journal()?;
    let secrets =
        runtime.block_on(secret::fetch(secrets, &secret::uses(&prepared.plan), &prepared.plan.source.path))?;
    let budget = Budget::new(prepared.plan.settings.threads);
    let (temp_dir, mocks) = (folder.to_owned(), Some(mocks));
    let around = Surroundings { secrets, budget: &budget, log: &log, journal, temp_dir, mocks };
    run.make_checkpoints()?;
    let kept = Kept { id: run.id.clone(), folder: run.path().to_owned(), previous: Previous::default() };
    job(prepared, kept, around, observer)
}

/// The host's runtime.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|cause| failed("start the runtime", cause))?;
    pype_plugin::host::adopt_runtime(runtime.handle().clone());
    Ok(runtime)
}

/// What became of the run decides the exit code, whoever reads the output.
#[allow(clippy::needless_pass_by_value, reason = "it takes the error of a result")]
fn unread(cause: std::io::Error) {
    tracing::warn!("the output could not be written: {cause}");
}

fn lost_journal(folder: &RunFolder, why: &str) -> Failure {
    let message = format!("the log of the run in `{}` could not be written: {why}", folder.path().display());
    let failure = Failure { exit: Exit::Failed, ..Failure::invalid("run-log", message) };
    failure.hint("make room, then go on with `pype run … --resume`: what is written there is whole")
}

impl From<RunsError> for Failure {
    fn from(error: RunsError) -> Self {
        let hint = match &error {
            RunsError::NotThere { .. } | RunsError::NoneOf { .. } => {
                "`pype runs list` shows the runs that there are; `--runs DIR` looks elsewhere"
            }
            RunsError::Alive { .. } => "wait until it has ended, or stop it",
            RunsError::Plan { .. } => "use a newer pype, or start a new run",
            RunsError::Log { .. } => "start a new run without `--resume`",
            RunsError::Io { .. } => "`--runs DIR` keeps runs in another folder",
        };
        let exit = match &error {
            RunsError::Io { .. } => Exit::Failed,
            RunsError::NotThere { .. }
            | RunsError::NoneOf { .. }
            | RunsError::Alive { .. }
            | RunsError::Plan { .. }
            | RunsError::Log { .. } => Exit::Invalid,
        };
        Failure { exit, ..Failure::invalid("runs", error.to_string()).hint(hint) }
    }
}

/// Where runs are kept.
#[derive(Args)]
pub(crate) struct RunsFolder {
    /// Where runs are kept; else `runs` in the project, the nearest folder upward with a registry, else beside the flow.
    #[arg(long, value_name = "DIR", env = "PYPE_RUNS")]
    runs: Option<PathBuf>,
}

impl RunsFolder {
    /// The folder for the runs of what is at `document`.
    pub(crate) fn of(&self, document: &Path) -> PathBuf {
        self.runs.clone().unwrap_or_else(|| runs::folder_for(document))
    }
}
