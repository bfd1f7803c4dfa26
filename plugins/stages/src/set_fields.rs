//! `set_fields`: gives fields of the context a value.

use pype_plugin::prelude::*;
use serde_json::Map;

pub(crate) struct SetFields(Config);

/// Which fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Fields and the values they get: `{job_type: upload, tags: [new]}`.
    #[serde(default)]
    set: Map<String, Value>,
    /// Fields that are taken out.
    #[serde(default)]
    remove: Vec<String>,
    /// Whether a field that is there already keeps its value.
    #[serde(default)]
    keep: bool,
}

impl Execute for SetFields {
    const NAME: &'static str = "set_fields";
    const DESCRIPTION: &'static str = "Sets fields of the context, and takes others out";
    const CATEGORY: &'static str = "Context";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn execute(&self, mut ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let Config { set, remove, keep } = &self.0;
        for (name, value) in set {
            if !keep || ctx.field(name)?.is_none() {
                ctx.set(name, value)?;
            }
        }
        for name in remove {
            ctx.remove(name);
        }
        next.run(ctx).await
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::testing::stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_set_kept_and_taken_out() {
        let run = |keep| {
            let config = json!({"set": {"a": 1, "b": [2]}, "remove": ["c", "d"], "keep": keep});
            stage::<SetFields>(config).field("a", json!(0)).field("c", json!(3)).run().result
        };
        assert_eq!(run(false), Ok(json!({"a": 1, "b": [2]})));
        assert_eq!(run(true), Ok(json!({"a": 0, "b": [2]})));
    }
}
