//! A mod with neither polars nor arrow-rs: it works on the C structures.

use pype_plugin::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Counts the rows of its batches, and passes them on.
struct CountRows;

impl Mod for CountRows {
    const NAME: &str = "count_rows_mod";
    const DESCRIPTION: &str = "Counts rows";
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
        if ctx.wants_global("rows") {
            ctx.set_global("rows", batches.iter().map(|batch| batch.rows()).sum::<u64>())?;
        }
        Ok(Outputs::one("output", Frame::from_batches(schema, batches)))
    }
}

export_plugin! { mods: [CountRows] }
