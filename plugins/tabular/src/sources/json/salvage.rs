//! `bad_rows: skip | reject`: the good rows as a plan, the bad ones in the bin.
//!
//! Lines that hold no object are left out before the columns are inferred, and all lines are gone through once more when
//! they are known. Files without a bad row are read where they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use polars::prelude::*;
use pype_plugin::prelude::*;

use super::Reading;
use super::bad_line::bad_lines;
use crate::sources::bad_rows::{Bin, Rejected};
use crate::sources::decode::{self, UntilCancelled};
use crate::sources::files::cannot_read;

/// Goes through all lines of `reading`.
pub(super) fn salvage(mut reading: Reading<'_>, mut bin: Bin, folder: &Path) -> Result<(LazyFrame, Rejected)> {
    let all = std::mem::take(&mut reading.lines);
    let any_object = Schema::default();
    reading.lines = left_of(&all, &any_object, &reading, None, folder)?;
    if reading.lines.is_empty() {
        left_of(&all, &any_object, &reading, Some(&mut bin), folder)?;
        return Ok((reading.plan()?, bin.close()?));
    }
    let schema = reading.with_declared(reading.inferred()?);
    reading.lines = left_of(&all, &schema, &reading, Some(&mut bin), folder)?;
    let plan = match reading.lines.is_empty() {
        true => reading.cast(DataFrame::empty_with_schema(&schema).lazy()),
        false => reading.plan_of(schema)?,
    };
    Ok((plan, bin.close()?))
}

/// The files without their bad lines; none for one that has only such.
fn left_of(
    files: &[PathBuf],
    schema: &Schema,
    reading: &Reading<'_>,
    mut bin: Option<&mut Bin>,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let cast = |rows: DataFrame| match schema.is_empty() {
        true => Ok(rows),
        false => reading.cast(rows.lazy()).collect(),
    };
    let mut left = Vec::new();
    for path in files {
        let original = decode::original(path).to_string_lossy().into_owned();
        let mut bad = BTreeSet::new();
        let text = UntilCancelled { text: decode::open(path)?, cancel: reading.cancel };
        let looked = bad_lines(path, text, schema, cast, |found| {
            if let Some(bin) = bin.as_deref_mut() {
                let raw = String::from_utf8_lossy(found.text);
                bin.throw(&original, found.line, found.column.as_deref(), &found.reason, &raw)?;
            }
            bad.insert(found.line);
            Ok(ControlFlow::Continue(()))
        });
        looked.map_err(|error| if reading.cancel.is_cancelled() { Error::cancelled() } else { error })?;
        match bad.is_empty() {
            true => left.push(path.clone()),
            false => left.extend(copy_without(path, &bad, folder)?),
        }
    }
    Ok(left)
}

/// Copies the other lines of a file; `None` if there are none.
fn copy_without(path: &Path, bad: &BTreeSet<usize>, folder: &Path) -> Result<Option<PathBuf>> {
    let copy = decode::stand_in(path, folder)?;
    let mut output = BufWriter::new(File::create(&copy)?);
    let mut any = false;
    for (text, line) in BufReader::new(decode::open(path)?).split(b'\n').zip(1..) {
        let text = text.map_err(|error| cannot_read(path, &error))?;
        if !bad.contains(&line) {
            any |= !text.trim_ascii().is_empty();
            output.write_all(&text)?;
            output.write_all(b"\n")?;
        }
    }
    output.flush()?;
    Ok(any.then_some(copy))
}
