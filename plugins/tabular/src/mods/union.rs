//! `union_mod`: several tables one below the other.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::{failure, query};

pub(crate) struct UnionMod {
    config: Config,
}

/// How the tables' columns are brought together.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Which columns the tables must have.
    #[serde(default)]
    columns: Match,
    /// Bring differing types of a column to one that holds both (int and float become float). Otherwise that is an error.
    #[serde(default)]
    widen_types: bool,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Match {
    /// All the same ones; they may be in another order.
    #[default]
    Same,
    /// Any: a column that a table does not have is null in its rows.
    Any,
}

impl Mod for UnionMod {
    const NAME: &'static str = "union_mod";
    const DESCRIPTION: &'static str = "Appends the tables at its input ports, in the order of the flow's edges";
    const CATEGORY: &'static str = "Combine";
    const INPUTS: &'static [&'static str] = &["in*"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { config })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let mut tables = Vec::with_capacity(inputs.len());
        for (port, frame) in inputs {
            tables.push((port, frame.into_lazy().await?));
        }
        let (config, eager) = (self.config.clone(), ctx.eager());
        let united = ctx.run_blocking(move || query::settle(unite(tables, &config)?, eager)).await?;
        Ok(Outputs::one("output", united))
    }
}

fn unite(tables: Vec<(String, LazyFrame)>, config: &Config) -> Result<LazyFrame> {
    let args = UnionArgs { to_supertypes: config.widen_types, ..Default::default() };
    let united = match config.columns {
        Match::Any => concat_lf_diagonal(plans(tables), args),
        Match::Same => concat(same_columns(tables, config.widen_types)?, args),
    };
    united.map_err(|error| failure::of_plan(&error))
}

fn plans(tables: Vec<(String, LazyFrame)>) -> Vec<LazyFrame> {
    tables.into_iter().map(|(_, plan)| plan).collect()
}

/// The tables with their columns in the first one's order, or an error that names the port that differs.
fn same_columns(tables: Vec<(String, LazyFrame)>, widen: bool) -> Result<Vec<LazyFrame>> {
    let mut first: Option<(String, SchemaRef)> = None;
    let mut plans = Vec::with_capacity(tables.len());
    for (port, plan) in tables {
        let (plan, schema) = query::resolve(plan)?;
        let (first_port, first_schema) = first.get_or_insert_with(|| (port.clone(), schema.clone()));
        if let Some(difference) = difference(first_schema, &schema, widen) {
            let message = format!("the tables at `{first_port}` and `{port}` differ: {difference}");
            let hint = "set `columns: any`, or `widen_types: true`, or put a `select_mod` before it";
            return Err(Error::new(ErrorKind::Config, "schema-mismatch", message).hint(hint));
        }
        let same_order = first_schema.iter_names().eq(schema.iter_names());
        let ordered: Vec<Expr> = first_schema.iter_names().map(|name| crate::columns::exact(name)).collect();
        plans.push(if same_order { plan } else { plan.select(ordered) });
    }
    Ok(plans)
}

fn difference(first: &Schema, other: &Schema, widen: bool) -> Option<String> {
    if let Some(name) = first.iter_names().find(|name| !other.contains(name)) {
        return Some(format!("`{name}` is only in the first"));
    }
    if let Some(name) = other.iter_names().find(|name| !first.contains(name)) {
        return Some(format!("`{name}` is only in the second"));
    }
    let mut types = first.iter().filter_map(|(name, dtype)| Some((name, dtype, other.get(name)?)));
    let (name, left, right) = types.find(|(_, left, right)| left != right && !widen)?;
    Some(format!(
        "`{name}` is {} in the first and {} in the second",
        crate::dtype::name(left),
        crate::dtype::name(right)
    ))
}
