//! Which child gets which records, and what becomes of those of one that dies. It knows neither processes nor sockets.
//!
//! A child handles the records it was given one after the other, and counts them from 0 on. It is given some ahead, so that it
//! never waits for the next: about as many as its [`Pace`] says, and no more than its share of what waits, for what one
//! child has another cannot take. A record and those that follow it go to one child.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

use super::super::engine::Pace;

/// How many it gets while nobody knows how long one takes.
const AT_FIRST: usize = 8;

/// Records that wait, and children that take them.
pub(super) struct Pool<W> {
    waiting: VecDeque<W>,
    children: Vec<Child<W>>,
    recycle_after: Option<NonZeroU64>,
    follows: fn(&W) -> bool,
}

struct Child<W> {
    /// What it has in hand, in the order it was given.
    given: VecDeque<W>,
    /// The number of the first of them.
    first: u64,
    takes: bool,
    pace: Pace,
}

/// What a child is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given<'a, W> {
    pub(super) works: Vec<&'a W>,
    /// The first of those that follow them, and are for nobody: when the child has handled what it was given, it is gone.
    pub(super) cut: Option<W>,
}

/// What became of the records of a child that died.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left<W> {
    /// It had handled them, but could not say so any more.
    pub(super) handled: Vec<W>,
    /// It was at this one.
    pub(super) running: Option<W>,
    /// It had not begun with these.
    pub(super) untouched: Vec<W>,
}

impl<W> Pool<W> {
    /// So many children, none of which takes anything yet. Each gives way to a new one after so many records.
    /// `follows` says whether a record is to follow the one that came before it.
    pub(super) fn new(children: usize, recycle_after: Option<NonZeroU64>, follows: fn(&W) -> bool) -> Self {
        let child = || Child { given: VecDeque::new(), first: 0, takes: false, pace: Pace::default() };
        Self { waiting: VecDeque::new(), children: (0..children).map(|_| child()).collect(), recycle_after, follows }
    }

    /// Records more.
    pub(super) fn push(&mut self, works: impl IntoIterator<Item = W>) {
        self.waiting.extend(works);
    }

    /// A new child takes records from now on.
    pub(super) fn takes(&mut self, child: usize) {
        let child = &mut self.children[child];
        assert!(child.given.is_empty(), "what a child had in hand went when it died");
        (child.first, child.takes) = (0, true);
    }

    /// What a child is to be given now. Nothing, if it has enough.
    pub(super) fn give(&mut self, child: usize) -> Given<'_, W> {
        let taking = self.children.iter().filter(|child| child.takes).count().max(1);
        let share = self.waiting.len().div_ceil(taking);
        let child = &mut self.children[child];
        let has = child.given.len();
        // It is given more when it has half of what it may have, so that it gets more than one at a time.
        let room = if child.takes && has <= child.most() / 2 { child.most() - has } else { 0 };
        let fair = room.min(share);
        let follow = self.waiting.iter().skip(fair).take_while(|work| fair > 0 && (self.follows)(work)).count();
        let count = (fair + follow).min(child.until_recycled(self.recycle_after));
        child.given.extend(self.waiting.drain(..count));
        let cut = self.waiting.iter().take_while(|work| (self.follows)(work)).count();
        let cut = self.waiting.drain(..cut).next();
        Given { works: child.given.iter().skip(has).collect(), cut }
    }

    /// The first that a child has in hand has failed. It goes, and those that follow it, with which the child does not begin.
    pub(super) fn failed(&mut self, child: usize, took: Duration) -> Option<W> {
        let child = &mut self.children[child];
        let failed = child.given.pop_front()?;
        let follow = child.given.iter().take_while(|work| (self.follows)(work)).count();
        child.given.drain(..follow);
        child.first += 1 + follow as u64;
        child.pace.took(took);
        Some(failed)
    }

    /// A child has handled all before this one; which these are. `took` is how long it was at them.
    pub(super) fn handled(&mut self, child: usize, before: u64, took: Duration) -> Vec<W> {
        let child = &mut self.children[child];
        let count = usize::try_from(before.saturating_sub(child.first))
            .map_or(child.given.len(), |count| count.min(child.given.len()));
        child.first += count as u64;
        if let Ok(count @ 1..) = u32::try_from(count) {
            child.pace.took(took / count);
        }
        child.given.drain(..count).collect()
    }

    /// The first that a child has in hand, and its number.
    pub(super) fn first(&self, child: usize) -> Option<(u64, &W)> {
        let child = &self.children[child];
        child.given.front().map(|work| (child.first, work))
    }

    /// Whether a child is to give way to a new one: it has had its records, and has none in hand.
    pub(super) fn is_used_up(&self, child: usize) -> bool {
        let child = &self.children[child];
        child.takes && child.given.is_empty() && child.until_recycled(self.recycle_after) == 0
    }

    /// A child takes nothing any more: it is to end, or has died while it was at the record of this number, if at any.
    pub(super) fn leaves(&mut self, child: usize, at: Option<u64>) -> Left<W> {
        let child = &mut self.children[child];
        child.takes = false;
        let mut given = std::mem::take(&mut child.given);
        let begun = at.and_then(|at| usize::try_from(at.checked_sub(child.first)?).ok()).filter(|at| *at < given.len());
        let handled = given.drain(..begun.unwrap_or(0)).collect();
        let running = begun.and_then(|_| given.pop_front());
        Left { handled, running, untouched: given.into() }
    }

    /// All that waits for a child.
    #[cfg(test)]
    fn waits(&self) -> usize {
        self.waiting.len()
    }
}

impl<W> Child<W> {
    /// So many it may have in hand.
    fn most(&self) -> usize {
        // Two at least, or it waits for the next.
        self.pace.ahead().map_or(AT_FIRST, |ahead| ahead.max(2))
    }

    fn until_recycled(&self, after: Option<NonZeroU64>) -> usize {
        let had = self.first + self.given.len() as u64;
        after.map_or(usize::MAX, |after| usize::try_from(after.get().saturating_sub(had)).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Duration = Duration::from_micros(10);

    fn pool(children: usize) -> Pool<u32> {
        let mut pool = Pool::new(children, None, |_| false);
        (0..children).for_each(|child| pool.takes(child));
        pool
    }

    fn given(pool: &mut Pool<u32>, child: usize) -> Vec<u32> {
        let Given { works, cut } = pool.give(child);
        assert_eq!(cut, None);
        works.into_iter().copied().collect()
    }

    #[test]
    fn each_gets_its_share_and_some_ahead() {
        let mut pool = pool(2);
        pool.push(0..6);
        assert_eq!(given(&mut pool, 0), [0, 1, 2]);
        assert_eq!(given(&mut pool, 1), [3, 4]);
        assert_eq!(given(&mut pool, 1), [5]);
        assert_eq!(pool.handled(0, 2, QUICK), [0, 1]);
        assert_eq!(pool.first(0), Some((2, &2)));
        // Told twice, or of what it does not have.
        assert_eq!(pool.handled(0, 1, QUICK), [0; 0]);
        assert_eq!(pool.handled(1, 100, QUICK), [3, 4, 5]);
    }

    #[test]
    fn one_that_is_slow_has_little_ahead() {
        let mut pool = pool(1);
        pool.push(0..1000);
        assert_eq!(given(&mut pool, 0).len(), AT_FIRST);
        pool.handled(0, 8, QUICK * 8);
        assert_eq!(given(&mut pool, 0).len(), 256);
        let mut done = 8;
        for _ in 0..30 {
            done += 1;
            pool.handled(0, done, Duration::from_millis(10));
        }
        pool.handled(0, 264, Duration::ZERO);
        assert!(given(&mut pool, 0).len() <= 4);
    }

    #[test]
    fn a_death_costs_the_record_that_was_running() {
        let check = |at: Option<u64>, handled: &[u32], running: Option<u32>, untouched: &[u32]| {
            let mut pool = pool(1);
            pool.push(0..5);
            given(&mut pool, 0);
            pool.handled(0, 1, QUICK);
            let left = pool.leaves(0, at);
            let expect = Left { handled: handled.to_vec(), running, untouched: untouched.to_vec() };
            assert_eq!(left, expect, "{at:?}");
            assert_eq!(given(&mut pool, 0), [0; 0]);
        };
        check(None, &[], None, &[1, 2, 3, 4]);
        check(Some(1), &[], Some(1), &[2, 3, 4]);
        check(Some(3), &[1, 2], Some(3), &[4]);
        check(Some(4), &[1, 2, 3], Some(4), &[]);
        // What it says it is at is what it was not given, or had said it had handled.
        check(Some(0), &[], None, &[1, 2, 3, 4]);
        check(Some(5), &[], None, &[1, 2, 3, 4]);
    }

    #[test]
    fn one_that_has_had_its_records_gives_way() {
        let mut pool = Pool::new(1, NonZeroU64::new(3), |_| false);
        pool.takes(0);
        pool.push(0..5_u32);
        assert_eq!(given(&mut pool, 0), [0, 1, 2]);
        assert!(!pool.is_used_up(0));
        assert_eq!(pool.handled(0, 3, QUICK), [0, 1, 2]);
        assert_eq!(given(&mut pool, 0), [0; 0]);
        assert!(pool.is_used_up(0));
        pool.leaves(0, None);
        assert!(!pool.is_used_up(0));
        pool.takes(0);
        assert_eq!(given(&mut pool, 0), [3, 4]);
    }

    /// Those of one ten follow each other.
    fn pool_of_tens(recycle_after: Option<u64>) -> Pool<u32> {
        let mut pool = Pool::new(2, recycle_after.and_then(NonZeroU64::new), |work| work % 10 > 0);
        (0..2).for_each(|child| pool.takes(child));
        pool
    }

    #[test]
    fn those_that_follow_each_other_go_to_one_child() {
        let mut pool = pool_of_tens(None);
        pool.push(0..20);
        assert_eq!(given(&mut pool, 0), (0..10).collect::<Vec<_>>());
        assert_eq!(given(&mut pool, 1), (10..20).collect::<Vec<_>>());
    }

    #[test]
    fn those_behind_a_failure_are_not_begun() {
        let mut pool = pool_of_tens(None);
        pool.push(8..13);
        assert_eq!(given(&mut pool, 0), [8, 9, 10, 11, 12]);
        pool.handled(0, 2, QUICK);
        assert_eq!(pool.failed(0, QUICK), Some(10));
        assert_eq!(pool.first(0), None);
        assert_eq!(pool.failed(0, QUICK), None);
        pool.push([20]);
        given(&mut pool, 0);
        assert_eq!(pool.first(0), Some((5, &20)), "the child has counted those that it did not begin with");
    }

    #[test]
    fn what_a_child_will_not_live_to_see_is_cut_off() {
        let mut pool = pool_of_tens(Some(3));
        pool.push(0..6);
        pool.push([10]);
        assert_eq!(pool.give(0), Given { works: vec![&0, &1, &2], cut: Some(3) });
        assert_eq!((given(&mut pool, 1), pool.waits()), (vec![10], 0));
    }

    #[derive(Clone, Debug)]
    enum Happens {
        Comes(u8),
        Gets(usize),
        Handles(usize, u8),
        Dies(usize, Option<u8>),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            (0..40_u8).prop_map(Happens::Comes),
            (0..3_usize).prop_map(Happens::Gets),
            (0..3_usize, any::<u8>()).prop_map(|(child, count)| Happens::Handles(child, count)),
            (0..3_usize, any::<Option<u8>>()).prop_map(|(child, at)| Happens::Dies(child, at)),
        ]
    }

    proptest! {
        #[test]
        fn no_record_is_lost_and_none_is_in_two_hands(history in prop::collection::vec(happens(), 0..200)) {
            let mut pool = pool(3);
            let (mut next, mut over) = (0_u32, Vec::new());
            for one in history {
                match one {
                    Happens::Comes(count) => {
                        pool.push(next..next + u32::from(count));
                        next += u32::from(count);
                    }
                    Happens::Gets(child) => drop(given(&mut pool, child)),
                    Happens::Handles(child, count) => {
                        let first = pool.children[child].first;
                        over.extend(pool.handled(child, first + u64::from(count), QUICK));
                    }
                    Happens::Dies(child, at) => {
                        let at = at.map(|at| pool.children[child].first + u64::from(at));
                        let left = pool.leaves(child, at);
                        over.extend(left.handled.into_iter().chain(left.running));
                        pool.push(left.untouched);
                        pool.takes(child);
                    }
                }
            }
            let in_hand: usize = pool.children.iter().map(|child| child.given.len()).sum();
            prop_assert_eq!(over.len() + in_hand + pool.waits(), next as usize);
            over.sort_unstable();
            over.dedup();
            prop_assert_eq!(over.len() + in_hand + pool.waits(), next as usize);
        }
    }
}
