//! `bad_rows: skip | reject`: the good rows as a plan, the bad ones in a table of their own.
//!
//! Files without a bad row are read where they are. Of others the good rows are copied, byte for byte, into the
//! run's temporary folder.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use polars::prelude::*;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::records::Text;
use super::scan::{self, Reading};
use super::triage::Judge;
use crate::sources::bad_rows::{Bin, Rejected};
use crate::sources::decode;
use crate::sources::files::Files;
use crate::{failure, query};

/// A scan without its bad rows.
pub(super) struct Salvaged {
    pub(super) plan: LazyFrame,
    pub(super) rejected: Rejected,
}

/// Goes through all rows of `files`. `plan` is the scan of them, for its schema and options.
pub(super) fn salvage(
    reading: &Reading,
    files: &Files,
    plan: LazyFrame,
    mut bin: Bin,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<Salvaged> {
    let (plan, schema) = query::resolve(plan)?;
    let options = scan::options_of(&plan)?;
    let columns = Arc::new(without(&schema, reading.file_column()));
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
        let file = original.to_string_lossy();
        bin.throw(&file, row.line, row.column.as_deref(), &row.reason, &row.raw)?;
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

fn without(schema: &Schema, column: Option<&str>) -> Schema {
    schema.iter_fields().filter(|field| Some(field.name().as_str()) != column).collect()
}
