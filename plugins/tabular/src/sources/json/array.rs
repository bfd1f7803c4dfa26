//! A JSON array as JSON lines: the text of each element on a line of its own.
//!
//! The text is copied, not read and written anew, so no number changes on the way. Only the spaces between tokens are
//! left out, line breaks among them: inside a string JSON has none.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use pype_plugin::CancelToken;
use pype_plugin::prelude::*;
use serde::de::IgnoredAny;

use crate::sources::decode::{self, UntilCancelled};
use crate::sources::files::cannot_read;

/// What the names of such files end in, so that a place in them is told as an element and not as a line.
const EXTENSION: &str = "elements";

/// Writes the elements of the array in `path` to a file in `folder`. `None` if it has none. What is no array counts as
/// its only element.
pub(super) fn as_lines(path: &Path, folder: &Path, cancel: &CancelToken) -> Result<Option<PathBuf>> {
    must_be_json(path, cancel)?;
    let lines = decode::stand_in(path, folder)?.with_extension(EXTENSION);
    let mut splitter = Splitter::into(BufWriter::new(File::create(&lines)?));
    let (mut text, _) = decode::open_unmarked(path)?;
    decode::in_chunks(path, &mut text, cancel, |chunk| Ok(splitter.split(chunk)?))?;
    Ok(splitter.finish()?.then_some(lines))
}

/// `element 3 of in.json` or `in.json:3`, counted from 1.
pub(super) fn place(path: &Path, line: usize) -> String {
    let original = decode::original(path);
    match path.extension().is_some_and(|extension| extension == EXTENSION) {
        true => format!("{}, element {line}", original.display()),
        false => format!("{}:{line}", original.display()),
    }
}

/// The splitter counts brackets, which tells nothing about a text that is not JSON.
fn must_be_json(path: &Path, cancel: &CancelToken) -> Result<()> {
    let (text, _) = decode::open_unmarked(path)?;
    let text = BufReader::new(UntilCancelled { text, cancel });
    serde_json::from_reader::<_, IgnoredAny>(text).map(drop).map_err(|error| {
        if cancel.is_cancelled() {
            return Error::cancelled();
        }
        if error.is_io() {
            return cannot_read(path, &io::Error::from(error));
        }
        let message = format!("{}:{}: not JSON: {error}", path.display(), error.line());
        Error::new(ErrorKind::Data, "bad-json", message)
    })
}

/// Where in the text it is, and where the elements go.
struct Splitter<W> {
    output: W,
    /// Whether the array's own bracket, or another first character, has passed.
    begun: bool,
    /// How many brackets are open, without the array's own.
    depth: usize,
    in_string: bool,
    /// Whether a backslash came right before.
    escaped: bool,
    /// Whether an element has begun and not ended.
    open: bool,
    /// Whether there was an element.
    any: bool,
}

impl<W: Write> Splitter<W> {
    fn into(output: W) -> Self {
        Self { output, begun: false, depth: 0, in_string: false, escaped: false, open: false, any: false }
    }

    fn split(&mut self, text: &[u8]) -> io::Result<()> {
        text.iter().try_for_each(|byte| if self.in_string { self.string(*byte) } else { self.token(*byte) })
    }

    /// A character inside a string.
    fn string(&mut self, byte: u8) -> io::Result<()> {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
        self.output.write_all(&[byte])
    }

    /// A character outside of strings.
    fn token(&mut self, byte: u8) -> io::Result<()> {
        if byte.is_ascii_whitespace() {
            return Ok(());
        }
        let first = !std::mem::replace(&mut self.begun, true);
        match byte {
            b'[' if first => return Ok(()),
            b',' | b']' if self.depth == 0 => return self.end(),
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth -= 1,
            b'"' => self.in_string = true,
            _ => {}
        }
        (self.open, self.any) = (true, true);
        self.output.write_all(&[byte])
    }

    fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.open) { self.output.write_all(b"\n") } else { Ok(()) }
    }

    /// Whether there was an element.
    fn finish(mut self) -> io::Result<bool> {
        self.end()?;
        self.output.flush()?;
        Ok(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        // However the text is cut into chunks.
        for size in [1, 3, 1000] {
            let mut lines = Vec::new();
            let mut splitter = Splitter::into(&mut lines);
            for chunk in text.as_bytes().chunks(size) {
                splitter.split(chunk).expect("in memory");
            }
            assert_eq!(splitter.finish().expect("in memory"), !expect.is_empty(), "{text}");
            assert_eq!(String::from_utf8_lossy(&lines), expect, "{text}");
        }
    }

    #[test]
    fn each_element_gets_a_line() {
        check("[]", "");
        check(" [ \n ] ", "");
        check("[{\"a\": 1},\n {\"a\": [1, {}]\n}]", "{\"a\":1}\n{\"a\":[1,{}]}\n");
        check(
            r#"[{"a": "x, ]} \" y\\"}, {"b c": 12345678901234567890123}]"#,
            "{\"a\":\"x, ]} \\\" y\\\\\"}\n{\"b c\":12345678901234567890123}\n",
        );
        check("{\"a\": [1, 2]}", "{\"a\":[1,2]}\n");
        check("[[1], null, \"x\"]", "[1]\nnull\n\"x\"\n");
    }
}
