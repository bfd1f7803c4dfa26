//! Frames of polars: a query that has not run, which neighbours of the same library extend, or its batches.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use polars::prelude::{
    Column, CompatLevel, DataFrame, Engine, HiveOptions, IntoLazy, LazyFrame, PlanCallback, PolarsError, PolarsResult,
    ScanArgsParquet, ScanSources, Schema, SchemaExt, Series,
};
use polars_arrow::array::StructArray;
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi;
use tokio::sync::mpsc::{Receiver, Sender};

use super::{Frame, Producer};
use crate::abi::{ArrowArray, ArrowSchema, FfiArrowArray};
use crate::error::{Error, ErrorKind, Result};
use crate::glue::{blocking, contain};

/// Batches that wait for their reader, at most.
const BATCHES_AHEAD: usize = 2;

impl From<LazyFrame> for Frame {
    fn from(query: LazyFrame) -> Self {
        Self::from_query(query, |_, cause| cause.into())
    }
}

impl From<DataFrame> for Frame {
    fn from(frame: DataFrame) -> Self {
        frame.lazy().into()
    }
}

/// Tells in a module's own terms why its query failed: given the query and what polars says.
pub type Explain = fn(&LazyFrame, PolarsError) -> Error;

impl Frame {
    /// A frame of a query whose failures `explain` tells, also when it runs for a module of another library.
    pub fn from_query(query: LazyFrame, explain: Explain) -> Self {
        Self::new(Query { query, explain, schema: None, running: None })
    }

    /// The query that makes this frame, if it comes from this library; else a query over its rows: a scan of the
    /// Parquet file that has them, if there is one, or they are read into memory.
    ///
    /// # Errors
    /// The frame fails, or holds a type that polars does not know.
    pub async fn into_lazy(self) -> Result<LazyFrame> {
        let foreign = match self.take::<Query>() {
            Ok(query) => return Ok(query.query),
            Err(foreign) => foreign,
        };
        match foreign.scan().await? {
            Some(scan) => Ok(scan),
            None => foreign.read().await.map(IntoLazy::lazy),
        }
    }

    /// All rows.
    ///
    /// # Errors
    /// The frame fails, or holds a type that polars does not know.
    pub async fn collect(self) -> Result<DataFrame> {
        match self.take::<Query>() {
            Ok(Query { query, explain, .. }) => {
                let plan = query.clone();
                let run = move || query.collect_with_engine(Engine::Streaming).map(|done| done.unwrap_single());
                blocking(None, move || run().map_err(|cause| explain(&plan, cause))).await
            }
            Err(foreign) => foreign.read().await,
        }
    }

    /// The frame's rows, to be read batch by batch.
    ///
    /// # Errors
    /// The frame fails, or holds a type that polars does not know.
    pub async fn data_frames(self) -> Result<DataFrames> {
        let field = import_schema(&self.schema().await?)?;
        Ok(DataFrames { schema: columns_of(&field)?, frame: self, field })
    }

    /// A scan of the Parquet file that has the frame's rows. None if there is no such file, or it would give other
    /// columns than the frame.
    async fn scan(&self) -> Result<Option<LazyFrame>> {
        let Some(path) = self.parquet() else { return Ok(None) };
        let columns = columns_of(&import_schema(&self.schema().await?)?)?;
        // A file without columns has no rows either.
        if columns.is_empty() {
            return Ok(None);
        }
        let scan = move || {
            let mut scan = scan_parquet(&path)?;
            let same = *scan.collect_schema()? == columns;
            Ok(same.then_some(scan))
        };
        blocking(None, scan).await
    }

    async fn read(self) -> Result<DataFrame> {
        let mut batches = self.data_frames().await?;
        let mut frame = DataFrame::empty_with_schema(batches.schema());
        while let Some(batch) = batches.next().await? {
            if frame.width() == 0 {
                frame = DataFrame::empty_with_height(frame.height() + batch.height());
            } else {
                frame.vstack_mut_owned(batch)?;
            }
        }
        Ok(frame)
    }
}

/// A frame that is read as polars' own, batch by batch.
pub struct DataFrames {
    frame: Frame,
    field: Field,
    schema: Schema,
}

impl DataFrames {
    /// The columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// The frame fails.
    pub async fn next(&mut self) -> Result<Option<DataFrame>> {
        self.frame.next().await?.map(|batch| import_batch(batch, &self.field)).transpose()
    }
}

impl ArrowSchema {
    /// Of columns of polars.
    pub fn of_polars(schema: &Schema) -> Self {
        export_schema(schema)
    }
}

impl ArrowArray {
    /// The rows of a frame of polars, chunk by chunk.
    pub fn of_polars(frame: DataFrame) -> Vec<Self> {
        export_chunks(frame)
    }
}

impl From<PolarsError> for Error {
    fn from(cause: PolarsError) -> Self {
        let (kind, code) = match &cause {
            PolarsError::ColumnNotFound(_) => (ErrorKind::Config, "unknown-column"),
            PolarsError::SchemaFieldNotFound(_) | PolarsError::StructFieldNotFound(_) => {
                (ErrorKind::Config, "unknown-field")
            }
            PolarsError::SQLInterface(_) | PolarsError::SQLSyntax(_) => (ErrorKind::Config, "sql"),
            PolarsError::IO { .. } => (ErrorKind::Io, "io"),
            _ => (ErrorKind::Data, "polars"),
        };
        Self::new(kind, code, cause.to_string())
    }
}

/// A query, and once somebody reads it as batches, its run.
struct Query {
    query: LazyFrame,
    explain: Explain,
    schema: Option<Arc<Schema>>,
    running: Option<Running>,
}

impl Query {
    async fn resolved(&mut self) -> Result<Arc<Schema>> {
        if let Some(schema) = &self.schema {
            return Ok(schema.clone());
        }
        let mut query = self.query.clone();
        let schema = blocking(None, move || query.collect_schema().map_err(Error::from)).await?;
        Ok(self.schema.insert(schema).clone())
    }

    /// Runs the query on a thread of its own, so that a stream which waits for its reader holds up nobody else.
    fn start(&self) -> Result<Receiver<Step>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        let (query, explain) = (self.query.clone(), self.explain);
        let run = move || {
            let batches = sender.clone();
            let ran = contain(None, move || run_into(query.clone(), batches).map_err(|cause| explain(&query, cause)));
            let end = ran.flatten().map_or_else(Step::Failed, |()| Step::End);
            // A reader that has gone needs no end.
            sender.blocking_send(end).unwrap_or(());
        };
        std::thread::Builder::new().name("pype-stream".to_owned()).spawn(run)?;
        Ok(receiver)
    }
}

/// What a running query sends. A channel that closes without an end is a failure, never the end of the data.
enum Step {
    Batch(ArrowArray),
    Failed(Error),
    End,
}

/// A query that is read as batches.
enum Running {
    Open(Receiver<Step>),
    Ended,
}

/// Runs the query; each of its frames goes to `batches` until the reader has gone.
fn run_into(query: LazyFrame, batches: Sender<Step>) -> PolarsResult<()> {
    let send = PlanCallback::new(move |frame: DataFrame| {
        let mut chunks = export_chunks(frame).into_iter();
        Ok(chunks.any(|chunk| batches.blocking_send(Step::Batch(chunk)).is_err()))
    });
    query.sink_batches(send, true, None)?.collect_with_engine(Engine::Streaming).map(drop)
}

impl Producer for Query {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        Ok(export_schema(&*self.resolved().await?))
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        if self.running.is_none() {
            self.running = Some(Running::Open(self.start()?));
        }
        let Some(Running::Open(receiver)) = &mut self.running else { return Ok(None) };
        let step = receiver.recv().await;
        if let Some(Step::Batch(batch)) = step {
            return Ok(Some(batch));
        }
        self.running = Some(Running::Ended);
        match step {
            Some(Step::End) => Ok(None),
            Some(Step::Failed(error)) => Err(error),
            Some(Step::Batch(_)) | None => {
                Err(Error::new(ErrorKind::Internal, "stream-lost", "the query's thread ended before its data did"))
            }
        }
    }

    fn try_clone(&self) -> Option<Self> {
        Some(Self { query: self.query.clone(), explain: self.explain, schema: self.schema.clone(), running: None })
    }
}

/// A scan of the file at `path`. It has the file open from now on, so that it does not matter to the query when its name
/// goes, nor how often it is cloned and run.
fn scan_parquet(path: &Path) -> Result<LazyFrame> {
    let file = File::open(path).map_err(|cause| {
        let message = format!("cannot open `{}`, which has the rows of a frame: {cause}", path.display());
        Error::from(cause).message(message)
    })?;
    // Left to itself, polars looks for partitions in the path, and refuses a file without one.
    let hive_options = HiveOptions::new_disabled();
    let args = ScanArgsParquet { glob: false, hive_options, ..ScanArgsParquet::default() };
    Ok(LazyFrame::scan_parquet_sources(ScanSources::Files([file].into()), args)?)
}

fn export_schema(schema: &Schema) -> ArrowSchema {
    let fields: Vec<Field> = schema.iter_fields().map(|field| field.to_arrow(CompatLevel::newest())).collect();
    let schema = ffi::export_field_to_c(&Field::new("".into(), ArrowDataType::Struct(fields), false));
    // SAFETY: polars' type is the C data interface's.
    unsafe { ArrowSchema::from_ffi(schema) }
}

fn export_chunks(mut frame: DataFrame) -> Vec<ArrowArray> {
    frame.align_chunks_par();
    let chunks = frame.iter_chunks(CompatLevel::newest(), true);
    chunks
        .map(|batch| {
            let dtype = ArrowDataType::Struct(batch.schema().iter_values().cloned().collect());
            let length = batch.height();
            let array = StructArray::new(dtype.clone(), length, batch.into_arrays(), None);
            let array = ffi::export_array_to_c(array.boxed());
            // SAFETY: polars' type is the C data interface's.
            let mut array = unsafe { ArrowArray::from_ffi(array) };
            // SAFETY: the array is of this type.
            unsafe { drop_null_buffers(array.ffi_mut(), &dtype) };
            array
        })
        .collect()
}

/// polars gives an array of the type null a buffer. The C data interface has none there, and strict readers refuse it.
///
/// # Safety
/// `array` is valid and of the type `dtype`.
unsafe fn drop_null_buffers(array: &mut FfiArrowArray, dtype: &ArrowDataType) {
    let children = match dtype {
        ArrowDataType::Null => {
            array.n_buffers = 0;
            return;
        }
        ArrowDataType::Struct(fields) => fields.as_slice(),
        ArrowDataType::List(field)
        | ArrowDataType::LargeList(field)
        | ArrowDataType::FixedSizeList(field, _)
        | ArrowDataType::Map(field, _) => std::slice::from_ref(&**field),
        _ => return,
    };
    for (at, field) in children.iter().enumerate() {
        // SAFETY: an array has a child for each field of its type, each valid and its own.
        unsafe { drop_null_buffers(&mut **array.children.add(at), field.dtype()) };
    }
}

fn import_schema(schema: &ArrowSchema) -> Result<Field> {
    // SAFETY: polars' type is the C data interface's, and producers keep its rules.
    Ok(unsafe { ffi::import_field_from_c(schema.as_ffi::<ffi::ArrowSchema>()) }?)
}

fn columns_of(field: &Field) -> Result<Schema> {
    let ArrowDataType::Struct(fields) = field.dtype() else {
        let message = format!("a frame's schema must be a struct, not {:?}", field.dtype());
        return Err(Error::new(ErrorKind::Data, "bad-schema", message));
    };
    Ok(fields.iter().map(polars::prelude::Field::from).collect())
}

fn import_batch(batch: ArrowArray, field: &Field) -> Result<DataFrame> {
    // SAFETY: polars' type is the C data interface's.
    let batch: ffi::ArrowArray = unsafe { batch.into_ffi() };
    // SAFETY: producers keep the interface's rules, and give arrays of the schema they gave.
    let array = unsafe { ffi::import_array_from_c(batch, field.dtype().clone()) }?;
    let height = array.len();
    let rows = array
        .as_any()
        .downcast_ref::<StructArray>()
        .ok_or_else(|| Error::new(ErrorKind::Data, "bad-batch", "a frame's batch must be a struct array"))?;
    let columns = rows.fields().iter().zip(rows.values()).map(|(field, values)| {
        // SAFETY: the array was imported with the field's type.
        let series = unsafe {
            Series::_try_from_arrow_unchecked_with_md(
                field.name.clone(),
                vec![values.clone()],
                field.dtype(),
                field.metadata.as_deref(),
            )
        };
        series.map(Column::from)
    });
    Ok(DataFrame::new(height, columns.collect::<Result<Vec<_>, _>>()?)?)
}
