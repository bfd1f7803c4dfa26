//! `union_mod`: several tables one below the other.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::{columns, dtype, failure, query};

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
        let config = self.config.clone();
        let united = ctx.run_blocking(move || query::settle(unite(tables, &config)?)).await?;
        Ok(Outputs::one("output", united))
    }
}

fn unite(tables: Vec<(String, LazyFrame)>, config: &Config) -> Result<LazyFrame> {
    let tables: Vec<Table> = tables.into_iter().map(Table::resolve).collect::<Result<_>>()?;
    for (index, table) in tables.iter().enumerate() {
        tables[..index].iter().try_for_each(|earlier| must_match(earlier, table, config))?;
    }
    let args = UnionArgs { to_supertypes: config.widen_types, ..Default::default() };
    let united = match config.columns {
        Match::Any => concat_lf_diagonal(tables.into_iter().map(|table| table.plan).collect::<Vec<_>>(), args),
        Match::Same => concat(in_first_order(tables), args),
    };
    united.map_err(|error| failure::of_plan(&error))
}

/// A table and the port it came by.
struct Table {
    port: String,
    plan: LazyFrame,
    schema: SchemaRef,
}

impl Table {
    fn resolve((port, plan): (String, LazyFrame)) -> Result<Self> {
        let (plan, schema) = query::resolve(plan)?;
        Ok(Self { port, plan, schema })
    }
}

/// Refuses two tables that cannot be one, naming their ports and the column.
fn must_match(first: &Table, second: &Table, config: &Config) -> Result<()> {
    let columns = match config.columns {
        Match::Any => None,
        Match::Same => other_columns(&first.schema, &second.schema),
    };
    let types = || if config.widen_types { None } else { other_type(&first.schema, &second.schema) };
    let Some(difference) = columns.or_else(types) else { return Ok(()) };
    let message = format!("the tables at `{}` and `{}` differ: {difference}", first.port, second.port);
    let hint = match config.columns {
        Match::Any => "set `widen_types: true`, or put a `select_mod` before it",
        Match::Same => "set `columns: any`, or `widen_types: true`, or put a `select_mod` before it",
    };
    Err(Error::new(ErrorKind::Config, "schema-mismatch", message).hint(hint))
}

/// The plans with their columns in the first one's order.
fn in_first_order(tables: Vec<Table>) -> Vec<LazyFrame> {
    let Some(first) = tables.first().map(|table| table.schema.clone()) else { return Vec::new() };
    let ordered: Vec<Expr> = first.iter_names().map(|name| columns::exact(name)).collect();
    let in_order = |table: Table| {
        let same_order = first.iter_names().eq(table.schema.iter_names());
        if same_order { table.plan } else { table.plan.select(ordered.clone()) }
    };
    tables.into_iter().map(in_order).collect()
}

fn other_columns(first: &Schema, other: &Schema) -> Option<String> {
    if let Some(name) = first.iter_names().find(|name| !other.contains(name)) {
        return Some(format!("`{name}` is only in the first"));
    }
    let name = other.iter_names().find(|name| !first.contains(name))?;
    Some(format!("`{name}` is only in the second"))
}

fn other_type(first: &Schema, other: &Schema) -> Option<String> {
    let mut types = first.iter().filter_map(|(name, dtype)| Some((name, dtype, other.get(name)?)));
    let (name, left, right) = types.find(|(_, left, right)| left != right)?;
    Some(format!("`{name}` is {} in the first and {} in the second", dtype::name(left), dtype::name(right)))
}
