//! `bad_rows: skip | reject`: the good rows as a plan, the bad ones in a table of their own.
//!
//! Files without a bad row are read where they are. Of others the good rows are copied, byte for byte, into the
//! run's temporary folder. The rejected rows go to a file there as they are found, so their number is not bounded by
//! memory.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use polars::lazy::frame::LazyFileListReader;
use polars::prelude::*;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::records::Text;
use super::scan::{self, Reading};
use super::triage::{BadRow, Judge};
use crate::sources::decode;
use crate::sources::files::{Files, scan_path};
use crate::{failure, query};

/// A scan without its bad rows.
pub(super) struct Salvaged {
    pub(super) plan: LazyFrame,
    pub(super) rejected: Rejected,
}

/// The bad rows: their number and, when they are kept, where they are.
pub(super) struct Rejected {
    pub(super) count: u64,
    kept: Option<PathBuf>,
}

/// Goes through all rows of `files`. `plan` is the scan of them, for its schema and options.
pub(super) fn salvage(
    reading: &Reading,
    files: &Files,
    plan: LazyFrame,
    keep: bool,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<Salvaged> {
    let (plan, schema) = query::resolve(plan)?;
    let options = scan::options_of(&plan)?;
    let columns = Arc::new(without(&schema, reading.file_column()));
    let mut bin = Bin::new(keep.then_some(folder))?;
    let mut paths = Vec::with_capacity(files.paths.len());
    for path in &files.paths {
        let found = triage(path, &options, &columns, &mut bin, cancel)?;
        paths.extend(match found {
            Found { bad, .. } if bad.is_empty() => Some(path.clone()),
            // Without a header nothing would be left, and polars calls that an error.
            Found { good: false, .. } if !options.has_header => None,
            Found { bad, .. } => Some(copy_without(path, &bad, folder, cancel)?),
        });
    }
    let plan = match paths.is_empty() {
        true => DataFrame::empty_with_schema(&schema).lazy(),
        false => reading.scan_as(&Files { paths, bytes: files.bytes }, &columns)?,
    };
    Ok(Salvaged { plan, rejected: bin.close()? })
}

/// No rejected row, with the columns they would have.
pub(super) fn none_rejected() -> LazyFrame {
    DataFrame::empty_with_schema(&rejected_schema()).lazy()
}

impl Rejected {
    /// The rows that were kept, as a table.
    pub(super) fn into_plan(self) -> Result<LazyFrame> {
        let Some(path) = self.kept.filter(|_| self.count > 0) else { return Ok(none_rejected()) };
        LazyCsvReader::new(scan_path(&path)?)
            .with_glob(false)
            .with_has_header(false)
            .with_schema(Some(Arc::new(rejected_schema())))
            .with_missing_is_null(true)
            .finish()
            .map_err(|error| failure::of_plan(&error))
    }
}

fn rejected_schema() -> Schema {
    Schema::from_iter([
        Field::new("file".into(), DataType::String),
        Field::new("line".into(), DataType::Int64),
        Field::new("column".into(), DataType::String),
        Field::new("reason".into(), DataType::String),
        Field::new("raw".into(), DataType::String),
    ])
}

/// The rows of a file.
struct Found {
    /// Where the bad ones are, neighbours together.
    bad: Vec<Range<u64>>,
    /// Whether there is a good one.
    good: bool,
}

fn triage(
    path: &Path,
    options: &CsvReadOptions,
    schema: &SchemaRef,
    bin: &mut Bin,
    cancel: &CancelToken,
) -> Result<Found> {
    let mut judge = Judge::new(options, schema.clone(), None).map_err(|error| failure::of_plan(&error))?;
    let mut text = Text::new(decode::open(path)?, options);
    let mut bad: Vec<Range<u64>> = Vec::new();
    let original = decode::original(path);
    judge.bad_rows(&mut text, Some(cancel), |row| {
        bin.throw(&original, &row)?;
        match bad.last_mut() {
            Some(last) if last.end == row.range.start => last.end = row.range.end,
            _ => bad.push(row.range),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Found { bad, good: judge.has_good_row() })
}

/// Copies a file's text without the ranges.
fn copy_without(path: &Path, ranges: &[Range<u64>], folder: &Path, cancel: &CancelToken) -> Result<PathBuf> {
    let copy = decode::stand_in(path, folder)?;
    let mut output = BufWriter::new(File::create(&copy)?);
    let mut input = decode::open(path)?;
    let mut at = 0;
    for range in ranges {
        let (good, bad) = (range.start - at, range.end - range.start);
        decode::in_chunks(path, &mut input.by_ref().take(good), cancel, |chunk| Ok(output.write_all(chunk)?))?;
        decode::in_chunks(path, &mut input.by_ref().take(bad), cancel, |_| Ok(()))?;
        at = range.end;
    }
    decode::in_chunks(path, &mut input, cancel, |chunk| Ok(output.write_all(chunk)?))?;
    output.flush()?;
    Ok(copy)
}

/// Where bad rows go: a CSV file, or nowhere.
struct Bin {
    count: u64,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Bin {
    fn new(folder: Option<&Path>) -> Result<Self> {
        let create = |folder: &Path| -> Result<_> {
            let path = decode::stand_in(Path::new("rejected rows"), folder)?;
            let file = BufWriter::new(File::create(&path)?);
            Ok((path, file))
        };
        Ok(Self { count: 0, file: folder.map(create).transpose()? })
    }

    fn throw(&mut self, path: &Path, row: &BadRow) -> Result<()> {
        self.count += 1;
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let column = row.column.as_deref().map_or_else(String::new, quoted);
        let (path, reason, raw) = (quoted(&path.to_string_lossy()), quoted(&row.reason), quoted(&row.raw));
        writeln!(file, "{path},{},{column},{reason},{raw}", row.line)?;
        Ok(())
    }

    fn close(self) -> Result<Rejected> {
        let kept = self.file.map(|(path, mut file)| file.flush().map(|()| path)).transpose()?;
        Ok(Rejected { count: self.count, kept })
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn without(schema: &Schema, column: Option<&str>) -> Schema {
    schema.iter_fields().filter(|field| Some(field.name().as_str()) != column).collect()
}
