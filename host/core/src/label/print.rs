//! Rules as text that parses to the same rule.

use std::fmt::{self, Display, Formatter};

use super::interval::{Interval, is_inclusive, value};
use super::operator::Test;
use super::rule::{Branch, Rule, unset};
use super::token::is_plain;
use super::value::{Literal, Ordered};

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.branch() {
            Branch::All(rules) if rules.is_empty() => f.write_str("true"),
            Branch::Any(rules) if rules.is_empty() => f.write_str("false"),
            Branch::All(rules) => conjunction(f, rules),
            Branch::Any(rules) => separated(f, rules, " or "),
            Branch::Not(rule) => write!(f, "not {}", Term(rule)),
            Branch::Match { key, test } => write!(f, "{}{test}", Text(key)),
        }
    }
}

/// A rule as an operand of `not` or `and`: in parentheses if it is made of several.
struct Term<'a>(&'a Rule);

impl Display for Term<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = match self.0.branch() {
            Branch::All(rules) if set_key(rules).is_some() => rules.len() - 1,
            Branch::All(rules) | Branch::Any(rules) => rules.len(),
            Branch::Not(_) | Branch::Match { .. } => 1,
        };
        if parts > 1 { write!(f, "({})", self.0) } else { self.0.fmt(f) }
    }
}

fn conjunction(f: &mut Formatter<'_>, mut rules: &[Rule]) -> fmt::Result {
    let mut before = "";
    while let Some((first, rest)) = rules.split_first() {
        f.write_str(before)?;
        before = " and ";
        if let Some(key) = set_key(rules) {
            Text(key).fmt(f)?;
            rules = &rules[2..];
        } else {
            Term(first).fmt(f)?;
            rules = rest;
        }
    }
    Ok(())
}

/// The key, if these rules start with the two that a key alone stands for.
fn set_key(rules: &[Rule]) -> Option<&str> {
    let [first, second, ..] = rules else { return None };
    let (Branch::Match { key, test: Test::Exists }, Branch::Match { key: again, test: Test::NotIn(values) }) =
        (first.branch(), second.branch())
    else {
        return None;
    };
    (key == again && *values == unset()).then_some(key)
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {}", self.operator().in_text())?;
        match self {
            Test::Eq(value) | Test::Ne(value) => write!(f, " {value}"),
            Test::Gt(value) | Test::Gte(value) | Test::Lt(value) | Test::Lte(value) => write!(f, " {value}"),
            Test::In(values) | Test::NotIn(values) => {
                f.write_str(" (")?;
                separated(f, values, ", ")?;
                f.write_str(")")
            }
            Test::Between(interval) | Test::NotBetween(interval) => write!(f, " {interval}"),
            Test::Exists => Ok(()),
        }
    }
}

fn separated(f: &mut Formatter<'_>, items: &[impl Display], separator: &str) -> fmt::Result {
    let mut before = "";
    for item in items {
        write!(f, "{before}{item}")?;
        before = separator;
    }
    Ok(())
}

/// As after `between`: `1 and 5`, or `[1, 5)` where a bound is left out.
impl Display for Interval {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let null = || "null".to_owned();
        let low = value(self.low()).map_or_else(null, ToString::to_string);
        let high = value(self.high()).map_or_else(null, ToString::to_string);
        match (is_inclusive(self.low()), is_inclusive(self.high())) {
            (true, true) => write!(f, "{low} and {high}"),
            (true, false) => write!(f, "[{low}, {high})"),
            (false, true) => write!(f, "({low}, {high}]"),
            (false, false) => write!(f, "({low}, {high})"),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("null"),
            Literal::Bool(value) => value.fmt(f),
            Literal::Ordered(value) => value.fmt(f),
        }
    }
}

impl Display for Ordered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Ordered::Int(number) => number.fmt(f),
            // The parser refuses these, rather than read a text.
            Ordered::Float(number) if number.is_nan() => f.write_str(".nan"),
            Ordered::Float(number) if number.is_infinite() => f.write_str(if *number > 0.0 { ".inf" } else { "-.inf" }),
            // Keeps the point of `1.0`.
            Ordered::Float(number) => write!(f, "{number:?}"),
            Ordered::Text(text) => Text(text).fmt(f),
        }
    }
}

/// A text, in quotes where it needs them.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                _ => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
