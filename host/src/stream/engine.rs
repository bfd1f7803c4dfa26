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
/// Work for so long is in hand ahead of its time: nothing waits for the next, and what is not to go on is over soon.
const AHEAD: Duration = Duration::from_millis(10);
/// No more records are.
const MOST_AHEAD: usize = 256;

/// How long a record takes, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace(Option<Duration>);

impl Pace {
    /// One has taken so long. A quarter of what is new: one that is slow does not make all slow.
    pub(super) fn took(&mut self, time: Duration) {
        self.0 = Some(self.0.map_or(time, |pace| pace * 3 / 4 + time / 4));
    }

    /// How many records may be in hand ahead of their time, if that is known.
    pub(super) fn ahead(self) -> Option<usize> {
        let count = AHEAD.as_nanos() / self.0?.as_nanos().max(1);
        Some(usize::try_from(count).unwrap_or(MOST_AHEAD).min(MOST_AHEAD))
    }
}

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
    /// What became of a record. If it is not done, those that follow it are not begun, and not told of.
    Handled { work: Work<Place>, result: Result<()>, took: Duration },
    /// It has not begun with a record, and will not, nor with those that follow it.
    NotRun(Work<Place>),
    /// What handles records fails, and is tried again: somebody should look at it.
    Struggles(String),
    /// It cannot go on. What it has in hand is not done.
    Broken(Error),
}

/// Runs handlers.
pub(super) trait Engine: Send {
    /// Begins with these records, in this order as far as they share a task. One that follows another is begun when that is done.
    fn start(&mut self, works: Vec<Work<Place>>);
    /// Whether it is to be given records that follow others.
    fn goes_on(&self) -> bool {
        true
    }
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
        // Room for one of each that is under way: what follows may wait for its owner.
        let (done, finished) = mpsc::channel(at_once.get());
        let tasks = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) * 4;
        (Self { handler, timeout, tasks, done, running: JoinSet::new() }, finished)
    }
}

impl<H: Handle> Engine for Tasks<H> {
    fn start(&mut self, works: Vec<Work<Place>>) {
        while self.running.try_join_next().is_some() {}
        let each = works.len().div_ceil(self.tasks).clamp(1, TASK_RECORDS);
        let mut works = works.into_iter().peekable();
        while works.peek().is_some() {
            let (mut part, mut count) = (Vec::new(), 0);
            while count < each
                && let Some(first) = works.next()
            {
                let mut run = vec![first];
                run.extend(std::iter::from_fn(|| works.next_if(|next| next.follows)));
                count += run.len();
                part.push(run);
            }
            let (handler, timeout, done) = (self.handler.clone(), self.timeout, self.done.clone());
            self.running.spawn(async move {
                let in_order = part.into_iter().map(|run| handle_in_order(handler.as_ref(), timeout, run, &done));
                let mut under_way: FuturesUnordered<_> = in_order.collect();
                while under_way.next().await.is_some() {}
            });
        }
    }

    async fn abort(&mut self) {
        self.running.shutdown().await;
    }
}

/// Handles records one after the other, as long as they are done and do not take too long together.
async fn handle_in_order<H: Handle>(
    handler: &H,
    timeout: Option<Duration>,
    run: Vec<Work<Place>>,
    tell: &mpsc::Sender<Told>,
) {
    let first = Instant::now();
    for work in run {
        let began = Instant::now();
        let told = if work.follows && began.duration_since(first) > AHEAD {
            Told::NotRun(work)
        } else {
            let result = handled_in_time(handler, timeout, &work.payload, work.attempt).await;
            Told::Handled { work, result, took: began.elapsed() }
        };
        let goes_on = matches!(told, Told::Handled { result: Ok(()), .. });
        // Whoever is gone will not miss it.
        drop(tell.send(told).await);
        if !goes_on {
            return;
        }
    }
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
