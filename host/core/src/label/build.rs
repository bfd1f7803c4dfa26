//! Rules written in Rust: `label("tier").eq("gold") & !label("beta").exists()`.

use std::ops::Bound;

use super::interval::Interval;
use super::operator::Test;
use super::rule::Rule;
use super::value::{Literal, Ordered};

/// A label by its name, of which something is to be asked.
#[derive(Debug, Clone)]
#[must_use = "a label alone is no rule yet: ask something of it"]
pub struct Label(String);

/// The label of this name.
pub fn label(key: impl Into<String>) -> Label {
    Label(key.into())
}

impl Label {
    /// It has this value.
    #[must_use]
    pub fn eq(self, value: impl Into<Literal>) -> Rule {
        Rule::of(self.0, Test::Eq(value.into()))
    }

    /// It has not this value, or is missing.
    #[must_use]
    pub fn ne(self, value: impl Into<Literal>) -> Rule {
        Rule::of(self.0, Test::Ne(value.into()))
    }

    /// It is above the limit.
    #[must_use]
    pub fn gt(self, limit: impl Into<Ordered>) -> Rule {
        Rule::of(self.0, Test::Gt(limit.into()))
    }

    /// It is at the limit or above.
    #[must_use]
    pub fn gte(self, limit: impl Into<Ordered>) -> Rule {
        Rule::of(self.0, Test::Gte(limit.into()))
    }

    /// It is below the limit.
    #[must_use]
    pub fn lt(self, limit: impl Into<Ordered>) -> Rule {
        Rule::of(self.0, Test::Lt(limit.into()))
    }

    /// It is at the limit or below.
    #[must_use]
    pub fn lte(self, limit: impl Into<Ordered>) -> Rule {
        Rule::of(self.0, Test::Lte(limit.into()))
    }

    /// It has one of these values.
    #[must_use]
    pub fn is_in<T: Into<Literal>>(self, values: impl IntoIterator<Item = T>) -> Rule {
        Rule::of(self.0, Test::In(values.into_iter().map(Into::into).collect()))
    }

    /// It has none of these values, or is missing.
    #[must_use]
    pub fn not_in<T: Into<Literal>>(self, values: impl IntoIterator<Item = T>) -> Rule {
        Rule::of(self.0, Test::NotIn(values.into_iter().map(Into::into).collect()))
    }

    /// It lies between the bounds, or is one of them. Nothing does if the first is above the second.
    #[must_use]
    pub fn between(self, low: impl Into<Ordered>, high: impl Into<Ordered>) -> Rule {
        let interval = Interval::new(Bound::Included(low.into()), Bound::Included(high.into()));
        interval.map_or_else(|_| Rule::any([]), |interval| self.within(interval))
    }

    /// It lies in the interval.
    #[must_use]
    pub fn within(self, interval: Interval) -> Rule {
        Rule::of(self.0, Test::Between(interval))
    }

    /// It lies outside the interval, or is missing.
    #[must_use]
    pub fn not_within(self, interval: Interval) -> Rule {
        Rule::of(self.0, Test::NotBetween(interval))
    }

    /// It is there, be it null.
    #[must_use]
    pub fn exists(self) -> Rule {
        Rule::of(self.0, Test::Exists)
    }

    /// It is there and neither `false` nor null: what a key alone says in the text form.
    #[must_use]
    pub fn is_set(self) -> Rule {
        Rule::is_set(self.0)
    }
}
