//! After polars has failed over JSON lines: the first line that it cannot read, and why.
//!
//! polars is the judge: its own parser reads the lines, hundreds at a time, and the lines of a batch that it refuses one
//! by one.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use polars::prelude::*;
use pype_plugin::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::array::place;
use crate::sources::decode;
use crate::sources::files::cannot_read;
use crate::{dtype, failure};

const BATCH_LINES: usize = 512;

/// A line that cannot be read.
pub(super) struct BadLine<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) text: &'a [u8],
    /// `bad-json` or `bad-row`.
    code: &'static str,
    /// The column to blame, if it is one alone.
    pub(super) column: Option<String>,
    pub(super) reason: String,
}

/// The first line that holds no object, or one whose values do not fit `schema`. `None` if there is none, or if the
/// file cannot be read to its end: then the query's own error stands.
pub(crate) fn first_bad_line(path: &Path, schema: &Schema) -> Option<Error> {
    let (text, _) = decode::open_unmarked(path).ok()?;
    let mut first = None;
    let looked = bad_lines(path, text, schema, Ok, |bad| {
        first = Some(bad_line(path, &bad));
        Ok(ControlFlow::Break(()))
    });
    looked.ok().and(first)
}

/// Gives each line of `text` that holds no object, one whose values do not fit `schema`, or one that `further` refuses.
pub(super) fn bad_lines(
    path: &Path,
    text: impl Read,
    schema: &Schema,
    further: impl Fn(DataFrame) -> PolarsResult<DataFrame>,
    mut found: impl FnMut(BadLine<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let fits = |lines: &[u8]| fits(lines, schema).and_then(&further).map(drop);
    let mut lines = BufReader::new(text).split(b'\n').zip(1..);
    loop {
        let batch = lines.by_ref().take(BATCH_LINES).map(|(text, line)| Ok((line, text?)));
        let batch: Vec<(usize, Vec<u8>)> =
            batch.collect::<io::Result<_>>().map_err(|error| cannot_read(path, &error))?;
        if batch.is_empty() {
            return Ok(());
        }
        let text: Vec<&[u8]> = batch.iter().map(|(_, line)| line.as_slice()).collect();
        if fits(&text.join(&b'\n')).is_ok() {
            continue;
        }
        for (line, text) in &batch {
            let Err(error) = fits(text) else { continue };
            let (code, column, reason) = reason(text, schema, &error);
            if found(BadLine { line: *line, text, code, column, reason })?.is_break() {
                return Ok(());
            }
        }
    }
}

fn fits(lines: &[u8], schema: &Schema) -> PolarsResult<DataFrame> {
    parse_ndjson(lines, None, schema, false)
}

fn bad_line(path: &Path, bad: &BadLine<'_>) -> Error {
    let column = bad.column.as_ref().map_or_else(String::new, |column| format!("column `{column}`: "));
    let message = format!("{}: {column}{}", place(path, bad.line), bad.reason);
    let error = Error::new(ErrorKind::Data, bad.code, message);
    match bad.code {
        "bad-row" => error.hint(
            "give the column a type in `schema` that holds it, such as `str`, or set `bad_rows` to `skip` or `reject`",
        ),
        _ => error.hint("set `bad_rows` to `skip` or `reject` to go on without such rows"),
    }
}

fn reason(text: &[u8], schema: &Schema, error: &PolarsError) -> (&'static str, Option<String>, String) {
    if std::str::from_utf8(text).is_err() {
        return ("bad-json", None, "not UTF-8".into());
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        let reason = error.to_string();
        let reason = reason.split(" at line").next().unwrap_or(&reason);
        return ("bad-json", None, format!("not JSON: {reason} at column {}", error.column()));
    }
    let Ok(row) = serde_json::from_slice::<Map<String, Value>>(text) else {
        return ("bad-json", None, "not a JSON object".into());
    };
    let alone = |field: &Field| Schema::from_iter([field.clone()]);
    match schema.iter_fields().find(|field| fits(text, &alone(field)).is_err()) {
        Some(field) => {
            let value = row.get(field.name().as_str()).unwrap_or(&Value::Null);
            let reason = format!("cannot read `{}` as {}", shown(value), dtype::name(field.dtype()));
            ("bad-row", Some(field.name().to_string()), reason)
        }
        None => ("bad-row", None, failure::message(error)),
    }
}

/// A value for a message.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
