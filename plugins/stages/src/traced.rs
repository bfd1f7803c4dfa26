//! `tracing`: gives the span of a run attributes, which traces are found by.
//!
//! The stage's own span holds the rest of the chain, so there is no other to open. A plugin does not see that span: a record
//! of the target `pype::span` tells the host what to add to it, and stays in the log like any other.

use pype_plugin::prelude::*;

use crate::logging::told;

pub(crate) struct Tracing(Config);

/// What is added.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Fields of the context that become attributes, as `pype.context.NAME`. Bytes are told by their number.
    #[serde(default)]
    fields: Vec<String>,
    /// What the span is called; without it, as the stage.
    name: Option<String>,
}

impl Execute for Tracing {
    const NAME: &'static str = "tracing";
    const DESCRIPTION: &'static str = "Adds fields of the context to the span that holds the rest of the run";
    const CATEGORY: &'static str = "Observing";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let fields =
            told(&ctx, &self.0.fields)?.into_iter().map(|(name, value)| (format!("pype.context.{name}"), value));
        let attributes = Value::Object(fields.collect()).to_string();
        let (name, trace) = (self.0.name.as_deref().unwrap_or_default(), ctx.facts().trace.unwrap_or_default());
        tracing::info!(target: "pype::span", trace, name, attributes, "is traced");
        next.run(ctx).await
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::testing::stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_tells_the_host_and_goes_on() {
        let test = stage::<Tracing>(json!({"fields": ["file_path", "file_content"], "name": "an upload"}));
        let done = test.field("file_path", json!("a/b")).bytes("file_content", vec![1, 2]).run();
        assert_eq!(done.result, Ok(json!({"file_path": "a/b"})));
        assert_eq!(done.log, ["INFO is traced"]);
    }
}
