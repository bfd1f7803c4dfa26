//! `label_filter`: the rows whose columns, taken as labels, meet a rule.

mod expression;

use std::borrow::Cow;

use polars::prelude::*;
use pype_core::label::Rule;
use pype_plugin::prelude::*;
use schemars::{Schema as JsonSchemaOf, SchemaGenerator};

use crate::{query, suggest};

pub(crate) struct LabelFilter {
    rule: Rule,
}

/// Which rows to keep.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The rule, as text (`tier in (gold, silver) and not beta`) or as a tree of `all`, `any`, `not` and `match`. Each
    /// column is a label; one that is missing is a label that is missing, a null is a label that is null.
    rule: LabelRule,
}

/// A rule with its JSON Schema.
struct LabelRule(Rule);

impl<'de> Deserialize<'de> for LabelRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Rule::deserialize(deserializer).map(LabelRule)
    }
}

impl JsonSchema for LabelRule {
    fn schema_name() -> Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> JsonSchemaOf {
        let nested = generator.subschema_for::<LabelRule>().to_value();
        JsonSchemaOf::try_from(Rule::json_schema(&nested)).expect("the schema of a rule is a mapping")
    }
}

impl Mod for LabelFilter {
    const NAME: &'static str = "label_filter";
    const DESCRIPTION: &'static str = "Keeps the rows whose columns, taken as labels, meet a rule";
    const CATEGORY: &'static str = "Rows";
    const OUTPUTS: &'static [&'static str] = &["output", "rejected"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { rule: config.rule.0 })
    }

    async fn run(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let input = inputs.take("input")?.into_lazy().await?;
        let rule = self.rule.clone();
        let (slips, output, rejected) = ctx
            .run_blocking(move || {
                let (input, schema) = query::resolve(input)?;
                let slips = slips(&rule, &schema);
                let met = expression::met(&rule, &schema);
                let unmet = expression::unless(met.clone());
                Ok((slips, query::settle(input.clone().filter(met))?, query::settle(input.filter(unmet))?))
            })
            .await?;
        for (key, near) in slips {
            tracing::warn!("`rule`: there is no column `{key}`, so that label is missing; did you mean `{near}`?");
        }
        Ok(Outputs::one("output", output).with("rejected", rejected))
    }
}

/// A label that is missing is no error. One whose name is nearly a column's is odd all the same.
fn slips(rule: &Rule, schema: &Schema) -> Vec<(String, String)> {
    let missing = rule.keys().into_iter().filter(|key| !schema.contains(key));
    let near = |key: &str| suggest::nearest(key, schema.iter_names().map(PlSmallStr::as_str));
    missing.filter_map(|key| Some((key.to_owned(), near(key)?.to_owned()))).collect()
}
