//! `filter_mod`: the rows for which a condition holds.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::{columns, query, sql};

pub(crate) struct FilterMod {
    condition: Expr,
}

/// Which rows to keep.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// An SQL expression that is true for the rows to keep: `age > 18 AND name IS NOT NULL`.
    condition: String,
}

impl Mod for FilterMod {
    const NAME: &'static str = "filter_mod";
    const DESCRIPTION: &'static str = "Keeps the rows for which an SQL condition is true";
    const CATEGORY: &'static str = "Rows";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { condition: sql::expression("condition", &config.condition)? })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let condition = self.condition.clone();
        query::one_to_one(inputs, ctx, move |input, schema| {
            columns::require_in("condition", &condition, schema)?;
            Ok(input.filter(condition))
        })
        .await
    }
}
