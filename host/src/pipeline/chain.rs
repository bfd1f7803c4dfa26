//! One run of a pipeline, or of its rest, from stage to stage.

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pype_core::catalog::ModuleKind;
use pype_core::pipeline::context::Context;
use pype_core::pipeline::envelope::Envelope;
use pype_plugin::host::{Chain, Going, Returned, Stored};
use pype_plugin::queue::{Accepted, NewJob};
use pype_plugin::{ContextStore, Error, ErrorKind, Field, PipelineContext, Result, RunFacts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::context::RunContext;
use super::large::put_away_by;
use super::open::Opened;
use super::spans;
use super::stage::{Failed, OpenStage, Passage, timed_out};
use crate::clock::{ms, now_ms};

/// How long a queue that cannot be reached is asked to accept a job, and how often.
const ENQUEUE_PATIENCE: Duration = Duration::from_secs(3);
const ENQUEUE_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a caller asks besides the context.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The same for everything that is asked for twice.
    pub idempotency_key: Option<String>,
    /// W3C trace context: `traceparent`.
    pub trace: Option<String>,
    /// Whether it came as a request over HTTP.
    pub over_http: bool,
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The result: the pipeline has no dispatch, or a stage ended it before.
    Done(Value),
    /// The rest is a job.
    Accepted(Accepted),
}

impl Opened {
    /// Runs the caller's part.
    ///
    /// # Errors
    /// A stage failed for good, or the job was not accepted.
    pub async fn run(self: &Arc<Self>, context: Context, asked: Asked) -> Result<Answer> {
        let began = Instant::now();
        let span = spans::of_run(&self.spans, &self.plan, &asked);
        let trace = span.traceparent().or(asked.trace);
        let answer = self.answer(context, Asked { trace, ..asked }).await;
        span.end(answer.as_ref().err());
        let outcome = match &answer {
            Ok(Answer::Done(_)) => &self.runs.done,
            Ok(Answer::Accepted(_)) => &self.runs.accepted,
            Err(_) => &self.runs.failed,
        };
        self.runs.count(outcome, began.elapsed());
        answer
    }

    async fn answer(self: &Arc<Self>, context: Context, asked: Asked) -> Result<Answer> {
        let facts = RunFacts {
            run_id: uuid::Uuid::now_v7().to_string(),
            pipeline: self.plan.name().to_string(),
            context_version: context.version().to_string(),
            attempt: 1,
            idempotency_key: asked.idempotency_key,
            shard: context.shard(self.plan.context()),
            trace: asked.trace,
            ..RunFacts::default()
        };
        let ctx = RunContext { plan: self.plan.clone(), context, facts: Arc::new(facts) };
        let run = Run::of(self, &ctx);
        let result = run.bounded(0, ctx.clone()).await.and_then(|returned| returned.read());
        match (run.accepted.get(), result) {
            // What a stage before the dispatch made of it, or whether it failed then: the job is there.
            (Some(accepted), _) => Ok(Answer::Accepted(accepted.clone())),
            (None, Ok(value)) => Ok(Answer::Done(value)),
            (None, Err(error)) => {
                if self.plan.dispatch().is_none() {
                    self.bury(ctx, &error).await;
                }
                Err(error)
            }
        }
    }

    /// Runs the rest of a job.
    pub(super) async fn resume(self: &Arc<Self>, at: usize, ctx: RunContext) -> Result<Value> {
        Run::of(self, &ctx).bounded(at, ctx).await?.read()
    }

    /// Gives what has failed for good to the dead-letter stage, if there is one.
    pub(super) async fn bury(self: &Arc<Self>, mut ctx: RunContext, error: &Error) {
        let Some(stage) = &self.dead_letter else { return };
        if let Err(refused) = ctx.set("error", Field::Json(json!(error))) {
            tracing::warn!("the dead letter lacks its error: {refused}");
        }
        let run = Run::of(self, &ctx);
        if let Err(error) = stage.execute(Stored::of(ctx), &run, self.stages.len()).end().await {
            tracing::error!(pipeline = self.plan.name().as_str(), "the dead letter was not taken: {error}");
        }
    }
}

/// One run, or one attempt of a job.
pub(super) struct Run {
    opened: Arc<Opened>,
    facts: Arc<RunFacts>,
    accepted: OnceLock<Accepted>,
}

impl Run {
    fn of(opened: &Arc<Opened>, ctx: &RunContext) -> Arc<Self> {
        Arc::new(Self { opened: opened.clone(), facts: ctx.facts.clone(), accepted: OnceLock::new() })
    }

    async fn bounded(self: &Arc<Self>, at: usize, ctx: RunContext) -> Result<Returned> {
        let ctx = Stored::of(ctx);
        let Some(time) = self.opened.plan.settings().timeout else { return self.go_on(at, ctx).end().await };
        let end = tokio::time::Instant::now() + time;
        tokio::time::timeout_at(end, self.go_on(at, ctx).end()).await.unwrap_or_else(|_| {
            let message = format!("it took longer than {} s", time.as_secs_f64());
            let error = Error::new(ErrorKind::TimedOut, "timed-out", message).retryable(true);
            self.tell("settings.timeout_s", self.facts.attempt, &error, None);
            Err(error)
        })
    }

    /// Runs the stages from `at` on.
    fn go_on(self: &Arc<Self>, at: usize, ctx: Stored<RunContext>) -> Going {
        let Some(stage) = self.opened.stages.get(at) else {
            return Going::Over(Ok(ctx.into_store().context.to_json_without_bytes().into()));
        };
        match stage.stage.kind() {
            ModuleKind::Dispatch => {
                let (run, stage, ctx) = (self.clone(), stage.clone(), ctx.into_store());
                Going::later(async move { run.hand_over(&stage, ctx).await.map(Returned::from) })
            }
            _ => stage.execute(ctx, self, at + 1),
        }
    }

    /// Tells the observer that an attempt has failed.
    pub(super) fn tell(&self, stage: &str, attempt: u32, error: &Error, again_after: Option<Duration>) {
        (self.opened.observer)(&Failed::of(&self.facts, stage, attempt, error.clone(), again_after));
    }

    async fn hand_over(&self, stage: &OpenStage, mut ctx: RunContext) -> Result<Value> {
        let span = spans::of_dispatch(&self.opened.spans, &ctx, &stage.stage);
        spans::enter(&span, &mut ctx);
        let sent = self.dispatch(stage, &ctx).await;
        spans::dispatched(span, &sent);
        sent.inspect_err(|error| self.tell(stage.stage.id.as_str(), 1, error, None))
    }

    async fn dispatch(&self, stage: &OpenStage, ctx: &RunContext) -> Result<Value> {
        let (plan, large) = (&self.opened.plan, self.opened.large.as_ref());
        let mut envelope = Envelope::of(plan, &ctx.context, now_ms());
        envelope.idempotency_key.clone_from(&ctx.facts.idempotency_key);
        envelope.trace.clone_from(&ctx.facts.trace);
        let asked = ctx.facts.idempotency_key.as_ref().map(|_| asked(&envelope));
        let id = uuid::Uuid::now_v7().to_string();
        if let Some(large) = large
            && let Err(error) = large.put_away(&mut envelope, plan.context(), &id).await
        {
            large.forget(put_away_by(&envelope)).await;
            return Err(error);
        }
        let job = NewJob {
            id: id.clone(),
            pipeline: plan.name().to_string(),
            version: plan.version().to_string(),
            shard: envelope.shard,
            ordered: stage.stage.queueing.ordered,
            idempotency_key: ctx.facts.idempotency_key.clone(),
            asked,
            delay_ms: ms(stage.stage.queueing.delay),
            max_attempts: stage.stage.retry.attempts.get(),
            payload: envelope.encode().into(),
        };
        let accepted = enqueue(stage, job).await.map_err(|error| stage.redactor.error(error));
        // Nobody comes for the bytes of a job that is not there. One that got no answer may be.
        let is_there =
            accepted.as_ref().map_or_else(|error| error.retryable, |accepted| !accepted.duplicate || accepted.id == id);
        if let Some(large) = large.filter(|_| !is_there) {
            large.forget(put_away_by(&envelope)).await;
        }
        let accepted = accepted?;
        let id = accepted.id.clone();
        // A stage before that goes on twice gets two jobs; the caller is told of the first.
        drop(self.accepted.set(accepted));
        Ok(json!({ "job_id": id }))
    }
}

/// Has a queue accept a job. Who gets no answer asks again: that is one job all the same.
async fn enqueue(stage: &OpenStage, job: NewJob) -> Result<Accepted> {
    let queue = stage.instances.first();
    let began = Instant::now();
    let accepted = async {
        loop {
            match queue.enqueue(job.clone()).await {
                Err(error) if error.retryable && began.elapsed() < ENQUEUE_PATIENCE => {
                    tokio::time::sleep(ENQUEUE_AGAIN_AFTER).await;
                }
                told => return told,
            }
        }
    };
    let Some(time) = stage.stage.timeout else { return accepted.await };
    tokio::time::timeout(time, accepted).await.unwrap_or_else(|_| Err(timed_out(&stage.stage, time)))
}

/// What tells one request from another: the fields of its context.
fn asked(envelope: &Envelope) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&envelope.fields).expect("fields are plain data"));
    for (name, blob) in &envelope.blobs {
        hash.update(name.as_bytes());
        hash.update(blob.bytes().unwrap_or_default());
    }
    hex::encode(hash.finalize())
}

/// What an attempt of a stage goes on with.
pub(super) struct Rest {
    run: Arc<Run>,
    at: usize,
    pub(super) passage: Passage,
}

impl Rest {
    pub(super) fn new(run: &Arc<Run>, at: usize, passage: Passage) -> Self {
        Self { run: run.clone(), at, passage }
    }
}

impl Chain for Rest {
    fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going {
        let ctx = match Stored::new(ctx) {
            Ok(ctx) => ctx,
            Err(foreign) => return Going::Over(Err(foreign)),
        };
        let inside = Inside::of(self);
        match self.run.go_on(self.at, ctx) {
            Going::Over(result) => Going::Over(inside.end(result)),
            // Only what is not over yet needs a share of its own.
            Going::Later(rest) => {
                let inside = inside.in_hands_of(self.clone());
                Going::later(async move { inside.end(rest.await) })
            }
        }
    }
}

/// A run of the rest. However it ends, also when it is dropped, the stage's own time goes on.
struct Inside<R: Borrow<Rest>>(Option<R>);

impl<'a> Inside<&'a Rest> {
    fn of(rest: &'a Rest) -> Self {
        rest.passage.enter();
        Self(Some(rest))
    }

    fn in_hands_of(mut self, rest: Arc<Rest>) -> Inside<Arc<Rest>> {
        self.0 = None;
        Inside(Some(rest))
    }
}

impl<R: Borrow<Rest>> Inside<R> {
    fn end(self, result: Result<Returned>) -> Result<Returned> {
        if let (Err(_), Some(rest)) = (&result, &self.0) {
            rest.borrow().passage.fail();
        }
        result
    }
}

impl<R: Borrow<Rest>> Drop for Inside<R> {
    fn drop(&mut self) {
        if let Some(rest) = &self.0 {
            rest.borrow().passage.leave();
        }
    }
}
