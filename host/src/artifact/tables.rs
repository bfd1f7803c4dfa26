//! Rows in Parquet files and as JSON: all that polars does for the host.

use std::fs::File;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{
    DataFrame, JsonFormat, JsonReader, JsonWriter, ParquetReader, ParquetWriter, PolarsResult, Schema, SchemaExt,
    SerReader, SerWriter,
};
use pype_plugin::{ArrowArray, ArrowSchema, DataFrames, Error, Frame, Producer, Result, SharedBatches};
use serde_json::Value;
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::mpsc::{Receiver, channel};

use super::{Kept, io};
use crate::durable;

/// A row group has at least so many rows, but for the last.
const GROUP_ROWS: usize = 128 * 1024;
/// Batches that wait for the writer.
const BATCHES_AHEAD: usize = 2;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How many rows.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// Writes all rows of a frame to `path`. When it returns the file is there as a whole, on the disk; before, there is none
/// or the one that was there.
///
/// # Errors
/// The frame fails, or the file cannot be written.
pub async fn store(frame: Frame, path: &Path) -> Result<Stored> {
    let frames = frame.data_frames().await?;
    let (file, stored) = write(vec![frames], durable::folder_of(path)).await?;
    let place = path.to_owned();
    let settled = tokio::task::spawn_blocking(move || durable::settle(file, &place)).await;
    settled.map_err(|lost| Error::cancelled().caused_by(lost))?.map_err(|cause| io("write", path, cause))?;
    Ok(stored)
}

/// Writes the rows of two frames to a file of its own.
pub(super) async fn spill(beginning: Frame, rest: Frame, folder: &Path) -> Result<ParquetRows> {
    let frames = vec![beginning.data_frames().await?, rest.data_frames().await?];
    let (file, stored) = write(frames, folder).await?;
    let guard = Arc::new(file.into_temp_path());
    let rows = ParquetRows::open(&guard)?;
    tracing::info!(rows = stored.rows, bytes = stored.bytes, "spilled rows to `{}`", guard.display());
    Ok(ParquetRows { _guard: Some(guard), ..rows })
}

async fn write(frames: Vec<DataFrames>, folder: &Path) -> Result<(NamedTempFile, Stored)> {
    let schema = frames.first().map(|frames| frames.schema().clone()).unwrap_or_default();
    let failed = |cause: std::io::Error| io("write to", folder, cause);
    let file = tempfile::Builder::new().prefix(".rows-").suffix(".parquet").tempfile_in(folder).map_err(failed)?;
    let (sender, batches) = channel(BATCHES_AHEAD);
    let writing = tokio::task::spawn_blocking(move || write_batches(file, &schema, batches));
    for mut one in frames {
        while let Some(batch) = one.next().await? {
            // A writer that has stopped says below why.
            if sender.send(batch).await.is_err() {
                break;
            }
        }
    }
    drop(sender);
    let written = writing.await.map_err(|lost| Error::cancelled().caused_by(lost))?;
    written.map_err(|cause| io("write to", folder, cause))
}

fn write_batches(
    file: NamedTempFile,
    schema: &Schema,
    mut batches: Receiver<DataFrame>,
) -> PolarsResult<(NamedTempFile, Stored)> {
    let writer = ParquetWriter::new(file.as_file()).set_parallel(true).with_row_group_size(Some(usize::MAX));
    let mut writer = writer.batched(schema)?;
    let mut group = DataFrame::empty_with_schema(schema);
    let mut rows = 0;
    while let Some(batch) = batches.blocking_recv() {
        rows += batch.height() as u64;
        group.vstack_mut_owned(batch)?;
        if group.height() >= GROUP_ROWS {
            writer.write_batch(&group)?;
            group = DataFrame::empty_with_schema(schema);
        }
    }
    if group.height() > 0 {
        writer.write_batch(&group)?;
    }
    writer.finish()?;
    drop(writer);
    let bytes = file.as_file().metadata()?.len();
    Ok((file, Stored { rows, bytes }))
}

/// The rows of a Parquet file, row group by row group. Each clone starts at the first.
pub struct ParquetRows {
    path: Arc<PathBuf>,
    schema: Arc<Schema>,
    /// Of each row group, the first row and how many there are.
    groups: Arc<[(usize, usize)]>,
    bytes: u64,
    at: usize,
    // A file that nobody else knows goes with the last who reads it.
    _guard: Option<Arc<TempPath>>,
}

impl ParquetRows {
    /// The rows of the file at `path`.
    ///
    /// # Errors
    /// It is not there, or no Parquet file.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> PolarsResult<Self> {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            let mut reader = ParquetReader::new(file);
            let schema = Schema::from_arrow_schema(&*reader.schema()?);
            let mut first = 0;
            let groups = reader.get_metadata()?.row_groups.iter().map(|group| {
                let rows = group.num_rows();
                first += rows;
                (first - rows, rows)
            });
            let groups = groups.collect();
            Ok(Self { path: Arc::new(path.to_owned()), schema: Arc::new(schema), groups, bytes, at: 0, _guard: None })
        };
        read().map_err(|cause| io("read", path, cause))
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        self.groups.last().map_or(0, |(first, rows)| (first + rows) as u64)
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first `count` of the file at `path`, as objects.
    ///
    /// # Errors
    /// The file cannot be read, or holds what JSON cannot.
    pub fn head_as_json(path: &Path, count: usize) -> Result<Vec<Value>> {
        rows_as_json(&mut read_rows(path, (0, count))?)
    }
}

fn read_rows(path: &Path, (first, count): (usize, usize)) -> Result<DataFrame> {
    let read = || ParquetReader::new(File::open(path)?).with_slice(Some((first, count))).finish();
    read().map_err(|cause| io("read", path, cause))
}

impl Clone for ParquetRows {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            schema: self.schema.clone(),
            groups: self.groups.clone(),
            bytes: self.bytes,
            at: 0,
            _guard: self._guard.clone(),
        }
    }
}

impl Producer for ParquetRows {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        Ok(ArrowSchema::of_polars(&self.schema))
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        let Some(group) = self.groups.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut rows = read_rows(&path, group)?;
            rows.rechunk_mut();
            Ok(ArrowArray::of_polars(rows).into_iter().next())
        });
        read.await.map_err(|lost| Error::cancelled().caused_by(lost))?
    }

    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn parquet(&self) -> Option<PathBuf> {
        Some((*self.path).clone())
    }
}

/// The rows of a frame as objects, column by column.
///
/// # Errors
/// The frame fails, or holds what JSON cannot.
pub async fn items_of(frame: Frame) -> Result<Vec<Value>> {
    let mut frames = frame.data_frames().await?;
    let mut items = Vec::new();
    while let Some(mut batch) = frames.next().await? {
        let read = tokio::task::spawn_blocking(move || rows_as_json(&mut batch));
        items.extend(read.await.map_err(|lost| Error::cancelled().caused_by(lost))??);
    }
    Ok(items)
}

fn rows_as_json(rows: &mut DataFrame) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    JsonWriter::new(&mut lines).with_json_format(JsonFormat::JsonLines).finish(rows)?;
    let rows = serde_json::Deserializer::from_slice(&lines).into_iter::<Value>();
    rows.collect::<Result<Vec<_>, _>>().map_err(Error::from)
}

/// Objects as rows; their columns and types are what is found in them.
///
/// # Errors
/// They do not make a table.
pub fn kept_rows(rows: &[Value]) -> Result<Kept> {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let table = match rows.is_empty() {
        true => DataFrame::default(),
        false => JsonReader::new(Cursor::new(lines))
            .with_json_format(JsonFormat::JsonLines)
            .infer_schema_len(NonZeroUsize::new(rows.len()))
            .finish()?,
    };
    let schema = ArrowSchema::of_polars(table.schema());
    Ok(Kept::Memory(SharedBatches::new(schema, ArrowArray::of_polars(table))))
}
