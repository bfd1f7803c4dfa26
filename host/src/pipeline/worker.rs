//! Does jobs: leases them, runs the rest of their pipelines, and tells the queue what became of them.
//!
//! A job is leased for a time, and its lease is extended while it is worked on. A worker that is killed extends nothing: the
//! job goes to another when the time is over. One whose lease was given to another stops, and what it says then is
//! refused by the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pype_core::pipeline::context::ContextError;
use pype_core::pipeline::envelope::{Envelope, ResumeError};
use pype_plugin::host::Instance;
use pype_plugin::queue::{Lease, LeaseRequest, LeasedJob, Verdict};
use pype_plugin::{Error, ErrorKind, RunFacts};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::RunContext;
use super::large::put_away_by;
use super::open::Opened;
use super::spans;
use super::stage::{Failed, again_after};
use crate::clock::ms;

/// How long a job waits that this worker cannot run.
const RELEASED_FOR_MS: u64 = 5_000;
/// How long a queue is left alone that failed.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);
/// How long the queue may take to hear what became of a job, once the worker is to end.
const CONCLUDE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker waits for a job before it asks again.
const WAIT_MS: u64 = 1_000;

/// How much a worker takes on, and how long it holds it.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// So many jobs at a time.
    pub concurrency: u32,
    /// A job whose worker is gone goes to another after this.
    pub visibility: Duration,
    /// What runs when the worker is to stop has so long to end.
    pub drain: Duration,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { concurrency: 4, visibility: Duration::from_secs(30), drain: Duration::from_secs(30) }
    }
}

/// A worker for one queue, and the pipelines that hand their rest to it.
pub struct Worker {
    name: String,
    /// By name. All have the same queue.
    pipelines: BTreeMap<String, Arc<Opened>>,
    limits: WorkerLimits,
    only: Option<String>,
}

impl Worker {
    /// A worker for the pipelines of `opened` that have a dispatch, which must all be to one queue.
    pub fn new(opened: impl IntoIterator<Item = Arc<Opened>>, limits: WorkerLimits) -> Self {
        let with_queue = opened.into_iter().filter(|one| one.queue().is_some());
        let pipelines = with_queue.map(|one| (one.plan().name().to_string(), one)).collect();
        let name = format!("{}-{}", host_name(), std::process::id());
        Self { name, pipelines, limits, only: None }
    }

    /// The same, for one job alone.
    #[must_use]
    pub fn only(self, job: impl Into<String>) -> Self {
        Self { only: Some(job.into()), ..self }
    }

    /// Works until `stop` fires; then it leases nothing more, and what it has may end.
    pub async fn run(self, stop: CancellationToken) {
        let Some(queue) = self.pipelines.values().find_map(|opened| opened.queue()) else { return };
        let worker = Arc::new(self);
        let mut running = JoinSet::new();
        let at_once = CancellationToken::new();
        while !stop.is_cancelled() {
            while running.try_join_next().is_some() {}
            let free = worker.limits.concurrency.saturating_sub(u32::try_from(running.len()).unwrap_or(u32::MAX));
            if free == 0 {
                tokio::select! {
                    _ = running.join_next() => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            // Awaited in any case: what the queue has lent must not be forgotten.
            match queue.lease(worker.request(free)).await {
                Ok(jobs) if stop.is_cancelled() => {
                    for job in jobs {
                        let released = conclude(&queue, &job.lease, Verdict::Release { delay_ms: 0 });
                        if tokio::time::timeout(CONCLUDE_PATIENCE, released).await.is_err() {
                            tracing::warn!(job = job.lease.job, "the queue does not hear that the job is not begun");
                        }
                    }
                }
                Ok(jobs) => {
                    for job in jobs {
                        running.spawn(worker.clone().work(queue.clone(), job, at_once.clone()));
                    }
                }
                Err(error) => {
                    tracing::error!("the queue cannot be asked for jobs: {error}");
                    tokio::select! {
                        () = tokio::time::sleep(AFTER_A_FAILURE) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
        let drained = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(worker.limits.drain, drained).await.is_err() {
            at_once.cancel();
            worker.pipelines.values().for_each(|opened| opened.cancel.cancel());
            while running.join_next().await.is_some() {}
        }
    }

    fn request(&self, count: u32) -> LeaseRequest {
        LeaseRequest {
            worker: self.name.clone(),
            pipelines: self.pipelines.keys().cloned().collect(),
            count,
            visibility_ms: self.visibility_ms(),
            wait_ms: WAIT_MS,
            job: self.only.clone(),
        }
    }

    fn visibility_ms(&self) -> u64 {
        ms(self.limits.visibility)
    }

    /// One job, from its lease to its verdict.
    async fn work(self: Arc<Self>, queue: Arc<Instance>, job: LeasedJob, at_once: CancellationToken) {
        let Some(opened) = self.pipelines.get(&job.pipeline) else { return };
        let lease = job.lease.clone();
        let ended = async {
            let at_work = opened.metrics.works(&job.pipeline);
            let (verdict, put_away) = tokio::select! {
                told = verdict(opened, job) => told,
                () = at_once.cancelled() => (Verdict::Release { delay_ms: 0 }, Vec::new()),
            };
            drop(at_work);
            opened.metrics.concluded(opened.plan().name().as_str(), outcome(&verdict));
            let succeeded = matches!(verdict, Verdict::Succeeded { .. });
            let taken = conclude(&queue, &lease, verdict).await;
            if succeeded && taken { put_away } else { Vec::new() }
        };
        let patience = async {
            at_once.cancelled().await;
            tokio::time::sleep(CONCLUDE_PATIENCE).await;
        };
        let done_with = tokio::select! {
            done_with = ended => done_with,
            () = self.until_lost(&queue, &lease) => {
                tracing::warn!(job = lease.job, "the lease is lost: another worker may have the job");
                return;
            }
            () = patience => {
                tracing::error!(job = lease.job, "the queue does not hear what became of the job");
                return;
            }
        };
        if let Some(large) = &opened.large {
            large.forget(done_with).await;
        }
    }

    /// Extends the lease; resolves when it is another's.
    async fn until_lost(&self, queue: &Instance, lease: &Lease) {
        loop {
            tokio::time::sleep(self.limits.visibility / 3).await;
            match queue.extend(lease.clone(), self.visibility_ms()).await {
                Ok(()) => {}
                Err(error) if error.code == "stale-lease" => return,
                // It may be reached again before the time is over.
                Err(error) => tracing::warn!(job = lease.job, "the lease was not extended: {error}"),
            }
        }
    }
}

fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded { .. } => "succeeded",
        Verdict::Retry { .. } => "retried",
        Verdict::Failed { .. } => "failed",
        Verdict::Dead { .. } => "dead",
        Verdict::Release { .. } => "released",
    }
}

/// Tells the queue what became of a job, until it has heard it; whether it took it.
async fn conclude(queue: &Instance, lease: &Lease, mut verdict: Verdict) -> bool {
    while let Err(error) = queue.conclude(lease.clone(), verdict.clone()).await {
        tracing::error!(job = lease.job, "what became of the job was not taken: {error}");
        if error.retryable {
            tokio::time::sleep(AFTER_A_FAILURE).await;
            continue;
        }
        if error.code == "stale-lease" || matches!(verdict, Verdict::Failed { .. }) {
            return false;
        }
        // A result that the queue has no room for: if nobody heard of it, the job would be done again and again.
        verdict = Verdict::Failed { error };
    }
    true
}

/// Runs a job, and says what the queue is to make of it, and what it had put away.
pub(super) async fn verdict(opened: &Arc<Opened>, job: LeasedJob) -> (Verdict, Vec<String>) {
    let mut envelope = match Envelope::decode(&job.payload) {
        Ok(envelope) => envelope,
        Err(error) => return (never(opened, &job, damaged(&error)), Vec::new()),
    };
    let put_away = put_away_by(&envelope);
    // Nothing is fetched for a job that another worker is to do.
    if envelope.signature == opened.plan().signature()
        && let Some(large) = &opened.large
        && let Err(error) = large.fetch(&mut envelope).await
    {
        return (not_fetched(opened, &job, envelope, error).await, put_away);
    }
    (run(opened, job, envelope).await, put_away)
}

async fn run(opened: &Arc<Opened>, job: LeasedJob, envelope: Envelope) -> Verdict {
    let (idempotency_key, trace, shard) = (envelope.idempotency_key.clone(), envelope.trace.clone(), envelope.shard);
    let (at, context) = match envelope.resume(opened.plan()) {
        Ok(resumed) => resumed,
        Err(error) => return cannot_resume(opened, &job, &error),
    };
    let span = spans::of_job(&opened.spans, opened.plan(), &job, trace.as_deref());
    let facts = RunFacts {
        run_id: job.lease.job.clone(),
        pipeline: job.pipeline.clone(),
        context_version: context.version().to_string(),
        job_id: Some(job.lease.job.clone()),
        attempt: job.attempt,
        // Effects of a job that nobody gave a key happen once per job.
        idempotency_key: Some(idempotency_key.unwrap_or_else(|| job.lease.job.clone())),
        fencing_token: Some(job.lease.token),
        trace: span.traceparent().or(trace),
        shard,
    };
    let ctx = RunContext { plan: opened.plan().clone(), context, facts: Arc::new(facts) };
    let verdict = judged(opened, &job, at, ctx).await;
    spans::worked(span, outcome(&verdict), verdict.error());
    verdict
}

async fn judged(opened: &Arc<Opened>, job: &LeasedJob, at: usize, ctx: RunContext) -> Verdict {
    if job.attempt > job.max_attempts {
        // It is lent to be buried.
        let message = format!("no worker came back from its {} attempts", job.max_attempts);
        let error = Error::new(ErrorKind::TimedOut, "lease-ran-out", message);
        (opened.observer)(&Failed::of(&ctx.facts, "job", job.attempt, error.clone(), None));
        opened.bury(ctx, &error).await;
        return Verdict::Dead { error };
    }
    match opened.resume(at, ctx.clone()).await {
        Ok(result) => Verdict::Succeeded { result },
        Err(error) => failed(opened, job, ctx, error).await,
    }
}

async fn failed(opened: &Arc<Opened>, job: &LeasedJob, ctx: RunContext, error: Error) -> Verdict {
    let retry = opened.plan().dispatch().expect("a job has come through it").retry;
    let is_last = job.attempt >= job.max_attempts;
    let again_after = again_after(&retry, job.attempt, &error).filter(|_| !is_last);
    (opened.observer)(&Failed::of(&ctx.facts, "job", job.attempt, error.clone(), again_after));
    if let Some(delay) = again_after {
        return Verdict::Retry { error, delay_ms: ms(delay) };
    }
    opened.bury(ctx, &error).await;
    match retry.takes(error.retryable) {
        true => Verdict::Dead { error },
        false => Verdict::Failed { error },
    }
}

/// Its store may be there again later. If not, the job is buried without what is there.
async fn not_fetched(opened: &Arc<Opened>, job: &LeasedJob, mut envelope: Envelope, error: Error) -> Verdict {
    envelope.blobs.retain(|_, blob| blob.bytes().is_some());
    let (trace, shard) = (envelope.trace.clone(), envelope.shard);
    match envelope.resume(opened.plan()) {
        Ok((_, context)) => {
            let facts = RunFacts {
                run_id: job.lease.job.clone(),
                pipeline: job.pipeline.clone(),
                context_version: context.version().to_string(),
                job_id: Some(job.lease.job.clone()),
                attempt: job.attempt,
                trace,
                shard,
                ..RunFacts::default()
            };
            let ctx = RunContext { plan: opened.plan().clone(), context, facts: Arc::new(facts) };
            failed(opened, job, ctx, error).await
        }
        // Without its bytes it is none of this pipeline.
        Err(_) => never(opened, job, error),
    }
}

fn damaged(error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Data, "damaged-job", format!("the job cannot be read: {error}"))
}

/// A newer worker may know the pipeline as the job was made for it: the job stays where it is. What can never be read fails.
fn cannot_resume(opened: &Opened, job: &LeasedJob, error: &ResumeError) -> Verdict {
    let waits = match error {
        ResumeError::OtherStages { .. }
        | ResumeError::NotFetched { .. }
        | ResumeError::Context(ContextError::UnknownVersion(_)) => true,
        ResumeError::OtherPipeline { .. }
        | ResumeError::Context(ContextError::Fields(_) | ContextError::NotAMapping { .. }) => false,
    };
    if waits {
        tracing::warn!(job = job.lease.job, "the job waits for another worker: {error}");
        return Verdict::Release { delay_ms: RELEASED_FOR_MS };
    }
    never(opened, job, damaged(error))
}

/// A job that nobody can run, and that has no context to be buried.
fn never(opened: &Opened, job: &LeasedJob, error: Error) -> Verdict {
    (opened.observer)(&Failed {
        pipeline: job.pipeline.clone(),
        stage: "job".to_owned(),
        job: Some(job.lease.job.clone()),
        attempt: job.attempt,
        error: error.clone(),
        again_after: None,
    });
    Verdict::Failed { error }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "worker".to_owned() } else { name.to_owned() }
}
