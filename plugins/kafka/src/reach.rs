//! How far a partition was read, with the offsets that never come.
//!
//! Behind the last record there may be such offsets: markers of transactions, records of those that were aborted. That there is
//! no record before some offset is sound only if all was read up to a later end of the log. librdkafka tells of ends that it has
//! fetched up to ([`Extent::read_to`](crate::rebalance::Extent)), but a rebalance throws away what it has fetched, and it goes on
//! telling for a while. So it is asked to fetch once more from the last record on: if it then comes to an end before any record,
//! there is none.

use std::sync::atomic::{AtomicI64, Ordering};

/// How far a partition was read since it was assigned.
pub(crate) struct Reach {
    // All of them belong to the reader's thread; negative is none.
    next: AtomicI64,
    suspected: AtomicI64,
    asked: AtomicI64,
}

impl Reach {
    /// Nothing was read yet; what is before `position` is not wanted.
    pub(crate) fn new(position: Option<i64>) -> Self {
        let none = || AtomicI64::new(-1);
        Self { next: AtomicI64::new(position.unwrap_or(-1)), suspected: none(), asked: none() }
    }

    /// A record was read.
    pub(crate) fn read(&self, offset: i64) {
        self.next.store(offset + 1, Ordering::Relaxed);
        self.suspected.store(-1, Ordering::Relaxed);
        self.asked.store(-1, Ordering::Relaxed);
    }

    /// All has been read that there was when it was fetched.
    pub(crate) fn at_end(&self) {
        self.next.fetch_max(self.asked.swap(-1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The offset before which there is no record that was not read, if that is known.
    pub(crate) fn next(&self) -> Option<i64> {
        Some(self.next.load(Ordering::Relaxed)).filter(|next| *next >= 0)
    }

    /// From where to fetch once more, since there seems to be no record up to this end of the log. It must have seemed so twice.
    pub(crate) fn fetch_again(&self, end: i64) -> Option<i64> {
        let next = self.next().filter(|next| *next < end)?;
        if self.suspected.swap(end, Ordering::Relaxed) != end {
            return None;
        }
        self.suspected.store(-1, Ordering::Relaxed);
        self.asked.store(end, Ordering::Relaxed);
        Some(next)
    }

    /// It is not fetched once more.
    pub(crate) fn not_asked(&self) {
        self.asked.store(-1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_behind_the_last_record_are_passed_when_fetching_once_more_has_found_none() {
        let reach = Reach::new(Some(5));
        reach.read(9);
        assert_eq!((reach.fetch_again(12), reach.next()), (None, Some(10)), "it has seemed so once");
        assert_eq!((reach.fetch_again(12), reach.next()), (Some(10), Some(10)), "nothing is known yet");
        reach.at_end();
        assert_eq!((reach.next(), reach.fetch_again(12)), (Some(12), None));
    }

    #[test]
    fn an_end_that_was_told_of_before_a_record_came_is_not_taken_for_one_behind_it() {
        let reach = Reach::new(Some(5));
        // What was fetched up to there has been thrown away; the end of another fetch comes, and then the records.
        assert_eq!(reach.fetch_again(100), None);
        reach.at_end();
        assert_eq!(reach.next(), Some(5));
        assert_eq!(reach.fetch_again(100), Some(5));
        reach.read(5);
        reach.at_end();
        assert_eq!(reach.next(), Some(6), "a record has come: it is asked anew");
        assert_eq!((reach.fetch_again(100), reach.fetch_again(100)), (None, Some(6)));
        reach.not_asked();
        reach.at_end();
        assert_eq!(reach.next(), Some(6));
    }

    #[test]
    fn without_a_position_nothing_is_known() {
        let reach = Reach::new(None);
        assert_eq!((reach.fetch_again(7), reach.fetch_again(7)), (None, None));
        reach.at_end();
        assert_eq!(reach.next(), None);
    }
}
