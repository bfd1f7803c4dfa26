//! A mod with neither polars nor arrow-rs: it works on the C structures.

use pype_plugin::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Passes its batches on in reverse order, and counts their rows.
struct ReverseBatches;

impl Mod for ReverseBatches {
    const NAME: &str = "reverse_batches_mod";
    const DESCRIPTION: &str = "Passes batches on in reverse order";
    const GLOBALS: &[&str] = &["rows"];
    type Config = Config;

    async fn open(_: Config, _: &Context) -> Result<Self> {
        Ok(Self)
    }

    async fn run(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        let frame = inputs.take("input")?;
        let schema = frame.schema().await?;
        let mut batches = Vec::new();
        while let Some(batch) = frame.next().await? {
            batches.push(batch);
        }
        ctx.set_global("rows", batches.iter().map(|batch| batch.rows()).sum::<u64>())?;
        batches.reverse();
        Ok(Outputs::one("output", Frame::from_batches(schema, batches)))
    }
}

export_plugin! { mods: [ReverseBatches] }
