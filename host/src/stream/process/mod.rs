//! The engine whose handlers run in child processes.
//!
//! One task, the [`Supervisor`], owns the [`Pool`] of records and children; what children say comes to it as events, one after
//! the other. A child handles one record at a time, and says at which it is before it begins. So when it dies, that record has
//! failed, those before it are done, and those behind it have not been touched. If it had begun with none of them, it died of what
//! it does for all of them at once, which is decoding: the next children get them one at a time. One that is at a record for too long is killed.
//! In the place of a child that is gone another starts, after a while that grows while nothing else than dying is done.
//! When a record fails, its child passes over those that follow it, and the host knows.

mod child;
mod pool;

use std::collections::HashSet;
use std::future::Future;
use std::num::{NonZeroU64, NonZeroUsize};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_core::catalog::{Catalog, registry_to_json};
use pype_core::stream::control::{Partition as Number, Work};
use pype_core::stream::plan::{Parallel, PerRecord as PerRecordPlan, Plan};
use pype_plugin::stream::RecordsBuilder;
use pype_plugin::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use self::pool::{Given, Left, Pool};
use super::decode::Decoder;
use super::engine::{Engine, Told};
use super::open::{HandledBy, StreamOpenError};
use super::records::Place;
use crate::clock::ms;
use crate::worker::records::{At, Connection, Hear, Said};
use crate::worker::{About, Death, PipelineToOpen, Turn, What};

#[cfg(test)]
pub(super) use self::child::handle_all;
pub(crate) use self::child::serve;

/// So often the host looks what its children are at.
const LOOK: Duration = Duration::from_millis(5);
/// A child ends an attempt that takes too long itself, unless it is stuck: then it has so much longer.
const STUCK: Duration = Duration::from_secs(1);
/// How long a child waits for its successor: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How long a child may take to end what it is at, and to close its pipeline.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Starts a child, the one of this number, and waits until it is ready.
pub(super) type Start = Arc<dyn Fn(usize, Hear) -> Starting + Send + Sync>;
/// A child that starts.
pub(super) type Starting = Pin<Box<dyn Future<Output = Result<Connection>> + Send>>;

/// How children are used.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// How many there are.
    pub(super) children: NonZeroUsize,
    /// After so many records one gives way to another.
    pub(super) recycle_after: Option<NonZeroU64>,
    /// The bound of one attempt at a record, which they keep.
    pub(super) timeout: Duration,
    /// How many records may be under way.
    pub(super) at_once: NonZeroUsize,
}

/// The engine.
pub(super) struct Processes {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

/// What the supervisor is told by the stream's owner.
enum Order {
    Handle(Vec<Work<Place>>),
    End,
}

impl Processes {
    /// The engine, with all its children ready, and where it tells what became of records.
    ///
    /// # Errors
    /// A child cannot be started, or says why it cannot work.
    pub(super) async fn start(start: Start, bounds: Bounds) -> Result<(Self, mpsc::Receiver<Told>)> {
        // Room for all: what is done never waits for its owner.
        let (tell, told) = mpsc::channel(bounds.at_once.get());
        // What the owner gives is bounded by the control plane; what children say by what they were given.
        let (orders, ordered) = mpsc::unbounded_channel();
        let (say, said) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor {
            pool: Pool::new(bounds.children.get(), bounds.recycle_after, |work: &Work<Place>| work.follows),
            seats: (0..bounds.children.get()).map(|_| Seat::default()).collect(),
            start,
            timeout: bounds.timeout,
            tell,
            say,
            said,
            starting: JoinSet::new(),
            ending: JoinSet::new(),
            alone: HashSet::new(),
            ends: false,
        };
        supervisor.start_all().await?;
        Ok((Self { orders, task: tokio::spawn(supervisor.run(ordered)) }, told))
    }
}

impl Engine for Processes {
    fn start(&mut self, works: Vec<Work<Place>>) {
        // Once the task is gone it has been told to end.
        drop(self.orders.send(Order::Handle(works)));
    }

    async fn abort(&mut self) {
        drop(self.orders.send(Order::End));
        if let Err(lost) = (&mut self.task).await {
            tracing::error!("the supervisor of the child processes failed: {lost}");
        }
    }
}

/// The engine that the document asks for, with all its children ready.
///
/// # Errors
/// A child cannot be started, or says why it cannot work.
pub(super) async fn open(
    plan: &Plan,
    per_record: &PerRecordPlan,
    pipeline: &HandledBy<'_>,
    decoders: Vec<Decoder>,
) -> std::result::Result<(Processes, mpsc::Receiver<Told>), StreamOpenError> {
    let HandledBy { plan: handles, around } = pipeline;
    let Parallel { workers, recycle_after, timeout, max_in_flight, .. } = per_record.parallel;
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let bounds = Bounds { children: workers.unwrap_or_else(cores), recycle_after, timeout, at_once: max_in_flight };
    let mut catalog = Catalog::new();
    for stage in handles.opened() {
        catalog.insert(stage.module.as_str(), stage.entry.clone()).expect("it is the name of a module");
    }
    let source = handles.source();
    let to_open = PipelineToOpen {
        path: source.path.clone(),
        text: source.text.to_string(),
        catalog: registry_to_json(&catalog),
        context: around.context.clone(),
        secrets: around.secrets.values().clone(),
        folder: around.folder.clone(),
        libraries: around.libraries.clone(),
        stream: plan.name.to_string(),
        decoders,
        map: per_record.map.clone(),
        timeout_ms: ms(timeout),
    };
    let apart = around.apart();
    let configs = handles.opened().map(|stage| (stage.id.to_string(), stage.configs.clone())).collect();
    let (name, configs) = (plan.name.to_string(), Value::Object(configs));
    let pipeline = handles.name().to_string();
    let start: Start = Arc::new(move |child, hear| {
        let about = About {
            stem: name.clone(),
            subject: format!("the child process {child} of the stream `{name}`"),
            tags: Map::from_iter([("stream".to_owned(), json!(name)), ("child".to_owned(), json!(child))]),
            facts: Map::from_iter([("stream".to_owned(), json!(name)), ("pipeline".to_owned(), json!(pipeline))]),
            configs: configs.clone(),
        };
        let what = What::Pipeline(Box::new(to_open.clone()));
        Box::pin(Connection::start(apart.clone(), about, what, hear))
    });
    Processes::start(start, bounds).await.map_err(StreamOpenError::Child)
}

/// A place for a child.
#[derive(Default)]
struct Seat {
    state: State,
    /// Each child that has it has a number of its own.
    generation: u64,
    /// How many in a row have died without having done anything.
    in_vain: u32,
    /// How the child died, if that was before the supervisor knew that it was up.
    died: Option<Death>,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// Another starts then.
    Waits(Instant),
    Starting,
    Up(Up),
}

/// A child that is ready.
struct Up {
    connection: Box<Connection>,
    /// What it was at when it was looked at last, and since when.
    at: At,
    since: Instant,
    /// Since when it is at what it has not told of.
    working_since: Instant,
    /// How many records have failed.
    failures: u64,
    /// It was killed, for it was stuck.
    stuck: bool,
}

/// What comes to the supervisor.
enum Event {
    Started { seat: usize, generation: u64, child: Result<Box<Connection>> },
    Said { seat: usize, generation: u64, said: Said },
}

struct Supervisor {
    pool: Pool<Work<Place>>,
    seats: Vec<Seat>,
    start: Start,
    timeout: Duration,
    tell: mpsc::Sender<Told>,
    say: mpsc::UnboundedSender<Event>,
    said: mpsc::UnboundedReceiver<Event>,
    // They end with the supervisor, which waits for those that end.
    starting: JoinSet<()>,
    ending: JoinSet<()>,
    /// Records in whose company a child has died that had begun none of them: they are given one at a time.
    alone: HashSet<(Number, u64)>,
    ends: bool,
}

impl Supervisor {
    /// Starts the first children.
    async fn start_all(&mut self) -> Result<()> {
        (0..self.seats.len()).for_each(|seat| self.start_one(seat));
        let (mut up, mut said) = (0, Vec::new());
        while up < self.seats.len() {
            match self.said.recv().await.expect("it has a sender itself") {
                Event::Started { seat, child: Ok(connection), .. } => {
                    self.is_up(seat, connection);
                    up += 1;
                }
                Event::Started { child: Err(error), .. } => {
                    self.end().await;
                    return Err(error);
                }
                early @ Event::Said { .. } => said.push(early),
            }
        }
        // Nobody reads yet what became of records. Whoever runs this hears it again.
        said.into_iter().for_each(|early| drop(self.say.send(early)));
        Ok(())
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let again = self.seats.iter().filter_map(Seat::again_at).min();
            tokio::select! {
                biased;
                event = self.said.recv() => match event.expect("it has a sender itself") {
                    Event::Started { seat, generation, child } => self.started(seat, generation, child).await,
                    Event::Said { seat, generation, said } => self.hear(seat, generation, said).await,
                },
                order = orders.recv() => match order {
                    Some(Order::Handle(works)) => self.pool.push(works),
                    Some(Order::End) | None => return self.end().await,
                },
                _ = looks.tick(), if self.works() => self.look().await,
                () = sleep_until(again), if again.is_some() => self.start_those_due(),
                Some(_) = self.starting.join_next() => {}
                Some(_) = self.ending.join_next() => {}
            }
            for seat in 0..self.seats.len() {
                if let Some(cut) = self.give(seat) {
                    self.told(Told::NotRun(cut)).await;
                }
            }
        }
    }

    fn works(&self) -> bool {
        (0..self.seats.len()).any(|seat| self.pool.first(seat).is_some())
    }

    fn start_those_due(&mut self) {
        let now = Instant::now();
        for seat in 0..self.seats.len() {
            if self.seats[seat].again_at().is_some_and(|at| at <= now) {
                self.start_one(seat);
            }
        }
    }

    fn start_one(&mut self, seat: usize) {
        let place = &mut self.seats[seat];
        place.generation += 1;
        (place.state, place.died) = (State::Starting, None);
        let (say, generation) = (self.say.clone(), place.generation);
        let hears = say.clone();
        // Once the supervisor is gone nobody misses it.
        let hear: Hear = Box::new(move |said| drop(hears.send(Event::Said { seat, generation, said })));
        let starting = (self.start)(seat, hear);
        self.starting.spawn(async move {
            drop(say.send(Event::Started { seat, generation, child: starting.await.map(Box::new) }))
        });
    }

    async fn started(&mut self, seat: usize, generation: u64, child: Result<Box<Connection>>) {
        if self.seats[seat].generation != generation {
            return;
        }
        match child {
            Ok(connection) => {
                self.is_up(seat, connection);
                if let Some(death) = self.seats[seat].died.take() {
                    self.lost(seat, death).await;
                }
            }
            Err(error) => {
                tracing::error!("a child process does not start: {error}");
                self.again_later(seat);
                self.told(Told::Struggles(format!("a child process does not start: {error}"))).await;
            }
        }
    }

    fn is_up(&mut self, seat: usize, connection: Box<Connection>) {
        let now = Instant::now();
        let (at, failures, stuck) = (At::default(), 0, false);
        self.seats[seat].state = State::Up(Up { connection, at, since: now, working_since: now, failures, stuck });
        self.pool.takes(seat);
    }

    fn again_later(&mut self, seat: usize) {
        let place = &mut self.seats[seat];
        let pause = AGAIN.0.saturating_mul(2_u32.saturating_pow(place.in_vain)).min(AGAIN.1);
        place.in_vain = place.in_vain.saturating_add(1);
        place.state = State::Waits(Instant::now() + pause);
    }

    /// Gives a child what it is to have. What it cannot have, and nobody else can, comes back.
    fn give(&mut self, seat: usize) -> Option<Work<Place>> {
        let is_idle = self.pool.first(seat).is_none();
        let State::Up(up) = &mut self.seats[seat].state else { return None };
        if self.pool.is_used_up(seat) {
            self.recycle(seat);
            return None;
        }
        let Given { works, cut } = self.pool.give(seat);
        if works.is_empty() {
            return cut;
        }
        if is_idle {
            (up.since, up.working_since) = (Instant::now(), Instant::now());
        }
        let mut is_alone = |work: &Work<Place>| work.attempt > 1 || self.alone.remove(&(work.partition, work.offset));
        let works: Vec<_> = works.into_iter().map(|work| (work, is_alone(work))).collect();
        for part in works.chunk_by(|(_, one), (_, next)| !one && !next) {
            let mut records = RecordsBuilder::default();
            for (work, _) in part {
                let record = work.payload.record();
                records.push(record.to_new(), record.headers());
            }
            let turns = part.iter().map(|(work, _)| Turn { attempt: work.attempt, follows: work.follows }).collect();
            if let Err(error) = up.connection.give(&records.finish(), turns) {
                // Its child will never begin with them, and is killed when its time is over.
                tracing::error!("records cannot be given to a child process: {error}");
            }
        }
        cut
    }

    /// A child gives way to another.
    fn recycle(&mut self, seat: usize) {
        let Left { untouched, .. } = self.pool.leaves(seat, None);
        debug_assert!(untouched.is_empty(), "it has none in hand");
        if let State::Up(up) = std::mem::take(&mut self.seats[seat].state) {
            self.ending.spawn(up.connection.end(END_PATIENCE));
        }
        self.start_one(seat);
    }

    async fn hear(&mut self, seat: usize, generation: u64, said: Said) {
        if self.seats[seat].generation != generation {
            return;
        }
        match said {
            Said::Handled { before } => self.handled(seat, before).await,
            Said::Failed { record, error } => {
                self.handled(seat, record).await;
                if let State::Up(up) = &mut self.seats[seat].state {
                    up.failures += 1;
                }
                let took = self.took(seat);
                if let Some(work) = self.pool.failed(seat, took) {
                    self.told(Told::Handled { work, result: Err(error), took }).await;
                }
            }
            Said::Lost(death) => self.lost(seat, death).await,
        }
    }

    /// Since when a child is at what it tells of now.
    fn took(&mut self, seat: usize) -> Duration {
        let State::Up(up) = &mut self.seats[seat].state else { return Duration::ZERO };
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut up.working_since, now))
    }

    /// All before this one are done.
    async fn handled(&mut self, seat: usize, before: u64) {
        if self.pool.first(seat).is_none_or(|(first, _)| first >= before) {
            return;
        }
        let took = self.took(seat);
        let works = self.pool.handled(seat, before, took);
        self.seats[seat].in_vain = 0;
        let each = took / u32::try_from(works.len()).unwrap_or(u32::MAX).max(1);
        for work in works {
            self.told(Told::Handled { work, result: Ok(()), took: each }).await;
        }
    }

    async fn told(&self, told: Told) {
        // Whoever is gone will not miss it.
        drop(self.tell.send(told).await);
    }

    /// What children are at that have not said anything for a while.
    async fn look(&mut self) {
        for seat in 0..self.seats.len() {
            let in_hand = self.pool.first(seat).is_some();
            let State::Up(up) = &mut self.seats[seat].state else { continue };
            let (at, now) = (up.connection.at(), Instant::now());
            if at != up.at {
                (up.at, up.since) = (at, now);
            }
            if in_hand && !up.stuck && now.duration_since(up.since) > self.timeout + STUCK {
                up.stuck = true;
                up.connection.kill().await;
            }
            let is_all_told = at.has_told(up.failures);
            if let Some(record) = at.record().filter(|_| is_all_told) {
                self.handled(seat, record).await;
            }
        }
    }

    /// A child has died.
    async fn lost(&mut self, seat: usize, death: Death) {
        let state = std::mem::take(&mut self.seats[seat].state);
        let State::Up(up) = state else {
            (self.seats[seat].state, self.seats[seat].died) = (state, Some(death));
            return;
        };
        let at = up.connection.at();
        let Left { handled, running, untouched } = self.pool.leaves(seat, at.record());
        let took = up.working_since.elapsed();
        // One of them may have failed, and the child not have come to say so. It was none that the last one follows.
        let follows = running.as_ref().is_some_and(|work| work.follows);
        let sure = match at.has_told(up.failures) {
            true => 0,
            false if follows => handled.iter().rposition(|work| !work.follows).unwrap_or(0),
            false => handled.len(),
        };
        for (work, at) in handled.into_iter().zip(0..) {
            if at >= sure {
                self.told(Told::Handled { work, result: Ok(()), took }).await;
            } else if at == 0 || !work.follows {
                self.told(Told::NotRun(work)).await;
            }
        }
        if self.ends {
            return;
        }
        if running.is_none() {
            self.alone.extend(untouched.iter().map(|work| (work.partition, work.offset)));
        }
        self.again_later(seat);
        let mut facts = Map::new();
        if let Some(work) = &running {
            facts.insert("record".to_owned(), json!(work.payload.name()));
            facts.insert("attempt".to_owned(), json!(work.attempt));
            facts.insert("stuck".to_owned(), json!(up.stuck));
        }
        let error = up.connection.explain(death, facts);
        let hint = error.hint.as_deref().unwrap_or_default();
        tracing::error!(record = running.as_ref().map(|work| work.payload.name()), "{error}; {hint}");
        self.told(Told::Struggles(format!("{error}; {hint}"))).await;
        let mut goes_back = running.is_some();
        if let Some(work) = running {
            let result = Err(if up.stuck { self.stuck(&work) } else { error });
            self.told(Told::Handled { work, result, took: up.since.elapsed() }).await;
        }
        for work in untouched {
            // With the first of them those go back that follow it.
            if !(goes_back && work.follows) {
                self.told(Told::NotRun(work)).await;
            }
            goes_back = true;
        }
    }

    fn stuck(&self, work: &Work<Place>) -> Error {
        let (record, time) = (work.payload.name(), self.timeout.as_millis());
        let message = format!("the record `{record}` took longer than {time} ms, and its process did not let go of it");
        Error::new(ErrorKind::TimedOut, "timed-out", message).retryable(true)
    }

    /// Has all children end. What they are at is not done, nor what they have in hand.
    async fn end(&mut self) {
        self.ends = true;
        // Whoever would have heard of them has them end.
        self.starting.shutdown().await;
        for seat in &self.seats {
            if let State::Up(up) = &seat.state {
                up.connection.let_end();
            }
        }
        let until = tokio::time::Instant::now() + END_PATIENCE;
        while self.seats.iter().any(|seat| matches!(seat.state, State::Up(_))) {
            match tokio::time::timeout_at(until, self.said.recv()).await {
                Ok(Some(Event::Said { seat, generation, said })) => self.hear(seat, generation, said).await,
                Ok(Some(Event::Started { .. })) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for seat in &mut self.seats {
            if let State::Up(up) = std::mem::take(&mut seat.state) {
                // Its time is over.
                self.ending.spawn(up.connection.end(Duration::ZERO));
            }
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(until + END_PATIENCE, self.ending.join_next()).await {}
    }
}

impl Seat {
    fn again_at(&self) -> Option<Instant> {
        match self.state {
            State::Waits(until) => Some(until),
            State::Empty | State::Starting | State::Up(_) => None,
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
