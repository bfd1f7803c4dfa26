//! `pype jobs`: what is in the queue of a pipeline, and what can be done to it.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pype_core::human;
use pype_core::pipeline::plan::Plan;
use pype_plugin::Error;
use pype_plugin::host::Instance;
use pype_plugin::queue::{Job, JobAction, JobFilter, JobState, no_such_job};

use super::Exit;
use super::flow::GivenArgs;
use super::pipeline::{Host, HostArgs, of_queue, with_secrets_of_queue};
use super::render::{Failure, columns, printable};
use super::run::SecretsArgs;
use crate::clock::now_ms;
use crate::pipeline::{forget_large, open_queue};
use crate::prepare::{PrepareError, prepare_pipeline};

/// Lists, shows, retries, cancels and forgets the jobs of a pipeline.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype jobs upload.yaml list --state dead
  pype jobs upload.yaml show 0199…
  pype jobs upload.yaml retry 0199…        a job that failed, with all its attempts
  pype jobs upload.yaml purge --older-than 7")]
pub(crate) struct JobsArgs {
    /// The pipeline.
    pipeline: PathBuf,
    #[command(subcommand)]
    command: JobsCommand,
    #[command(flatten)]
    given: GivenArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(flatten)]
    host: HostArgs,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum JobsCommand {
    /// The jobs, the latest first.
    List {
        /// Only those in this state; may be repeated.
        #[arg(long, value_name = "STATE")]
        state: Vec<JobState>,
        /// So many at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// One job, with its result or error.
    Show {
        /// Its id.
        id: String,
    },
    /// Queues a job once more that is failed, dead or cancelled.
    Retry {
        /// Its id.
        id: String,
    },
    /// Calls off a job that is not over.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Forgets jobs that are over.
    Purge {
        /// Only those in this state; may be repeated.
        #[arg(long, value_name = "STATE")]
        state: Vec<JobState>,
        /// Only those that ended more than so many days ago.
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u64>,
    },
}

pub(crate) fn jobs(args: &JobsArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let prepared = match prepare_pipeline(&args.pipeline, &args.given.given()) {
        Err(PrepareError::Invalid(found)) => {
            super::flow::print_text(&found)?;
            return Ok(Exit::Invalid);
        }
        prepared => prepared?,
    };
    let ready = with_secrets_of_queue(prepared, args.secrets.origin())?;
    let host = Host::start(&args.host)?;
    let (around, plan) = (host.around(&ready), &ready.prepared.plan);
    host.runtime.block_on(async {
        let queue = open_queue(plan, &around, host.loader()).await?.ok_or_else(|| {
            Failure::invalid("no-dispatch", format!("`{}` has no dispatch, so it has no jobs", plan.name()))
        })?;
        let done = match ask(args, plan, &queue, out).await {
            Ok(forgotten) => forget_large(plan, forgotten, &around, host.loader()).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        let closed = queue.close().await.map_err(|error| of_queue(&error));
        done.and(closed)
    })?;
    Ok(Exit::Ok)
}

/// Does what is asked; the ids of jobs that are forgotten, and may have left large bytes behind.
async fn ask(args: &JobsArgs, plan: &Plan, queue: &Instance, out: &mut dyn Write) -> Result<Vec<String>, Failure> {
    let of_pipeline = || JobFilter { pipeline: Some(plan.name().to_string()), ..JobFilter::default() };
    let failed = |error: Error| of_queue(&error);
    match &args.command {
        JobsCommand::List { state, limit } => {
            let filter = JobFilter { states: state.clone(), limit: *limit, ..of_pipeline() };
            list(args.json, &queue.jobs(filter).await.map_err(failed)?, out)?;
        }
        JobsCommand::Show { id } => {
            let job = queue.job(id).await.and_then(|job| job.ok_or_else(|| no_such_job(id))).map_err(failed)?;
            show(args.json, &job, out)?;
        }
        JobsCommand::Retry { id } => {
            queue.act(id, JobAction::Retry).await.map_err(failed)?;
            writeln!(out, "{id} is queued again")?;
        }
        JobsCommand::Cancel { id } => {
            queue.act(id, JobAction::Cancel).await.map_err(failed)?;
            writeln!(out, "{id} is cancelled")?;
        }
        JobsCommand::Purge { state, older_than } => {
            let since = older_than.map(|days| now_ms().saturating_sub(days.saturating_mul(86_400_000)));
            let filter = JobFilter { states: state.clone(), unchanged_since_ms: since, ..of_pipeline() };
            let may_leave =
                if plan.large().is_some() { queue.jobs(filter.clone()).await.map_err(failed)? } else { vec![] };
            let purged = queue.purge(filter).await.map_err(failed)?;
            let plural = if purged == 1 { "" } else { "s" };
            writeln!(out, "forgot {purged} job{plural}")?;
            return gone(queue, may_leave).await.map_err(failed);
        }
    }
    Ok(Vec::new())
}

/// Which of these jobs are gone. One that was queued again in between is still there.
async fn gone(queue: &Instance, jobs: Vec<Job>) -> pype_plugin::Result<Vec<String>> {
    let mut gone = Vec::new();
    for job in jobs.into_iter().filter(|job| job.state.is_over()) {
        if queue.job(&job.id).await?.is_none() {
            gone.push(job.id);
        }
    }
    Ok(gone)
}

fn list(json: bool, jobs: &[Job], out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        for job in jobs {
            writeln!(out, "{}", to_json(job))?;
        }
        return Ok(());
    }
    if jobs.is_empty() {
        writeln!(out, "there are no such jobs")?;
    }
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    Ok(write!(out, "{}", columns(&rows))?)
}

fn row(job: &Job) -> Vec<String> {
    let attempts = format!("attempt {} of {}", job.attempt, job.max_attempts);
    let error = job.error.as_ref().filter(|_| job.state != JobState::Succeeded);
    vec![
        job.id.clone(),
        job.state.to_string(),
        attempts,
        format!("{} ago", human::seconds(now_ms().saturating_sub(job.created_ms) as f64 / 1000.0)),
        printable(&error.map(ToString::to_string).unwrap_or_default()),
    ]
}

fn show(json: bool, job: &Job, out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        return Ok(writeln!(out, "{}", to_json(job))?);
    }
    let mut rows = vec![row(job)];
    rows.extend(job.worker.iter().map(|worker| vec!["worker".to_owned(), worker.clone()]));
    rows.extend(job.result.iter().map(|result| vec!["result".to_owned(), printable(&result.to_string())]));
    let hint = job.error.as_ref().and_then(|error| error.hint.as_deref());
    rows.extend(hint.map(|hint| vec!["help".to_owned(), printable(hint)]));
    Ok(write!(out, "{}", columns(&rows))?)
}

fn to_json(job: &Job) -> String {
    serde_json::to_string(job).expect("a job is plain data")
}
