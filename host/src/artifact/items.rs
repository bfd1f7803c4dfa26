//! The items of loops: JSON values, from the rows of a frame or a list, kept one a line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Cursor, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use polars::prelude::{DataFrame, JsonFormat, JsonReader, JsonWriter, SerReader, SerWriter};
use pype_plugin::{ArrowArray, ArrowSchema, Error, ErrorKind, Frame, Result, SharedBatches};
use serde_json::Value;

use super::{Kept, io};

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

pub(super) fn rows_as_json(rows: &mut DataFrame) -> Result<Vec<Value>> {
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

/// Writes items to `path`, whole and durable, and gives the size of the file.
///
/// # Errors
/// The file cannot be written.
pub fn write_items(items: &[Value], path: &Path) -> Result<u64> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<u64> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut lines = BufWriter::new(file.as_file_mut());
        for item in items {
            serde_json::to_writer(&mut lines, item)?;
            lines.write_all(b"\n")?;
        }
        lines.flush()?;
        drop(lines);
        file.as_file().sync_all()?;
        let bytes = file.as_file().metadata()?.len();
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        Ok(bytes)
    };
    write().map_err(|cause| io("write", path, cause))
}

/// Reads what [`write_items`] wrote.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read_items(path: &Path) -> Result<Vec<Value>> {
    let lines = BufReader::new(fs::File::open(path).map_err(|cause| io("read", path, cause))?).lines();
    let item = |(at, line): (usize, std::io::Result<String>)| {
        let line = line.map_err(|cause| io("read", path, cause))?;
        serde_json::from_str(&line).map_err(|cause| {
            let message = format!("{}:{}: not an item: {cause}", path.display(), at + 1);
            Error::new(ErrorKind::Data, "bad-items", message)
        })
    };
    lines.enumerate().map(item).collect()
}
