//! Times as they are written down and sent, and chance.

use std::time::Duration;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// A time in whole milliseconds.
pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// From 0 to 1.
pub(crate) fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter.
    getrandom::fill(&mut bytes).map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// A number that nobody outside can foresee. Without randomness it is the time.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_or_else(|_| now_ms(), |()| u64::from_ne_bytes(bytes))
}
