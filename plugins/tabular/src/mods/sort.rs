//! `sort_mod`: rows in order, and the first few of them.

use polars::prelude::*;
use pype_plugin::prelude::*;

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

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
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
