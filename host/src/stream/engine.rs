//! Engines: what runs handlers. [`Tasks`] does so in tasks of the host's runtime, [`super::process`] in child processes;
//! [`super::batch`] collects batches.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pype_core::stream::control::Work;
use pype_plugin::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::records::Place;

/// One task has so many records at most: more would wait for each other where they compute.
const TASK_RECORDS: usize = 64;

/// Handles records.
pub(super) trait Handle: Send + Sync + 'static {
    /// Does what can be done for all records at once that came with this one. What fails there is no record's fault.
    fn prepare(&self, place: &Place) -> impl Future<Output = ()> + Send {
        let _ = place;
        async {}
    }

    /// Handles one. It is done when this returns; `attempt` is 1 at first.
    ///
    /// # Errors
    /// It is not done; whether it is tried again, the stream says.
    fn handle(&self, place: &Place, attempt: u32) -> impl Future<Output = Result<()>> + Send;
}

impl<F, R> Handle for F
where
    F: Fn(&Place, u32) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send,
{
    fn handle(&self, place: &Place, attempt: u32) -> impl Future<Output = Result<()>> + Send {
        self(place, attempt)
    }
}

/// What an engine tells its owner.
pub(super) enum Told {
    /// What became of a record.
    Handled { work: Work<Place>, result: Result<()>, took: Duration },
    /// It has not begun with a record, and will not.
    NotRun(Work<Place>),
    /// What handles records fails, and is tried again: somebody should look at it.
    Struggles(String),
    /// It cannot go on. What it has in hand is not done.
    Broken(Error),
}

/// Runs handlers.
pub(super) trait Engine: Send {
    /// Begins with these records, in this order as far as they share a task.
    fn start(&mut self, works: Vec<Work<Place>>);
    /// Whether it has as much as it can hold: the source then waits.
    fn is_full(&self) -> bool {
        false
    }
    /// What it has in hand is wanted soon.
    fn hurry(&mut self) {}
    /// Ends what is under way, wherever it is.
    fn abort(&mut self) -> impl Future<Output = ()> + Send;
}

/// A task for some records, each handled for itself.
pub(super) struct Tasks<H> {
    handler: Arc<H>,
    timeout: Option<Duration>,
    /// How many tasks make good use of the machine.
    tasks: usize,
    done: mpsc::Sender<Told>,
    running: JoinSet<()>,
}

impl<H: Handle> Tasks<H> {
    /// An engine, and where it tells what became of records. As many may be under way as `at_once`.
    pub(super) fn new(
        handler: Arc<H>,
        timeout: Option<Duration>,
        at_once: NonZeroUsize,
    ) -> (Self, mpsc::Receiver<Told>) {
        // Room for all: what is done never waits for its owner.
        let (done, finished) = mpsc::channel(at_once.get());
        let tasks = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) * 4;
        (Self { handler, timeout, tasks, done, running: JoinSet::new() }, finished)
    }
}

impl<H: Handle> Engine for Tasks<H> {
    fn start(&mut self, works: Vec<Work<Place>>) {
        while self.running.try_join_next().is_some() {}
        let each = works.len().div_ceil(self.tasks).clamp(1, TASK_RECORDS);
        let mut works = works.into_iter();
        loop {
            let part: Vec<_> = works.by_ref().take(each).collect();
            if part.is_empty() {
                return;
            }
            let (handler, timeout, done) = (self.handler.clone(), self.timeout, self.done.clone());
            self.running.spawn(async move {
                let mut under_way: FuturesUnordered<_> =
                    part.into_iter().map(|work| handled(handler.as_ref(), timeout, work)).collect();
                while let Some(one) = under_way.next().await {
                    // Whoever is gone will not miss it.
                    drop(done.send(one).await);
                }
            });
        }
    }

    async fn abort(&mut self) {
        self.running.shutdown().await;
    }
}

async fn handled<H: Handle>(handler: &H, timeout: Option<Duration>, work: Work<Place>) -> Told {
    let began = Instant::now();
    let result = handled_in_time(handler, timeout, &work.payload, work.attempt).await;
    Told::Handled { work, result, took: began.elapsed() }
}

/// Handles a record, within the bound of an attempt.
///
/// # Errors
/// The handler's, or that it took too long.
pub(super) async fn handled_in_time(
    handler: &impl Handle,
    timeout: Option<Duration>,
    place: &Place,
    attempt: u32,
) -> Result<()> {
    let handling = handler.handle(place, attempt);
    let Some(time) = timeout else { return handling.await };
    tokio::time::timeout(time, handling).await.unwrap_or_else(|_| {
        let message = format!("the record `{}` took longer than {} ms", place.name(), time.as_millis());
        Err(Error::new(ErrorKind::TimedOut, "timed-out", message).retryable(true))
    })
}
