//! One stage: its instance, when it is tried again, and how long it may take.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pype_core::pipeline::plan::Stage;
use pype_core::retry::Retry;
use pype_plugin::host::{Going, Returned, Stored};
use pype_plugin::{Error, ErrorKind, Next, PipelineContext, Result, RunFacts};
use tokio::time::Instant;

use super::chain::{Rest, Run};
use super::context::RunContext;
use super::instances::Instances;
use super::open::StageServices;
use super::spans;
use crate::clock::random;
use crate::observe::spans::{Span, Spans};
use crate::secret::Redactor;

/// How long an instance may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// An attempt of a stage that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// The job, behind the dispatch.
    pub job: Option<String>,
    /// 1 at first.
    pub attempt: u32,
    /// Why.
    pub error: Error,
    /// After how long it is tried again; `None` if it is not.
    pub again_after: Option<Duration>,
}

impl Failed {
    pub(super) fn of(run: &RunFacts, stage: &str, attempt: u32, error: Error, again_after: Option<Duration>) -> Self {
        let (pipeline, job) = (run.pipeline.clone(), run.job_id.clone());
        Self { pipeline, stage: stage.to_owned(), job, attempt, error, again_after }
    }
}

/// Who hears of failures, of those too that are tried again. Called from many tasks; must not block.
pub type Observer = Arc<dyn Fn(&Failed) + Send + Sync>;

/// Writes each failure into the log.
pub fn logged() -> Observer {
    Arc::new(|failed: &Failed| {
        let Failed { pipeline, stage, job, attempt, error, again_after } = failed;
        let job = job.as_deref().unwrap_or_default();
        match again_after {
            Some(delay) => tracing::warn!(
                pipeline,
                stage,
                job,
                attempt,
                "failed, and is tried again in {} ms: {error}",
                delay.as_millis()
            ),
            None => tracing::error!(pipeline, stage, job, attempt, "failed: {error}"),
        }
    })
}

/// A stage, open.
pub(super) struct OpenStage {
    pub(super) stage: Stage,
    pub(super) instances: Instances<StageServices>,
    pub(super) redactor: Redactor,
    pub(super) spans: Spans,
}

/// An attempt of a stage, begun.
struct Attempt {
    work: Going,
    rest: Arc<Rest>,
    span: Span,
}

/// What an attempt of a stage has of the rest of its chain: whether it got there, and, if its time is limited, how long that
/// took, which is not its own time.
pub(super) struct Passage {
    passed: AtomicBool,
    failed: AtomicBool,
    clock: Option<Box<Clock>>,
}

impl Passage {
    fn of(stage: &Stage) -> Self {
        Self {
            passed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            clock: stage.timeout.map(|time| Box::new(Clock::of(time))),
        }
    }

    /// A run of the rest begins.
    pub(super) fn enter(&self) {
        self.passed.store(true, Ordering::Relaxed);
        if let Some(clock) = &self.clock {
            clock.stop();
        }
    }

    /// A run of the rest has failed.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// A run of the rest is over.
    pub(super) fn leave(&self) {
        if let Some(clock) = &self.clock {
            clock.go_on();
        }
    }

    fn passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The own time of a stage: it stands still while the rest is running.
struct Clock {
    began: Instant,
    time: Duration,
    // Locked for one look or one change.
    state: Mutex<State>,
    left: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    /// How many runs of the rest are under way, and since when there is one.
    inside: u32,
    since: Option<Instant>,
    spent: Duration,
}

impl Clock {
    fn of(time: Duration) -> Self {
        Self { began: Instant::now(), time, state: Mutex::default(), left: tokio::sync::Notify::new() }
    }

    fn stop(&self) {
        self.change(|state| {
            state.inside += 1;
            state.since.get_or_insert_with(Instant::now);
        });
    }

    fn go_on(&self) {
        self.change(|state| {
            state.inside -= 1;
            if state.inside == 0 {
                state.spent += state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            }
        });
        self.left.notify_waiters();
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the time is used up; `None` while the rest is running.
    fn end(&self) -> Option<Instant> {
        self.change(|state| (state.inside == 0).then(|| self.began + self.time + state.spent))
    }

    /// Resolves when the stage has had all of its time.
    async fn used_up(&self) {
        loop {
            let left = self.left.notified();
            match self.end() {
                None => left.await,
                Some(end) if Instant::now() >= end => return,
                Some(end) => tokio::time::sleep_until(end).await,
            }
        }
    }
}

impl OpenStage {
    /// Closes its instances. A run that is under way keeps them from it for so long only.
    pub(super) async fn close(&self) {
        let stage = self.stage.id.as_str();
        for instance in self.instances.all() {
            match tokio::time::timeout(CLOSE_PATIENCE, instance.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(stage, "the stage did not close: {error}"),
                Err(_) => tracing::warn!(stage, "the stage did not close in time"),
            }
        }
    }

    /// Handles one run. It is tried again while its own work fails: what fails behind it has been tried as often as it may,
    /// and what has been done there is not done twice.
    pub(super) fn execute(self: &Arc<Self>, mut ctx: Stored<RunContext>, run: &Arc<Run>, next: usize) -> Going {
        let again = (self.stage.retry.attempts.get() > 1).then(|| ctx.with(|ctx| ctx.clone()));
        let Attempt { work, rest, span } = self.begin(ctx, 1, run, next);
        match work {
            Going::Over(Ok(returned)) => {
                span.end(None);
                Going::Over(Ok(returned))
            }
            work => Going::later(self.clone().see_through(Attempt { work, rest, span }, again, run.clone(), next)),
        }
    }

    /// Goes on from the first attempt; `again` is the context of those after it.
    async fn see_through(
        self: Arc<Self>,
        first: Attempt,
        again: Option<RunContext>,
        run: Arc<Run>,
        next: usize,
    ) -> Result<Returned> {
        let (mut number, mut attempt) = (1, first);
        loop {
            let Attempt { work, rest, span } = attempt;
            let result = work.end().await.map_err(|error| self.redactor.error(error));
            span.end(result.as_ref().err());
            let Err(error) = result else { return result };
            let again_after = again_after(&self.stage.retry, number, &error).filter(|_| !rest.passage.passed());
            // Who failed behind it has told.
            if !rest.passage.failed() {
                run.tell(self.stage.id.as_str(), number, &error, again_after);
            }
            let (Some(delay), Some(ctx)) = (again_after, &again) else { return Err(error) };
            tokio::time::sleep(delay).await;
            number += 1;
            attempt = self.begin(Stored::of(ctx.clone()), number, &run, next);
        }
    }

    fn begin(self: &Arc<Self>, mut ctx: Stored<RunContext>, number: u32, run: &Arc<Run>, next: usize) -> Attempt {
        let rest = Arc::new(Rest::new(run, next, Passage::of(&self.stage)));
        let span = match self.spans.are_sent() {
            true => ctx.with(|ctx| {
                let span = spans::of_attempt(&self.spans, ctx, &self.stage, number);
                spans::enter(&span, ctx);
                span
            }),
            false => Span::default(),
        };
        Attempt { work: self.work(ctx.into_context(), &rest), rest, span }
    }

    /// Has an instance do it. What is over at once needs no time limit.
    fn work(self: &Arc<Self>, ctx: PipelineContext, rest: &Arc<Rest>) -> Going {
        let next = Next::new(rest.clone());
        let work = match self.instances.shared() {
            Some(instance) => instance.execute(ctx, next),
            None => {
                let stage = self.clone();
                Going::later(async move { stage.instances.take().await?.execute(ctx, next).end().await })
            }
        };
        match (work, &rest.passage.clock) {
            (Going::Later(work), Some(_)) => Going::later(self.clone().in_time(work, rest.clone())),
            (work, _) => work,
        }
    }

    async fn in_time(
        self: Arc<Self>,
        work: impl Future<Output = Result<Returned>>,
        rest: Arc<Rest>,
    ) -> Result<Returned> {
        let Some(clock) = &rest.passage.clock else { return work.await };
        tokio::select! {
            result = work => result,
            () = clock.used_up() => Err(timed_out(&self.stage, clock.time)),
        }
    }
}

/// After how long something is tried again that has failed so often; `None` if it is not.
pub(super) fn again_after(retry: &Retry, attempt: u32, error: &Error) -> Option<Duration> {
    retry.takes(error.retryable).then(|| retry.delay(attempt, random())).flatten()
}

pub(super) fn timed_out(stage: &Stage, time: Duration) -> Error {
    let message = format!("the stage `{}` took longer than {} s", stage.id, time.as_secs_f64());
    Error::new(ErrorKind::TimedOut, "stage-timed-out", message).retryable(true)
}
