//! When something that failed is tried again.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often something is executed, and how long it waits in between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// How often it is executed, the first time too.
    pub attempts: NonZeroU32,
    /// What each delay is multiplied by for the next: 1 at least.
    pub backoff: f64,
    /// The first delay.
    pub delay_ms: u64,
    /// The longest delay, jitter and all.
    pub max_delay_ms: u64,
    /// By which share of itself a delay is shortened or lengthened at random: 0 to 1.
    pub jitter: f64,
    /// By how much more it is lengthened at random, at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub jitter_ms: u64,
    /// Which errors.
    pub on: RetryOn,
}

/// Which errors something is tried again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryOn {
    /// Those that say that they may pass.
    Retryable,
    /// All.
    Any,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: NonZeroU32::new(3).expect("three is not zero"),
            backoff: 1.5,
            delay_ms: 1000,
            max_delay_ms: 60_000,
            jitter: 0.1,
            jitter_ms: 0,
            on: RetryOn::Retryable,
        }
    }
}

impl Retry {
    /// Execute it once.
    #[must_use]
    pub fn never() -> Retry {
        Retry { attempts: NonZeroU32::MIN, ..Retry::default() }
    }

    /// As a module has it that says how often, after how long at first, and what a delay is multiplied by. `None` if it is
    /// executed once.
    #[must_use]
    pub fn of_module(attempts: u32, delay_ms: u64, backoff: f64) -> Option<Retry> {
        let attempts = NonZeroU32::new(attempts).filter(|attempts| attempts.get() > 1)?;
        // What is no number is no factor either.
        Some(Retry { attempts, delay_ms, backoff: backoff.max(1.0), ..Retry::default() })
    }

    /// How long to wait after so many attempts before the next: `delay_ms × backoff^(attempt - 1)`, and jitter. `None` if
    /// that was the last. `random` is from 0 to 1, and settles the jitter.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Option<Duration> {
        if attempt >= self.attempts.get() {
            return None;
        }
        let longest = self.max_delay_ms as f64;
        let exponent = f64::from(attempt.saturating_sub(1));
        // Infinity times no delay would be no number.
        let factor = self.backoff.powf(exponent).min(f64::MAX);
        let plain = (self.delay_ms as f64 * factor).min(longest);
        let random = random.clamp(0.0, 1.0);
        let jittered = plain * (1.0 + self.jitter * (2.0 * random - 1.0)) + self.jitter_ms as f64 * random;
        Some(Duration::from_secs_f64(jittered.clamp(0.0, longest) / 1000.0))
    }

    /// May something be tried again after an error that is `retryable`, or is not?
    #[must_use]
    pub fn takes(&self, retryable: bool) -> bool {
        match self.on {
            RetryOn::Retryable => retryable,
            RetryOn::Any => true,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(retry: Retry, attempt: u32, random: f64, milliseconds: Option<f64>) {
        assert_eq!(retry.delay(attempt, random).map(|delay| delay.as_secs_f64() * 1000.0), milliseconds);
    }

    #[test]
    fn delays_grow_until_attempts_are_used_up() {
        let retry = Retry { attempts: NonZeroU32::new(20).expect("not zero"), ..Retry::default() };
        check(retry, 1, 0.5, Some(1000.0));
        check(retry, 2, 0.5, Some(1500.0));
        check(retry, 3, 0.5, Some(2250.0));
        check(retry, 19, 0.5, Some(60_000.0));
        check(retry, 20, 0.5, None);
        check(retry, u32::MAX, 0.5, None);
        check(Retry::never(), 1, 0.5, None);
        let at_once = Retry { delay_ms: 0, backoff: 100.0, attempts: NonZeroU32::MAX, ..retry };
        check(at_once, 1000, 0.5, Some(0.0));
    }

    #[test]
    fn jitter_goes_both_ways() {
        let retry = Retry::default();
        check(retry, 1, 0.0, Some(900.0));
        check(retry, 1, 1.0, Some(1100.0));
        check(Retry { delay_ms: 60_000, ..retry }, 1, 1.0, Some(60_000.0));
        let later = Retry { jitter: 0.0, jitter_ms: 200, ..retry };
        check(later, 1, 0.0, Some(1000.0));
        check(later, 1, 0.5, Some(1100.0));
        check(Retry { max_delay_ms: 1100, ..later }, 1, 1.0, Some(1100.0));
    }

    #[test]
    fn errors_are_taken_as_they_say() {
        let any = Retry { on: RetryOn::Any, ..Retry::default() };
        let taken = [Retry::default().takes(true), Retry::default().takes(false), any.takes(true), any.takes(false)];
        assert_eq!(taken, [true, false, true, true]);
    }

    proptest! {
        #[test]
        fn no_delay_is_longer_than_the_longest(
            attempts in 1_u32..1000, attempt in 0_u32..1100, backoff in 1.0..100.0, delay_ms in 0_u64..86_400_000,
            max_delay_ms in 0_u64..86_400_000, jitter in 0.0..=1.0, jitter_ms in 0_u64..10_000, random in -1.0..=2.0,
        ) {
            let attempts = NonZeroU32::new(attempts).expect("from 1 on");
            let retry = Retry { attempts, backoff, delay_ms, max_delay_ms, jitter, jitter_ms, on: RetryOn::Any };
            let delay = retry.delay(attempt, random);
            prop_assert_eq!(delay.is_some(), attempt < attempts.get());
            prop_assert!(delay.is_none_or(|delay| delay <= Duration::from_millis(max_delay_ms)));
        }
    }
}
