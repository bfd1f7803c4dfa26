//! What a stream looks like from outside: the numbers that its metrics are made of.

use std::time::Duration;

use serde::Serialize;

use super::partition::{Assigned, Phase};
use super::{Control, Epoch, Partition};
use crate::stream::ledger::{Blocking, Ledger, Offset};

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamState {
    /// The partitions that are assigned.
    pub partitions: Vec<PartitionState>,
    /// How many records are handled, those of old epochs too.
    pub running: usize,
    /// How many lanes have a record in them.
    pub lanes: usize,
    /// Has it stopped, because a record failed for good?
    pub stopped: bool,
    /// What has happened since it began.
    pub totals: Totals,
}

/// A partition at one moment. What is about positions is absent where records are acknowledged one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionState {
    /// Which.
    pub partition: Partition,
    /// Its epoch.
    pub epoch: Epoch,
    /// What may be committed.
    pub position: Option<Offset>,
    /// The offset behind everything that was delivered or passed.
    pub delivered_end: Option<Offset>,
    /// The offset behind the last record of the log, as far as it is known.
    pub log_end: Option<Offset>,
    /// How many offsets lie between the position and the end of the log.
    pub lag: Option<u64>,
    /// How many stretches of incomplete records lie before completed ones.
    pub gaps: usize,
    /// The record that holds the position back.
    pub blocking_offset: Option<Offset>,
    /// For how long it has.
    pub blocked_for: Option<Duration>,
    /// How many records wait for their turn.
    pub queued: usize,
    /// How many are handled.
    pub running: usize,
    /// How many have their dead letter published.
    pub publishing: usize,
    /// How many wait for a retry, or in their order behind one that does.
    pub parked: usize,
    /// Is its source to pause?
    pub paused: bool,
    /// Is it being given away?
    pub draining: bool,
    /// How many records of this epoch an earlier owner had completed.
    pub done_before: u64,
    /// How many ends came too late, in all epochs.
    pub stale: u64,
}

/// What has happened since a stream began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records that were taken.
    pub delivered: u64,
    /// Records that were handled.
    pub completed: u64,
    /// Records that an earlier owner had completed.
    pub done_before: u64,
    /// Records that came again while they were under way.
    pub redelivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that follow one that failed.
    pub retries: u64,
    /// Records that came back without having been begun.
    pub not_run: u64,
    /// Dead letters that are confirmed.
    pub dead_letters: u64,
    /// Dead letters that could not be published, and are tried again.
    pub dead_letter_failures: u64,
    /// Ends that came too late, or twice.
    pub stale: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub commit_failures: u64,
}

impl<T: Clone> Control<T> {
    /// The numbers of this moment.
    #[must_use]
    pub fn state(&self, now: Duration) -> StreamState {
        let partitions = self.homes.iter().zip(0..).filter_map(|(home, number)| {
            home.assigned.as_ref().map(|assigned| assigned.state(Partition(number), home.stale, now))
        });
        StreamState {
            partitions: partitions.collect(),
            running: self.running,
            lanes: self.lanes.len(),
            stopped: self.stopped,
            totals: self.totals,
        }
    }
}

impl Assigned {
    fn state(&self, partition: Partition, stale: u64, now: Duration) -> PartitionState {
        let ledger = self.ledger();
        let position = ledger.map(Ledger::position);
        let blocking: Option<Blocking> = ledger.and_then(Ledger::blocking);
        PartitionState {
            partition,
            epoch: self.epoch,
            position,
            delivered_end: ledger.map(Ledger::seen),
            log_end: self.log_end,
            lag: self.log_end.zip(position).map(|(end, position)| end.saturating_sub(position)),
            gaps: ledger.map_or(0, Ledger::gaps),
            blocking_offset: blocking.map(|blocking| blocking.offset),
            blocked_for: blocking.map(|blocking| now.saturating_sub(blocking.since)),
            queued: self.items.saturating_sub(self.running + self.publishing + self.held),
            running: self.running,
            publishing: self.publishing,
            parked: self.held,
            paused: self.gate.is_paused(),
            draining: self.phase == Phase::Draining,
            done_before: self.done_before,
            stale,
        }
    }
}
