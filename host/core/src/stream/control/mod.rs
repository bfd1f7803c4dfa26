//! The one owner of a stream's state.
//!
//! A [`Control`] is a state machine. It is told what happens (a partition comes, a record comes, a record is done, time
//! passes) and asked what to do (which record next, what to commit, whom to pause). The order of calls is the order of
//! events: whoever owns it calls it from one place.

mod partition;
mod settle;
mod state;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::partition::{Assigned, Deliveries, Home, Phase};
use super::admission::Limits;
use super::lanes::{Lanes, Ordering};
use super::ledger::{Delivered, Ledger, Offset, OutOfOrder};
use super::metadata::{self, Unreadable};
use super::ready::Turns;
use super::works::{Item, State, Step, WorkId, Works};
use crate::retry::Retry;

pub use settle::{Outcome, Settled};
pub use state::{PartitionState, StreamState, Totals};

/// A partition of a stream's source: whoever owns the [`Control`] numbers them, from 0 on, and keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

/// An assignment of a partition. Each has a higher one than every assignment before it, of whichever partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The number, from 1 on.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a source learns what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// By the position of each partition, as Kafka does. Offsets rise within an epoch.
    #[default]
    Position,
    /// Record by record, as JetStream does. A record that takes too long may come again meanwhile.
    Each,
}

/// How a stream is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which records run one after the other.
    pub ordering: Ordering,
    /// How its source learns what is done.
    pub acknowledge: Acknowledge,
    /// Its bounds.
    pub limits: Limits,
    /// When a record that failed is tried again.
    pub retry: Retry,
    /// Is there somewhere to publish the records that could not be handled? Else the first of them stops the stream.
    pub dead_letters: bool,
    /// A random number: it keeps whoever writes the keys from choosing which of them collide.
    pub seed: u64,
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start<'a> {
    /// The offset that its reader starts at: what was committed, or where a group without a commit begins.
    pub position: Offset,
    /// The metadata of that commit.
    pub metadata: Option<&'a str>,
    /// The offset behind the last record of the log, if it is known.
    pub log_end: Option<Offset>,
}

/// What a delivery became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It waits for its turn.
    Queued,
    /// An earlier owner of the partition had completed it. It counts as complete, and is not run again.
    DoneBefore,
    /// It is under way already, and is not run twice. Its newer payload has taken the place of the older.
    InFlight,
    /// It is none of this consumer's. Nothing has changed.
    Refused(Refusal),
}

/// Why a delivery is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has assigned the partition, or it has been taken away.
    #[error("its partition is not assigned")]
    NotAssigned,
    /// It was read in an epoch that is over.
    #[error("it is of epoch {given}; the epoch is {current}")]
    OtherEpoch {
        /// That of the record.
        given: Epoch,
        /// That of the partition.
        current: Epoch,
    },
    /// The partition is about to be given away.
    #[error("its partition is being given away")]
    Draining,
    /// It came already, or a later one did.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Work<T> {
    /// What its end is reported by, once, and not before whoever works on it has let go of the record: its key is free then.
    pub id: WorkId,
    /// Whether the record is to be handled, or its dead letter to be published.
    pub step: Step,
    /// The partition of the record.
    pub partition: Partition,
    /// The epoch it was delivered in.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: Offset,
    /// Which execution this is, from 1 on. Of a dead letter: how often the record was handled.
    pub attempt: u32,
    /// What it was delivered with.
    pub payload: T,
    /// Whether it is one of the [`Control::followers`] of the work that was given out before it.
    pub follows: bool,
}

/// What is to be committed for a partition: a position, and what is complete beyond it, as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: Partition,
    /// The epoch that it may be committed in. In another the partition may be somebody else's: see [`Control::owns`].
    pub epoch: Epoch,
    /// The offset of the next record to be read.
    pub position: Offset,
    /// What is complete beyond it.
    pub metadata: String,
    changes: u64,
}

/// A record whose source is to be told that it is done with.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledgement<T> {
    /// The partition of the record.
    pub partition: Partition,
    /// The epoch it was delivered in.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: Offset,
    /// What it was delivered with last.
    pub payload: T,
    /// Whether it was handled. Else it is a dead letter, which is published and confirmed.
    pub handled: bool,
}

/// What the source of a partition is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Deliver nothing more for now. What comes all the same is taken.
    Pause,
    /// Go on.
    Resume,
}

/// The state of a stream. `T` is what a record is handed on with: a handle, cheap to clone.
#[derive(Debug)]
pub struct Control<T> {
    options: Options,
    homes: Vec<Home>,
    works: Works<T>,
    lanes: Lanes,
    turns: Turns,
    /// When parked records are due. Some may have been dropped meanwhile.
    timers: BinaryHeap<Reverse<(Duration, WorkId)>>,
    /// How many records somebody has in hand, those of old epochs too: they take up the engine all the same.
    busy: usize,
    /// Those of them that are handled, which is what the limit is of.
    running: usize,
    last_epoch: u64,
    stopped: bool,
    /// The partitions whose flow may have to change.
    to_tell: Vec<Partition>,
    acknowledgements: Vec<Acknowledgement<T>>,
    totals: Totals,
}

impl<T: Clone> Control<T> {
    /// The state of a stream to which nothing has happened.
    #[must_use]
    pub fn new(options: Options) -> Control<T> {
        Control {
            options,
            homes: Vec::new(),
            works: Works::new(),
            lanes: Lanes::new(options.seed),
            turns: Turns::default(),
            timers: BinaryHeap::new(),
            busy: 0,
            running: 0,
            last_epoch: 0,
            stopped: false,
            to_tell: Vec::new(),
            acknowledgements: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Takes a partition on. One that is assigned already is lost first.
    ///
    /// The metadata of a commit that cannot be read, or is of another position, marks nothing: what it might have meant
    /// is done again. See [`Control::assign_checked`] to be told.
    pub fn assign(&mut self, partition: Partition, start: Start<'_>) -> Epoch {
        self.assign_checked(partition, start).0
    }

    /// The same, with why the metadata marks nothing, if it was there and does not.
    pub fn assign_checked(&mut self, partition: Partition, start: Start<'_>) -> (Epoch, Option<Unreadable>) {
        self.lose(partition);
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        let marks = start.metadata.map(|text| metadata::decode(text, start.position, start.log_end));
        let (marks, unreadable) = match marks {
            None => (None, None),
            Some(Ok(marks)) => (Some(marks), None),
            Some(Err(why)) => (None, Some(why)),
        };
        let deliveries = match self.options.acknowledge {
            Acknowledge::Position => Deliveries::InOrder(Ledger::resume(start.position, marks.unwrap_or_default())),
            Acknowledge::Each => Deliveries::EachAlone(std::collections::HashMap::new()),
        };
        let place = partition.0 as usize;
        if self.homes.len() <= place {
            self.homes.resize_with(place + 1, Home::default);
        }
        self.homes[place].assigned = Some(Assigned::new(epoch, deliveries, start.log_end));
        (epoch, unreadable)
    }

    /// Does this consumer own the partition in that epoch, now? To be asked right before a commit: a broker does not check
    /// it, and takes a late commit of somebody else's partition.
    #[must_use]
    pub fn owns(&self, partition: Partition, epoch: Epoch) -> bool {
        self.assigned(partition).is_some_and(|assigned| assigned.epoch == epoch)
    }

    /// Takes a record. `key` decides about its lane only: give the exact bytes, or `None` if it has none.
    pub fn deliver(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        offset: Offset,
        key: Option<&[u8]>,
        payload: T,
        now: Duration,
    ) -> Delivery {
        let assigned = match active(&mut self.homes, partition, epoch) {
            Ok(assigned) => assigned,
            Err(refusal) => return Delivery::Refused(refusal),
        };
        let slot = match &mut assigned.deliveries {
            Deliveries::InOrder(ledger) => match ledger.deliver(offset, now) {
                Ok(Delivered::New(slot)) => Some(slot),
                Ok(Delivered::DoneBefore) => {
                    assigned.done_before += 1;
                    self.totals.done_before += 1;
                    self.regulate(partition);
                    return Delivery::DoneBefore;
                }
                Err(error) => return Delivery::Refused(error.into()),
            },
            Deliveries::EachAlone(places) => {
                if let Some(place) = places.get(&offset) {
                    self.works.get_mut(*place).payload = payload;
                    self.totals.redelivered += 1;
                    return Delivery::InFlight;
                }
                None
            }
        };
        let lane = self.options.ordering.lane_key(key).map(|key| self.lanes.of_key(partition, key));
        let place = self.works.insert(Item {
            partition,
            epoch,
            offset,
            slot,
            lane,
            executions: 0,
            publications: 0,
            step: Step::Handle,
            state: State::Queued,
            payload,
        });
        if let Deliveries::EachAlone(places) = &mut assigned.deliveries {
            places.insert(offset, place);
        }
        assigned.items += 1;
        self.totals.delivered += 1;
        let is_first = lane.is_none_or(|lane| self.lanes.append(lane, place));
        if is_first {
            self.make_ready(place);
        } else if lane.is_some_and(|lane| self.lanes.is_held(lane)) {
            assigned.held += 1;
        }
        self.regulate(partition);
        Delivery::Queued
    }

    /// Takes note that the reader of a partition stands at `to`, though no record came from there. False if that is not
    /// this consumer's to say any more.
    pub fn advance(&mut self, partition: Partition, epoch: Epoch, to: Offset) -> bool {
        let Ok(assigned) = active(&mut self.homes, partition, epoch) else { return false };
        match &mut assigned.deliveries {
            Deliveries::InOrder(ledger) => ledger.advance(to),
            Deliveries::EachAlone(_) => {}
        }
        true
    }

    /// Takes note of the offset behind the last record of the log, which lag is measured by.
    pub fn log_end(&mut self, partition: Partition, epoch: Epoch, end: Offset) -> bool {
        let Ok(assigned) = active(&mut self.homes, partition, epoch) else { return false };
        assigned.log_end = Some(end);
        true
    }

    /// What to do next; `None` if there is nothing, or as much under way as may be.
    pub fn next(&mut self, now: Duration) -> Option<Work<T>> {
        self.unpark(now);
        if self.stopped || self.running >= self.options.limits.running.get() {
            return None;
        }
        loop {
            let turn = self.turns.take()?;
            let assigned = self.homes[turn.partition().0 as usize].assigned.as_mut();
            let assigned = assigned.expect("only assigned partitions have turns");
            if let Some(place) = self.turns.next_of(turn, &mut assigned.ready) {
                return Some(self.start(place));
            }
        }
    }

    /// The records behind one that is to be handled, in its lane, up to so many: whoever has that in hand begins with each when the
    /// one before it is done. So they have nothing to wait for between one and the next, and take up nothing of what may run.
    ///
    /// If one ends in any other way, those behind it are taken back, and nobody begins with them or tells how they ended. One that is
    /// not begun for another reason is told of as [`Outcome::NotRun`], at any time; those behind it are taken back with it.
    pub fn followers(&mut self, of: WorkId, most: usize) -> impl Iterator<Item = Work<T>> {
        let first = self.in_hand(of, Step::Handle).filter(|place| !self.stopped && self.stays(*place));
        let lane = first.and_then(|place| Some((self.works.get(place).lane?, place)));
        let Self { lanes, works, .. } = self;
        let behind = lane.into_iter().flat_map(|(lane, place)| lanes.behind(lane, place)).take(most);
        behind
            .map_while(|place| (works.get(place).state == State::Queued).then(|| works.give_out(place, State::Behind)))
    }

    fn start(&mut self, place: u32) -> Work<T> {
        let work = self.works.give_out(place, State::Busy);
        self.took(place);
        work
    }

    /// Somebody has a record in hand, and is at it.
    fn took(&mut self, place: u32) {
        let item = self.works.get_mut(place);
        item.state = State::Busy;
        let Item { partition, epoch, step, .. } = *item;
        self.busy += 1;
        self.running += usize::from(step == Step::Handle);
        if let Some(assigned) = self.assigned_in(partition, epoch) {
            match step {
                Step::Handle => assigned.running += 1,
                Step::DeadLetter => assigned.publishing += 1,
            }
        }
    }

    /// Has a record, the first of its lane if it has one, wait for its turn.
    fn make_ready(&mut self, place: u32) {
        let item = self.works.get_mut(place);
        item.state = State::Queued;
        let (partition, offset) = (item.partition, item.offset);
        let assigned = self.homes[partition.0 as usize].assigned.as_mut();
        let assigned = assigned.expect("a record that waits is of an assigned partition");
        let blocks = assigned.ledger().is_some_and(|ledger| ledger.position() == offset);
        self.turns.push(partition, &mut assigned.ready, offset, place, blocks);
    }

    /// Has those wait for their turn whose time has come.
    fn unpark(&mut self, now: Duration) {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            if let Some(place) = self.parked(id) {
                self.hold(place, false);
                self.make_ready(place);
                self.regulate(self.works.get(place).partition);
            }
        }
    }

    fn parked(&self, id: WorkId) -> Option<u32> {
        self.works.find(id).filter(|place| self.works.get(*place).state == State::Parked)
    }

    /// Has a record wait until `at`, and its lane behind it.
    fn park(&mut self, place: u32, at: Duration) {
        self.works.get_mut(place).state = State::Parked;
        self.timers.push(Reverse((at, self.works.id(place))));
        self.hold(place, true);
    }

    /// Counts a record, and those behind it in its lane, as held; or no more.
    fn hold(&mut self, place: u32, held: bool) {
        let Item { partition, lane, .. } = *self.works.get(place);
        let count = lane.map_or(1, |lane| self.lanes.hold(lane, held));
        let assigned = self.assigned_mut(partition).expect("a record that waits is of an assigned partition");
        match held {
            true => assigned.held += count,
            false => assigned.held -= count,
        }
    }

    /// When the next retry is due, if records wait for one.
    pub fn wake(&mut self) -> Option<Duration> {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if self.parked(id).is_some() {
                return Some(at);
            }
            self.timers.pop();
        }
        None
    }

    /// What is to be committed: for each partition where something has changed since the last commit that succeeded. None
    /// where records are acknowledged one by one.
    #[must_use]
    pub fn commits(&self) -> Vec<Commit> {
        (0..self.homes.len()).filter_map(|at| self.commit(Partition(u32::try_from(at).ok()?))).collect()
    }

    /// The same for one partition: what is committed before it is given away.
    #[must_use]
    pub fn commit(&self, partition: Partition) -> Option<Commit> {
        let assigned = self.assigned(partition)?;
        let ledger = assigned.ledger().filter(|ledger| ledger.changes() != assigned.committed)?;
        let snapshot = ledger.snapshot();
        Some(Commit {
            partition,
            epoch: assigned.epoch,
            position: snapshot.position(),
            metadata: metadata::encode(&snapshot),
            changes: ledger.changes(),
        })
    }

    /// Takes note of how a commit ended. One that failed is made anew with the next [`Control::commits`], of what is true
    /// then; it must not be repeated as it was.
    pub fn committed(&mut self, commit: &Commit, succeeded: bool) {
        match succeeded {
            true => self.totals.commits += 1,
            false => self.totals.commit_failures += 1,
        }
        if let Some(assigned) = self.assigned_in(commit.partition, commit.epoch).filter(|_| succeeded) {
            assigned.committed = assigned.committed.max(commit.changes);
        }
    }

    /// The records to acknowledge since this was last asked. None where positions are committed.
    pub fn acknowledgements(&mut self) -> Vec<Acknowledgement<T>> {
        std::mem::take(&mut self.acknowledgements)
    }

    /// Has a partition drain: nothing of it is given out any more, what waits is dropped, what is in hand goes on. Then come a last
    /// commit and [`Control::release`].
    pub fn revoke(&mut self, partition: Partition) {
        let Some(assigned) = self.assigned_mut(partition) else { return };
        assigned.phase = Phase::Draining;
        self.drop_waiting(partition);
    }

    /// Has nobody a record of this partition's present epoch in hand?
    #[must_use]
    pub fn drained(&self, partition: Partition) -> bool {
        self.assigned(partition).is_none_or(|assigned| assigned.running + assigned.publishing == 0)
    }

    /// Gives a partition away. What somebody has in hand of it is stale from now on.
    pub fn release(&mut self, partition: Partition) {
        self.lose(partition);
    }

    /// Takes note that a partition is somebody else's already: nothing of it may be committed any more.
    pub fn lose(&mut self, partition: Partition) {
        if self.assigned(partition).is_some() {
            self.drop_waiting(partition);
            self.homes[partition.0 as usize].assigned = None;
        }
    }

    /// Drops what nobody has in hand. A lane whose first is in hand lives on with that alone: should the partition come
    /// back, its key waits for it.
    fn drop_waiting(&mut self, partition: Partition) {
        let dropped = self.works.remove_waiting(partition);
        let works = &self.works;
        self.lanes.retain(partition, |place| works.holds(place));
        self.timers.retain(|Reverse((_, id))| works.find(*id).is_some());
        let Some(assigned) = self.homes[partition.0 as usize].assigned.as_mut() else { return };
        self.turns.forget(partition, &mut assigned.ready);
        assigned.items -= dropped;
        assigned.held = 0;
        if let Deliveries::EachAlone(places) = &mut assigned.deliveries {
            places.retain(|_, place| works.holds(*place));
        }
    }

    /// Has all partitions drain. Once it [is idle](Control::is_idle), the last commits can be made.
    pub fn drain(&mut self) {
        for at in 0..self.homes.len() {
            self.revoke(Partition(u32::try_from(at).unwrap_or(u32::MAX)));
        }
    }

    /// Is nothing in hand, and does nothing wait?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.busy == 0 && self.homes.iter().all(|home| home.assigned.as_ref().is_none_or(|one| one.items == 0))
    }

    /// Has the stream stopped, because a record failed for good and there is nowhere to publish it?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whose flow changes: since this was last asked, and no partition twice.
    pub fn flow(&mut self) -> Vec<(Partition, Flow)> {
        let to_tell = std::mem::take(&mut self.to_tell);
        let news = to_tell.into_iter().filter_map(|partition| {
            let assigned = self.homes[partition.0 as usize].assigned.as_mut()?;
            assigned.listed = false;
            let paused = assigned.gate.tell()?;
            Some((partition, if paused { Flow::Pause } else { Flow::Resume }))
        });
        news.collect()
    }

    /// Looks whether a partition has to pause, or may go on.
    fn regulate(&mut self, partition: Partition) {
        let Some(assigned) = self.homes[partition.0 as usize].assigned.as_mut() else { return };
        if assigned.regulate(&self.options.limits) && !assigned.listed {
            assigned.listed = true;
            self.to_tell.push(partition);
        }
    }

    /// What a record under way was delivered with.
    #[must_use]
    pub fn payload(&self, id: WorkId) -> Option<&T> {
        self.works.find(id).map(|place| &self.works.get(place).payload)
    }

    fn assigned(&self, partition: Partition) -> Option<&Assigned> {
        self.homes.get(partition.0 as usize)?.assigned.as_ref()
    }

    fn assigned_mut(&mut self, partition: Partition) -> Option<&mut Assigned> {
        self.homes.get_mut(partition.0 as usize)?.assigned.as_mut()
    }

    /// A partition, unless that epoch is over.
    fn assigned_in(&mut self, partition: Partition, epoch: Epoch) -> Option<&mut Assigned> {
        self.assigned_mut(partition).filter(|assigned| assigned.epoch == epoch)
    }

    /// Is a record this consumer's to do, now and later?
    fn stays(&self, place: u32) -> bool {
        let Item { partition, epoch, .. } = *self.works.get(place);
        let is_active = |assigned: &Assigned| assigned.epoch == epoch && assigned.phase == Phase::Active;
        self.assigned(partition).is_some_and(is_active)
    }
}

/// The partition, if it takes records of that epoch.
fn active(homes: &mut [Home], partition: Partition, epoch: Epoch) -> Result<&mut Assigned, Refusal> {
    let assigned = homes.get_mut(partition.0 as usize).and_then(|home| home.assigned.as_mut());
    let assigned = assigned.ok_or(Refusal::NotAssigned)?;
    if assigned.epoch != epoch {
        return Err(Refusal::OtherEpoch { given: epoch, current: assigned.epoch });
    }
    match assigned.phase {
        Phase::Active => Ok(assigned),
        Phase::Draining => Err(Refusal::Draining),
    }
}
