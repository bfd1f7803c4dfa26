//! What decoders share: a batch of records in, a batch of rows and a batch of rejected records out.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{Field, Metadata, Schema, SchemaRef};
use pype_plugin::prelude::*;
use pype_plugin::stream::{Record, Records, RecordsBuilder};

use crate::keep::Keep;
use crate::rejected::{Rejected, rejected_schema};

/// The port that records enter by.
pub(crate) const INPUTS: &[&str] = &["records"];
/// The ports that rows, and rejected records, leave by.
pub(crate) const OUTPUTS: &[&str] = &["output", "errors"];

/// Why a value cannot be decoded, for people.
pub(crate) type Reason = String;

/// Values as rows of columns.
pub(crate) trait Rows: Send + 'static {
    /// The columns, the same whenever it is asked.
    fn fields(&self) -> Vec<Field>;

    /// Appends the row of a value, or nothing if it cannot be decoded.
    fn push(&mut self, value: Option<&[u8]>) -> Result<(), Reason>;

    /// The rows so far. There are none afterwards.
    fn finish(&mut self) -> Vec<ArrayRef>;
}

/// The value of a record that has one.
pub(crate) fn present(value: Option<&[u8]>) -> Result<&[u8], Reason> {
    value.ok_or_else(|| "the record has no value".to_owned())
}

/// Decodes a frame of records.
pub(crate) async fn decode(mut inputs: Inputs, rows: impl Rows, keep: &Keep, ctx: &Context) -> Result<Outputs> {
    let frame = inputs.take("records")?;
    let schema = frame.arrow_schema().await?;
    let mut batches = Vec::with_capacity(1);
    while let Some(batch) = frame.next_record_batch(&schema).await? {
        batches.push(batch);
    }
    let mut decoding = Decoding::new(rows, keep.clone(), schema.metadata());
    let decoded = ctx.run_blocking(move || decoding.all(&batches)).await?;
    ctx.metric("records_decoded", decoded.count(&decoded.rows));
    ctx.metric("records_rejected", decoded.count(&decoded.rejected));
    Ok(decoded.outputs())
}

struct Decoding<R> {
    rows: R,
    keep: Keep,
    output: SchemaRef,
    errors: SchemaRef,
}

struct Decoded {
    output: SchemaRef,
    rows: Vec<RecordBatch>,
    errors: SchemaRef,
    rejected: Vec<RecordBatch>,
}

impl<R: Rows> Decoding<R> {
    fn new(rows: R, keep: Keep, metadata: &Metadata) -> Self {
        let fields: Vec<Field> = rows.fields().into_iter().chain(keep.fields()).collect();
        let output = Arc::new(Schema::new_with_metadata(fields, metadata.clone()));
        Self { rows, keep, output, errors: rejected_schema(metadata) }
    }

    fn all(&mut self, batches: &[RecordBatch]) -> Result<Decoded> {
        let (mut rows, mut rejected) = (Vec::with_capacity(batches.len()), Vec::new());
        for batch in batches {
            let (decoded, not) = self.batch(batch)?;
            rows.extend(decoded);
            rejected.extend(not);
        }
        Ok(Decoded { output: self.output.clone(), rows, errors: self.errors.clone(), rejected })
    }

    /// The rows of a batch, and what of it was rejected.
    fn batch(&mut self, batch: &RecordBatch) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
        let records = Records::try_from(batch)?;
        let mut rejected = Rejected::default();
        for (row, record) in records.iter().enumerate() {
            if let Err(reason) = self.rows.push(record.value()) {
                rejected.push(row, record, &reason);
            }
        }
        let mut columns = self.rows.finish();
        match rejected.is_empty() {
            true => columns.extend(self.keep.columns(batch)),
            false => columns.extend(self.keep.columns(&without(&records, rejected.rows()))),
        }
        let rows = match columns.first() {
            Some(first) if first.is_empty() => None,
            _ => Some(RecordBatch::try_new(self.output.clone(), columns)?),
        };
        Ok((rows, rejected.finish(&self.errors)?))
    }
}

/// The records except some, whose numbers rise.
fn without(records: &Records, rejected: &[usize]) -> RecordBatch {
    let mut left = RecordsBuilder::default();
    let mut rejected = rejected.iter().peekable();
    for (row, record) in records.iter().enumerate() {
        match rejected.next_if(|next| **next == row) {
            Some(_) => {}
            None => push(&mut left, record),
        }
    }
    left.finish()
}

/// Copies a record.
pub(crate) fn push(into: &mut RecordsBuilder, record: Record<'_>) {
    into.push(record.to_new(), record.headers());
}

impl Decoded {
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    fn count(&self, batches: &[RecordBatch]) -> f64 {
        batches.iter().map(RecordBatch::num_rows).sum::<usize>() as f64
    }

    fn outputs(self) -> Outputs {
        Outputs::new()
            .with("output", Frame::from_record_batches(self.output, self.rows))
            .with("errors", Frame::from_record_batches(self.errors, self.rejected))
    }
}
