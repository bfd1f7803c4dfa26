//! Before a lazy read: no row may have a stray quote.
//!
//! polars toggles at every quote where it only looks for the end of a row: when it counts rows, and behind the last
//! column that a query reads. A stray quote there makes text of all that follows, up to the next one, and these rows
//! vanish without an error. It fails as it should only when it parses all columns. Who runs the query, and which columns it
//! then reads, is not known when the source gives it away, so the text is looked through before. A text without any
//! quote, which is most of them, costs one pass at the speed of memory.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use polars::prelude::CsvReadOptions;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::bad_row;
use super::records::{Dialect, Text};
use super::triage::BadRow;
use crate::sources::decode;
use crate::sources::files::{Files, cannot_read};

/// How much text is looked at between two looks at whether the run goes on.
const CHUNK_BYTES: usize = 1 << 18;

/// The first row with a stray quote, as an error.
pub(super) fn must_pair(files: &Files, options: &CsvReadOptions, cancel: &CancelToken) -> Result<()> {
    let Some(quote) = options.parse_options.quote_char else { return Ok(()) };
    for path in &files.paths {
        if has_byte(path, quote, cancel)? {
            must_pair_in(path, options, cancel)?;
        }
    }
    Ok(())
}

fn has_byte(path: &Path, wanted: u8, cancel: &CancelToken) -> Result<bool> {
    let mut text = BufReader::with_capacity(CHUNK_BYTES, decode::open(path)?);
    loop {
        go_on(cancel)?;
        let read = match text.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(chunk) if chunk.contains(&wanted) => return Ok(true),
            Ok(chunk) => chunk.len(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(cannot_read(path, &error)),
        };
        text.consume(read);
    }
}

fn must_pair_in(path: &Path, options: &CsvReadOptions, cancel: &CancelToken) -> Result<()> {
    let dialect = Dialect::of(options);
    let mut text = Text::new(decode::open(path)?, options);
    while let Some(piece) = text.next_piece().map_err(|error| cannot_read(path, &error))? {
        go_on(cancel)?;
        if let Some(record) = piece.records.iter().find(|record| record.has_stray_quote(piece.bytes, &dialect)) {
            return Err(bad_row(path, &BadRow::with_stray_quote(&piece, record)));
        }
    }
    Ok(())
}

fn go_on(cancel: &CancelToken) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}
