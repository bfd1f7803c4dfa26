//! Frames of arrow-rs: record batches, with their schema's metadata.

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::{Array, RecordBatch, RecordBatchOptions, StructArray};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};

use super::{Frame, Producer};
use crate::abi::{ArrowArray, ArrowSchema};
use crate::error::{Error, ErrorKind, Result};

impl Frame {
    /// A frame of record batches of one schema.
    ///
    /// An iterator that blocks holds up the library's other work: make it in `Context::run_blocking`.
    pub fn from_record_batches<I>(schema: SchemaRef, batches: I) -> Self
    where
        I: IntoIterator<Item = RecordBatch>,
        I::IntoIter: Send + 'static,
    {
        Self::new(RecordBatches { schema, batches: Box::new(batches.into_iter()) })
    }

    /// The schema of this frame, as arrow-rs has it.
    ///
    /// # Errors
    /// The producer fails, or uses a type that arrow-rs does not know.
    pub async fn arrow_schema(&self) -> Result<SchemaRef> {
        let schema = self.schema().await?;
        // SAFETY: arrow-rs' type is the C data interface's, and producers keep its rules.
        Ok(Schema::try_from(unsafe { schema.as_ffi::<FFI_ArrowSchema>() })?.into())
    }

    /// The next batch of a frame of `schema`, from [`Frame::arrow_schema`].
    ///
    /// # Errors
    /// The producer fails, or its batch is not of that schema.
    pub async fn next_record_batch(&self, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.next().await? else { return Ok(None) };
        // SAFETY: arrow-rs' type is the C data interface's.
        let batch: FFI_ArrowArray = unsafe { batch.into_ffi() };
        // SAFETY: producers keep the interface's rules.
        let data = unsafe { from_ffi_and_data_type(batch, DataType::Struct(schema.fields().clone())) }?;
        Ok(Some(record_batch(data, schema)?))
    }
}

impl From<ArrowError> for Error {
    fn from(cause: ArrowError) -> Self {
        Self::new(ErrorKind::Data, "arrow", cause.to_string())
    }
}

/// Record batches as a frame gives them.
pub struct RecordBatches {
    schema: SchemaRef,
    batches: Box<dyn Iterator<Item = RecordBatch> + Send>,
}

impl Producer for RecordBatches {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        self.schema.as_ref().try_into()
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        Ok(self.batches.next().map(Into::into))
    }
}

/// A schema, as one struct. It fails for a type that the C data interface does not have.
impl TryFrom<&Schema> for ArrowSchema {
    type Error = Error;

    fn try_from(schema: &Schema) -> Result<Self> {
        let schema = FFI_ArrowSchema::try_from(schema)?;
        // SAFETY: arrow-rs' type is the C data interface's.
        Ok(unsafe { Self::from_ffi(schema) })
    }
}

/// A batch, as a struct array.
impl From<RecordBatch> for ArrowArray {
    fn from(batch: RecordBatch) -> Self {
        let array = FFI_ArrowArray::new(&StructArray::from(batch).to_data());
        // SAFETY: arrow-rs' type is the C data interface's.
        unsafe { Self::from_ffi(array) }
    }
}

fn record_batch(data: ArrayData, schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = StructArray::from(data);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?)
}
