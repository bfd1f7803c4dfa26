//! `pype run` of a stream.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};
use pype_core::stream::control::{PartitionState, StreamState, Totals};
use pype_core::stream::plan::{Handle, Plan};
use tokio::task::JoinHandle;

use super::Exit;
use super::flow::{FlowArgs, print_text};
use super::pipeline::{Host, HostArgs, fetched, stopped};
use super::render::Failure;
use crate::pipeline::Surroundings;
use crate::prepare::{PreparedPipeline, PreparedStream};
use crate::secret::Origin;
use crate::stream::{HandledBy, OpenedStream, Shown, StreamError, StreamOpenError, Watched, blocking};

/// So often the terminal shows how it goes on, or without one the log.
const DRAWN_EVERY: Duration = Duration::from_millis(500);
const LOGGED_EVERY: Duration = Duration::from_secs(10);
/// What holds a partition back for so long is told.
const SLOW: Duration = Duration::from_secs(5);

/// Runs a stream until it is stopped.
pub(super) fn run(
    args: &FlowArgs,
    post_mortems: PathBuf,
    host: &HostArgs,
    origin: Option<&Origin>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let Some(prepared) = args.prepare_stream(out)? else { return Ok(Exit::Invalid) };
    if !prepared.warnings.is_empty() {
        print_text(&prepared.warnings)?;
    }
    let warnings = prepared.warnings.clone();
    let secrets = fetched(origin, &prepared.secrets(), &prepared.plan.document.path)?;
    let host = Host::start(host)?.traced();
    let PreparedStream { plan, context, folder, libraries, pipeline, .. } = prepared;
    let in_folder = |around| Surroundings { post_mortems: post_mortems.clone(), ..around };
    let around = in_folder(host.surroundings(context, folder, libraries, &secrets));
    let pipeline = pipeline.map(|PreparedPipeline { plan, context, folder, libraries, .. }| {
        (plan, in_folder(host.surroundings(context, folder, libraries, &secrets)))
    });
    let state = host.runtime.block_on(async {
        let handled_by = pipeline.as_ref().map(|(plan, around)| HandledBy { plan, around });
        let opened = tokio::select! {
            opened = OpenedStream::open(plan, &around, handled_by, host.loader()) => opened.map_err(Failure::from)?,
            () = host.stop.cancelled() => return Err(stopped()),
        };
        let name = opened.plan().name.to_string();
        let served = opened.serve_metrics().await.map_err(|cause| {
            Failure::invalid("metrics", format!("the metrics cannot be served: {cause}"))
                .hint("choose another address for `metrics.listen`, or leave it out")
        })?;
        if let Some(address) = served {
            tracing::info!(stream = name, "metrics at http://{address}/metrics");
        }
        tracing::info!(stream = name, "running; Ctrl-C ends it");
        let status = Status::show(&host.terminal, &name, opened.watched());
        let ended = opened.run(host.stop.clone()).await.map_err(Failure::from);
        status.end();
        ended
    })?;
    writeln!(out, "{}", told(&state))?;
    Ok(args.exit_with(&warnings))
}

/// The line at the bottom of the terminal. Where there is none, a record of the log from time to time.
struct Status {
    line: ProgressBar,
    task: JoinHandle<()>,
}

impl Status {
    fn show(terminal: &MultiProgress, name: &str, watched: Watched) -> Self {
        let line = terminal.add(ProgressBar::new_spinner());
        let (drawn, name) = (line.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let every = if drawn.is_hidden() { LOGGED_EVERY } else { DRAWN_EVERY };
            let mut ticks = tokio::time::interval(every);
            let (mut before, mut told) = (0, String::new());
            loop {
                ticks.tick().await;
                let Some(shown) = watched.shown() else { continue };
                let completed = shown.state.totals.completed;
                let rate = (completed - before) as f64 / every.as_secs_f64();
                before = completed;
                let text = in_numbers(&shown, rate);
                if drawn.is_hidden() {
                    if text != told {
                        tracing::info!(stream = name, "{text}");
                    }
                } else {
                    drawn.set_message(format!("{name}: {text}"));
                    drawn.tick();
                }
                told = text;
            }
        });
        Self { line, task }
    }

    fn end(self) {
        self.task.abort();
        self.line.finish_and_clear();
    }
}

fn in_numbers(Shown { state, partitions }: &Shown, rate: f64) -> String {
    let sum = |of: fn(&PartitionState) -> u64| state.partitions.iter().map(of).sum::<u64>();
    let (lag, parked) = (sum(|one| one.lag.unwrap_or_default()), sum(|one| one.parked as u64));
    let Totals { completed, dead_letters, .. } = state.totals;
    let mut text = format!("{completed} done, {rate:.0}/s, lag {lag}, {} in flight", state.running);
    if parked > 0 {
        text += &format!(", {parked} to be tried again");
    }
    if dead_letters > 0 {
        text += &format!(", {dead_letters} dead letters");
    }
    let oldest = state.partitions.iter().zip(partitions).max_by_key(|(one, _)| one.blocked_for);
    if let Some((one, partition)) = oldest.filter(|(one, _)| one.blocked_for.is_some_and(|blocked| blocked >= SLOW)) {
        text += &format!("; {}", blocking(one, partition));
    }
    text
}

/// What a stream has done, in a line.
fn told(state: &StreamState) -> String {
    let Totals { completed, done_before, failed, dead_letters, commits, .. } = state.totals;
    let mut text = format!("{completed} records done, {commits} commits");
    for (count, what) in [(done_before, "done before"), (failed, "attempts failed"), (dead_letters, "dead letters")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// What a stream is, in a line.
pub(super) fn in_a_line(plan: &Plan) -> String {
    let handled = match &plan.handle {
        Handle::Pipeline(per_record) => format!("each record to {}", per_record.path.value),
        Handle::Batch(per_batch) => {
            let modules = per_batch.flow.nodes().len() - 1;
            format!("batches through {modules} module{}", if modules == 1 { "" } else { "s" })
        }
    };
    format!("[{}] → {handled}", plan.source.module)
}

impl From<StreamOpenError> for Failure {
    fn from(error: StreamOpenError) -> Self {
        match error {
            StreamOpenError::Module(error) => error.into(),
            StreamOpenError::Child(ref cause) => {
                let failure = Self { exit: Exit::Failed, ..Self::invalid("stream", error.to_string()) };
                match &cause.hint {
                    Some(hint) => failure.hint(hint.clone()),
                    None => failure,
                }
            }
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        let failure = Self { exit: Exit::Failed, ..Self::invalid("stream", error.to_string()) };
        match error {
            StreamError::Source(error) | StreamError::Handler(error) => match error.hint.clone() {
                Some(hint) => failure.hint(hint),
                None => failure,
            },
            StreamError::Record { .. } => {
                failure.hint("mend what fails, or give the stream a `dead_letter`; it goes on from this record")
            }
        }
    }
}
