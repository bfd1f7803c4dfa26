//! A CSV text in pieces of whole records, each with its line.
//!
//! Quotes count where a field begins, as in RFC 4180. polars toggles at every quote, so a record with an odd number
//! of them would shift all that follows: [`Record::has_stray_quote`] tells. A quote that is never closed ends with its
//! line, so that one slip does not swallow the rest of the file.

use std::io::{self, Read};
use std::ops::Range;

use polars::io::prelude::_csv_read_internal::{CommentPrefix, is_comment_line};
use polars::prelude::CsvReadOptions;

/// How much text a piece has, about.
const PIECE_BYTES: usize = 1 << 20;
/// How long a quoted field may be before its quote counts as never closed.
const LONGEST_RECORD_BYTES: usize = 1 << 26;

/// The characters that structure the text.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    pub(super) separator: u8,
    pub(super) quote: Option<u8>,
    pub(super) comment: Option<CommentPrefix>,
}

/// A text that is read piece by piece.
pub(super) struct Text {
    reader: Box<dyn Read>,
    dialect: Dialect,
    preamble: Preamble,
    buffer: Vec<u8>,
    /// The part of `buffer` that earlier pieces gave.
    given: usize,
    /// Where `buffer[given]` is in the text.
    offset: u64,
    line: u64,
    ended: bool,
}

/// Whole records: `records` are ranges of `bytes`, in order; between them there may be comments.
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// Where `bytes` begins in the text.
    pub(super) offset: u64,
    pub(super) records: Vec<Record>,
}

/// One record: the line it begins at, from 1, and its bytes with the line break.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) range: Range<usize>,
}

/// What comes before the first row.
#[derive(Clone, Copy)]
struct Preamble {
    blank_lines: bool,
    records: usize,
}

impl Dialect {
    pub(super) fn of(options: &CsvReadOptions) -> Self {
        let parse = &options.parse_options;
        Self { separator: parse.separator, quote: parse.quote_char, comment: parse.comment_prefix.clone() }
    }

    /// The fields of a record, without quotes around them.
    pub(super) fn fields<'a>(&self, record: &'a [u8]) -> Vec<&'a [u8]> {
        let mut fields = Vec::new();
        let mut rest = trim_break(record);
        loop {
            let end = self.end_of_field(rest);
            fields.push(self.unquoted(&rest[..end]));
            match rest.get(end + 1..) {
                Some(next) if end < rest.len() => rest = next,
                _ => return fields,
            }
        }
    }

    fn end_of_field(&self, text: &[u8]) -> usize {
        let begin = self.closing_quote(text).unwrap_or(0);
        text[begin..].iter().position(|byte| *byte == self.separator).map_or(text.len(), |at| begin + at)
    }

    /// The place after the quote that closes a quoted field at the beginning of `text`.
    fn closing_quote(&self, text: &[u8]) -> Option<usize> {
        let quote = self.quote.filter(|quote| text.first() == Some(quote))?;
        let mut at = 1;
        loop {
            at += text.get(at..)?.iter().position(|byte| *byte == quote)? + 1;
            if text.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }

    fn unquoted<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        match (self.quote, field) {
            (Some(quote), [first, inner @ .., last]) if *first == quote && *last == quote => inner,
            _ => field,
        }
    }

    /// Where the record at the beginning of `text` ends, after its line break. `None` if `text` ends first.
    fn end_of_record(&self, text: &[u8], ended: bool) -> Option<usize> {
        let line = text.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let line_end = line.or(ended.then_some(text.len()));
        let has_quote = |end: usize| self.quote.is_some_and(|quote| text[..end].contains(&quote));
        match line_end {
            Some(end) if !has_quote(end) => return Some(end),
            None if !has_quote(text.len()) => return None,
            _ => {}
        }
        let mut at = 0;
        loop {
            let field = &text[at..];
            let quoted = self.quote.is_some() && field.first().copied() == self.quote;
            let begin = match self.closing_quote(field) {
                Some(closed) => closed,
                // Open to the end of what is there: more text may close it.
                None if quoted && !ended && text.len() < LONGEST_RECORD_BYTES => return None,
                None => 0,
            };
            let Some(next) = field[begin..].iter().position(|byte| *byte == self.separator || *byte == b'\n') else {
                return ended.then_some(text.len());
            };
            at += begin + next + 1;
            if text[at - 1] == b'\n' {
                return Some(at);
            }
        }
    }
}

impl Record {
    /// The record's text without its line break.
    pub(super) fn text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        trim_break(&bytes[self.range.clone()])
    }

    pub(super) fn has_stray_quote(&self, bytes: &[u8], dialect: &Dialect) -> bool {
        let quotes = |quote: u8| self.text(bytes).iter().filter(|byte| **byte == quote).count();
        dialect.quote.is_some_and(|quote| quotes(quote) % 2 == 1)
    }
}

impl Text {
    pub(super) fn new(reader: Box<dyn Read>, options: &CsvReadOptions) -> Self {
        let records = options.skip_rows + usize::from(options.has_header) + options.skip_rows_after_header;
        Self {
            reader,
            dialect: Dialect::of(options),
            preamble: Preamble { blank_lines: options.has_header, records },
            buffer: Vec::new(),
            given: 0,
            offset: 0,
            line: 1,
            ended: false,
        }
    }

    /// The next rows; none at the end.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        loop {
            self.buffer.drain(..self.given);
            self.given = 0;
            let mut records = self.split();
            while records.is_empty() && self.given == 0 && !self.ended {
                self.fill()?;
                records = self.split();
            }
            if records.is_empty() && self.given == 0 {
                return Ok(None);
            }
            if !records.is_empty() {
                let offset = self.offset - self.given as u64;
                return Ok(Some(Piece { bytes: &self.buffer[..self.given], offset, records }));
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let wanted = PIECE_BYTES.max(self.buffer.len()) as u64;
        let read = self.reader.by_ref().take(wanted).read_to_end(&mut self.buffer)?;
        self.ended = read < wanted as usize;
        if self.offset == 0 && self.buffer.starts_with(BYTE_ORDER_MARK) && self.line == 1 {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
            self.offset += BYTE_ORDER_MARK.len() as u64;
        }
        Ok(())
    }

    /// Splits what is in the buffer into records, passing over preamble and comments.
    fn split(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while self.given < self.buffer.len() {
            let rest = &self.buffer[self.given..];
            let comment = is_comment_line(rest, self.dialect.comment.as_ref());
            let end =
                if comment { end_of_line(rest, self.ended) } else { self.dialect.end_of_record(rest, self.ended) };
            let Some(end) = end else { break };
            let record = Record { line: self.line, range: self.given..self.given + end };
            let text = &rest[..end];
            if !comment && self.preamble.is_over(text) {
                records.push(record);
            }
            self.line += text.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.given += end;
            self.offset += end as u64;
        }
        records
    }
}

impl Preamble {
    /// Whether `record` is a row; else it is passed over.
    fn is_over(&mut self, record: &[u8]) -> bool {
        if self.blank_lines && trim_break(record).is_empty() {
            return false;
        }
        self.blank_lines = false;
        match self.records {
            0 => true,
            n => {
                self.records = n - 1;
                false
            }
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn end_of_line(text: &[u8], ended: bool) -> Option<usize> {
    text.iter().position(|byte| *byte == b'\n').map(|at| at + 1).or(ended.then_some(text.len()))
}

fn trim_break(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, options: CsvReadOptions, expect: &[(u64, &str)]) {
        let mut reader = Text::new(Box::new(text.as_bytes()), &options);
        let mut found = Vec::new();
        while let Some(piece) = reader.next_piece().expect("readable") {
            for record in &piece.records {
                let place = piece.offset as usize + record.range.start..piece.offset as usize + record.range.end;
                assert_eq!(&text.as_bytes()[place], &piece.bytes[record.range.clone()]);
                found.push((record.line, String::from_utf8_lossy(record.text(piece.bytes)).into_owned()));
            }
        }
        let expect: Vec<_> = expect.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn records_know_their_lines() {
        let plain = CsvReadOptions::default;
        check("a,b\n1,2\r\n3,4", plain(), &[(2, "1,2"), (3, "3,4")]);
        check("\u{feff}a\n1\n", plain(), &[(2, "1")]);
        check("\n\na\n\n1\n", plain(), &[(4, ""), (5, "1")]);
        check("a\n\"x\ny\"\n2\n", plain(), &[(2, "\"x\ny\""), (4, "2")]);
        check("a\n\"x \"\"q\"\"\n\"\n2\n", plain(), &[(2, "\"x \"\"q\"\"\n\""), (4, "2")]);
        check("a\n5\" pipe\n2\n", plain(), &[(2, "5\" pipe"), (3, "2")]);
        check("a\n\"never\n2\n3\n", plain(), &[(2, "\"never"), (3, "2"), (4, "3")]);
        check("a", plain(), &[]);
        check("", plain(), &[]);
        check("1\n2\n", plain().with_has_header(false), &[(1, "1"), (2, "2")]);
        check("x\ny\na\n1\n", plain().with_skip_rows(2), &[(4, "1")]);
        let commented = plain().map_parse_options(|options| options.with_comment_prefix(Some("#")));
        check("# c\na\n# \"d\n1\n#e", commented, &[(4, "1")]);
        let unquoted = plain().map_parse_options(|options| options.with_quote_char(None));
        check("a\n\"1\n2\n", unquoted, &[(2, "\"1"), (3, "2")]);
    }

    #[test]
    fn fields_lose_their_quotes() {
        let dialect = Dialect::of(&CsvReadOptions::default());
        for (record, expect) in
            [("a,b", vec!["a", "b"]), ("a,,", vec!["a", "", ""]), ("\"x,y\",z\r\n", vec!["x,y", "z"]), ("", vec![""])]
        {
            let expect: Vec<&[u8]> = expect.iter().map(|field| field.as_bytes()).collect();
            assert_eq!(dialect.fields(record.as_bytes()), expect, "{record}");
        }
    }

    #[test]
    fn a_text_longer_than_a_piece_comes_whole() {
        let line = "x".repeat(1000) + "\n";
        let text = "head\n".to_owned() + &line.repeat(3000);
        let mut reader = Text::new(Box::new(io::Cursor::new(text.clone())), &CsvReadOptions::default());
        let (mut rows, mut end) = (0, 0);
        while let Some(piece) = reader.next_piece().expect("readable") {
            rows += piece.records.len();
            end = piece.offset as usize + piece.bytes.len();
            assert_eq!(piece.bytes, &text.as_bytes()[piece.offset as usize..end]);
        }
        assert_eq!((rows, end), (3000, text.len()));
    }
}
