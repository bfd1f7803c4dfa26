//! `aggregate_mod`: one row per group, or one for the whole table.

use polars::prelude::*;
use polars_plan::plans::IR;
use pype_plugin::prelude::*;

use crate::options::Named;
use crate::{columns, failure, query, sql};

pub(crate) struct AggregateMod {
    group_by: Vec<String>,
    aggregates: Vec<Aggregate>,
    keep_order: bool,
}

/// A new column: its name, and the SQL text with its expression.
#[derive(Clone)]
struct Aggregate {
    name: String,
    text: String,
    expr: Expr,
}

/// What to group by and what to compute for each group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The columns that make a group. Without any the whole table is one group.
    #[serde(default)]
    group_by: Vec<String>,
    /// New columns and the SQL aggregates they hold: `{flights: COUNT(*), mean_delay: AVG(dep_delay)}`.
    aggregates: Named<String>,
    /// Keep the groups in the order in which they first appear. Otherwise their order is not defined.
    #[serde(default)]
    keep_order: bool,
}

impl Mod for AggregateMod {
    const NAME: &'static str = "aggregate_mod";
    const DESCRIPTION: &'static str = "Groups rows and computes SQL aggregates for each group";
    const CATEGORY: &'static str = "Combine";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let aggregates = config.aggregates.0.into_iter().map(|(name, text)| {
            let expr = sql::expression(&format!("aggregates.{name}"), &text)?;
            Ok(Aggregate { name, text, expr })
        });
        let aggregates: Vec<_> = aggregates.collect::<Result<_>>()?;
        if aggregates.is_empty() && config.group_by.is_empty() {
            let message = "give columns to `group_by`, `aggregates` to compute, or both";
            return Err(Error::new(ErrorKind::Config, "nothing-to-aggregate", message));
        }
        Ok(Self { group_by: config.group_by, aggregates, keep_order: config.keep_order })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let (group_by, aggregates, keep_order) = (self.group_by.clone(), self.aggregates.clone(), self.keep_order);
        query::one_to_one(inputs, ctx, move |input, schema| {
            columns::require("group_by", group_by.iter().map(String::as_str), schema)?;
            aggregates.iter().try_for_each(|aggregate| aggregate.fits(schema))?;
            let aggregates: Vec<Expr> = aggregates.into_iter().map(|one| one.expr.alias(one.name)).collect();
            Ok(aggregate(input, &columns::all_exact(&group_by), aggregates, keep_order))
        })
        .await
    }
}

impl Aggregate {
    /// Checks that its columns exist, and that it makes one value of many. polars would make a list of them, or a row each.
    fn fits(&self, schema: &Schema) -> Result<()> {
        let option = format!("aggregates.{}", self.name);
        columns::require_in(&option, &self.expr, schema)?;
        let alone = DataFrame::empty_with_schema(schema).lazy().select([self.expr.clone()]);
        let plan = alone.to_alp().map_err(|error| failure::of_plan(&error))?;
        let is_scalar = match plan.lp_arena.get(plan.lp_top) {
            IR::Select { expr, .. } => expr.iter().all(|one| one.is_scalar(&plan.expr_arena)),
            _ => false,
        };
        if is_scalar {
            return Ok(());
        }
        let message = format!("`{option}`: `{}` is not an aggregate", self.text);
        let hint = "put a function such as SUM, MAX or FIRST around its columns";
        Err(Error::new(ErrorKind::Config, "no-aggregate", message).hint(hint))
    }
}

fn aggregate(input: LazyFrame, keys: &[Expr], aggregates: Vec<Expr>, keep_order: bool) -> LazyFrame {
    match (keys.is_empty(), keep_order) {
        (true, _) => input.select(aggregates),
        (false, true) => input.group_by_stable(keys).agg(aggregates),
        (false, false) => input.group_by(keys).agg(aggregates),
    }
}
