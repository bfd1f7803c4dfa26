//! `derive_mod`: new columns from SQL expressions.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::options::Named;
use crate::{columns, query, sql};

pub(crate) struct DeriveMod {
    columns: Vec<(String, Expr)>,
}

/// Which columns to add.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// New columns and their SQL expressions, computed in this order: `{gain: dep_delay - arr_delay, late: gain < 0}`.
    /// A later one may use an earlier one; an existing column of the same name is replaced in place.
    columns: Named<String>,
}

impl Mod for DeriveMod {
    const NAME: &'static str = "derive_mod";
    const DESCRIPTION: &'static str = "Adds or replaces columns by SQL expressions";
    const CATEGORY: &'static str = "Columns";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let columns = config.columns.0.into_iter().map(|(name, text)| {
            let expr = sql::expression(&option(&name), &text)?;
            Ok((name, expr))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let columns = self.columns.clone();
        query::one_to_one(inputs, ctx, move |input, schema| {
            columns.into_iter().try_fold(input, |input, (name, expr)| derive(input, schema, name, expr))
        })
        .await
    }
}

/// Adds one column. The optimiser joins neighbouring steps that do not depend on each other.
fn derive(mut input: LazyFrame, first: &Schema, name: String, expr: Expr) -> Result<LazyFrame> {
    if columns::require_in(&option(&name), &expr, first).is_err() {
        // It may use a column that an earlier step derived: only then is the new schema worth resolving.
        let schema = input.collect_schema().map_err(|error| crate::failure::of_plan(&error))?;
        columns::require_in(&option(&name), &expr, &schema)?;
    }
    Ok(input.with_column(expr.alias(name)))
}

fn option(name: &str) -> String {
    format!("columns.{name}")
}
