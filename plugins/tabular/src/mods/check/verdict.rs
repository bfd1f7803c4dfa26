//! The counts of a check, in one pass over the input, and what is said about them.

use polars::prelude::*;
use pype_plugin::prelude::*;

use super::rule::{Check, OnFail, Rule};
use crate::{columns, query};

/// How the table did.
pub(super) struct Verdict {
    pub(super) rows: u64,
    /// Rows that fail at least one rule.
    pub(super) failing_rows: u64,
    broken: Vec<Broken>,
}

/// A rule that failed, and how.
struct Broken {
    on_fail: OnFail,
    sentence: String,
}

impl Verdict {
    /// Counts every rule's failing rows; for those that fail the run or warn, finds an example too.
    pub(super) fn of(input: &LazyFrame, rules: &[Rule], schema: &Schema) -> Result<Self> {
        let violations: Vec<Option<Expr>> = rules.iter().map(|rule| rule.violation(schema)).collect();
        let counts = counts(input, &violations)?;
        let mut broken = Vec::new();
        for (index, (rule, violation)) in rules.iter().zip(violations).enumerate() {
            let failing = counts.of_rule(index);
            let sentence = match (&rule.check, violation) {
                (Check::MinRows(least), _) if counts.rows < *least => {
                    format!("`{}`: {} rows, expected at least {least}", rule.name, counts.rows)
                }
                (Check::MaxRows(most), _) if counts.rows > *most => {
                    format!("`{}`: {} rows, expected at most {most}", rule.name, counts.rows)
                }
                (_, Some(violation)) if failing > 0 && rule.on_fail != OnFail::Reject => {
                    let example = example(input, schema, rule, violation)?;
                    format!("`{}`: {failing} of {} rows fail, the first is {example}", rule.name, counts.rows)
                }
                _ => continue,
            };
            broken.push(Broken { on_fail: rule.on_fail, sentence });
        }
        Ok(Self { rows: counts.rows, failing_rows: counts.failing_rows, broken })
    }

    /// An error if a rule that fails the run did not hold.
    pub(super) fn enforce(&self) -> Result<()> {
        let sentences = self.sentences(OnFail::Fail);
        match sentences.len() {
            0 => Ok(()),
            n => {
                let rules = if n == 1 { "1 rule".into() } else { format!("{n} rules") };
                let message = format!("{rules} failed: {}", sentences.join("; "));
                Err(Error::new(ErrorKind::Data, "check-failed", message)
                    .hint("`on_fail: reject` sends the failing rows to the port `rejected`"))
            }
        }
    }

    /// Logs the rules that only warn.
    pub(super) fn warn(&self) {
        for sentence in self.sentences(OnFail::Warn) {
            tracing::warn!("check failed: {sentence}");
        }
    }

    fn sentences(&self, on_fail: OnFail) -> Vec<&str> {
        self.broken.iter().filter(|one| one.on_fail == on_fail).map(|one| one.sentence.as_str()).collect()
    }
}

struct Counts {
    rows: u64,
    failing_rows: u64,
    row: DataFrame,
}

impl Counts {
    /// How many rows fail the rule at `index`; 0 for a rule about the whole table.
    fn of_rule(&self, index: usize) -> u64 {
        number(&self.row, &format!("rule {index}"))
    }
}

fn counts(input: &LazyFrame, violations: &[Option<Expr>]) -> Result<Counts> {
    let given = || violations.iter().enumerate().filter_map(|(index, violation)| Some((index, violation.clone()?)));
    let count = |expr: Expr| expr.cast(DataType::UInt64).sum();
    let any = given().map(|(_, violation)| violation).reduce(Expr::or).unwrap_or_else(|| lit(false));
    let mut exprs = vec![len().cast(DataType::UInt64).alias("rows"), count(any).alias("failing")];
    exprs.extend(given().map(|(index, violation)| count(violation).alias(format!("rule {index}"))));
    let row = query::collect(input.clone().select(exprs))?;
    Ok(Counts { rows: number(&row, "rows"), failing_rows: number(&row, "failing"), row })
}

/// The one number in `column`, or 0.
fn number(row: &DataFrame, column: &str) -> u64 {
    let value = row.column(column).ok().and_then(|column| column.u64().ok()?.get(0));
    value.unwrap_or(0)
}

/// The first failing row, as far as the rule looks at it: `row 4 {age: -1}`.
fn example(input: &LazyFrame, schema: &Schema, rule: &Rule, violation: Expr) -> Result<String> {
    let row = free_name(schema);
    let mut shown = vec![columns::exact(&row)];
    shown.extend(columns::all_exact(&rule.columns()));
    let found = input.clone().with_row_index(row.as_str(), Some(1)).filter(violation).limit(1).select(shown);
    let found = query::collect(found)?;
    let values: Vec<String> =
        found.columns().iter().filter_map(|column| Some(column.get(0).ok()?.to_string())).collect();
    let names = found.get_column_names();
    let pairs: Vec<String> =
        names.iter().zip(&values).skip(1).map(|(name, value)| format!("{name}: {value}")).collect();
    let row = values.first().map_or("", String::as_str);
    Ok(format!("row {row} {{{}}}", shorten(&pairs.join(", "))))
}

/// A name for the rows' numbers that no column has.
fn free_name(schema: &Schema) -> String {
    let mut name = "row".to_owned();
    while schema.contains(&name) {
        name.push('_');
    }
    name
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}
