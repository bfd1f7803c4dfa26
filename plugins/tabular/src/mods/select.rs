//! `select_mod`: which columns, in which order, under which names and types.

use std::collections::BTreeSet;

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::options::Named;
use crate::{columns, dtype, query};

pub(crate) struct SelectMod {
    choice: Choice,
}

/// Which columns to keep, and how they are named and typed afterwards.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The columns to keep, in this order. All of them when absent.
    columns: Option<Vec<String>>,
    /// Columns to leave out.
    #[serde(default)]
    exclude: Vec<String>,
    /// New names for kept columns: `{dep_delay: delay}`.
    #[serde(default)]
    rename: Named<String>,
    /// New types for kept columns, under their old names: `{price: decimal(10,2)}`. A value that does not fit is an error.
    #[serde(default)]
    cast: Named<String>,
}

#[derive(Clone)]
struct Choice {
    columns: Option<Vec<String>>,
    exclude: Vec<String>,
    rename: Vec<(String, String)>,
    cast: Vec<(String, DataType)>,
}

impl Mod for SelectMod {
    const NAME: &'static str = "select_mod";
    const DESCRIPTION: &'static str = "Keeps, orders, renames and casts columns";
    const CATEGORY: &'static str = "Columns";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let cast = config.cast.0.into_iter().map(|(name, text)| Ok((name, dtype::parse(&text)?)));
        let cast = cast.collect::<Result<_>>()?;
        let choice = Choice { columns: config.columns, exclude: config.exclude, rename: config.rename.0, cast };
        Ok(Self { choice })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let choice = self.choice.clone();
        query::one_to_one(inputs, ctx, move |input, schema| {
            let kept = choice.kept(schema)?;
            choice.check_renames(&kept)?;
            Ok(input.select(kept.iter().map(|name| choice.column(name)).collect::<Vec<_>>()))
        })
        .await
    }
}

impl Choice {
    /// The input's columns that go on, in their new order.
    fn kept(&self, schema: &Schema) -> Result<Vec<String>> {
        columns::require("columns", self.columns.iter().flatten().map(String::as_str), schema)?;
        columns::require("exclude", self.exclude.iter().map(String::as_str), schema)?;
        let all = || schema.iter_names().map(|name| name.to_string()).collect();
        let mut kept = self.columns.clone().unwrap_or_else(all);
        kept.retain(|name| !self.exclude.contains(name));
        let chosen: Schema = kept.iter().map(|name| Field::new(name.into(), DataType::Null)).collect();
        columns::require("rename", self.rename.iter().map(|(old, _)| old.as_str()), &chosen)?;
        columns::require("cast", self.cast.iter().map(|(name, _)| name.as_str()), &chosen)?;
        Ok(kept)
    }

    /// Two columns may not end up with one name.
    fn check_renames(&self, kept: &[String]) -> Result<()> {
        let mut seen = BTreeSet::new();
        match kept.iter().map(|name| self.new_name(name)).find(|name| !seen.insert(*name)) {
            None => Ok(()),
            Some(twice) => {
                Err(Error::new(ErrorKind::Config, "duplicate-column", format!("two columns would be named `{twice}`")))
            }
        }
    }

    fn column(&self, name: &str) -> Expr {
        let column = columns::exact(name);
        let column = match self.cast.iter().find(|(cast, _)| cast == name) {
            Some((_, dtype)) => column.strict_cast(dtype.clone()),
            None => column,
        };
        match self.new_name(name) {
            same if same == name => column,
            new => column.alias(new),
        }
    }

    fn new_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new.as_str())
    }
}
