//! One rule: read from the config, checked against a schema, turned into an expression.
//!
//! As in SQL's CHECK, a rule that gives neither true nor false for a row (a comparison with null) does not fail it:
//! `not_null` is the rule about nulls.

use polars::prelude::*;
use pype_plugin::prelude::*;
use serde_json::Value;

use crate::{columns, dtype, failure, query, sql};

/// What happens when a rule fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnFail {
    /// The run fails.
    #[default]
    Fail,
    /// The failing rows go to the port `rejected`.
    Reject,
    /// A warning is logged.
    Warn,
}

/// One rule: exactly one of the checks.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleConfig {
    /// What messages call the rule. Made from the check when absent.
    name: Option<String>,
    /// What happens when this rule fails, instead of the module's `on_fail`.
    on_fail: Option<OnFail>,
    /// An SQL expression that no row may make false: `dep_delay < 1440`.
    check: Option<String>,
    /// Columns that may hold no null.
    not_null: Option<Names>,
    /// Columns whose values together may occur only once. Rows with a null among them are not compared.
    unique: Option<Names>,
    /// Bounds, both included, of a column's values.
    range: Option<Range>,
    /// The only values a column may have.
    accepted_values: Option<Accepted>,
    /// A regular expression that a column's text must contain a match of.
    matches: Option<Matches>,
    /// The fewest rows the table may have.
    min_rows: Option<u64>,
    /// The most rows the table may have.
    max_rows: Option<u64>,
}

/// One column, or several.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    /// The column.
    column: String,
    /// The smallest value: a number, or text such as a date.
    min: Option<Value>,
    /// The largest value.
    max: Option<Value>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    /// The column.
    column: String,
    /// The values: numbers, text, true and false.
    values: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Matches {
    /// The column.
    column: String,
    /// The regular expression, in Rust's syntax.
    pattern: String,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) on_fail: OnFail,
    pub(super) check: Check,
}

#[derive(Clone, Debug)]
pub(super) enum Check {
    Condition(Expr),
    NotNull(Vec<String>),
    Unique(Vec<String>),
    Range(Range),
    Accepted(Accepted),
    Matches(Matches),
    MinRows(u64),
    MaxRows(u64),
}

impl Rule {
    /// Reads a rule. `on_fail` is the module's, for rules without one.
    pub(super) fn parse(config: RuleConfig, on_fail: OnFail) -> Result<Self> {
        let RuleConfig { name, on_fail: own, check, not_null, unique, range, accepted_values, matches, .. } = config;
        let condition =
            check.map(|text| Ok::<_, Error>((text.clone(), Check::Condition(sql::expression("check", &text)?))));
        let candidates = [
            condition.transpose()?,
            not_null.map(|names| named("not_null", names, Check::NotNull)),
            unique.map(|names| named("unique", names, Check::Unique)),
            range.map(|range| (format!("range({})", range.column), Check::Range(range))),
            accepted_values.map(|one| (format!("accepted_values({})", one.column), Check::Accepted(one))),
            matches.map(|one| (format!("matches({})", one.column), Check::Matches(one))),
            config.min_rows.map(|rows| (format!("min_rows({rows})"), Check::MinRows(rows))),
            config.max_rows.map(|rows| (format!("max_rows({rows})"), Check::MaxRows(rows))),
        ];
        let mut given = candidates.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(_), None) if name.as_deref() == Some("") => {
                Err(bad_rule(None, "has an empty `name`; give it a text or none"))
            }
            (Some((default, check)), None) => {
                let rule = Self { name: name.unwrap_or(default), on_fail: own.unwrap_or(on_fail), check };
                rule.check_values().map(|()| rule)
            }
            (None, _) => Err(bad_rule(name.as_deref(), "has no check")),
            (Some(_), Some(_)) => Err(bad_rule(name.as_deref(), "has more than one check; write two rules")),
        }
    }

    /// Checks that the rule's columns exist, and that a condition is one.
    pub(super) fn fits(&self, schema: &Schema) -> Result<()> {
        let option = format!("rules.{}", self.name);
        match &self.check {
            Check::Condition(expr) => {
                columns::require_in(&option, expr, schema)?;
                must_be_boolean(&option, expr, schema)
            }
            Check::NotNull(names) | Check::Unique(names) => {
                columns::require(&option, names.iter().map(String::as_str), schema)
            }
            Check::Range(Range { column, .. })
            | Check::Accepted(Accepted { column, .. })
            | Check::Matches(Matches { column, .. }) => columns::require(&option, [column.as_str()], schema),
            Check::MinRows(_) | Check::MaxRows(_) => Ok(()),
        }
    }

    /// True for the rows that fail the rule, never null. `None` when the rule is about the table as a whole.
    pub(super) fn violation(&self, schema: &Schema) -> Option<Expr> {
        let passes = match &self.check {
            Check::Condition(expr) => expr.clone(),
            Check::NotNull(names) => all(columns::all_exact(names).into_iter().map(Expr::is_not_null)),
            Check::Unique(names) => first_of_its_key(names),
            Check::Range(range) => range.holds(schema),
            Check::Accepted(accepted) => accepted.holds(schema),
            Check::Matches(Matches { column, pattern }) => {
                columns::exact(column).str().contains(lit(pattern.clone()), true)
            }
            Check::MinRows(_) | Check::MaxRows(_) => return None,
        };
        Some(passes.not().fill_null(lit(false)))
    }

    /// The columns the rule looks at, for an example.
    pub(super) fn columns(&self) -> Vec<String> {
        match &self.check {
            Check::Condition(expr) => {
                let mut names: Vec<String> = polars_plan::utils::expr_to_leaf_column_names(expr)
                    .into_iter()
                    .map(|name| name.to_string())
                    .collect();
                names.sort();
                names.dedup();
                names
            }
            Check::NotNull(names) | Check::Unique(names) => names.clone(),
            Check::Range(Range { column, .. })
            | Check::Accepted(Accepted { column, .. })
            | Check::Matches(Matches { column, .. }) => vec![column.clone()],
            Check::MinRows(_) | Check::MaxRows(_) => Vec::new(),
        }
    }

    fn check_values(&self) -> Result<()> {
        let wrong = |what: &str| Err(bad_rule(Some(&self.name), what));
        match &self.check {
            Check::Range(Range { min: None, max: None, .. }) => wrong("has neither `min` nor `max`"),
            Check::Range(Range { min, max, .. }) if !min.iter().chain(max).all(is_scalar) => {
                wrong("has a bound that is neither a number nor text")
            }
            Check::Accepted(Accepted { values, .. }) if !values.iter().all(is_scalar) => {
                wrong("accepts a value that is not a number, text, true or false")
            }
            Check::NotNull(names) | Check::Unique(names) if names.is_empty() => wrong("names no column"),
            Check::Matches(Matches { pattern, .. }) => match pattern_error(pattern) {
                Some(error) => wrong(&format!("has a pattern that cannot be read: {error}")),
                None => Ok(()),
            },
            Check::MinRows(_) | Check::MaxRows(_) if self.on_fail == OnFail::Reject => {
                wrong("is about the whole table, which has no rows to reject; give it `on_fail: fail` or `warn`")
            }
            _ => Ok(()),
        }
    }
}

impl Range {
    fn holds(&self, schema: &Schema) -> Expr {
        let value = columns::exact(&self.column);
        let above = self.min.as_ref().map(|min| value.clone().gt_eq(literal(min, &self.column, schema)));
        let below = self.max.as_ref().map(|max| value.clone().lt_eq(literal(max, &self.column, schema)));
        all(above.into_iter().chain(below))
    }
}

impl Accepted {
    fn holds(&self, schema: &Schema) -> Expr {
        let value = columns::exact(&self.column);
        let equal = self.values.iter().map(|one| value.clone().eq(literal(one, &self.column, schema)));
        equal.reduce(Expr::or).unwrap_or_else(|| value.is_null())
    }
}

/// A config value to compare with `column`: text becomes the column's type, so `"2013-01-31"` is a date beside a date.
fn literal(value: &Value, column: &str, schema: &Schema) -> Expr {
    match value {
        Value::String(text) => match schema.get(column) {
            Some(dtype) if dtype.is_temporal() || dtype.is_decimal() => lit(text.clone()).strict_cast(dtype.clone()),
            _ => lit(text.clone()),
        },
        Value::Bool(flag) => lit(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => lit(whole),
            None => lit(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => lit(NULL),
    }
}

/// Refuses an expression of another type: to polars `NOT` of a number is the complement of its bits, and passes in silence.
fn must_be_boolean(option: &str, expr: &Expr, schema: &Schema) -> Result<()> {
    let one = DataFrame::empty_with_schema(schema).lazy().select([expr.clone().alias("condition")]);
    let (_, found) = query::resolve(one)?;
    match found.get("condition") {
        Some(DataType::Boolean) => Ok(()),
        other => {
            let found = other.map_or_else(|| "nothing".into(), dtype::name);
            let message = format!("`{option}`: `check` must be a condition, found {found}");
            Err(Error::new(ErrorKind::Config, "bad-rule", message).hint("compare it: `flag = 1`"))
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

/// What polars says about a regular expression it cannot read.
fn pattern_error(pattern: &str) -> Option<String> {
    let tried = lit("").str().contains(lit(pattern.to_owned()), true);
    let result = DataFrame::empty_with_height(1).lazy().select([tried]).collect();
    result.err().map(|error| failure::message(&error))
}

/// True for the first row of each key, and for rows whose key holds a null.
fn first_of_its_key(names: &[String]) -> Expr {
    let keys = columns::all_exact(names);
    let incomplete = keys.iter().cloned().map(Expr::is_null).reduce(Expr::or).unwrap_or_else(|| lit(false));
    as_struct(keys).is_first_distinct().or(incomplete)
}

fn all(conditions: impl Iterator<Item = Expr>) -> Expr {
    conditions.reduce(Expr::and).unwrap_or_else(|| lit(true))
}

fn named(what: &str, names: Names, check: fn(Vec<String>) -> Check) -> (String, Check) {
    let names = match names {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    };
    (format!("{what}({})", names.join(", ")), check(names))
}

fn bad_rule(name: Option<&str>, what: &str) -> Error {
    let rule = name.map_or_else(|| "a rule".into(), |name| format!("the rule `{name}`"));
    Error::new(ErrorKind::Config, "bad-rule", format!("`rules`: {rule} {what}"))
}
