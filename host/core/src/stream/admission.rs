//! How much of a partition may be under way before its source is asked to pause.

use std::num::NonZeroUsize;

use super::metadata::MAX_MARKED;

/// The bounds of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many records run at a time, of all partitions together.
    pub running: NonZeroUsize,
    /// How many records of a partition wait for their turn or run, before it pauses.
    pub admitted: NonZeroUsize,
    /// How many records of a partition wait for a retry, or in their order behind one that does, before it pauses. They do
    /// not count as admitted: steady retries would fill that, and stop records that nothing is wrong with.
    pub held: NonZeroUsize,
    /// How many records of a partition lie between its position and the last that was delivered, before it pauses. One
    /// record that never ends would have its ledger grow for ever.
    pub remembered: NonZeroUsize,
}

impl Limits {
    /// The bounds of a stream that has so many records in flight.
    #[must_use]
    pub fn of(max_in_flight: NonZeroUsize) -> Limits {
        let remembered = usize::try_from(MAX_MARKED).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MAX);
        Limits { running: max_in_flight, admitted: max_in_flight, held: max_in_flight, remembered }
    }
}

/// What a partition has under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) admitted: usize,
    pub(super) held: usize,
    pub(super) remembered: usize,
}

/// Whether a partition pauses. It does at a bound, and goes on at 0.7 of all of them, so that it does not flutter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    paused: bool,
    /// What its source was told last.
    told: bool,
}

impl Gate {
    /// Looks at the load. True if there is something to tell.
    pub(super) fn regulate(&mut self, load: Load, limits: &Limits) -> bool {
        let bounds = [
            (load.admitted, limits.admitted.get()),
            (load.held, limits.held.get()),
            (load.remembered, limits.remembered.get()),
        ];
        if self.paused {
            self.paused = bounds.iter().any(|(count, limit)| *count > low_mark(*limit));
        } else {
            self.paused = bounds.iter().any(|(count, limit)| count >= limit);
        }
        self.paused != self.told
    }

    /// What to tell, if it is not what was told last.
    pub(super) fn tell(&mut self) -> Option<bool> {
        let news = self.paused != self.told;
        self.told = self.paused;
        news.then_some(self.paused)
    }

    pub(super) fn is_paused(self) -> bool {
        self.paused
    }
}

/// 0.7 of it, rounded down.
fn low_mark(limit: usize) -> usize {
    limit / 10 * 7 + limit % 10 * 7 / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: usize, counts: &[usize], paused: &[bool]) {
        let limits = Limits::of(NonZeroUsize::new(limit).expect("not zero"));
        let mut gate = Gate::default();
        let seen = counts.iter().map(|admitted| {
            gate.regulate(Load { admitted: *admitted, ..Load::default() }, &limits);
            gate.is_paused()
        });
        assert_eq!(seen.collect::<Vec<_>>(), paused);
    }

    #[test]
    fn it_goes_on_at_seven_tenths() {
        check(10, &[9, 10, 9, 8, 7, 9, 10], &[false, true, true, true, false, false, true]);
        check(1, &[0, 1, 0], &[false, true, false]);
        check(15, &[15, 11, 10], &[true, true, false]);
    }

    #[test]
    fn each_bound_pauses_and_all_must_have_room() {
        let limits = Limits::of(NonZeroUsize::new(10).expect("not zero"));
        let mut gate = Gate::default();
        assert!(gate.regulate(Load { held: 10, ..Load::default() }, &limits));
        assert_eq!((gate.tell(), gate.tell()), (Some(true), None));
        assert!(!gate.regulate(Load { held: 7, admitted: 8, remembered: 15 }, &limits));
        assert!(gate.regulate(Load { held: 7, admitted: 7, remembered: 14 }, &limits));
        assert_eq!(gate.tell(), Some(false));
    }
}
