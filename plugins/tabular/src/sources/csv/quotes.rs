//! Before a lazy read: no row may have a stray quote.
//!
//! polars toggles at every quote where it only looks for the end of a row: when it counts rows, and behind the last
//! column that a query reads. A stray quote there makes text of all that follows, up to the next one, and these rows
//! vanish without an error. It fails as it should only when it parses all columns. Who runs the query, and which columns it
//! then reads, is not known when the source gives it away, so the text is looked through before: from quote to quote, at
//! the speed of memory. Only a text in which a quote stands where none belongs is read record by record.

use std::io::{self, Read};
use std::path::Path;

use polars::prelude::CsvReadOptions;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::bad_row;
use super::records::{Dialect, Text};
use super::triage::BadRow;
use crate::sources::decode;
use crate::sources::files::{Files, cannot_read};

/// How much text is read at once: what stays in a core's own cache until it is looked at.
const CHUNK_BYTES: usize = 1 << 17;

/// The first row with a stray quote, as an error.
pub(super) fn must_pair(files: &Files, options: &CsvReadOptions, cancel: &CancelToken) -> Result<()> {
    let Some(quote) = options.parse_options.quote_char else { return Ok(()) };
    for path in &files.paths {
        if is_doubtful(path, quote, options, cancel)? {
            must_pair_in(path, options, cancel)?;
        }
    }
    Ok(())
}

/// Whether some quote may stand where none belongs. In comments and before the header every quote may.
fn is_doubtful(path: &Path, quote: u8, options: &CsvReadOptions, cancel: &CancelToken) -> Result<bool> {
    if options.parse_options.comment_prefix.is_some() || options.skip_rows > 0 || options.skip_lines > 0 {
        return Ok(true);
    }
    let mut text = decode::open(path)?;
    let mut walk = Walk::new(quote, options.parse_options.separator);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        go_on(cancel)?;
        match text.read(&mut chunk) {
            Ok(0) => return Ok(walk.is_inside()),
            Ok(count) if walk.stumbles(&chunk[..count]) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot_read(path, &error)),
        }
    }
}

/// A walk from quote to quote. It knows one rule: a quote opens where a field begins and closes where one ends.
struct Walk {
    quote: u8,
    separator: u8,
    place: Place,
    before: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
    /// Behind a quote inside: whether it closes or is the first of two, the byte here tells.
    Behind(usize),
}

impl Walk {
    fn new(quote: u8, separator: u8) -> Self {
        Self { quote, separator, place: Place::Outside, before: b'\n' }
    }

    /// Whether the text ended inside a quoted field.
    fn is_inside(&self) -> bool {
        self.place == Place::Inside
    }

    /// Goes on through `text`, from quote to quote; true at one that breaks the rule.
    fn stumbles(&mut self, text: &[u8]) -> bool {
        for found in memchr::memchr_iter(self.quote, text) {
            self.place = match self.place {
                Place::Inside => Place::Behind(found + 1),
                Place::Behind(here) if here == found => Place::Inside,
                Place::Behind(here) if !self.ends_field(text[here]) => return true,
                Place::Behind(_) | Place::Outside => {
                    let before = if found == 0 { self.before } else { text[found - 1] };
                    if !self.ends_field(before) {
                        return true;
                    }
                    Place::Inside
                }
            };
        }
        if let Place::Behind(here) = self.place {
            self.place = match text.get(here) {
                None => Place::Behind(here - text.len()),
                Some(next) if self.ends_field(*next) => Place::Outside,
                Some(_) => return true,
            };
        }
        self.before = text.last().copied().unwrap_or(self.before);
        false
    }

    fn ends_field(&self, byte: u8) -> bool {
        byte == self.separator || matches!(byte, b'\n' | b'\r')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, doubtful: bool) {
        // However the text falls into chunks.
        for size in 1..=text.len() {
            let mut walk = Walk::new(b'"', b',');
            let stumbled = text.as_bytes().chunks(size).any(|chunk| walk.stumbles(chunk));
            assert_eq!(stumbled || walk.is_inside(), doubtful, "{text:?} in chunks of {size}");
        }
    }

    #[test]
    fn a_quote_opens_where_a_field_begins_and_closes_where_it_ends() {
        check("a,b\n1,2\n", false);
        check("\"a\",\"b\"\r\n\"1\n\",\"\"\n\"\"\"\",\"x,\"\"\"", false);
        check("1,5\" pipe\n", true);
        check("1,\"5\" pipe\n", true);
        check("1,\"open\n2,3\n", true);
        check("1,\"\"\"\n", true);
    }
}
