//! A mod on arrow-rs: every batch gets a column with its number.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use pype_plugin::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The new column's name.
    column: String,
}

struct NumberRows(Config);

impl Mod for NumberRows {
    const NAME: &str = "number_rows_mod";
    const DESCRIPTION: &str = "Adds a column that counts the rows from 0";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, mut inputs: Inputs, _: &Context) -> Result<Outputs> {
        let frame = inputs.take("input")?;
        let given = frame.arrow_schema().await?;
        let mut fields: Vec<_> = given.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(&self.0.column, DataType::Int64, false)));
        let schema = Arc::new(Schema::new_with_metadata(fields, given.metadata().clone()));
        let mut batches = Vec::new();
        let mut next = 0;
        while let Some(batch) = frame.next_record_batch(&given).await? {
            let rows = i64::try_from(batch.num_rows()).expect("a batch fits memory");
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_iter_values(next..next + rows)));
            next += rows;
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
        Ok(Outputs::one("output", Frame::from_record_batches(schema, batches)))
    }
}

export_plugin! { mods: [NumberRows] }
