//! The loop that owns a stream's state.
//!
//! Everything that happens arrives here, one after the other: what the source says, which records are done, that time has passed,
//! that the stream is to stop. Nobody else calls the [`Control`].

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_core::stream::control::{Acknowledge, Epoch, Settled, Start, StreamState, Work};
use pype_core::stream::control::{Commit, Control, Delivery, Flow, Options, Outcome, Partition as Number, Refusal};
use pype_core::stream::{Step, WorkId};
use pype_plugin::host::Instance;
use pype_plugin::stream::{
    Acknowledged, Acknowledgement, Assignment, Committed, Partition, Position, Progressed, Records, StreamEvent,
};
use pype_plugin::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::alerts::{Alerts, Trouble};
use super::engine::{Engine, Pace, Told as EngineTold};
use super::metrics::{Shown, Watched};
use super::partitions::{Assigned, Partitions};
use super::records::{Batch, Letter, Place, letters};
use crate::clock::random;
use crate::secret::Redactor;

/// How long the source waits for something to happen, before it is asked again.
const POLL: Duration = Duration::from_millis(500);
/// After an error of the source that may pass it is asked again after so long.
const POLL_AGAIN: Duration = Duration::from_millis(500);
/// How long the last commit may take.
const LAST_COMMIT: Duration = Duration::from_secs(10);
/// So often the source hears of records that take long, and what counts as long.
const STILL_WORKING_EVERY: Duration = Duration::from_secs(5);
/// So often the state is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);
/// How long an alert may take: longer than a source needs to say why nobody takes it. After how long it is sent again. And how
/// long the stream's end waits for the last ones.
const ALERT: Duration = Duration::from_secs(40);
const ALERT_AGAIN: Duration = Duration::from_secs(5);
const LAST_ALERTS: Duration = Duration::from_secs(3);
/// An attempt that fails is one too many from this one on.
const KEEPS_FAILING: u32 = 3;
/// So many completions are taken at a time.
const COMPLETIONS: usize = 1024;

/// What a stream has around it.
pub(super) struct Settings {
    /// Its name, for the log.
    pub(super) name: String,
    /// What the control plane is told.
    pub(super) options: Options,
    /// The topic of dead letters, and whether they have the records' keys and values.
    pub(super) dead_letter: Option<(String, bool)>,
    /// The topic of alerts.
    pub(super) alerts: Option<String>,
    /// What no alert and no dead letter says.
    pub(super) redactor: Redactor,
    /// How long a dead letter may take.
    pub(super) letter_timeout: Duration,
    /// How often positions are committed.
    pub(super) commit_every: Duration,
    /// How long what is under way may take when its partition is given away.
    pub(super) revoke_grace: Duration,
    /// How long it may take when the stream stops.
    pub(super) drain: Duration,
}

/// Why a stream ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The source cannot go on.
    #[error("the source failed: {0}")]
    Source(Error),
    /// What handles its records cannot go on.
    #[error("{0}")]
    Handler(Error),
    /// A record could not be handled, and there is nowhere to put it.
    #[error("the record `{record}` could not be handled, and the stream has no `dead_letter`: {error}")]
    Record {
        /// `topic/partition/offset`.
        record: String,
        /// Why, the last time.
        error: Error,
    },
}

type Events = Pin<Box<dyn Future<Output = Result<Option<StreamEvent>>> + Send>>;

/// A record, as it was delivered.
type RecordId = (Number, Epoch, u64);

fn record_id(work: &Work<Place>) -> RecordId {
    (work.partition, work.epoch, work.offset)
}

/// What a task of the owner's has done.
enum Told {
    Published { id: WorkId, record: RecordId, result: Result<()> },
    Committed { commits: Vec<Commit>, result: Result<Vec<Committed>>, took: Duration },
    Acknowledged(Result<()>),
}

/// Partitions that are to be given away.
struct Leaving {
    partitions: Vec<Number>,
    until: Instant,
}

/// The loop.
pub(super) struct Owner<E> {
    settings: Settings,
    source: Arc<Instance>,
    control: Control<Place>,
    partitions: Partitions,
    engine: E,
    engine_tells: mpsc::Receiver<EngineTold>,
    // A task each; they end with the loop.
    tasks: JoinSet<Told>,
    committing: bool,
    acknowledging: bool,
    /// What the source is to be told of single records.
    verdicts: Vec<Acknowledgement>,
    /// Why records failed that are on their way to the dead letters. A record is published under another id each time.
    errors: HashMap<RecordId, Error>,
    leaving: Vec<Leaving>,
    /// Since when records are here, where each is acknowledged alone.
    here: HashMap<(Number, u64), Duration>,
    began: Instant,
    /// The source's error that was told last: it may come many times.
    last_error: Option<String>,
    failed: Option<StreamError>,
    alerts: Option<Alerts>,
    // One at a time; nothing waits for it but the stream's end.
    alerting: JoinSet<Result<()>>,
    pace: Pace,
    watched: Watched,
}

impl<E: Engine> Owner<E> {
    /// A stream that has not begun.
    pub(super) fn new(
        settings: Settings,
        source: Arc<Instance>,
        engine: E,
        engine_tells: mpsc::Receiver<EngineTold>,
    ) -> Self {
        let watched = Watched::new(&settings.name);
        let alerts = settings.alerts.as_ref().map(|topic| Alerts::new(&settings.name, topic));
        Self {
            control: Control::new(settings.options),
            settings,
            source,
            partitions: Partitions::default(),
            engine,
            engine_tells,
            tasks: JoinSet::new(),
            committing: false,
            acknowledging: false,
            verdicts: Vec::new(),
            errors: HashMap::new(),
            leaving: Vec::new(),
            here: HashMap::new(),
            began: Instant::now(),
            last_error: None,
            failed: None,
            alerts,
            alerting: JoinSet::new(),
            pace: Pace::default(),
            watched,
        }
    }

    /// Where it shows what it does.
    pub(super) fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Runs until it is told to stop, or cannot go on. What is under way then has the time of [`Settings::drain`]; what is
    /// done is committed. The source is left open.
    ///
    /// # Errors
    /// Why it could not go on.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<StreamState, StreamError> {
        let mut commits = tokio::time::interval(self.settings.commit_every);
        commits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut show = tokio::time::interval(SHOWN_EVERY);
        let mut working = tokio::time::interval(STILL_WORKING_EVERY);
        let mut events = self.next_event(Duration::ZERO);
        let mut done = Vec::with_capacity(COMPLETIONS);
        let mut stopping: Option<Instant> = None;
        loop {
            let wake = self.control.wake().map(|at| self.began + at);
            let leave = self.leaving.iter().map(|leaving| leaving.until).min();
            let until = [wake, leave, stopping].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(self.stop());
                }
                _ = self.engine_tells.recv_many(&mut done, COMPLETIONS) => {
                    done.drain(..).for_each(|one| self.engine_told(one));
                }
                Some(told) = self.tasks.join_next() => self.told(told),
                Some(alerted) = self.alerting.join_next() => self.alerted(alerted),
                event = &mut events, if !self.engine.is_full() => {
                    let pause = self.event(event).await;
                    events = self.next_event(pause);
                }
                _ = commits.tick() => self.commit(),
                _ = show.tick() => self.show(),
                _ = working.tick() => self.still_working().await,
                () = sleep_until(until), if until.is_some() => {}
            }
            self.go_on();
            self.publish_alert(Duration::ZERO);
            self.say_what_changes().await;
            self.let_go().await;
            if self.failed.is_some() && stopping.is_none() {
                stopping = Some(self.stop());
            }
            if stopping.is_some_and(|until| self.control.is_idle() || Instant::now() >= until) {
                break;
            }
        }
        self.end().await
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn next_event(&self, pause: Duration) -> Events {
        let source = self.source.clone();
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            source.poll(POLL).await
        })
    }

    /// Takes an event of the source's. How long to wait before the next is asked for.
    async fn event(&mut self, event: Result<Option<StreamEvent>>) -> Duration {
        match event {
            Ok(None) => {}
            Ok(Some(event)) => {
                self.last_error = None;
                match event {
                    StreamEvent::Assigned(partitions) => partitions.into_iter().for_each(|one| self.assigned(one)),
                    StreamEvent::Revoked(partitions) => self.revoked(&partitions),
                    StreamEvent::Lost(partitions) => self.lost(&partitions),
                    StreamEvent::Progress(partitions) => partitions.iter().for_each(|one| self.progressed(one)),
                    StreamEvent::Records(frame) => match Records::read(&frame).await {
                        Ok(batches) => batches.into_iter().for_each(|records| self.deliver(records)),
                        Err(error) => self.fail(StreamError::Source(error)),
                    },
                }
            }
            Err(error) if error.retryable => {
                let text = error.to_string();
                if self.last_error.as_ref() != Some(&text) {
                    tracing::warn!(stream = self.settings.name, "the source: {error}");
                    self.alert(Trouble::Source, || text.clone());
                    self.last_error = Some(text);
                }
                return POLL_AGAIN;
            }
            Err(error) => {
                self.fail(StreamError::Source(error));
                return POLL_AGAIN;
            }
        }
        Duration::ZERO
    }

    fn fail(&mut self, error: StreamError) {
        if self.failed.is_none() {
            let mask = |error| self.settings.redactor.error(error);
            let error = match error {
                StreamError::Source(error) => StreamError::Source(mask(error)),
                StreamError::Handler(error) => StreamError::Handler(mask(error)),
                masked @ StreamError::Record { .. } => masked,
            };
            self.alert(Trouble::Stopped, || error.to_string());
            self.failed = Some(error);
        }
    }

    /// Says that somebody should look at it, without any secret.
    fn alert(&mut self, trouble: Trouble, message: impl FnOnce() -> String) {
        if let Some(alerts) = &mut self.alerts {
            let message = self.settings.redactor.text(&message()).into_owned();
            alerts.raise(trouble, message, jiff::Timestamp::now());
        }
    }

    /// Publishes an alert that waits, after a pause if nobody took the last.
    fn publish_alert(&mut self, pause: Duration) {
        let Some(frame) = self.alerts.as_mut().and_then(Alerts::next) else { return };
        let source = self.source.clone();
        self.alerting.spawn(async move {
            tokio::time::sleep(pause).await;
            let published = tokio::time::timeout(ALERT, source.announce(frame)).await;
            let late = || {
                let message = format!("it was not confirmed within {} s", ALERT.as_secs());
                Err(Error::new(ErrorKind::TimedOut, "unconfirmed", message).retryable(true))
            };
            published.unwrap_or_else(|_| late())
        });
    }

    fn alerted(&mut self, alerted: Result<Result<()>, tokio::task::JoinError>) {
        let lost = |lost| Err(Error::new(ErrorKind::Internal, "lost", "its task failed").caused_by(lost));
        let again = match alerted.unwrap_or_else(lost) {
            Ok(()) => false,
            Err(error) => {
                let (stream, topic) = (&self.settings.name, self.settings.alerts.as_deref());
                let what_next = if error.retryable { "is sent again" } else { "is dropped" };
                let hint = error.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                tracing::warn!(stream, topic, "an alert was not taken, and {what_next}: {error}{hint}");
                error.retryable
            }
        };
        self.alerts.iter_mut().for_each(|alerts| alerts.sent(again));
        self.publish_alert(if again { ALERT_AGAIN } else { Duration::ZERO });
    }

    fn assigned(&mut self, assignment: Assignment) {
        let Assignment { partition, epoch: source_epoch, position, metadata, end } = assignment;
        let number = self.partitions.number(&partition);
        let start = Start {
            position: position.and_then(offset).unwrap_or_default(),
            metadata: metadata.as_deref(),
            log_end: end.and_then(offset),
        };
        let (epoch, unreadable) = self.control.assign_checked(number, start);
        if let Some(why) = unreadable {
            tracing::warn!(
                stream = self.settings.name,
                partition = partition.partition,
                "the metadata of the last commit of `{}` says nothing: {why}; some records may run again",
                partition.topic
            );
        }
        self.partitions.home_mut(number).assigned = Some(Assigned { source_epoch, epoch, fresh: true });
        tracing::debug!(stream = self.settings.name, "assigned: {}/{}", partition.topic, partition.partition);
    }

    fn revoked(&mut self, partitions: &[Partition]) {
        let numbers: Vec<_> = partitions.iter().map(|one| self.partitions.number(one)).collect();
        numbers.iter().for_each(|number| self.control.revoke(*number));
        self.engine.hurry();
        self.leaving.push(Leaving { partitions: numbers, until: Instant::now() + self.settings.revoke_grace });
    }

    fn lost(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let number = self.partitions.number(partition);
            self.control.lose(number);
            self.forget(number);
            tracing::warn!(stream = self.settings.name, "lost: {}/{}", partition.topic, partition.partition);
        }
    }

    fn forget(&mut self, number: Number) {
        self.partitions.home_mut(number).assigned = None;
        self.here.retain(|(partition, _), _| *partition != number);
        self.errors.retain(|(partition, ..), _| *partition != number);
    }

    fn progressed(&mut self, progressed: &Progressed) {
        let number = self.partitions.number(&progressed.partition);
        let Some(assigned) = self.partitions.home(number).assigned else { return };
        if assigned.source_epoch != progressed.epoch {
            return;
        }
        if let Some(position) = progressed.position.and_then(offset) {
            self.control.advance(number, assigned.epoch, position);
        }
        if let Some(end) = progressed.end.and_then(offset) {
            self.control.log_end(number, assigned.epoch, end);
        }
    }

    fn deliver(&mut self, records: Records) {
        let (batch, now) = (Batch::new(records), self.now());
        for row in 0..u32::try_from(batch.records().len()).expect("a batch has fewer rows") {
            let record = batch.records().get(row as usize);
            let number = self.partitions.find(record.topic(), record.partition());
            let (Some(number), Some(at)) = (number, offset(record.offset())) else { continue };
            // What comes of a partition that is gone is somebody else's.
            let Some(assigned) = self.partitions.home(number).assigned else { continue };
            let place = Place::new(batch.clone(), row);
            let delivery = self.control.deliver(number, assigned.epoch, at, record.key(), place.clone(), now);
            match delivery {
                Delivery::Refused(Refusal::OutOfOrder(_)) if assigned.fresh => {
                    self.begins_before(number, at, &place, now)
                }
                Delivery::Queued if self.settings.options.acknowledge == Acknowledge::Each => {
                    self.here.insert((number, at), now);
                }
                Delivery::Queued | Delivery::DoneBefore | Delivery::InFlight | Delivery::Refused(_) => {}
            }
            if assigned.fresh
                && let Some(assigned) = &mut self.partitions.home_mut(number).assigned
            {
                assigned.fresh = false;
            }
        }
    }

    /// The log begins before the position that was committed: it was made anew, or somebody has set it back. What the source
    /// says counts.
    fn begins_before(&mut self, number: Number, at: u64, place: &Place, now: Duration) {
        tracing::warn!(
            stream = self.settings.name,
            "`{}` comes before the position that was committed; it goes on from there",
            place.name()
        );
        let epoch = self.control.assign(number, Start { position: at, ..Start::default() });
        if let Some(assigned) = &mut self.partitions.home_mut(number).assigned {
            assigned.epoch = epoch;
        }
        self.control.deliver(number, epoch, at, place.record().key(), place.clone(), now);
    }

    fn engine_told(&mut self, told: EngineTold) {
        match told {
            EngineTold::Handled { work, result, took } => {
                self.watched.handled(took);
                self.pace.took(took);
                self.completed(&work, result);
            }
            EngineTold::NotRun(work) => {
                self.control.completed(work.id, Outcome::NotRun, self.now(), random());
            }
            EngineTold::Struggles(message) => self.alert(Trouble::Handling, || message),
            EngineTold::Broken(error) => self.fail(StreamError::Handler(error)),
        }
    }

    fn completed(&mut self, work: &Work<Place>, result: Result<()>) {
        let outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed { retryable: error.retryable },
        };
        let settled = self.control.completed(work.id, outcome, self.now(), random());
        if settled == Settled::Done {
            self.watched.done(work.payload.age());
        }
        let Err(error) = result.map_err(|error| self.settings.redactor.error(error)) else { return };
        let (stream, record, attempt) = (&self.settings.name, work.payload.name(), work.attempt);
        match settled {
            Settled::Retry { at } => {
                let after = at.saturating_sub(self.began.elapsed()).as_millis();
                tracing::warn!(stream, record, attempt, "failed, and is tried again in {after} ms: {error}");
                if attempt >= KEEPS_FAILING {
                    self.alert(Trouble::Handling, || format!("`{record}` keeps failing, and is tried again: {error}"));
                }
            }
            Settled::DeadLetter => {
                tracing::error!(stream, record, attempt, "failed, and goes to the dead letters: {error}");
                self.alert(Trouble::Handling, || format!("`{record}` failed, and goes to the dead letters: {error}"));
                self.errors.insert(record_id(work), error);
                self.publish(work);
            }
            Settled::GiveUp => self.fail(StreamError::Record { record, error }),
            Settled::Done | Settled::Requeued | Settled::Left | Settled::Stale => {}
        }
    }

    /// Sends the dead letter of a record.
    fn publish(&mut self, work: &Work<Place>) {
        let Some((topic, whole)) = &self.settings.dead_letter else { return };
        let lost = || Error::new(ErrorKind::Internal, "unknown", "why it failed is not known any more");
        let error = self.errors.get(&record_id(work)).cloned().unwrap_or_else(lost);
        let letter = Letter { place: &work.payload, error: &error, attempt: work.attempt, epoch: work.epoch.get() };
        let frame = letters(topic, *whole, [letter]).finish_frame();
        let (source, time) = (self.source.clone(), self.settings.letter_timeout);
        let (id, record) = (work.id, record_id(work));
        self.tasks.spawn(async move {
            let published = tokio::time::timeout(time, source.publish(frame)).await;
            let result = published.unwrap_or_else(|_| {
                let message = format!("it was not confirmed within {} ms", time.as_millis());
                Err(Error::new(ErrorKind::TimedOut, "unconfirmed", message).retryable(true))
            });
            Told::Published { id, record, result }
        });
    }

    fn told(&mut self, told: Result<Told, tokio::task::JoinError>) {
        match told {
            Ok(Told::Published { id, record, result: Ok(()) }) => {
                self.errors.remove(&record);
                self.control.dead_lettered(id, self.now());
            }
            Ok(Told::Published { id, result: Err(error), .. }) => {
                tracing::error!(stream = self.settings.name, "a dead letter was not taken, and is sent again: {error}");
                self.control.dead_letter_failed(id, self.now(), random());
                self.alert(Trouble::DeadLetters, || format!("a dead letter was not taken: {error}"));
            }
            Ok(Told::Committed { commits, result, took }) => {
                self.watched.committed(took);
                self.committing = false;
                self.committed(&commits, result);
            }
            Ok(Told::Acknowledged(result)) => {
                self.acknowledging = false;
                if let Err(error) = result {
                    tracing::warn!(
                        stream = self.settings.name,
                        "acknowledgements may be lost, and records come again: {error}"
                    );
                }
            }
            Err(lost) => tracing::error!(stream = self.settings.name, "a task of the stream failed: {lost}"),
        }
    }

    /// Begins what may begin.
    fn go_on(&mut self) {
        let now = self.now();
        let mut works = Vec::new();
        let ahead = if self.engine.goes_on() { self.pace.ahead().unwrap_or(0) } else { 0 };
        while let Some(work) = self.control.next(now) {
            match work.step {
                Step::Handle => {
                    let id = work.id;
                    works.push(work);
                    works.extend(self.control.followers(id, ahead));
                }
                Step::DeadLetter => self.publish(&work),
            }
        }
        if !works.is_empty() {
            self.engine.start(works);
        }
    }

    /// Tells the source whom to hold, and what is done.
    async fn say_what_changes(&mut self) {
        let changes = self.control.flow();
        for held in [true, false] {
            let of = |flow: &Flow| (*flow == Flow::Pause) == held;
            let changed = changes.iter().filter(|(_, flow)| of(flow));
            let partitions: Vec<_> = changed.map(|(one, _)| self.partitions.home(*one).partition.clone()).collect();
            if !partitions.is_empty()
                && let Err(error) = self.source.hold(partitions, held).await
            {
                tracing::warn!(stream = self.settings.name, "the source does not hold back: {error}");
            }
        }
        for done in self.control.acknowledgements() {
            self.here.remove(&(done.partition, done.offset));
            let verdict = if done.handled { Acknowledged::Done } else { Acknowledged::Terminated };
            self.verdicts.push(self.verdict(done.partition, done.offset, verdict));
        }
        self.acknowledge();
    }

    fn verdict(&self, number: Number, at: u64, verdict: Acknowledged) -> Acknowledgement {
        let partition = self.partitions.home(number).partition.clone();
        Acknowledgement { partition, offset: i64::try_from(at).unwrap_or(i64::MAX), verdict }
    }

    /// Sends what is to be said, if no one is under way with what was said before.
    fn acknowledge(&mut self) {
        if self.acknowledging || self.verdicts.is_empty() {
            return;
        }
        self.acknowledging = true;
        let (source, verdicts) = (self.source.clone(), std::mem::take(&mut self.verdicts));
        self.tasks.spawn(async move { Told::Acknowledged(source.acknowledge(verdicts).await) });
    }

    /// Says of records that take long that they are still worked on.
    async fn still_working(&mut self) {
        let now = self.now();
        let long = self.here.iter_mut().filter(|(_, since)| now.saturating_sub(**since) >= STILL_WORKING_EVERY);
        let long: Vec<_> = long
            .map(|(record, since)| {
                *since = now;
                *record
            })
            .collect();
        let working = long.into_iter().map(|(number, at)| self.verdict(number, at, Acknowledged::Working));
        let working: Vec<_> = working.collect();
        self.verdicts.extend(working);
    }

    /// Sends what has changed since the last commit, unless one is under way.
    fn commit(&mut self) {
        if self.committing {
            return;
        }
        let commits = self.control.commits();
        let positions = self.positions(&commits);
        if positions.is_empty() {
            return;
        }
        self.committing = true;
        let source = self.source.clone();
        self.tasks.spawn(async move {
            let began = Instant::now();
            let result = source.commit_positions(positions).await;
            Told::Committed { commits, result, took: began.elapsed() }
        });
    }

    /// The commits, as the source knows its partitions. Those of another epoch than the present are left out.
    fn positions(&self, commits: &[Commit]) -> Vec<Position> {
        let position = |commit: &Commit| {
            let home = self.partitions.home(commit.partition);
            let assigned = home.assigned.filter(|assigned| assigned.epoch == commit.epoch)?;
            Some(Position {
                partition: home.partition.clone(),
                epoch: assigned.source_epoch,
                offset: i64::try_from(commit.position).ok()?,
                metadata: commit.metadata.clone(),
            })
        };
        commits.iter().filter_map(position).collect()
    }

    fn committed(&mut self, commits: &[Commit], result: Result<Vec<Committed>>) {
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(stream = self.settings.name, "the commit failed, and is tried again: {error}");
                self.alert(Trouble::Commit, || format!("the commit failed, and is tried again: {error}"));
                return commits.iter().for_each(|commit| self.control.committed(commit, false));
            }
        };
        for commit in commits {
            let partition = &self.partitions.home(commit.partition).partition;
            let answer = answers.iter().find(|answer| answer.partition == *partition);
            let error = answer.and_then(|answer| answer.error.as_ref());
            self.control.committed(commit, answer.is_some() && error.is_none());
            if let Some(error) = error {
                let message = format!("the commit of {}/{} failed: {error}", partition.topic, partition.partition);
                tracing::warn!(stream = self.settings.name, "{message}");
                self.alert(Trouble::Commit, || message);
            }
        }
    }

    /// Commits and gives away what was revoked, as soon as nothing of it runs any more, or it has had its time.
    async fn let_go(&mut self) {
        let now = Instant::now();
        let control = &self.control;
        let over =
            |leaving: &mut Leaving| leaving.until <= now || leaving.partitions.iter().all(|one| control.drained(*one));
        let leaving: Vec<Leaving> = self.leaving.extract_if(.., over).collect();
        for Leaving { partitions, .. } in leaving {
            let commits: Vec<Commit> = partitions.iter().filter_map(|one| self.control.commit(*one)).collect();
            self.commit_and_wait(commits).await;
            let named = partitions.iter().map(|one| self.partitions.home(*one).partition.clone()).collect();
            for number in partitions {
                self.control.release(number);
                self.forget(number);
            }
            if let Err(error) = self.source.release(named).await {
                tracing::warn!(stream = self.settings.name, "the source does not let go: {error}");
            }
        }
    }

    async fn commit_and_wait(&mut self, commits: Vec<Commit>) {
        let positions = self.positions(&commits);
        if positions.is_empty() {
            return;
        }
        let result = tokio::time::timeout(LAST_COMMIT, self.source.commit_positions(positions)).await;
        let late = |_| Err(Error::new(ErrorKind::TimedOut, "late-commit", "it took too long").retryable(true));
        self.committed(&commits, result.unwrap_or_else(late));
    }

    /// Begins nothing more. Until when what is under way may go on.
    fn stop(&mut self) -> Instant {
        self.control.drain();
        self.engine.hurry();
        Instant::now() + self.settings.drain
    }

    async fn end(mut self) -> Result<StreamState, StreamError> {
        self.abort().await;
        self.say_what_changes().await;
        let until = tokio::time::Instant::now() + LAST_COMMIT;
        while let Ok(Some(told)) = tokio::time::timeout_at(until, self.tasks.join_next()).await {
            self.told(told);
            self.say_what_changes().await;
        }
        self.tasks.shutdown().await;
        let commits = self.control.commits();
        self.commit_and_wait(commits).await;
        self.publish_last_alerts().await;
        let leaving = self.partitions.assigned().map(|(_, home)| home.partition.clone()).collect();
        // One that it did not ask for is none of its business.
        drop(self.source.release(leaving).await);
        self.show();
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(self.control.state(self.now())),
        }
    }

    /// Ends what is under way: whoever reads on does it again. What becomes done meanwhile counts; the engine may wait until that
    /// is taken.
    async fn abort(&mut self) {
        let mut last = Vec::new();
        {
            let Self { engine, engine_tells, .. } = self;
            let mut aborted = std::pin::pin!(engine.abort());
            loop {
                tokio::select! {
                    () = &mut aborted => break,
                    Some(told) = engine_tells.recv() => last.push(told),
                }
            }
            while let Ok(told) = engine_tells.try_recv() {
                last.push(told);
            }
        }
        last.into_iter().for_each(|told| self.engine_told(told));
    }

    /// Has the alerts out that wait, as far as somebody takes them soon.
    async fn publish_last_alerts(&mut self) {
        self.publish_alert(Duration::ZERO);
        let until = tokio::time::Instant::now() + LAST_ALERTS;
        while let Ok(Some(alerted)) = tokio::time::timeout_at(until, self.alerting.join_next()).await {
            self.alerted(alerted);
        }
        self.alerting.shutdown().await;
    }

    fn show(&self) {
        let state = self.control.state(self.now());
        let partitions = state.partitions.iter().map(|one| self.partitions.home(one.partition).partition.clone());
        self.watched.show(Shown { partitions: partitions.collect(), state });
    }
}

/// An offset. A negative one is none.
fn offset(offset: i64) -> Option<u64> {
    u64::try_from(offset).ok()
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
