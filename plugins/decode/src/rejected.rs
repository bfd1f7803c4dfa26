//! Records that could not be decoded, as they came, with the reason.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Metadata, Schema, SchemaRef};
use pype_plugin::Result;
use pype_plugin::stream::{Record, RecordsBuilder, records_schema};

use crate::decoding::push;

/// The columns of records, and `error`.
pub(crate) fn rejected_schema(metadata: &Metadata) -> SchemaRef {
    let records = records_schema();
    let error = Arc::new(Field::new("error", DataType::Utf8, false));
    let fields: Vec<_> = records.fields().iter().cloned().chain([error]).collect();
    Arc::new(Schema::new_with_metadata(fields, metadata.clone()))
}

/// Those of one batch.
#[derive(Default)]
pub(crate) struct Rejected {
    records: RecordsBuilder,
    errors: StringBuilder,
    rows: Vec<usize>,
}

impl Rejected {
    /// The record of that row is one of them.
    pub(crate) fn push(&mut self, row: usize, record: Record<'_>, reason: &str) {
        push(&mut self.records, record);
        self.errors.append_value(reason);
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Which rows of the batch they were.
    pub(crate) fn rows(&self) -> &[usize] {
        &self.rows
    }

    pub(crate) fn finish(mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut columns = self.records.finish().columns().to_vec();
        columns.push(Arc::new(self.errors.finish()) as ArrayRef);
        Ok(Some(RecordBatch::try_new(schema.clone(), columns)?))
    }
}
