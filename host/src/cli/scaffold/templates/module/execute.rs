//! The stage `__name__`, a plugin for pype.

use pype_plugin::prelude::*;

/// What a pipeline says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Whom to greet if the context names nobody.
    whom: String,
}

/// What the stage reads of the context. Other fields stay where they are.
#[derive(Deserialize)]
struct Fields {
    name: Option<String>,
}

/// Sets the field `greeting`, and goes on: replace its `execute` by what you want done.
struct __Name__(Config);

impl Execute for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Sets a greeting as a field of the context";
    type Config = Config;

    async fn open(config: Config, _node: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn execute(&self, mut ctx: PipelineContext, next: Next, _node: &Context) -> Result<Value> {
        let Fields { name } = ctx.bind()?;
        ctx.set("greeting", format!("hello, {}", name.as_ref().unwrap_or(&self.0.whom)))?;
        next.run(ctx).await
    }
}

export_plugin! { executes: [__Name__] }

#[cfg(test)]
mod tests {
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_greets_and_goes_on() {
        let done = testing::stage::<__Name__>(json!({"whom": "world"})).field("name", json!("Ann")).run();
        assert_eq!(done.result, Ok(json!({"name": "Ann", "greeting": "hello, Ann"})));
        assert_eq!(done.went_on_with.len(), 1);
    }
}
