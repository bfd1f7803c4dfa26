//! A control with what tests say to it in short.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use pype_core::retry::{Retry, RetryOn};
use pype_core::stream::WorkId;
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{
    Acknowledge, Commit, Control, Delivery, Epoch, Options, Outcome, Partition, PartitionState, Settled, Start, Work,
};
use pype_core::stream::lanes::Ordering;

pub(crate) const P: Partition = Partition(0);

/// The payload is the offset.
pub(crate) struct Stage {
    pub(crate) control: Control<u64>,
    pub(crate) epoch: Epoch,
    pub(crate) now: Duration,
}

/// Three attempts, a second apart and then two, no jitter; dead letters; ten in flight.
pub(crate) fn options() -> Options {
    Options {
        ordering: Ordering::Key,
        acknowledge: Acknowledge::Position,
        limits: Limits::of(size(10)),
        retry: Retry { attempts: attempts(3), backoff: 2.0, jitter: 0.0, on: RetryOn::Retryable, ..Retry::default() },
        dead_letters: true,
        seed: 1,
    }
}

pub(crate) fn size(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("not zero")
}

pub(crate) fn attempts(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

pub(crate) fn at(position: u64) -> Start<'static> {
    Start { position, ..Start::default() }
}

impl Stage {
    pub(crate) fn new(options: Options) -> Stage {
        Stage::starting(options, at(0))
    }

    pub(crate) fn starting(options: Options, start: Start<'_>) -> Stage {
        let mut control = Control::new(options);
        let epoch = control.assign(P, start);
        Stage { control, epoch, now: Duration::ZERO }
    }

    pub(crate) fn deliver(&mut self, offset: u64, key: &str) -> Delivery {
        self.control.deliver(P, self.epoch, offset, Some(key.as_bytes()), offset, self.now)
    }

    /// Each under a key of its own.
    pub(crate) fn deliver_all(&mut self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            assert_eq!(self.deliver(offset, &offset.to_string()), Delivery::Queued);
        }
    }

    pub(crate) fn deliver_under(&mut self, key: &str, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            assert_eq!(self.deliver(offset, key), Delivery::Queued);
        }
    }

    pub(crate) fn next(&mut self) -> Option<Work<u64>> {
        self.control.next(self.now)
    }

    /// All that starts now.
    pub(crate) fn start_all(&mut self) -> Vec<Work<u64>> {
        std::iter::from_fn(|| self.next()).collect()
    }

    #[track_caller]
    pub(crate) fn start(&mut self, offset: u64) -> WorkId {
        let work = self.next().expect("something starts");
        assert_eq!(work.offset, offset);
        work.id
    }

    pub(crate) fn nothing_starts(&mut self) -> bool {
        self.next().is_none()
    }

    pub(crate) fn done(&mut self, id: WorkId) -> Settled {
        self.control.completed(id, Outcome::Done, self.now, 0.5)
    }

    pub(crate) fn fail(&mut self, id: WorkId) -> Settled {
        self.control.completed(id, Outcome::Failed { retryable: true }, self.now, 0.5)
    }

    pub(crate) fn not_run(&mut self, id: WorkId) -> Settled {
        self.control.completed(id, Outcome::NotRun, self.now, 0.5)
    }

    /// Lets it fail, and the time pass, until it has failed for good.
    pub(crate) fn fail_for_good(&mut self, mut id: WorkId) -> (WorkId, Settled) {
        loop {
            match self.fail(id) {
                Settled::Retry { at } => self.now = at,
                settled => return (id, settled),
            }
            id = self.next().expect("the retry is due").id;
        }
    }

    pub(crate) fn commit(&self) -> Option<Commit> {
        self.control.commit(P)
    }

    /// What would be committed, or was last.
    pub(crate) fn position(&self) -> u64 {
        self.state().position.expect("positions are committed")
    }

    pub(crate) fn state(&self) -> PartitionState {
        let mut state = self.control.state(self.now);
        state.partitions.pop().expect("the partition is assigned")
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}
