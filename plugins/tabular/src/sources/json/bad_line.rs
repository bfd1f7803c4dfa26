//! After polars has failed over JSON lines: the first line that it cannot read, and why.
//!
//! polars is the judge: its own parser reads the lines, hundreds at a time, and the lines of a batch that it refuses one
//! by one.

use std::io::{BufRead, BufReader};
use std::path::Path;

use polars::prelude::*;
use pype_plugin::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::array::place;
use crate::sources::decode;
use crate::{dtype, failure};

const BATCH_LINES: usize = 512;

/// The first line that holds no object, or one whose values do not fit `schema`. `None` if there is none, or if the
/// file cannot be read to its end: then the query's own error stands.
pub(crate) fn first_bad_line(path: &Path, schema: &Schema) -> Option<Error> {
    let (text, _) = decode::open_unmarked(path).ok()?;
    let mut lines = BufReader::new(text).split(b'\n').enumerate();
    loop {
        let batch = lines.by_ref().take(BATCH_LINES).map(|(index, line)| Some((index + 1, line.ok()?)));
        let batch: Vec<(usize, Vec<u8>)> = batch.collect::<Option<_>>()?;
        if batch.is_empty() {
            return None;
        }
        let text: Vec<&[u8]> = batch.iter().map(|(_, line)| line.as_slice()).collect();
        if fits(&text.join(&b'\n'), schema).is_ok() {
            continue;
        }
        let found = batch.iter().find_map(|(line, text)| Some((*line, text, fits(text, schema).err()?)));
        if let Some((line, text, error)) = found {
            return Some(bad_line(path, line, text, schema, &error));
        }
    }
}

fn fits(lines: &[u8], schema: &Schema) -> PolarsResult<()> {
    parse_ndjson(lines, None, schema, false).map(drop)
}

fn bad_line(path: &Path, line: usize, text: &[u8], schema: &Schema, error: &PolarsError) -> Error {
    let (code, reason) = reason(text, schema, error);
    let bad = Error::new(ErrorKind::Data, code, format!("{}: {reason}", place(path, line)));
    match code {
        "bad-row" => bad.hint("give the column a type in `schema` that holds it, such as `str`"),
        _ => bad,
    }
}

fn reason(text: &[u8], schema: &Schema, error: &PolarsError) -> (&'static str, String) {
    if std::str::from_utf8(text).is_err() {
        return ("bad-json", "not UTF-8".into());
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        let reason = error.to_string();
        let reason = reason.split(" at line").next().unwrap_or(&reason);
        return ("bad-json", format!("not JSON: {reason} at column {}", error.column()));
    }
    let Ok(row) = serde_json::from_slice::<Map<String, Value>>(text) else {
        return ("bad-json", "not a JSON object".into());
    };
    let alone = |field: &Field| Schema::from_iter([field.clone()]);
    let reason = match schema.iter_fields().find(|field| fits(text, &alone(field)).is_err()) {
        Some(field) => {
            let value = row.get(field.name().as_str()).unwrap_or(&Value::Null);
            format!("column `{}`: cannot read `{}` as {}", field.name(), shown(value), dtype::name(field.dtype()))
        }
        None => failure::message(error),
    };
    ("bad-row", reason)
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
