//! The range of `between`.

use std::cmp::Ordering;
use std::ops::Bound;

use serde_json::Value;

use super::value::Ordered;

/// A range of numbers or of texts, with one bound at least, that something can lie in.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    low: Bound<Ordered>,
    high: Bound<Ordered>,
}

/// Why two bounds make no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// Both are open.
    #[error("a range needs a bound, and both are open")]
    NoBound,
    /// There is no order between them.
    #[error("one bound is a number and the other a text")]
    TwoKinds,
    /// The low bound is above the high one, or both are the same value and it is left out; or one is NaN.
    #[error("nothing lies between these bounds")]
    Empty,
}

impl Interval {
    /// The range between two bounds.
    ///
    /// # Errors
    /// If they make none.
    pub fn new(low: Bound<Ordered>, high: Bound<Ordered>) -> Result<Interval, IntervalError> {
        let found = match (value(&low), value(&high)) {
            (None, None) => Err(IntervalError::NoBound),
            (Some(only), None) | (None, Some(only)) => check(only, only, true),
            (Some(from), Some(to)) => check(from, to, is_inclusive(&low) && is_inclusive(&high)),
        };
        found.map(|()| Interval { low, high })
    }

    /// Where it begins.
    #[must_use]
    pub fn low(&self) -> &Bound<Ordered> {
        &self.low
    }

    /// Where it ends.
    #[must_use]
    pub fn high(&self) -> &Bound<Ordered> {
        &self.high
    }

    /// Does the label lie in it? NaN and values of another kind lie nowhere.
    pub(super) fn contains(&self, label: &Value) -> bool {
        let low = match &self.low {
            Bound::Included(low) => low.order_of(label).is_some_and(Ordering::is_ge),
            Bound::Excluded(low) => low.order_of(label).is_some_and(Ordering::is_gt),
            Bound::Unbounded => true,
        };
        let high = match &self.high {
            Bound::Included(high) => high.order_of(label).is_some_and(Ordering::is_le),
            Bound::Excluded(high) => high.order_of(label).is_some_and(Ordering::is_lt),
            Bound::Unbounded => true,
        };
        low && high
    }
}

/// The value of a bound; none if it is open.
pub(super) fn value(bound: &Bound<Ordered>) -> Option<&Ordered> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

/// Does a value on the bound lie within? An open bound is said to be inclusive, as is the default.
pub(super) fn is_inclusive(bound: &Bound<Ordered>) -> bool {
    match bound {
        Bound::Included(_) | Bound::Unbounded => true,
        Bound::Excluded(_) => false,
    }
}

/// The bound at `value`, open without one.
pub(super) fn bound(value: Option<Ordered>, inclusive: bool) -> Bound<Ordered> {
    match (value, inclusive) {
        (None, _) => Bound::Unbounded,
        (Some(value), true) => Bound::Included(value),
        (Some(value), false) => Bound::Excluded(value),
    }
}

fn check(low: &Ordered, high: &Ordered, inclusive: bool) -> Result<(), IntervalError> {
    if matches!(low, Ordered::Text(_)) != matches!(high, Ordered::Text(_)) {
        return Err(IntervalError::TwoKinds);
    }
    match low.order_of_value(high) {
        Some(Ordering::Greater) => Ok(()),
        Some(Ordering::Equal) if inclusive => Ok(()),
        Some(Ordering::Equal | Ordering::Less) | None => Err(IntervalError::Empty),
    }
}
