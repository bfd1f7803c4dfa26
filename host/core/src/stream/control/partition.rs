//! What is known of one partition.

use std::collections::HashMap;

use super::Epoch;
use crate::stream::admission::{Gate, Limits, Load};
use crate::stream::ledger::{Ledger, Offset};
use crate::stream::ready::Ready;

/// The place of a partition, whoever owns it.
#[derive(Debug, Default)]
pub(super) struct Home {
    pub(super) assigned: Option<Assigned>,
    /// Of all its epochs.
    pub(super) stale: u64,
}

/// A partition that this consumer owns.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    pub(super) deliveries: Deliveries,
    pub(super) ready: Ready,
    /// How many records of this epoch are under way; of those, how many are handled, how many have their dead letter
    /// published, and how many wait for a retry or behind one.
    pub(super) items: usize,
    pub(super) running: usize,
    pub(super) publishing: usize,
    pub(super) held: usize,
    pub(super) gate: Gate,
    /// Is it among those to be asked for their flow?
    pub(super) listed: bool,
    pub(super) log_end: Option<Offset>,
    pub(super) done_before: u64,
    /// The changes of the ledger that have been committed.
    pub(super) committed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Active,
    Draining,
}

#[derive(Debug)]
pub(super) enum Deliveries {
    InOrder(Ledger),
    /// The places of what is under way.
    EachAlone(HashMap<Offset, u32>),
}

impl Assigned {
    pub(super) fn new(epoch: Epoch, deliveries: Deliveries, log_end: Option<Offset>) -> Assigned {
        Assigned {
            epoch,
            phase: Phase::Active,
            deliveries,
            ready: Ready::default(),
            items: 0,
            running: 0,
            publishing: 0,
            held: 0,
            gate: Gate::default(),
            listed: false,
            log_end,
            done_before: 0,
            committed: 0,
        }
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        match &self.deliveries {
            Deliveries::InOrder(ledger) => Some(ledger),
            Deliveries::EachAlone(_) => None,
        }
    }

    /// True if the source has to be told something.
    pub(super) fn regulate(&mut self, limits: &Limits) -> bool {
        let remembered = self.ledger().map_or(0, Ledger::remembered);
        self.gate.regulate(Load { admitted: self.items - self.held, held: self.held, remembered }, limits)
    }
}
