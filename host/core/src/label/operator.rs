//! The operators, what each takes, and when a label passes.

use std::cmp::Ordering;

use serde_json::Value;

use super::interval::Interval;
use super::value::{Literal, Ordered};

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It has this value.
    Eq(Literal),
    /// It has not this value, or is missing.
    Ne(Literal),
    /// It is above the limit.
    Gt(Ordered),
    /// It is at the limit or above.
    Gte(Ordered),
    /// It is below the limit.
    Lt(Ordered),
    /// It is at the limit or below.
    Lte(Ordered),
    /// It has one of these values.
    In(Vec<Literal>),
    /// It has none of these values, or is missing.
    NotIn(Vec<Literal>),
    /// It lies in the interval.
    Between(Interval),
    /// It lies outside the interval, or is missing.
    NotBetween(Interval),
    /// It is there, be it null.
    Exists,
}

/// The name of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    NotIn,
    Between,
    NotBetween,
    Exists,
}

/// What an operator takes, and the test that comes of it.
pub(super) enum Operand {
    /// `value`: anything plain.
    Value(fn(Literal) -> Test),
    /// `value`: a number or a text.
    Ordered(fn(Ordered) -> Test),
    /// `values`.
    Values(fn(Vec<Literal>) -> Test),
    /// `range`.
    Range(fn(Interval) -> Test),
    /// It takes nothing.
    Nothing(Test),
}

impl Test {
    /// Does a label pass that has this value, or is missing? The negative operators hold wherever the positive ones do
    /// not.
    #[must_use]
    pub fn passes(&self, label: Option<&Value>) -> bool {
        let equals = |literal: &Literal| label.is_some_and(|label| literal.equals(label));
        let order = |literal: &Ordered| label.and_then(|label| literal.order_of(label));
        let within = |interval: &Interval| label.is_some_and(|label| interval.contains(label));
        match self {
            Test::Eq(literal) => equals(literal),
            Test::Ne(literal) => !equals(literal),
            Test::Gt(limit) => order(limit).is_some_and(Ordering::is_gt),
            Test::Gte(limit) => order(limit).is_some_and(Ordering::is_ge),
            Test::Lt(limit) => order(limit).is_some_and(Ordering::is_lt),
            Test::Lte(limit) => order(limit).is_some_and(Ordering::is_le),
            Test::In(literals) => literals.iter().any(equals),
            Test::NotIn(literals) => !literals.iter().any(equals),
            Test::Between(interval) => within(interval),
            Test::NotBetween(interval) => !within(interval),
            Test::Exists => label.is_some(),
        }
    }

    pub(super) fn operator(&self) -> Operator {
        match self {
            Test::Eq(_) => Operator::Eq,
            Test::Ne(_) => Operator::Ne,
            Test::Gt(_) => Operator::Gt,
            Test::Gte(_) => Operator::Gte,
            Test::Lt(_) => Operator::Lt,
            Test::Lte(_) => Operator::Lte,
            Test::In(_) => Operator::In,
            Test::NotIn(_) => Operator::NotIn,
            Test::Between(_) => Operator::Between,
            Test::NotBetween(_) => Operator::NotBetween,
            Test::Exists => Operator::Exists,
        }
    }
}

impl Operator {
    pub(super) const ALL: [Operator; 11] = [
        Operator::Eq,
        Operator::Ne,
        Operator::Gt,
        Operator::Gte,
        Operator::Lt,
        Operator::Lte,
        Operator::In,
        Operator::NotIn,
        Operator::Between,
        Operator::NotBetween,
        Operator::Exists,
    ];

    /// The operator of this name, however it is cased.
    pub(super) fn of_name(name: &str) -> Option<Operator> {
        Operator::ALL.into_iter().find(|operator| operator.name().eq_ignore_ascii_case(name))
    }

    /// The operator that has this sign in the text form.
    pub(super) fn of_sign(sign: &str) -> Option<Operator> {
        match sign {
            "=" | "==" => Some(Operator::Eq),
            "!=" => Some(Operator::Ne),
            ">" => Some(Operator::Gt),
            ">=" => Some(Operator::Gte),
            "<" => Some(Operator::Lt),
            "<=" => Some(Operator::Lte),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Operator::Eq => "eq",
            Operator::Ne => "ne",
            Operator::Gt => "gt",
            Operator::Gte => "gte",
            Operator::Lt => "lt",
            Operator::Lte => "lte",
            Operator::In => "in",
            Operator::NotIn => "notin",
            Operator::Between => "between",
            Operator::NotBetween => "notbetween",
            Operator::Exists => "exists",
        }
    }

    /// How the text form is printed.
    pub(super) fn in_text(self) -> &'static str {
        match self {
            Operator::Eq => "=",
            Operator::Ne => "!=",
            Operator::Gt => ">",
            Operator::Gte => ">=",
            Operator::Lt => "<",
            Operator::Lte => "<=",
            Operator::In => "in",
            Operator::NotIn => "not in",
            Operator::Between => "between",
            Operator::NotBetween => "not between",
            Operator::Exists => "exists",
        }
    }

    pub(super) fn operand(self) -> Operand {
        match self {
            Operator::Eq => Operand::Value(Test::Eq),
            Operator::Ne => Operand::Value(Test::Ne),
            Operator::Gt => Operand::Ordered(Test::Gt),
            Operator::Gte => Operand::Ordered(Test::Gte),
            Operator::Lt => Operand::Ordered(Test::Lt),
            Operator::Lte => Operand::Ordered(Test::Lte),
            Operator::In => Operand::Values(Test::In),
            Operator::NotIn => Operand::Values(Test::NotIn),
            Operator::Between => Operand::Range(Test::Between),
            Operator::NotBetween => Operand::Range(Test::NotBetween),
            Operator::Exists => Operand::Nothing(Test::Exists),
        }
    }
}

impl Operand {
    /// The key it stands under in YAML.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Operand::Value(_) | Operand::Ordered(_) => Some("value"),
            Operand::Values(_) => Some("values"),
            Operand::Range(_) => Some("range"),
            Operand::Nothing(_) => None,
        }
    }
}
