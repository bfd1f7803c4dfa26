//! A rule over labels as an expression over columns, which says of each row what [`Rule::matches`] says of its labels.
//!
//! What a cell is as a label: numbers of any type are numbers, exactly as large as they are (a decimal as near as a
//! float comes); texts and categories are texts; dates and times are the texts that they are written as, `2024-01-31`;
//! null is null. NaN equals nothing and stands nowhere. So do lists, structs and all else, as they do among labels.
//!
//! Positive tests are null, rather than false, where a cell is: a filter drops either, and can push the plain comparison
//! down into a file scan. [`unless`] settles it wherever something is negated.

use std::ops::Bound;

use polars::prelude::*;
use pype_core::label::{Branch, Interval, Literal, Ordered, Rule, Test};

use crate::columns;

/// True for the rows that meet the rule; false or null for the others.
pub(super) fn met(rule: &Rule, schema: &Schema) -> Expr {
    match rule.branch() {
        Branch::All(rules) => joined(rules.iter().map(|rule| met(rule, schema)).collect(), true, Expr::and),
        Branch::Any(rules) => joined(rules.iter().map(|rule| met(rule, schema)).collect(), false, Expr::or),
        Branch::Not(rule) => unless(met(rule, schema)),
        Branch::Match { key, test } => match schema.get(key) {
            Some(dtype) => passes(test, &Cells::of(key, dtype)),
            None => lit(test.passes(None)),
        },
    }
}

/// True wherever `met` is not.
pub(super) fn unless(met: Expr) -> Expr {
    met.fill_null(lit(false)).not()
}

/// In pairs, and pairs of those: a rule of a thousand tests is a tree of ten levels.
fn joined(mut parts: Vec<Expr>, of_none: bool, join: fn(Expr, Expr) -> Expr) -> Expr {
    while parts.len() > 1 {
        let mut pairs = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(first) = rest.next() {
            pairs.push(match rest.next() {
                Some(second) => join(first, second),
                None => first,
            });
        }
        parts = pairs;
    }
    parts.pop().unwrap_or_else(|| lit(of_none))
}

fn passes(test: &Test, cells: &Cells) -> Expr {
    match test {
        Test::Eq(value) => cells.equal_one_of(std::slice::from_ref(value)),
        Test::Ne(value) => unless(cells.equal_one_of(std::slice::from_ref(value))),
        Test::In(values) => cells.equal_one_of(values),
        Test::NotIn(values) => unless(cells.equal_one_of(values)),
        Test::Gt(limit) => cells.stand(Side::Above, limit),
        Test::Gte(limit) => cells.stand(Side::AtOrAbove, limit),
        Test::Lt(limit) => cells.stand(Side::Below, limit),
        Test::Lte(limit) => cells.stand(Side::AtOrBelow, limit),
        Test::Between(interval) => cells.lie_in(interval),
        Test::NotBetween(interval) => unless(cells.lie_in(interval)),
        Test::Exists => lit(true),
    }
}

/// Where a cell stands as seen from a limit.
#[derive(Clone, Copy)]
enum Side {
    Above,
    AtOrAbove,
    Below,
    AtOrBelow,
}

impl Side {
    fn of(self, cells: Expr, limit: Expr) -> Expr {
        match self {
            Side::Above => cells.gt(limit),
            Side::AtOrAbove => cells.gt_eq(limit),
            Side::Below => cells.lt(limit),
            Side::AtOrBelow => cells.lt_eq(limit),
        }
    }

    fn is_above(self) -> bool {
        match self {
            Side::Above | Side::AtOrAbove => true,
            Side::Below | Side::AtOrBelow => false,
        }
    }
}

/// The cells of one column, as labels.
struct Cells {
    column: Expr,
    kind: Kind,
}

/// What the cells of a column are, null apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// Whole numbers that `i64` holds.
    Int,
    /// Whole numbers that `u64` holds.
    Unsigned,
    /// Whole numbers that `i128` holds.
    Wide,
    Float,
    Text,
    /// Nothing that a rule has a value for.
    Other,
}

impl Cells {
    fn of(name: &str, dtype: &DataType) -> Self {
        let column = columns::exact(name);
        let (kind, cast) = match dtype {
            DataType::Boolean => (Kind::Bool, None),
            DataType::UInt64 => (Kind::Unsigned, None),
            DataType::Int128 => (Kind::Wide, None),
            DataType::UInt128 => (Kind::Other, None),
            DataType::Float64 => (Kind::Float, None),
            DataType::String => (Kind::Text, None),
            one if one.is_integer() => (Kind::Int, None),
            one if one.is_float() || one.is_decimal() => (Kind::Float, Some(DataType::Float64)),
            one if is_written_as_text(one) => (Kind::Text, Some(DataType::String)),
            _ => (Kind::Other, None),
        };
        Self { column: cast.map_or(column.clone(), |dtype| column.cast(dtype)), kind }
    }

    fn lie_in(&self, interval: &Interval) -> Expr {
        let low = match interval.low() {
            Bound::Included(low) => Some(self.stand(Side::AtOrAbove, low)),
            Bound::Excluded(low) => Some(self.stand(Side::Above, low)),
            Bound::Unbounded => None,
        };
        let high = match interval.high() {
            Bound::Included(high) => Some(self.stand(Side::AtOrBelow, high)),
            Bound::Excluded(high) => Some(self.stand(Side::Below, high)),
            Bound::Unbounded => None,
        };
        joined(low.into_iter().chain(high).collect(), true, Expr::and)
    }

    fn stand(&self, side: Side, limit: &Ordered) -> Expr {
        match (self.kind, limit) {
            (Kind::Text, Ordered::Text(text)) => side.of(self.column.clone(), lit(text.clone())),
            (Kind::Int | Kind::Unsigned | Kind::Wide, Ordered::Int(limit)) => self.whole(side, i128::from(*limit)),
            (Kind::Int | Kind::Unsigned | Kind::Wide, Ordered::Float(limit)) => self.whole_beside_float(side, *limit),
            (Kind::Float, Ordered::Int(limit)) => self.float_beside_whole(side, *limit),
            (Kind::Float, Ordered::Float(limit)) => self.float(side, *limit),
            (Kind::Text, Ordered::Int(_) | Ordered::Float(_))
            | (Kind::Int | Kind::Unsigned | Kind::Wide | Kind::Float, Ordered::Text(_))
            | (Kind::Bool | Kind::Other, _) => lit(false),
        }
    }

    /// A limit beyond what the column holds lies above all of its numbers, or below.
    fn whole(&self, side: Side, limit: i128) -> Expr {
        match self.kind.literal(limit) {
            Some(limit) => side.of(self.column.clone(), limit),
            None if (limit < 0) == side.is_above() => self.column.clone().is_not_null(),
            None => lit(false),
        }
    }

    /// Of whole numbers, those above 2.5 are those above 2, and those from 2.5 on are those from 3 on.
    fn whole_beside_float(&self, side: Side, limit: f64) -> Expr {
        if limit.is_nan() {
            return lit(false);
        }
        // Beyond `i128` the cast saturates, on the right side of every number that a column holds.
        let limit = match side {
            Side::Above | Side::AtOrBelow => limit.floor() as i128,
            Side::AtOrAbove | Side::Below => limit.ceil() as i128,
        };
        self.whole(side, limit)
    }

    /// A whole number that no float is lies between two of them; rounding gives one, and whether to count that one in.
    fn float_beside_whole(&self, side: Side, limit: i64) -> Expr {
        let rounded = limit as f64;
        let side = match (rounded as i128).cmp(&i128::from(limit)) {
            std::cmp::Ordering::Equal => side,
            std::cmp::Ordering::Greater if side.is_above() => Side::AtOrAbove,
            std::cmp::Ordering::Greater => Side::Below,
            std::cmp::Ordering::Less if side.is_above() => Side::Above,
            std::cmp::Ordering::Less => Side::AtOrBelow,
        };
        self.float(side, rounded)
    }

    /// To polars NaN is above all numbers.
    fn float(&self, side: Side, limit: f64) -> Expr {
        let stands = side.of(self.column.clone(), lit(limit));
        if limit.is_nan() {
            lit(false)
        } else if side.is_above() {
            stands.and(self.column.clone().is_not_nan())
        } else {
            stands
        }
    }

    fn equal_one_of(&self, values: &[Literal]) -> Expr {
        let null = values.contains(&Literal::Null).then(|| self.column.clone().is_null());
        joined(self.equal_one_that_is_there(values).into_iter().chain(null).collect(), false, Expr::or)
    }

    fn equal_one_that_is_there(&self, values: &[Literal]) -> Option<Expr> {
        let ordered = values.iter().filter_map(|value| match value {
            Literal::Ordered(value) => Some(value),
            Literal::Null | Literal::Bool(_) => None,
        });
        match self.kind {
            Kind::Bool => self.is_one_of_flags(values),
            Kind::Text => {
                let texts = ordered.filter_map(text).collect();
                is_in(&self.column, texts, lit, |texts| Series::new(PlSmallStr::EMPTY, texts))
            }
            Kind::Float => {
                let numbers = ordered.filter_map(float).collect();
                is_in(&self.column, numbers, lit, |numbers| Series::new(PlSmallStr::EMPTY, numbers))
            }
            Kind::Int => {
                let numbers: Vec<i64> = ordered.filter_map(|value| whole(value)?.try_into().ok()).collect();
                let column =
                    if numbers.len() > 1 { self.column.clone().cast(DataType::Int64) } else { self.column.clone() };
                is_in(&column, numbers, lit, |numbers| Series::new(PlSmallStr::EMPTY, numbers))
            }
            Kind::Unsigned => {
                let numbers: Vec<u64> = ordered.filter_map(|value| whole(value)?.try_into().ok()).collect();
                is_in(&self.column, numbers, lit, |numbers| Series::new(PlSmallStr::EMPTY, numbers))
            }
            Kind::Wide => {
                let equals = ordered.filter_map(|value| Some(self.column.clone().eq(lit(whole(value)?))));
                Some(joined(equals.collect(), false, Expr::or))
            }
            Kind::Other => None,
        }
    }

    fn is_one_of_flags(&self, values: &[Literal]) -> Option<Expr> {
        let is = |flag: bool| values.contains(&Literal::Bool(flag));
        match (is(true), is(false)) {
            (true, true) => Some(self.column.clone().is_not_null()),
            (true, false) => Some(self.column.clone()),
            (false, true) => Some(self.column.clone().not()),
            (false, false) => None,
        }
    }
}

/// A plain comparison with the one value that there is, or a look-up among several.
fn is_in<T>(column: &Expr, mut values: Vec<T>, one: fn(T) -> Expr, many: fn(Vec<T>) -> Series) -> Option<Expr> {
    match values.pop() {
        None => None,
        Some(only) if values.is_empty() => Some(column.clone().eq(one(only))),
        Some(last) => {
            values.push(last);
            Some(column.clone().is_in(lit(many(values)).implode(false), false))
        }
    }
}

impl Kind {
    /// A number of the column's own sort, so that nothing is rounded to compare them; none if it holds no such number.
    fn literal(self, number: i128) -> Option<Expr> {
        match self {
            Kind::Int => i64::try_from(number).ok().map(lit),
            Kind::Unsigned => u64::try_from(number).ok().map(lit),
            Kind::Wide => Some(lit(number)),
            Kind::Bool | Kind::Float | Kind::Text | Kind::Other => None,
        }
    }
}

fn text(value: &Ordered) -> Option<&str> {
    match value {
        Ordered::Text(text) => Some(text),
        Ordered::Int(_) | Ordered::Float(_) => None,
    }
}

/// The whole number that a value is.
fn whole(value: &Ordered) -> Option<i128> {
    match value {
        Ordered::Int(number) => Some(i128::from(*number)),
        Ordered::Float(number) => (number.is_finite() && number.fract() == 0.0).then_some(*number as i128),
        Ordered::Text(_) => None,
    }
}

/// The float that a value is, exactly.
fn float(value: &Ordered) -> Option<f64> {
    match value {
        Ordered::Int(number) => Some(*number as f64).filter(|float| *float as i128 == i128::from(*number)),
        Ordered::Float(number) => Some(*number).filter(|number| !number.is_nan()),
        Ordered::Text(_) => None,
    }
}

fn is_written_as_text(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Date | DataType::Time | DataType::Datetime(_, _))
        || matches!(dtype, DataType::Categorical(_, _) | DataType::Enum(_, _))
}
