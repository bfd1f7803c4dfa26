//! Which record is next: partitions take turns, and within one the lowest offset goes first.
//!
//! The lowest offset of a partition that is ready is the one that holds its position back, or as near to it as may be. When
//! the very record that holds a position back becomes ready (it comes into an idle partition, its retry is due, its lane
//! is free), its partition need not wait for its turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::control::Partition;
use super::ledger::Offset;

/// The records of one partition that may start.
#[derive(Debug, Default)]
pub(super) struct Ready {
    waiting: BinaryHeap<Reverse<(Offset, u32)>>,
    has_turn: bool,
    is_urgent: bool,
}

/// The partitions that have such records.
#[derive(Debug, Default)]
pub(super) struct Turns {
    urgent: VecDeque<Partition>,
    turns: VecDeque<Partition>,
}

impl Turns {
    /// Has a record wait for its turn. `blocks` says that the position of its partition is its own.
    pub(super) fn push(&mut self, partition: Partition, ready: &mut Ready, offset: Offset, item: u32, blocks: bool) {
        ready.waiting.push(Reverse((offset, item)));
        if !ready.has_turn {
            ready.has_turn = true;
            self.turns.push_back(partition);
        }
        if blocks && !ready.is_urgent {
            ready.is_urgent = true;
            self.urgent.push_back(partition);
        }
    }

    /// The partition whose turn it is. It has to be asked for its next record then.
    pub(super) fn take(&mut self) -> Option<Turn> {
        let urgent = self.urgent.pop_front().map(Turn::Urgent);
        urgent.or_else(|| self.turns.pop_front().map(Turn::Regular))
    }

    /// The record of a turn, the lowest offset first.
    pub(super) fn next_of(&mut self, turn: Turn, ready: &mut Ready) -> Option<u32> {
        let item = ready.waiting.pop().map(|Reverse((_, item))| item);
        match turn {
            Turn::Urgent(_) => ready.is_urgent = false,
            Turn::Regular(partition) => {
                ready.has_turn = !ready.waiting.is_empty();
                if ready.has_turn {
                    self.turns.push_back(partition);
                }
            }
        }
        item
    }

    /// Forgets a partition and all its records.
    pub(super) fn forget(&mut self, partition: Partition, ready: &mut Ready) {
        *ready = Ready::default();
        self.turns.retain(|one| *one != partition);
        self.urgent.retain(|one| *one != partition);
    }
}

/// A turn, and how it came about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Urgent(Partition),
    Regular(Partition),
}

impl Turn {
    pub(super) fn partition(self) -> Partition {
        match self {
            Turn::Urgent(partition) | Turn::Regular(partition) => partition,
        }
    }
}
