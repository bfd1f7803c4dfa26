//! The source `__name__`, a plugin for pype.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use pype_plugin::prelude::*;

/// What a flow says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many rows to make.
    rows: i64,
}

/// Makes numbered rows: replace its `run` by what brings your data in.
struct __Name__(Config);

impl Source for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Makes numbered rows";
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, _ctx: &Context) -> Result<Outputs> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=self.0.rows));
        let batch = RecordBatch::try_from_iter([("number", numbers)])?;
        Ok(Outputs::one("data", Frame::from_record_batches(batch.schema(), [batch])))
    }
}

export_plugin! { sources: [__Name__] }

#[cfg(test)]
mod tests {
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_makes_as_many_rows_as_asked_for() {
        let frame = testing::source::<__Name__>(json!({"rows": 3})).run().output("data");
        let batch = testing::block_on(async {
            let schema = frame.arrow_schema().await?;
            frame.next_record_batch(&schema).await
        });
        assert_eq!(batch.expect("no error").expect("a batch").num_rows(), 3);
    }
}
