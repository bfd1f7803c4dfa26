//! What one partition has delivered in one epoch, and how much of that is complete.
//!
//! A [`Ledger`] knows *delivered* offsets only. Offsets that never come (compacted away, control records of a
//! transaction, everything before a group's first offset) are in nobody's way: the position is that of the first record
//! that was delivered and is not complete, whatever lies between the records.
//!
//! It knows no clock: `now` is the time since the stream began, by whatever clock its owner has.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::metadata::Marks;

/// The place of a record in its partition: a Kafka offset, or a sequence number of JetStream.
pub type Offset = u64;

/// The deliveries of one partition in one epoch.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// From the first incomplete record on; that is never complete.
    window: VecDeque<Entry>,
    /// The number of deliveries before the window: what a [`Slot`] counts from.
    before_window: u64,
    /// The offset behind everything that was delivered or passed.
    seen: Offset,
    incomplete: usize,
    gaps: usize,
    /// Since when the first of the window is that.
    blocked_since: Duration,
    /// What an earlier owner had completed, and has not come yet.
    before: Marks,
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: Offset,
    complete: bool,
}

/// A delivery of a ledger: what it is completed by, in constant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u64);

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// A record to work on.
    New(Slot),
    /// An earlier owner had completed it: it counts as complete, and nobody needs to do it again.
    DoneBefore,
}

/// An offset that was delivered already, or that a later one came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset `{offset}` is out of order: the next to come is `{next}` or a later one")]
pub struct OutOfOrder {
    /// The offset.
    pub offset: Offset,
    /// The lowest that could come.
    pub next: Offset,
}

/// The record that holds the position back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocking {
    /// Its offset.
    pub offset: Offset,
    /// Since when the position stands there.
    pub since: Duration,
}

/// Where a partition stands at one moment. It borrows the ledger, which therefore cannot change between the two.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    ledger: &'a Ledger,
}

impl Ledger {
    /// A ledger whose first record is at `start` or behind it.
    #[must_use]
    pub fn new(start: Offset) -> Ledger {
        Ledger::resume(start, Marks::default())
    }

    /// The same, where an earlier owner has completed some of what is to come.
    #[must_use]
    pub fn resume(start: Offset, before: Marks) -> Ledger {
        Ledger { seen: start, before, ..Ledger::default() }
    }

    /// Takes note of a record.
    ///
    /// # Errors
    /// If it came already, or a later one did. The ledger is as it was.
    pub fn deliver(&mut self, offset: Offset, now: Duration) -> Result<Delivered, OutOfOrder> {
        if offset < self.seen || offset == Offset::MAX {
            return Err(OutOfOrder { offset, next: self.seen });
        }
        let passed = offset - self.seen;
        self.seen = offset + 1;
        if self.before.take(offset) {
            self.push_complete(offset);
            return Ok(Delivered::DoneBefore);
        }
        if self.window.is_empty() {
            self.blocked_since = now;
            // Holes in front of the record move the position.
            self.changes += u64::from(passed > 0);
        }
        let slot = Slot(self.before_window + self.window.len() as u64);
        self.window.push_back(Entry { offset, complete: false });
        self.incomplete += 1;
        Ok(Delivered::New(slot))
    }

    fn push_complete(&mut self, offset: Offset) {
        self.changes += 1;
        let Some(last) = self.window.back() else { return };
        self.gaps += usize::from(!last.complete);
        self.window.push_back(Entry { offset, complete: true });
    }

    /// Completes a record. False if it was complete.
    pub fn complete(&mut self, slot: Slot, now: Duration) -> bool {
        let place = slot.0.checked_sub(self.before_window).and_then(|at| usize::try_from(at).ok());
        place.is_some_and(|at| self.complete_at(at, now))
    }

    /// Completes the record at an offset, which takes a search. False if there is none that is incomplete.
    pub fn complete_offset(&mut self, offset: Offset, now: Duration) -> bool {
        let found = self.window.binary_search_by_key(&offset, |entry| entry.offset);
        found.is_ok_and(|at| self.complete_at(at, now))
    }

    fn complete_at(&mut self, at: usize, now: Duration) -> bool {
        match self.window.get_mut(at) {
            Some(entry) if !entry.complete => entry.complete = true,
            Some(_) | None => return false,
        }
        self.incomplete -= 1;
        self.changes += 1;
        let is_complete = |at: usize| self.window.get(at).is_some_and(|entry| entry.complete);
        let behind = is_complete(at + 1);
        if at == 0 {
            self.gaps -= usize::from(behind);
            self.slide(now);
            return true;
        }
        match (is_complete(at - 1), behind) {
            (true, true) => self.gaps -= 1,
            (true, false) | (false, true) => {}
            (false, false) => self.gaps += 1,
        }
        true
    }

    /// Completes everything up to an offset and with it: a batch that is done as a whole. How many records that were.
    pub fn complete_through(&mut self, offset: Offset, now: Duration) -> usize {
        let (mut completed, mut last_complete) = (0, true);
        while let Some(entry) = self.window.front().copied().filter(|entry| entry.offset <= offset) {
            self.gaps -= usize::from(entry.complete && !last_complete);
            completed += usize::from(!entry.complete);
            last_complete = entry.complete;
            self.window.pop_front();
            self.before_window += 1;
        }
        let next_complete = self.window.front().is_some_and(|entry| entry.complete);
        self.gaps -= usize::from(next_complete && !last_complete);
        self.incomplete -= completed;
        if completed > 0 {
            self.changes += 1;
            self.slide(now);
        }
        completed
    }

    /// Moves the window to the first incomplete record.
    fn slide(&mut self, now: Duration) {
        while self.window.front().is_some_and(|entry| entry.complete) {
            self.window.pop_front();
            self.before_window += 1;
        }
        self.blocked_since = now;
    }

    /// Takes note that the reader stands at `to`, though no record came from there: it passed holes, or the end of an
    /// aborted transaction. Without this, such an end of a log would look like records that nobody has done.
    pub fn advance(&mut self, to: Offset) {
        if to > self.seen {
            self.seen = to;
            self.changes += u64::from(self.window.is_empty());
        }
    }

    /// The offset that everything before is complete, or will never come: what may be committed.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.window.front().map_or(self.seen, |entry| entry.offset)
    }

    /// The offset behind everything that was delivered or passed.
    #[must_use]
    pub fn seen(&self) -> Offset {
        self.seen
    }

    /// The record that holds the position back, if any was delivered and is not complete.
    #[must_use]
    pub fn blocking(&self) -> Option<Blocking> {
        self.window.front().map(|entry| Blocking { offset: entry.offset, since: self.blocked_since })
    }

    /// How many records were delivered and are not complete.
    #[must_use]
    pub fn incomplete(&self) -> usize {
        self.incomplete
    }

    /// How many stretches of incomplete records lie before completed ones.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.gaps
    }

    /// How many records it remembers: those from the position on.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.window.len()
    }

    /// A number that rises whenever the position or what is complete beyond it changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Where the partition stands now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { ledger: self }
    }
}

impl<'a> Snapshot<'a> {
    /// What may be committed.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.ledger.position()
    }

    /// What is complete beyond the position, rising, none twice: what was delivered since, and what an earlier owner had
    /// completed that has not come again yet. Neighbours need not be one range.
    pub fn completed(&self) -> impl Iterator<Item = Range<Offset>> + 'a {
        let delivered = self.ledger.window.iter().filter(|entry| entry.complete);
        let delivered = delivered.map(|entry| entry.offset..entry.offset + 1);
        delivered.chain(self.ledger.before.from(self.ledger.seen))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn slot(ledger: &mut Ledger, offset: Offset) -> Slot {
        match ledger.deliver(offset, NOW) {
            Ok(Delivered::New(slot)) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hole_does_not_stall_the_position() {
        let mut ledger = Ledger::new(0);
        let slots = [5000, 5003, 5010].map(|offset| slot(&mut ledger, offset));
        assert_eq!((ledger.position(), ledger.incomplete()), (5000, 3));
        assert!(ledger.complete(slots[0], NOW));
        assert_eq!(ledger.position(), 5003);
        assert!(ledger.complete(slots[1], NOW) && ledger.complete(slots[2], NOW));
        assert_eq!((ledger.position(), ledger.remembered()), (5011, 0));
    }

    #[test]
    fn the_end_of_an_aborted_transaction_is_passed() {
        let mut ledger = Ledger::new(10);
        let last = slot(&mut ledger, 10);
        ledger.advance(40);
        assert_eq!((ledger.position(), ledger.seen()), (10, 40));
        ledger.complete(last, NOW);
        assert_eq!(ledger.position(), 40);
        ledger.advance(30);
        assert_eq!(ledger.position(), 40);
    }

    #[test]
    fn what_came_already_is_refused() {
        let mut ledger = Ledger::new(3);
        assert_eq!(ledger.deliver(2, NOW), Err(OutOfOrder { offset: 2, next: 3 }));
        let first = slot(&mut ledger, 7);
        assert_eq!(ledger.deliver(7, NOW), Err(OutOfOrder { offset: 7, next: 8 }));
        assert_eq!(ledger.deliver(Offset::MAX, NOW), Err(OutOfOrder { offset: Offset::MAX, next: 8 }));
        assert!(ledger.complete(first, NOW));
        assert!(!ledger.complete(first, NOW));
        assert_eq!(ledger.incomplete(), 0);
    }

    #[test]
    fn it_says_since_when_it_is_blocked() {
        let mut ledger = Ledger::new(0);
        let at = Duration::from_secs;
        assert_eq!(ledger.blocking(), None);
        let Ok(Delivered::New(first)) = ledger.deliver(1, at(5)) else { panic!("it is new") };
        assert!(ledger.deliver(2, at(6)).is_ok());
        assert_eq!(ledger.blocking(), Some(Blocking { offset: 1, since: at(5) }));
        ledger.complete(first, at(9));
        assert_eq!(ledger.blocking(), Some(Blocking { offset: 2, since: at(9) }));
    }

    /// A naive model: every offset that was delivered, and whether it is complete.
    #[derive(Default)]
    struct Model(BTreeMap<Offset, bool>);

    impl Model {
        fn check(&self, ledger: &Ledger, seen: Offset) {
            let first = self.0.iter().find(|(_, complete)| !**complete).map(|(offset, _)| *offset);
            let beyond: Vec<_> = first.map(|first| self.0.range(first..).collect()).unwrap_or_default();
            let completed: Vec<Offset> =
                beyond.iter().filter(|(_, complete)| **complete).map(|(offset, _)| **offset).collect();
            let gaps = beyond.windows(2).filter(|pair| !*pair[0].1 && *pair[1].1).count();
            assert_eq!(ledger.position(), first.unwrap_or(seen));
            assert_eq!(ledger.snapshot().completed().flatten().collect::<Vec<_>>(), completed);
            assert_eq!(ledger.gaps(), gaps);
            assert_eq!(ledger.incomplete(), self.0.values().filter(|complete| !**complete).count());
            assert_eq!(ledger.remembered(), beyond.len());
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_model(
            start in 0_u64..100, steps in prop::collection::vec((0_u8..5, 0_u64..12), 1..300),
        ) {
            let (mut ledger, mut model, mut seen) = (Ledger::new(start), Model::default(), start);
            let mut slots: BTreeMap<Offset, Slot> = BTreeMap::new();
            for (what, amount) in steps {
                let open: BTreeSet<Offset> = model.0.iter().filter(|(_, done)| !**done).map(|(at, _)| *at).collect();
                let chosen = open.iter().nth(amount as usize % open.len().max(1)).copied();
                match (what, chosen) {
                    (0 | 1, _) => {
                        let offset = seen + amount;
                        slots.insert(offset, slot(&mut ledger, offset));
                        model.0.insert(offset, false);
                        seen = offset + 1;
                    }
                    (2, Some(offset)) => {
                        prop_assert!(ledger.complete(slots[&offset], NOW));
                        model.0.insert(offset, true);
                    }
                    (3, Some(offset)) if amount == 0 => {
                        let through = open.range(..=offset);
                        prop_assert_eq!(ledger.complete_through(offset, NOW), through.clone().count());
                        model.0.extend(through.map(|offset| (*offset, true)));
                    }
                    (3, Some(offset)) => {
                        prop_assert!(ledger.complete_offset(offset, NOW));
                        prop_assert!(!ledger.complete_offset(offset, NOW));
                        model.0.insert(offset, true);
                    }
                    (2 | 3, None) => {}
                    _ => {
                        ledger.advance(seen + amount);
                        seen += amount;
                    }
                }
                model.check(&ledger, seen);
            }
        }
    }
}
