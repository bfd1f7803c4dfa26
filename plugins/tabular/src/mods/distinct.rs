//! `distinct_mod`: each row, or each key, once.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::{columns, query};

pub(crate) struct DistinctMod {
    config: Config,
}

/// What makes two rows the same, and which of them stays.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The columns that make two rows the same. All of them when absent.
    columns: Option<Vec<String>>,
    /// Which of several equal rows stays.
    #[serde(default)]
    keep: Keep,
    /// Keep the rows in their input order. Costs memory.
    #[serde(default)]
    keep_order: bool,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    /// Any one of them: the cheapest.
    #[default]
    Any,
    /// The first of them.
    First,
    /// The last of them.
    Last,
    /// None: only rows that were unique stay.
    None,
}

impl Mod for DistinctMod {
    const NAME: &'static str = "distinct_mod";
    const DESCRIPTION: &'static str = "Removes duplicate rows, by all columns or some";
    const CATEGORY: &'static str = "Rows";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        if config.columns.as_ref().is_some_and(Vec::is_empty) {
            let message = "`columns` names no column; leave it out to compare whole rows";
            return Err(Error::new(ErrorKind::Config, "no-columns", message));
        }
        Ok(Self { config })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let Config { columns, keep, keep_order } = self.config.clone();
        query::one_to_one(inputs, ctx, move |input, schema| {
            columns::require("columns", columns.iter().flatten().map(String::as_str), schema)?;
            let subset = columns.as_deref().map(columns::selector);
            Ok(if keep_order { input.unique_stable(subset, keep.into()) } else { input.unique(subset, keep.into()) })
        })
        .await
    }
}

impl From<Keep> for UniqueKeepStrategy {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Any => Self::Any,
            Keep::First => Self::First,
            Keep::Last => Self::Last,
            Keep::None => Self::None,
        }
    }
}
