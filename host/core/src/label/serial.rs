//! Rules in files of other formats: the tree form, through serde.

use std::fmt;
use std::ops::Bound;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::interval::{Interval, is_inclusive};
use super::operator::Test;
use super::rule::{Branch, Rule};
use super::value::{Literal, Ordered};
use super::yaml;
use crate::diagnostic::{Diagnostic, Position, Span};
use crate::document::{Node, Source, Spanned};

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut branch = serializer.serialize_map(Some(1))?;
        match self.branch() {
            Branch::All(rules) => branch.serialize_entry("all", rules)?,
            Branch::Any(rules) => branch.serialize_entry("any", rules)?,
            Branch::Not(rule) => branch.serialize_entry("not", rule)?,
            Branch::Match { key, test } => branch.serialize_entry("match", &Matched { key, test })?,
        }
        branch.end()
    }
}

struct Matched<'a> {
    key: &'a str,
    test: &'a Test,
}

impl Serialize for Matched<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_map(None)?;
        entries.serialize_entry("key", self.key)?;
        entries.serialize_entry("op", self.test.operator().name())?;
        match self.test {
            Test::Eq(value) | Test::Ne(value) => entries.serialize_entry("value", value)?,
            Test::Gt(value) | Test::Gte(value) | Test::Lt(value) | Test::Lte(value) => {
                entries.serialize_entry("value", value)?;
            }
            Test::In(values) | Test::NotIn(values) => entries.serialize_entry("values", values)?,
            Test::Between(interval) | Test::NotBetween(interval) => entries.serialize_entry("range", interval)?,
            Test::Exists => {}
        }
        entries.end()
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut range = serializer.serialize_map(None)?;
        for (key, bound) in [("low", self.low()), ("high", self.high())] {
            if let Bound::Included(value) | Bound::Excluded(value) = bound {
                range.serialize_entry(key, value)?;
            }
        }
        let inclusive = Inclusive { low: is_inclusive(self.low()), high: is_inclusive(self.high()) };
        if !(inclusive.low && inclusive.high) {
            range.serialize_entry("inclusive", &inclusive)?;
        }
        range.end()
    }
}

#[derive(Serialize)]
struct Inclusive {
    low: bool,
    high: bool,
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Literal::Null => serializer.serialize_unit(),
            Literal::Bool(value) => serializer.serialize_bool(*value),
            Literal::Ordered(value) => value.serialize(serializer),
        }
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // JSON has null for these, which would say something else.
            Ordered::Float(number) if !number.is_finite() => {
                Err(ser::Error::custom(format!("a rule with `{number}` cannot be written")))
            }
            Ordered::Int(number) => serializer.serialize_i64(*number),
            Ordered::Float(number) => serializer.serialize_f64(*number),
            Ordered::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// Reads what [`Rule::read`] reads, with the same checks. The places of what is wrong are lost, their paths are not.
impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = deserializer.deserialize_any(NodeVisitor)?;
        yaml::read(&Source::new("", ""), &nowhere(node)).map_err(|found| {
            let all: Vec<String> = found.iter().map(in_words).collect();
            de::Error::custom(all.join("; "))
        })
    }
}

fn in_words(found: &Diagnostic) -> String {
    match &found.help {
        Some(help) => format!("{} ({help})", found.message),
        None => found.message.clone(),
    }
}

fn nowhere<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::at(Position::START))
}

/// A node without a place. Not by way of a JSON value: that turns NaN into null, and lets a key stand twice.
struct Unplaced(Node);

impl<'de> Deserialize<'de> for Unplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(Unplaced)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule over labels")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        let too_large = |_| E::custom(format!("`{value}` is larger than 64 signed bits hold"));
        i64::try_from(value).map(Node::Int).map_err(too_large)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(Unplaced(item)) = access.next_element()? {
            items.push(nowhere(item));
        }
        Ok(Node::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Node>)> = Vec::new();
        while let Some((key, Unplaced(value))) = access.next_entry::<String, Unplaced>()? {
            if entries.iter().any(|(given, _)| given.value == key) {
                return Err(de::Error::custom(format!("the key `{key}` is given twice")));
            }
            entries.push((nowhere(key), nowhere(value)));
        }
        Ok(Node::Map(entries))
    }
}
