//! `sort_mod`: rows in order, and the first few of them.

use std::fmt;

use polars::prelude::*;
use pype_plugin::prelude::*;
use serde::Deserializer;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};

use crate::{columns, query};

pub(crate) struct SortMod {
    config: Config,
}

/// By which columns to sort.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The sort keys, first one first: a column's name, or `{column: delay, descending: true, nulls_last: true}`.
    by: Vec<Key>,
    /// Keep only this many rows from the top.
    limit: Option<u32>,
}

#[derive(Clone, JsonSchema)]
#[schemars(untagged)]
enum Key {
    /// Ascending, nulls first.
    Column(String),
    Detailed(DetailedKey),
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DetailedKey {
    /// The column's name.
    column: String,
    /// Largest first.
    #[serde(default)]
    descending: bool,
    /// Nulls after all other values.
    #[serde(default)]
    nulls_last: bool,
}

impl Mod for SortMod {
    const NAME: &'static str = "sort_mod";
    const DESCRIPTION: &'static str = "Sorts rows by columns, and keeps the first ones if asked";
    const CATEGORY: &'static str = "Rows";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        if config.by.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no-sort-key", "`by` names no column"));
        }
        Ok(Self { config })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let Config { by, limit } = self.config.clone();
        query::one_to_one(inputs, ctx, move |input, schema| {
            columns::require("by", by.iter().map(Key::column), schema)?;
            let keys: Vec<Expr> = by.iter().map(|key| columns::exact(key.column())).collect();
            let sorted = input.sort_by_exprs(keys, order(&by));
            Ok(match limit {
                Some(rows) => sorted.limit(rows),
                None => sorted,
            })
        })
        .await
    }
}

/// Equal rows keep their order, so that two runs give the same file.
fn order(by: &[Key]) -> SortMultipleOptions {
    SortMultipleOptions::new()
        .with_order_descending_multi(by.iter().map(Key::descending))
        .with_nulls_last_multi(by.iter().map(Key::nulls_last))
        .with_maintain_order(true)
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// Reads a key by what it is, so that a slip inside a mapping is told by its own name.
struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name, or a mapping with `column`, `descending` and `nulls_last`")
    }

    fn visit_str<E: de::Error>(self, column: &str) -> std::result::Result<Key, E> {
        Ok(Key::Column(column.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Key, A::Error> {
        DetailedKey::deserialize(MapAccessDeserializer::new(map)).map(Key::Detailed)
    }
}

impl Key {
    fn column(&self) -> &str {
        match self {
            Self::Column(column) | Self::Detailed(DetailedKey { column, .. }) => column,
        }
    }

    fn descending(&self) -> bool {
        matches!(self, Self::Detailed(DetailedKey { descending: true, .. }))
    }

    fn nulls_last(&self) -> bool {
        matches!(self, Self::Detailed(DetailedKey { nulls_last: true, .. }))
    }
}
