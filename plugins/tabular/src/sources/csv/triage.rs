//! Which rows of a CSV text polars cannot read, and why.
//!
//! polars is the only judge: rows are given to its own chunk reader, hundreds at a time, and a batch that it refuses
//! is halved until single rows are left. Each batch begins with the text's first good row, because polars takes the
//! pattern of dates from the first value it sees.

use std::ops::ControlFlow;
use std::sync::Arc;

use polars::io::prelude::_csv_read_internal::{NullValuesCompiled, cast_columns, prepare_csv_schema, read_chunk};
use polars::prelude::*;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::records::{Dialect, Piece, Record, Text};
use crate::{dtype, failure};

const BATCH_ROWS: usize = 512;

/// A row that polars cannot read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BadRow {
    pub(super) line: u64,
    /// The column at fault, if it is one.
    pub(super) column: Option<String>,
    pub(super) reason: String,
    /// The row's text; bytes that are not UTF-8 as `�`.
    pub(super) raw: String,
    /// Where the row is in the text, with its line break.
    pub(super) range: std::ops::Range<u64>,
}

impl BadRow {
    /// A row that has a stray quote.
    pub(super) fn with_stray_quote(piece: &Piece<'_>, record: &Record) -> Self {
        Self::new(piece, record, None, STRAY_QUOTE.into())
    }

    fn new(piece: &Piece<'_>, record: &Record, column: Option<String>, reason: String) -> Self {
        Self {
            line: record.line,
            column,
            reason,
            raw: String::from_utf8_lossy(record.text(piece.bytes)).into_owned(),
            range: piece.offset + record.range.start as u64..piece.offset + record.range.end as u64,
        }
    }
}

/// polars' reader of chunks, set up as a scan with these options and this schema would.
pub(super) struct Judge {
    dialect: Dialect,
    parse_options: Arc<CsvParseOptions>,
    /// The columns as the user knows them.
    schema: SchemaRef,
    /// The same, as polars parses them before it casts.
    parsed: SchemaRef,
    casts: Vec<Field>,
    null_values: Option<NullValuesCompiled>,
    projection: Vec<usize>,
    first_good: Vec<u8>,
    has_good_row: bool,
}

impl Judge {
    /// `projection` names the columns that a query reads; none means all.
    pub(super) fn new(
        options: &CsvReadOptions,
        schema: SchemaRef,
        projection: Option<&[PlSmallStr]>,
    ) -> PolarsResult<Self> {
        let (mut parsed, mut casts) = (schema.clone(), options.fields_to_cast.clone());
        prepare_csv_schema(&mut parsed, &mut casts)?;
        let read = |name: &PlSmallStr| projection.is_none_or(|names| names.contains(name));
        let names = parsed.iter_names().enumerate();
        let projection = names.filter(|(_, name)| read(name)).map(|(index, _)| index).collect();
        let null_values = options.parse_options.null_values.clone();
        Ok(Self {
            dialect: Dialect::of(options),
            parse_options: options.parse_options.clone(),
            null_values: null_values.map(|values| values.compile(&parsed)).transpose()?,
            schema,
            parsed,
            casts,
            projection,
            first_good: Vec::new(),
            has_good_row: false,
        })
    }

    /// Whether one of the rows so far was good.
    pub(super) fn has_good_row(&self) -> bool {
        self.has_good_row
    }

    /// Calls `found` for each bad row of `text`, in order, until it breaks or the run is cancelled.
    pub(super) fn bad_rows(
        &mut self,
        text: &mut Text,
        cancel: Option<&CancelToken>,
        mut found: impl FnMut(BadRow) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        while let Some(piece) = text.next_piece()? {
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(Error::cancelled());
            }
            for batch in piece.records.chunks(BATCH_ROWS) {
                if self.judge(&piece, batch, &mut found)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        piece: &Piece<'_>,
        batch: &[Record],
        found: &mut impl FnMut(BadRow) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let verdict = self.read(piece.bytes, batch, &self.projection);
        match (verdict, batch) {
            (Ok(()), [first, ..]) => {
                self.has_good_row = true;
                if self.first_good.is_empty() {
                    self.first_good = first.text(piece.bytes).to_vec();
                }
                Ok(ControlFlow::Continue(()))
            }
            (Ok(()), []) => Ok(ControlFlow::Continue(())),
            (Err(error), [record]) => found(self.explain(piece, record, &error)),
            (Err(_), _) => {
                let (left, right) = batch.split_at(batch.len() / 2);
                match self.judge(piece, left, found)? {
                    ControlFlow::Continue(()) => self.judge(piece, right, found),
                    stop => Ok(stop),
                }
            }
        }
    }

    /// Reads `records` as polars would, after the first good row.
    fn read(&self, bytes: &[u8], records: &[Record], projection: &[usize]) -> PolarsResult<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        if records.iter().any(|record| record.has_stray_quote(bytes, &self.dialect)) {
            polars_bail!(ComputeError: "{STRAY_QUOTE}");
        }
        let mut chunk = self.first_good.clone();
        if !chunk.is_empty() {
            chunk.push(b'\n');
        }
        let rows = records.len() + usize::from(!chunk.is_empty());
        chunk.extend_from_slice(&bytes[first.range.start..last.range.end]);
        if self.must_be_utf8() && std::str::from_utf8(&chunk).is_err() {
            polars_bail!(ComputeError: "{NOT_UTF8}");
        }
        if projection.is_empty() {
            return Ok(());
        }
        let (end, start) = (chunk.len(), Some(0));
        let (options, nulls) = (&self.parse_options, self.null_values.as_ref());
        let mut read =
            read_chunk(&chunk, options, &self.parsed, false, projection, 0, rows, nulls, usize::MAX, end, start)?;
        polars_ensure!(read.height() == rows, ComputeError: "it reads as {} rows", read.height());
        cast_columns(&mut read, &self.casts, false, false)
    }

    /// polars checks the text's encoding only where a column is text.
    fn must_be_utf8(&self) -> bool {
        let text = || self.parsed.iter_values().any(DataType::is_string);
        matches!(self.parse_options.encoding, CsvEncoding::Utf8) && text()
    }

    fn explain(&self, piece: &Piece<'_>, record: &Record, error: &PolarsError) -> BadRow {
        let (column, reason) = self.reason(piece.bytes, record, error);
        BadRow::new(piece, record, column, reason)
    }

    fn reason(&self, bytes: &[u8], record: &Record, error: &PolarsError) -> (Option<String>, String) {
        if record.has_stray_quote(bytes, &self.dialect) {
            return (None, STRAY_QUOTE.into());
        }
        let fields = self.dialect.fields(&bytes[record.range.clone()]);
        let name = |index: usize| self.schema.get_at_index(index).map(|(name, _)| name.to_string());
        if self.must_be_utf8()
            && let Some(index) = fields.iter().position(|field| std::str::from_utf8(field).is_err())
        {
            return (name(index), format!("`{}` is not UTF-8", lossy(fields[index])));
        }
        let columns = self.schema.len();
        if fields.len() > columns && self.projection.len() == columns {
            return (None, format!("{} fields, but there are {columns} columns", fields.len()));
        }
        let at_fault =
            self.projection.iter().find(|index| self.read(bytes, std::slice::from_ref(record), &[**index]).is_err());
        match at_fault.and_then(|index| Some((*index, self.schema.get_at_index(*index)?))) {
            Some((index, (name, dtype))) => {
                let text = fields.get(index).map_or_else(String::new, |field| lossy(field));
                (Some(name.to_string()), format!("cannot read `{text}` as {}", dtype::name(dtype)))
            }
            None => (None, failure::message(error)),
        }
    }
}

const STRAY_QUOTE: &str = "a quote that opens nothing or is never closed";
const NOT_UTF8: &str = "not UTF-8";

/// A field for a message.
fn lossy(field: &[u8]) -> String {
    const LONGEST: usize = 80;
    let text = String::from_utf8_lossy(field);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
