//! `check_mod`: data-quality rules over a table.
//!
//! A rule that rejects only splits the plan in two, and stays lazy. A rule that fails the run, or warns, needs its
//! count before the first row goes on, so in lazy mode the input's plan is executed once for the counts and again by
//! whoever reads the output: a sink after a failed check has written nothing. Set `checkpoint: true` before an
//! expensive input to pay for it once.
//!
//! `output` and `rejected` are two queries over one input. Which row of a key is its first depends on the order of
//! the rows, which a join or an aggregation does not promise twice; so a rejecting `unique` reads the input into memory
//! once, and both sides are taken from that.

mod rule;
mod verdict;

use polars::prelude::*;
use pype_plugin::prelude::*;
use rule::{Check, OnFail, Rule, RuleConfig};
use verdict::Verdict;

use crate::query;

pub(crate) struct CheckMod {
    rules: Vec<Rule>,
}

/// The rules and what happens when one fails.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The rules. Each has exactly one of `check`, `not_null`, `unique`, `range`, `accepted_values`, `matches`,
    /// `min_rows`, `max_rows`; and may have a `name` and an `on_fail` of its own.
    rules: Vec<RuleConfig>,
    /// What to do when a rule fails: `fail` the run with counts and an example, `reject` the failing rows to the port
    /// `rejected`, or only `warn`.
    #[serde(default)]
    on_fail: OnFail,
}

impl Mod for CheckMod {
    const NAME: &'static str = "check_mod";
    const DESCRIPTION: &'static str = "Checks data-quality rules: fails the run, rejects rows, or warns";
    const CATEGORY: &'static str = "Quality";
    const OUTPUTS: &'static [&'static str] = &["output", "rejected"];
    const GLOBALS: &'static [&'static str] = &["row_count", "failed_count"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let rules = config.rules.into_iter().map(|rule| Rule::parse(rule, config.on_fail));
        Ok(Self { rules: rules.collect::<Result<_>>()? })
    }

    async fn run(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let input = inputs.take("input")?.into_lazy().await?;
        let rules = self.rules.clone();
        let wanted = ctx.wants_global("row_count") || ctx.wants_global("failed_count");
        let counted = wanted || ctx.eager() || rules.iter().any(|rule| rule.on_fail != OnFail::Reject);
        let (verdict, output, rejected) = ctx
            .run_blocking(move || {
                let (input, schema) = query::resolve(input)?;
                refuse_taken_name(&rules, &schema)?;
                rules.iter().try_for_each(|rule| rule.fits(&schema))?;
                let input = if rules.iter().any(rejects_by_order) { query::collect(input)?.lazy() } else { input };
                let verdict = counted.then(|| Verdict::of(&input, &rules, &schema)).transpose()?;
                verdict.iter().try_for_each(Verdict::enforce)?;
                let (passing, failing) = split(input, &rules, &schema);
                Ok((verdict, query::settle(passing)?, query::settle(failing)?))
            })
            .await?;
        if let Some(verdict) = verdict {
            verdict.warn();
            ctx.set_global("row_count", verdict.rows)?;
            ctx.set_global("failed_count", verdict.failing_rows)?;
        }
        Ok(Outputs::one("output", output).with("rejected", rejected))
    }
}

/// Whether the rule's rejected rows depend on the order of the rows.
fn rejects_by_order(rule: &Rule) -> bool {
    rule.on_fail == OnFail::Reject && matches!(rule.check, Check::Unique(_))
}

/// The column that rejected rows get would replace one of the input's own.
fn refuse_taken_name(rules: &[Rule], schema: &Schema) -> Result<()> {
    if !schema.contains(FAILED_RULES) || rules.iter().all(|rule| rule.on_fail != OnFail::Reject) {
        return Ok(());
    }
    let message =
        format!("the input has a column `{FAILED_RULES}` already, which is the name of the one that is added");
    let hint = format!("rename it before, with a `select_mod`: `rename: {{{FAILED_RULES}: earlier_{FAILED_RULES}}}`");
    Err(Error::new(ErrorKind::Config, "column-taken", message).hint(hint))
}

/// The rows that pass every rejecting rule, and the others with the names of the rules they fail.
fn split(input: LazyFrame, rules: &[Rule], schema: &Schema) -> (LazyFrame, LazyFrame) {
    let rejecting: Vec<(&Rule, Expr)> = rules
        .iter()
        .filter(|rule| rule.on_fail == OnFail::Reject)
        .filter_map(|rule| Some((rule, rule.violation(schema)?)))
        .collect();
    let Some(any) = rejecting.iter().map(|(_, violation)| violation.clone()).reduce(Expr::or) else {
        let none = input.clone().limit(0).with_column(lit("").alias(FAILED_RULES));
        return (input, none);
    };
    let names: Vec<Expr> = rejecting
        .into_iter()
        .map(|(rule, violation)| when(violation).then(lit(rule.name.clone())).otherwise(lit(NULL)))
        .collect();
    // Named before they are filtered: what a row's key repeats must be looked for among all rows.
    let named = when(any.clone()).then(concat_str(names, ", ", true)).otherwise(lit(NULL)).alias(FAILED_RULES);
    let failing = input.clone().with_column(named).filter(col(FAILED_RULES).is_not_null());
    (input.filter(any.not()), failing)
}

/// The column that `rejected` has beside the input's own.
const FAILED_RULES: &str = "failed_rules";
