//! `sql_mod`: one SELECT over the tables at its ports.

use polars::prelude::LazyFrame;
use pype_plugin::prelude::*;

use crate::{query, sql};

pub(crate) struct SqlMod {
    query: String,
}

/// What to select.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// One SELECT statement (joins, CTEs, windows, UNION are fine). Its tables are the input ports by name: a flow that
    /// connects to `input`, `in_planes` and `in2` may query `input`, `in_planes` (or `planes`) and `in2`.
    query: String,
}

impl Mod for SqlMod {
    const NAME: &'static str = "sql_mod";
    const DESCRIPTION: &'static str = "Runs an SQL query over the tables at its input ports";
    const CATEGORY: &'static str = "Combine";
    const INPUTS: &'static [&'static str] = &["in*"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        sql::check_query(&config.query)?;
        Ok(Self { query: config.query })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let mut tables = Vec::with_capacity(inputs.len());
        for (port, frame) in inputs {
            let plan = frame.into_lazy().await?;
            tables.extend(port.strip_prefix("in_").map(|short| (short.to_owned(), plan.clone())));
            tables.push((port, plan));
        }
        must_differ(&tables)?;
        let text = self.query.clone();
        let selected = ctx.run_blocking(move || query::settle(sql::query(&text, &tables)?)).await?;
        Ok(Outputs::one("output", selected))
    }
}

/// Two ports may not give one table name: `in_in2` is the table `in2` too.
fn must_differ(tables: &[(String, LazyFrame)]) -> Result<()> {
    let twin = |(index, (name, _)): (usize, &(String, LazyFrame))| {
        tables[..index].iter().any(|(earlier, _)| earlier == name).then(|| name.clone())
    };
    match tables.iter().enumerate().find_map(twin) {
        None => Ok(()),
        Some(name) => {
            let message = format!("the ports `{name}` and `in_{name}` are both the table `{name}`");
            Err(Error::new(ErrorKind::Config, "ambiguous-table", message).hint("give one of them another name"))
        }
    }
}
