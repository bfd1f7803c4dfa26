//! One stage: its instance, when it is tried again, and how long it may take.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pype_core::pipeline::plan::Stage;
use pype_core::retry::Retry;
use pype_plugin::{Error, ErrorKind, Next, PipelineContext, Result};
use serde_json::Value;
use tokio::time::Instant;

use super::context::RunContext;
use super::instances::Instances;
use super::open::StageServices;
use super::spans;
use crate::observe::spans::Spans;
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
    pub(super) fn of(run: &RunContext, stage: &str, attempt: u32, error: Error, again_after: Option<Duration>) -> Self {
        let (pipeline, job) = (run.facts.pipeline.clone(), run.facts.job_id.clone());
        Self { pipeline, stage: stage.to_owned(), job, attempt, error, again_after }
    }
}

/// Who hears of failures, of those too that are tried again. Called from many tasks; must not block.
pub type Observer = Arc<dyn Fn(&Failed) + Send + Sync>;

/// A stage, open.
pub(super) struct OpenStage {
    pub(super) stage: Stage,
    pub(super) instances: Instances<StageServices>,
    pub(super) redactor: Redactor,
    pub(super) spans: Spans,
}

/// What a stage has of the rest of its chain: whether it got there, and how long that took, which is not its own time.
#[derive(Default)]
pub(super) struct Passage {
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
    passed: bool,
    failed: bool,
}

/// A run of the rest. However it ends, also when it is dropped, the stage's own time goes on.
struct Inside<'a>(&'a Passage);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.inside -= 1;
            if state.inside == 0 {
                state.spent += state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            }
        });
        self.0.left.notify_waiters();
    }
}

impl Passage {
    /// Runs the rest, on its own time.
    pub(super) async fn pass<T>(&self, rest: impl Future<Output = Result<T>>) -> Result<T> {
        self.change(|state| {
            state.passed = true;
            state.inside += 1;
            state.since.get_or_insert_with(Instant::now);
        });
        let inside = Inside(self);
        let result = rest.await;
        drop(inside);
        if result.is_err() {
            self.change(|state| state.failed = true);
        }
        result
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When a stage that began then has used up its time; `None` while the rest is running.
    fn end(&self, began: Instant, time: Duration) -> Option<Instant> {
        self.change(|state| (state.inside == 0).then(|| began + time + state.spent))
    }

    /// Resolves when a stage that began then has had so much time of its own.
    async fn used_up(&self, began: Instant, time: Duration) {
        loop {
            let left = self.left.notified();
            match self.end(began, time) {
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
    pub(super) async fn execute(
        &self,
        run: &RunContext,
        rest: impl Fn(Arc<Passage>) -> Next,
        observer: &Observer,
    ) -> Result<Value> {
        let mut attempt = 1;
        loop {
            let passage = Arc::new(Passage::default());
            let span = spans::of_attempt(&self.spans, run, &self.stage, attempt);
            let inside = spans::inside(&span, run.clone());
            let result = self.once(inside, rest(passage.clone()), &passage).await;
            let result = result.map_err(|error| self.redactor.error(error));
            span.end(result.as_ref().err());
            let Err(error) = result else { return result };
            let (passed, told) = passage.change(|state| (state.passed, state.failed));
            let again_after = again_after(&self.stage.retry, attempt, &error).filter(|_| !passed);
            // Who failed behind it has told.
            if !told {
                observer(&Failed::of(run, self.stage.id.as_str(), attempt, error.clone(), again_after));
            }
            let Some(delay) = again_after else { return Err(error) };
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    async fn once(&self, run: RunContext, next: Next, passage: &Passage) -> Result<Value> {
        let work = async {
            let instance = self.instances.take().await?;
            instance.execute(PipelineContext::new(run), next).await
        };
        let Some(time) = self.stage.timeout else { return work.await };
        tokio::select! {
            result = work => result,
            () = passage.used_up(Instant::now(), time) => Err(timed_out(&self.stage, time)),
        }
    }
}

/// After how long something is tried again that has failed so often; `None` if it is not.
pub(super) fn again_after(retry: &Retry, attempt: u32, error: &Error) -> Option<Duration> {
    retry.takes(error.retryable).then(|| retry.delay(attempt, random())).flatten()
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter.
    getrandom::fill(&mut bytes).map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

pub(super) fn timed_out(stage: &Stage, time: Duration) -> Error {
    let message = format!("the stage `{}` took longer than {} s", stage.id, time.as_secs_f64());
    Error::new(ErrorKind::TimedOut, "stage-timed-out", message).retryable(true)
}
