//! `pype run` of a pipeline, and what the commands around pipelines share.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::MultiProgress;
use pype_core::name::NodeId;
use pype_core::pipeline::context::Context;
use pype_core::template::{self, SecretUse};
use pype_plugin::host::LibraryFacts;
use pype_plugin::queue::{Job, JobState};
use pype_plugin::{Error, ErrorKind};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::flow::{FlowArgs, GivenArgs, print_text};
use super::render::{Failure, shown};
use super::run::{Budget, LogFormat, failed, forget_variables, print_log, runtime, start_log_to};
use super::signals;
use crate::loader::Loader;
use crate::observe::log::{Filter, Log, Writer};
use crate::observe::spans::{self, Exporter, Spans};
use crate::pipeline::{
    Answer, Asked, Metrics, OpenError, Opened, ServeError, Surroundings, Worker, WorkerLimits, logged,
};
use crate::prepare::{DocumentKind, LibraryFile, PrepareError, PreparedPipeline, kind_of, prepare_pipeline};
use crate::run::LibraryServices;
use crate::secret::{self, Origin, SecretError, Secrets};

/// How often a caller that waits for a job looks.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// How a process that runs pipelines behaves.
#[derive(Args)]
pub(crate) struct HostArgs {
    /// Which log records are kept: `info`, or `warn,my_plugin=debug`.
    #[arg(long, value_name = "FILTER", env = "PYPE_LOG", default_value = "info")]
    pub(super) log: Filter,
    /// How log records look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Threads for blocking work; twice the cores without it.
    #[arg(long, value_name = "N", env = "PYPE_THREADS")]
    pub(super) threads: Option<NonZeroUsize>,
}

/// A process that can open pipelines.
pub(super) struct Host {
    // The first to go: it sends what is left while there are a runtime and a log.
    _exporter: Option<Exporter>,
    spans: Spans,
    pub(super) runtime: Runtime,
    /// Fires at the first signal.
    pub(super) stop: CancellationToken,
    loader: Loader<LibraryServices>,
    /// Of all pipelines.
    pub(super) metrics: Metrics,
    /// What is drawn on it stays below the log.
    pub(super) terminal: MultiProgress,
    log: Log,
    _writer: Writer,
    threads: usize,
}

impl Host {
    /// Starts the log, the runtime and the watch for signals. Called once, while the process has one thread: after
    /// [`with_secrets`].
    pub(super) fn start(args: &HostArgs) -> Result<Self, Failure> {
        let budget = Budget::new(args.threads);
        budget.announce();
        let terminal = MultiProgress::new();
        let above = terminal.clone();
        let (log, writer) = start_log_to(args.log.clone(), args.log_format, move |lines| {
            above.suspend(|| print_log(lines));
        });
        let runtime = runtime()?;
        let stop = CancellationToken::new();
        signals::watch(stop.clone()).map_err(|cause| failed("watch for signals", cause))?;
        let facts = LibraryFacts { threads: budget.blocking };
        let loader = Loader::new(Arc::new(LibraryServices::new(log.clone())), facts)?;
        let (spans, metrics, threads) = (Spans::default(), Metrics::default(), budget.blocking);
        Ok(Self { _exporter: None, spans, runtime, stop, loader, metrics, terminal, log, _writer: writer, threads })
    }

    /// From now on runs and jobs are traced, if the environment asks for it.
    pub(super) fn traced(self) -> Self {
        match spans::from_environment(self.runtime.handle()) {
            Some((spans, exporter)) => Self { spans, _exporter: Some(exporter), ..self },
            None => self,
        }
    }

    /// What the stages of a pipeline have around them. From now on the log and its spans mask its secrets.
    pub(super) fn around(&self, ready: &Ready) -> Surroundings {
        let Ready { prepared, secrets } = ready;
        let (context, folder) = (prepared.context.clone(), prepared.folder.clone());
        self.surroundings(context, folder, prepared.libraries.clone(), secrets)
    }

    /// What the modules of a document have around them.
    pub(super) fn surroundings(
        &self,
        context: template::Context,
        folder: PathBuf,
        libraries: BTreeMap<NodeId, LibraryFile>,
        secrets: &Secrets,
    ) -> Surroundings {
        self.log.hide(secrets.redactor());
        self.spans.hide(secrets.redactor());
        Surroundings {
            context,
            secrets: secrets.clone(),
            folder,
            libraries,
            threads: self.threads,
            log: self.log.clone(),
            observer: logged(),
            metrics: self.metrics.clone(),
            spans: self.spans.clone(),
            post_mortems: PathBuf::new(),
        }
    }

    /// Opens a pipeline; those of `before` are closed if it does not open.
    pub(super) fn open(&self, ready: &Ready, before: &[Arc<Opened>]) -> Result<Arc<Opened>, Failure> {
        let around = self.around(ready);
        self.runtime.block_on(async {
            let opened = tokio::select! {
                opened = Opened::open(ready.prepared.plan.clone(), &around, &self.loader) => opened.map_err(Failure::from),
                () = self.stop.cancelled() => Err(stopped()),
            };
            if opened.is_err() {
                close_all(before).await;
            }
            opened
        })
    }

    /// Opens all of them.
    pub(super) fn open_all(&self, ready: &[Ready]) -> Result<Vec<Arc<Opened>>, Failure> {
        let mut opened = Vec::with_capacity(ready.len());
        for one in ready {
            opened.push(self.open(one, &opened)?);
        }
        Ok(opened)
    }

    pub(super) fn loader(&self) -> &Loader<LibraryServices> {
        &self.loader
    }
}

pub(super) async fn close_all(opened: &[Arc<Opened>]) {
    for one in opened {
        one.close().await;
    }
}

pub(super) fn stopped() -> Failure {
    Failure { exit: Exit::Cancelled, ..Failure::invalid("cancelled", "it was stopped before it was open") }
}

/// A pipeline, and the secrets that it names.
pub(super) struct Ready {
    pub(super) prepared: PreparedPipeline,
    pub(super) secrets: Secrets,
}

/// Asks for the secrets that pipelines name.
pub(super) fn with_secrets(prepared: Vec<PreparedPipeline>, origin: Option<&Origin>) -> Result<Vec<Ready>, Failure> {
    with(prepared, origin, PreparedPipeline::secrets)
}

/// Asks for those that their queues need.
pub(super) fn with_secrets_of_queue(prepared: PreparedPipeline, origin: Option<&Origin>) -> Result<Ready, Failure> {
    let mut ready = with(vec![prepared], origin, PreparedPipeline::secrets_of_queue)?;
    Ok(ready.pop().expect("as many as were given"))
}

/// Asks for the secrets of one document, as [`with_secrets`] does for pipelines.
pub(super) fn fetched(origin: Option<&Origin>, uses: &[SecretUse], document: &Path) -> Result<Secrets, Failure> {
    let secrets = fetch_in(&asking()?, origin, uses, document);
    forget_variables();
    secrets
}

/// Takes what it has asked for out of the environment: plugins share that.
fn with(
    prepared: Vec<PreparedPipeline>,
    origin: Option<&Origin>,
    uses: impl Fn(&PreparedPipeline) -> Vec<SecretUse>,
) -> Result<Vec<Ready>, Failure> {
    let runtime = asking()?;
    let one = |prepared: PreparedPipeline| {
        let secrets = fetch_in(&runtime, origin, &uses(&prepared), &prepared.plan.source().path)?;
        Ok(Ready { prepared, secrets })
    };
    let ready = prepared.into_iter().map(one).collect();
    drop(runtime);
    forget_variables();
    ready
}

/// The runtime that secrets are asked for in: gone, with its threads, before anything else begins.
fn asking() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|cause| failed("start the runtime", cause))
}

/// Secrets; those that are not there are printed.
fn fetch_in(
    runtime: &Runtime,
    origin: Option<&Origin>,
    uses: &[SecretUse],
    document: &Path,
) -> Result<Secrets, Failure> {
    match runtime.block_on(secret::fetch(origin, uses, document)) {
        Err(SecretError::Missing(missing)) => {
            print_text(&missing)?;
            Err(SecretError::Missing(missing).into())
        }
        secrets => Ok(secrets?),
    }
}

/// The documents that a command is given, and what goes with them.
#[derive(Args)]
pub(crate) struct DocumentsArgs {
    /// Pipelines; of a folder all `*.yaml` in it that declare one.
    #[arg(required = true, value_name = "PIPELINE")]
    documents: Vec<PathBuf>,
    #[command(flatten)]
    given: GivenArgs,
}

impl DocumentsArgs {
    /// All of them, loaded and planned. What is wrong with any is printed.
    pub(super) fn prepare(&self) -> Result<Vec<PreparedPipeline>, Failure> {
        let mut prepared: BTreeMap<String, (PathBuf, PreparedPipeline)> = BTreeMap::new();
        let mut invalid = false;
        for path in self.paths()? {
            match prepare_pipeline(&path, &self.given.given()) {
                Ok(one) => {
                    print_text(&one.warnings)?;
                    let name = one.plan.name().to_string();
                    if let Some((other, _)) = prepared.insert(name.clone(), (path.clone(), one)) {
                        let message = format!("`{name}` is in {} and in {}", shown(&other), shown(&path));
                        return Err(Failure::invalid("twice", message).hint("give one of them another name"));
                    }
                }
                Err(PrepareError::Invalid(found)) => {
                    print_text(&found)?;
                    invalid = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if invalid {
            return Err(Failure::invalid("invalid", "not every pipeline is valid").hint("mend what is listed above"));
        }
        if prepared.is_empty() {
            return Err(Failure::invalid("no-pipelines", "there is no pipeline")
                .hint("name a YAML file with `pipeline:` in it, or a folder of such"));
        }
        Ok(prepared.into_values().map(|(_, one)| one).collect())
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut all = Vec::new();
        for document in &self.documents {
            if !document.is_dir() {
                all.push(document.clone());
                continue;
            }
            let unreadable = |cause: std::io::Error| {
                Failure::invalid("io", format!("cannot read `{}`: {cause}", document.display()))
            };
            let entries = fs::read_dir(document).map_err(unreadable)?.collect::<Result<Vec<_>, _>>();
            let mut paths: Vec<PathBuf> = entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()).collect();
            paths.sort();
            let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            paths.retain(|path| is_yaml(path) && may_be_pipeline(path));
            all.extend(paths);
        }
        Ok(all)
    }
}

/// What cannot be read is told by whoever reads it next.
fn may_be_pipeline(path: &Path) -> bool {
    kind_of(path).map_or(true, |kind| kind == DocumentKind::Pipeline)
}

/// Runs a pipeline once.
pub(super) fn run(
    args: &FlowArgs,
    input: Option<&Path>,
    wait: bool,
    host: &HostArgs,
    origin: Option<&Origin>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let Some(prepared) = args.prepare_pipeline(out)? else { return Ok(Exit::Invalid) };
    if !prepared.warnings.is_empty() {
        print_text(&prepared.warnings)?;
    }
    let context = context(&prepared, input)?;
    let warnings = prepared.warnings.clone();
    let ready = with_secrets(vec![prepared], origin)?;
    let host = Host::start(host)?.traced();
    let opened = host.open(&ready[0], &[])?;
    let stop = host.stop.clone();
    let exit = host.runtime.block_on(async {
        let asked = opened.run(context, Asked::default());
        let answer = tokio::select! {
            answer = asked => Some(answer),
            () = stop.cancelled() => None,
        };
        let exit = match answer {
            None => Ok(Exit::Cancelled),
            Some(Err(error)) => Err(of_run(&error)),
            Some(Ok(Answer::Done(result))) => print(out, &result),
            Some(Ok(Answer::Accepted(accepted))) if !wait => print(out, &json!({ "job_id": accepted.id })),
            Some(Ok(Answer::Accepted(accepted))) => work_on(&opened, &accepted.id, &stop, out).await,
        };
        opened.close().await;
        exit
    })?;
    Ok(if exit == Exit::Ok { args.exit_with(&warnings) } else { exit })
}

/// Works until the job is over, and prints its result.
async fn work_on(
    opened: &Arc<Opened>,
    id: &str,
    stop: &CancellationToken,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let enough = stop.child_token();
    let worker = tokio::spawn(Worker::new([opened.clone()], WorkerLimits::default()).only(id).run(enough.clone()));
    let queue = opened.queue().expect("it has accepted a job");
    let job = loop {
        match queue.job(id).await {
            Ok(Some(job)) if !job.state.is_over() && !stop.is_cancelled() => tokio::time::sleep(LOOKS_EVERY).await,
            job => break job,
        }
    };
    enough.cancel();
    worker.await.map_err(|lost| failed("end the worker", lost.into()))?;
    match job.map_err(|error| of_queue(&error))? {
        Some(Job { state: JobState::Succeeded, result, .. }) => print(out, &result.unwrap_or_default()),
        Some(Job { state: JobState::Failed | JobState::Dead, error: Some(error), .. }) => Err(of_run(&error)),
        // It was called off, or this process is to end: the job stays in its queue.
        Some(_) | None => Ok(Exit::Cancelled),
    }
}

fn print(out: &mut dyn Write, value: &Value) -> Result<Exit, Failure> {
    writeln!(out, "{value}")?;
    Ok(Exit::Ok)
}

/// The context that the user gives.
fn context(prepared: &PreparedPipeline, input: Option<&Path>) -> Result<Context, Failure> {
    let text = match input {
        None => "{}".to_owned(),
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        Some(path) => fs::read_to_string(path)
            .map_err(|cause| Failure::invalid("io", format!("cannot read `{}`: {cause}", path.display())))?,
    };
    let place = input.map_or_else(|| "the context".to_owned(), |path| path.display().to_string());
    let value: Value = serde_json::from_str(&text).map_err(|cause| {
        Failure::invalid("bad-json", format!("{place}:{}:{}: {cause}", cause.line(), cause.column()))
    })?;
    Context::from_json(prepared.plan.context(), value).map_err(|error| {
        let meant: Vec<String> = error.meant().map(|field| format!("`{field}`")).collect();
        let hint = match meant.is_empty() {
            true => {
                "give the fields that the pipeline's `context` declares, in a JSON file: --input ctx.json".to_owned()
            }
            false => format!("did you mean {}?", meant.join(", ")),
        };
        Failure::invalid("bad-context", error.to_string()).place(place).hint(hint)
    })
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Library(error) => error.into(),
            OpenError::Scratch(_) => Failure { exit: Exit::Failed, ..Failure::invalid("io", error.to_string()) },
            OpenError::Stage { pipeline, stage, error } => {
                let failure = Failure::from(&error).place(format!("the stage `{stage}` of `{pipeline}`"));
                Failure { exit: Exit::Failed, ..failure }
            }
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Failure::invalid("serve", error.to_string());
        match error {
            ServeError::Listen { .. } => failure.hint("is another process there? --listen takes another address"),
        }
    }
}

/// A failure of a run.
fn of_run(error: &Error) -> Failure {
    let exit = match error.kind {
        ErrorKind::TimedOut => Exit::TimedOut,
        _ => Exit::Failed,
    };
    Failure { exit, ..Failure::from(error) }
}

/// A failure of a queue.
pub(super) fn of_queue(error: &Error) -> Failure {
    Failure { exit: Exit::Failed, ..Failure::from(error) }
}
