//! `join_mod`: two tables side by side, matched by keys.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::{columns, query};

pub(crate) struct JoinMod {
    config: Config,
    left_on: Vec<String>,
    right_on: Vec<String>,
}

/// How the tables at `left` and `right` are matched.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Key columns, when they have the same names on both sides.
    #[serde(default)]
    on: Vec<String>,
    /// Key columns of the left table, when the names differ.
    #[serde(default)]
    left_on: Vec<String>,
    /// Key columns of the right table, as many as in `left_on`.
    #[serde(default)]
    right_on: Vec<String>,
    /// Which rows stay.
    #[serde(default)]
    how: How,
    /// Appended to the right table's columns whose names the left table has too.
    #[serde(default = "default_suffix")]
    suffix: String,
    /// What the keys must be; anything else is an error.
    #[serde(default)]
    validate: Validate,
    /// Whether a null key matches a null key. In SQL it does not.
    #[serde(default)]
    nulls_equal: bool,
    /// Keep the rows in the left table's order. Otherwise their order is not defined.
    #[serde(default)]
    keep_order: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum How {
    /// Rows with a match on both sides.
    #[default]
    Inner,
    /// All left rows.
    Left,
    /// All right rows.
    Right,
    /// All rows of both sides.
    Full,
    /// Left rows that have a match, without the right columns.
    Semi,
    /// Left rows that have no match.
    Anti,
    /// Every left row with every right row; takes no keys.
    Cross,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
enum Validate {
    /// Keys may repeat on both sides.
    #[default]
    #[serde(rename = "m:m")]
    ManyToMany,
    /// Keys are unique on the right.
    #[serde(rename = "m:1")]
    ManyToOne,
    /// Keys are unique on the left.
    #[serde(rename = "1:m")]
    OneToMany,
    /// Keys are unique on both sides.
    #[serde(rename = "1:1")]
    OneToOne,
}

impl Mod for JoinMod {
    const NAME: &'static str = "join_mod";
    const DESCRIPTION: &'static str = "Joins two tables by key columns";
    const CATEGORY: &'static str = "Combine";
    const INPUTS: &'static [&'static str] = &["left", "right"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let (left_on, right_on) = keys(&config)?;
        Ok(Self { config, left_on, right_on })
    }

    async fn run(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let left = inputs.take("left")?.into_lazy().await?;
        let right = inputs.take("right")?.into_lazy().await?;
        let (config, left_on, right_on) = (self.config.clone(), self.left_on.clone(), self.right_on.clone());
        let joined = ctx
            .run_blocking(move || {
                let (left, left_schema) = query::resolve(left)?;
                let (right, right_schema) = query::resolve(right)?;
                columns::require("left_on", left_on.iter().map(String::as_str), &left_schema)?;
                columns::require("right_on", right_on.iter().map(String::as_str), &right_schema)?;
                query::settle(join(left, right, &left_on, &right_on, &config))
            })
            .await?;
        Ok(Outputs::one("output", joined))
    }
}

fn join(left: LazyFrame, right: LazyFrame, left_on: &[String], right_on: &[String], config: &Config) -> LazyFrame {
    let order = if config.keep_order { MaintainOrderJoin::Left } else { MaintainOrderJoin::None };
    // A full join's keys are one column too: two half-empty ones surprise.
    let coalesce = if config.how == How::Full { JoinCoalesce::CoalesceColumns } else { JoinCoalesce::JoinSpecific };
    left.join_builder()
        .with(right)
        .left_on(columns::all_exact(left_on))
        .right_on(columns::all_exact(right_on))
        .how(config.how.into())
        .suffix(config.suffix.as_str())
        .validate(config.validate.into())
        .join_nulls(config.nulls_equal)
        .coalesce(coalesce)
        .maintain_order(order)
        .finish()
}

/// The key columns of both sides.
fn keys(config: &Config) -> Result<(Vec<String>, Vec<String>)> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Config, "bad-join-keys", message));
    let Config { on, left_on, right_on, how, .. } = config;
    match (on.is_empty(), left_on.len(), right_on.len()) {
        (true, 0, 0) if *how == How::Cross => Ok((Vec::new(), Vec::new())),
        _ if *how == How::Cross => wrong("a cross join takes no keys"),
        (true, 0, 0) => wrong("give the key columns as `on`, or as `left_on` and `right_on`"),
        (false, 0, 0) => Ok((on.clone(), on.clone())),
        (false, ..) => wrong("give either `on`, or `left_on` and `right_on`, not both"),
        (true, left, right) if left == right => Ok((left_on.clone(), right_on.clone())),
        (true, ..) => wrong("`left_on` and `right_on` must name as many columns as each other"),
    }
}

fn default_suffix() -> String {
    "_right".into()
}

impl From<How> for JoinType {
    fn from(how: How) -> Self {
        match how {
            How::Inner => Self::Inner,
            How::Left => Self::Left,
            How::Right => Self::Right,
            How::Full => Self::Full,
            How::Semi => Self::Semi,
            How::Anti => Self::Anti,
            How::Cross => Self::Cross,
        }
    }
}

impl From<Validate> for JoinValidation {
    fn from(validate: Validate) -> Self {
        match validate {
            Validate::ManyToMany => Self::ManyToMany,
            Validate::ManyToOne => Self::ManyToOne,
            Validate::OneToMany => Self::OneToMany,
            Validate::OneToOne => Self::OneToOne,
        }
    }
}
