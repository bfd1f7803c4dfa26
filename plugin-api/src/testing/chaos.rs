//! Trouble on the way: calls that are slow, fail, or succeed and nobody hears of it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// A network between a caller and what it calls. The same seed gives the same trouble to the same calls.
///
/// ```
/// # use pype_plugin::testing::{Chaos, block_on};
/// let network = Chaos::seeded(7).failing(0.5).losing_answers(0.5);
/// let heard = (0..100).filter(|_| block_on(network.around(async { Ok(()) })).is_ok()).count();
/// assert!(heard > 0 && heard < 50);
/// ```
#[derive(Debug)]
pub struct Chaos {
    random: AtomicU64,
    failing: f64,
    losing_answers: f64,
    slow: Duration,
    partitioned: AtomicBool,
}

impl Chaos {
    /// A network without trouble yet.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: AtomicU64::new(seed),
            failing: 0.0,
            losing_answers: 0.0,
            slow: Duration::ZERO,
            partitioned: AtomicBool::new(false),
        }
    }

    /// This share of the calls, 0 to 1, fails before it gets there.
    #[must_use]
    pub fn failing(self, share: f64) -> Self {
        Self { failing: share, ..self }
    }

    /// This share of the calls, 0 to 1, gets there, and the answer is lost.
    #[must_use]
    pub fn losing_answers(self, share: f64) -> Self {
        Self { losing_answers: share, ..self }
    }

    /// Each call takes longer, by up to this.
    #[must_use]
    pub fn slow(self, by: Duration) -> Self {
        Self { slow: by, ..self }
    }

    /// Cuts the caller off, or connects it again.
    pub fn partition(&self, cut_off: bool) {
        self.partitioned.store(cut_off, Ordering::Relaxed);
    }

    /// A call over this network.
    ///
    /// # Errors
    /// What the call says, or `chaos` if the network is in its way.
    pub async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::sleep(self.slow.mul_f64(self.next())).await;
        if self.partitioned.load(Ordering::Relaxed) || self.next() < self.failing {
            return Err(trouble("the call did not get there"));
        }
        let result = call.await;
        if self.partitioned.load(Ordering::Relaxed) || self.next() < self.losing_answers {
            return Err(trouble("the answer was lost"));
        }
        result
    }

    /// From 0 to 1: SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&self) -> f64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / f64::from(u32::MAX)
    }
}

fn trouble(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "chaos", what).retryable(true)
}
