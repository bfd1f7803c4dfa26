//! The solo `__name__`, a plugin for pype.

use pype_plugin::prelude::*;

/// What a flow says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Whom to greet.
    whom: String,
}

/// Sets the global `greeting`: replace its `run` by what you want done.
struct __Name__(Config);

impl Solo for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Sets a greeting as a global";
    const GLOBALS: &[&str] = &["greeting"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        ctx.set_global("greeting", format!("hello, {}", self.0.whom))
    }
}

export_plugin! { solos: [__Name__] }

#[cfg(test)]
mod tests {
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_greets() {
        let done = testing::solo::<__Name__>(json!({"whom": "world"})).run();
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.globals["greeting"], "hello, world");
    }
}
