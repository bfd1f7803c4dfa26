//! The mod `__name__`, a plugin for pype.

use pype_plugin::prelude::*;

/// What a flow says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many rows to keep.
    rows: usize,
}

/// Keeps the first rows: replace its `run` by what you do to your data.
struct __Name__(Config);

impl Mod for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Keeps the first rows";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, mut inputs: Inputs, _ctx: &Context) -> Result<Outputs> {
        let frame = inputs.take("input")?;
        let schema = frame.arrow_schema().await?;
        let (mut batches, mut left) = (Vec::new(), self.0.rows);
        while left > 0 && let Some(batch) = frame.next_record_batch(&schema).await? {
            let kept = left.min(batch.num_rows());
            batches.push(batch.slice(0, kept));
            left -= kept;
        }
        Ok(Outputs::one("output", Frame::from_record_batches(schema, batches)))
    }
}

export_plugin! { mods: [__Name__] }

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_keeps_the_first_rows() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
        let batch = RecordBatch::try_from_iter([("number", numbers)]).expect("a batch");
        let input = Frame::from_record_batches(batch.schema(), [batch.clone(), batch]);
        let frame = testing::module::<__Name__>(json!({"rows": 7})).input("input", input).run().output("output");
        let rows = testing::block_on(async {
            let schema = frame.arrow_schema().await?;
            let mut rows = 0;
            while let Some(batch) = frame.next_record_batch(&schema).await? {
                rows += batch.num_rows();
            }
            Ok::<_, Error>(rows)
        });
        assert_eq!(rows, Ok(7));
    }
}
