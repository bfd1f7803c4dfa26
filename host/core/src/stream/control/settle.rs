//! How a piece of work ends, and what follows from that.

use std::num::NonZeroU32;
use std::time::Duration;

use super::partition::{Deliveries, Phase};
use super::{Acknowledgement, Control};
use crate::retry::Retry;
use crate::stream::works::{Item, State, Step, WorkId};

/// How handling a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and what it does is durable.
    Done,
    /// It failed.
    Failed {
        /// Does the error say that it may pass?
        retryable: bool,
    },
    /// It was handed on and never begun: that is no attempt. So it is with those that were to be next in a process that
    /// crashed over another. Any end of one that is told before its turn has come is taken for this.
    NotRun,
}

/// What becomes of a record whose work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is complete.
    Done,
    /// It waits for its turn again; nobody counts that.
    Requeued,
    /// It is tried again then: [`Control::next`] gives it out.
    Retry {
        /// When.
        at: Duration,
    },
    /// It failed for good. Its dead letter is to be published now, by whoever is told so; then comes
    /// [`Control::dead_lettered`], or [`Control::dead_letter_failed`]. Until it is confirmed the position does not pass it.
    DeadLetter,
    /// It failed for good, and there is nowhere to publish it. The stream has stopped: nothing starts any more, and whoever
    /// reads from its position next finds the record again.
    GiveUp,
    /// Its partition is about to be given away: whoever owns it next gets the record.
    Left,
    /// Its partition was given away meanwhile, or this end was reported before. Nothing comes of it.
    Stale,
}

impl<T: Clone> Control<T> {
    /// Takes note of how [`Step::Handle`] of a record ended. `random` is from 0 to 1, and settles the jitter of a retry.
    pub fn completed(&mut self, id: WorkId, outcome: Outcome, now: Duration, random: f64) -> Settled {
        let Some(place) = self.in_hand(id, Step::Handle) else { return self.stale_answer() };
        let has_turn = self.works.get(place).state == State::Busy;
        let outcome = if has_turn { outcome } else { Outcome::NotRun };
        if outcome != Outcome::Done {
            self.take_back(place);
        }
        if self.put_back(place) {
            return Settled::Stale;
        }
        match outcome {
            Outcome::Done => self.finish(place, true, now),
            Outcome::NotRun => self.requeue(place),
            Outcome::Failed { retryable } => self.failed(place, retryable, now, random),
        }
    }

    /// The dead letter of a record is published, and that is confirmed: the record is complete.
    pub fn dead_lettered(&mut self, id: WorkId, now: Duration) -> Settled {
        let Some(place) = self.in_hand(id, Step::DeadLetter) else { return self.stale_answer() };
        if self.put_back(place) {
            return Settled::Stale;
        }
        self.finish(place, false, now)
    }

    /// The dead letter of a record could not be published, or nobody knows. It is tried again, and for ever: there is no
    /// other place for the record. [`Control::next`] gives it out, as [`Step::DeadLetter`].
    pub fn dead_letter_failed(&mut self, id: WorkId, now: Duration, random: f64) -> Settled {
        let Some(place) = self.in_hand(id, Step::DeadLetter) else { return self.stale_answer() };
        if self.put_back(place) {
            return Settled::Stale;
        }
        self.totals.dead_letter_failures += 1;
        if self.is_draining(place) {
            return self.leave(place);
        }
        let item = self.works.get_mut(place);
        item.publications = item.publications.saturating_add(1);
        let for_ever = Retry { attempts: NonZeroU32::MAX, ..self.options.retry };
        let delay = for_ever.delay(item.publications, random).unwrap_or(Duration::MAX);
        self.retry(place, now.saturating_add(delay))
    }

    fn failed(&mut self, place: u32, retryable: bool, now: Duration, random: f64) -> Settled {
        self.totals.failed += 1;
        let item = self.works.get_mut(place);
        item.executions = item.executions.saturating_add(1);
        let policy = self.options.retry;
        let delay = policy.delay(item.executions, random).filter(|_| policy.takes(retryable));
        match delay {
            Some(_) if self.is_draining(place) => self.leave(place),
            Some(delay) => {
                self.totals.retries += 1;
                self.retry(place, now.saturating_add(delay))
            }
            None if self.options.dead_letters => self.publish(place),
            None => self.give_up(place),
        }
    }

    fn retry(&mut self, place: u32, at: Duration) -> Settled {
        self.park(place, at);
        self.regulate(self.works.get(place).partition);
        Settled::Retry { at }
    }

    /// Whoever reported the failure has the record in hand again: to publish it.
    fn publish(&mut self, place: u32) -> Settled {
        self.works.get_mut(place).step = Step::DeadLetter;
        self.took(place);
        Settled::DeadLetter
    }

    fn give_up(&mut self, place: u32) -> Settled {
        self.stopped = true;
        self.leave(place);
        Settled::GiveUp
    }

    fn requeue(&mut self, place: u32) -> Settled {
        self.totals.not_run += 1;
        if self.is_draining(place) {
            return self.leave(place);
        }
        match self.works.get(place).state {
            State::Behind => self.works.get_mut(place).state = State::Queued,
            State::Busy | State::Queued | State::Parked => self.make_ready(place),
        }
        Settled::Requeued
    }

    /// Takes back what was given out behind a record: nobody begins with it now.
    fn take_back(&mut self, place: u32) {
        let Some(lane) = self.works.get(place).lane else { return };
        let is_behind = |place: &u32| self.works.get(*place).state == State::Behind;
        let behind: Vec<u32> = self.lanes.behind(lane, place).take_while(is_behind).collect();
        let stays = self.stays(place);
        for place in behind {
            match stays {
                true => self.works.get_mut(place).state = State::Queued,
                false => drop(self.take_out(place)),
            }
        }
    }

    /// The record is complete.
    fn finish(&mut self, place: u32, handled: bool, now: Duration) -> Settled {
        let item = self.take_out(place);
        match handled {
            true => self.totals.completed += 1,
            false => self.totals.dead_letters += 1,
        }
        let assigned = self.homes[item.partition.0 as usize].assigned.as_mut();
        match assigned.map(|assigned| &mut assigned.deliveries) {
            Some(Deliveries::InOrder(ledger)) => {
                if let Some(slot) = item.slot {
                    ledger.complete(slot, now);
                }
            }
            Some(Deliveries::EachAlone(_)) => {
                let Item { partition, epoch, offset, payload, .. } = item;
                self.acknowledgements.push(Acknowledgement { partition, epoch, offset, payload, handled });
            }
            None => {}
        }
        self.regulate(item.partition);
        Settled::Done
    }

    /// The record is no longer this consumer's to do, and it is not complete.
    fn leave(&mut self, place: u32) -> Settled {
        self.take_out(place);
        Settled::Left
    }

    /// Forgets a record, and lets its lane go on.
    fn take_out(&mut self, place: u32) -> Item<T> {
        let item = self.works.remove(place);
        if let Some(assigned) = self.assigned_in(item.partition, item.epoch) {
            assigned.items -= 1;
            if let Deliveries::EachAlone(places) = &mut assigned.deliveries {
                places.remove(&item.offset);
            }
        }
        if let Some(next) = item.lane.and_then(|lane| self.lanes.remove(lane, place)) {
            match self.works.get(next).state {
                State::Behind => self.took(next),
                State::Busy | State::Queued | State::Parked => self.make_ready(next),
            }
        }
        item
    }

    pub(super) fn in_hand(&self, id: WorkId, step: Step) -> Option<u32> {
        let is_it = |place: &u32| {
            let item = self.works.get(*place);
            matches!(item.state, State::Busy | State::Behind) && item.step == step
        };
        self.works.find(id).filter(is_it)
    }

    /// Nobody has the record in hand any more. True if it is stale: then it is forgotten, and its lane goes on.
    fn put_back(&mut self, place: u32) -> bool {
        let Item { partition, epoch, step, state, .. } = *self.works.get(place);
        let at_it = usize::from(state == State::Busy);
        self.busy -= at_it;
        self.running -= if step == Step::Handle { at_it } else { 0 };
        if let Some(assigned) = self.assigned_in(partition, epoch) {
            match step {
                Step::Handle => assigned.running -= at_it,
                Step::DeadLetter => assigned.publishing -= at_it,
            }
            return false;
        }
        self.totals.stale += 1;
        self.homes[partition.0 as usize].stale += 1;
        self.take_out(place);
        true
    }

    fn stale_answer(&mut self) -> Settled {
        self.totals.stale += 1;
        Settled::Stale
    }

    fn is_draining(&self, place: u32) -> bool {
        let partition = self.works.get(place).partition;
        self.assigned(partition).is_some_and(|assigned| assigned.phase == Phase::Draining)
    }
}
