//! What is wrong, where, and what to do about it.
//!
//! A [`Diagnostic`] is data: the host renders it with the offending line, or as JSON. Rooms collect
//! them in [`Diagnostics`], so that a user sees every problem of a document at once.

use std::fmt;
use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// The document can be used, and probably says something else than its author meant.
    Warning,
}

/// A place in a text. Ordered by `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
    /// 0-based, in bytes.
    pub offset: usize,
}

impl Position {
    /// The first character of a text.
    pub const START: Position = Position { line: 1, column: 1, offset: 0 };

    /// The place reached after reading `text` from here.
    #[must_use]
    pub fn after(self, text: &str) -> Position {
        let offset = self.offset + text.len();
        match text.rfind('\n') {
            None => Position { column: self.column + char_count(text), offset, ..self },
            Some(last) => Position {
                line: self.line + count(text.bytes().filter(|byte| *byte == b'\n').count()),
                column: 1 + char_count(&text[last + 1..]),
                offset,
            },
        }
    }
}

fn char_count(text: &str) -> u32 {
    count(text.chars().count())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A stretch of a text, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first character.
    pub start: Position,
    /// The character after the last.
    pub end: Position,
}

impl Span {
    /// The span of nothing at a place.
    #[must_use]
    pub fn at(position: Position) -> Span {
        Span { start: position, end: position }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Diagnostic {
    /// A stable word for the kind of finding, in kebab-case: `unknown-key`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: a lower-case fragment, values in backticks.
    pub message: String,
    /// The document it was found in.
    pub file: PathBuf,
    /// Where in the document; absent if it concerns the whole.
    pub span: Option<Span>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place or a help.
    pub fn error(code: &'static str, file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            severity: Severity::Error,
            message: message.into(),
            file: file.into(),
            span: None,
            help: None,
        }
    }

    /// A warning without a place or a help.
    pub fn warning(code: &'static str, file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, file, message) }
    }

    /// The same, with its place.
    #[must_use]
    pub fn at(mut self, span: impl Into<Option<Span>>) -> Self {
        self.span = span.into();
        self
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with what to do about it, where something is known.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// What findings are sorted by: those without a place come first.
    fn place(&self) -> (&Path, Option<usize>) {
        (&self.file, self.span.map(|span| span.start.offset))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(span) = self.span {
            write!(f, "{}:{}:", span.start.line, span.start.column)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, " {severity}: {}", self.message)
    }
}

/// A collection of findings. Two steps may come upon the same: it is kept once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(IndexSet<Diagnostic>);

impl Diagnostics {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.insert(diagnostic);
    }

    /// Adds an error without a help.
    pub fn error(
        &mut self,
        code: &'static str,
        file: &Path,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) {
        self.push(Diagnostic::error(code, file, message).at(span));
    }

    /// Adds a warning.
    pub fn warning(
        &mut self,
        code: &'static str,
        file: &Path,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) {
        self.push(Diagnostic::warning(code, file, message).at(span));
    }

    /// Takes over all of `other`.
    pub fn append(&mut self, other: Diagnostics) {
        self.0.extend(other.0);
    }

    /// Is there one of [`Severity::Error`]?
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|one| one.severity == Severity::Error)
    }

    /// Are there none at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them by file and place; those without a place first, equals as they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        let mut sorted: Vec<&Diagnostic> = self.0.iter().collect();
        sorted.sort_by(|one, other| one.place().cmp(&other.place()));
        sorted.into_iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Diagnostics(IndexSet::from([one]))
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(all: I) -> Self {
        Diagnostics(all.into_iter().collect())
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        let mut sorted: Vec<Diagnostic> = self.0.into_iter().collect();
        sorted.sort_by(|one, other| one.place().cmp(&other.place()));
        sorted.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.iter() {
            writeln!(f, "{one}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_lines() {
        let end = Position::START.after("é\nab");
        assert_eq!(end, Position { line: 2, column: 3, offset: 5 });
        assert_eq!(end.after("c").column, 4);
    }

    #[test]
    fn findings_come_once_in_the_order_of_the_document() {
        let file = Path::new("flow.yaml");
        let at = |offset| Span::at(Position { offset, ..Position::START });
        let mut found = Diagnostics::new();
        found.error("b", file, at(9), "later");
        found.warning("a", file, at(2), "sooner");
        found.append(found.clone());
        let codes: Vec<_> = found.iter().map(|one| one.code).collect();
        assert_eq!(codes, ["a", "b"]);
        assert!(found.has_errors());
        assert_eq!(found.iter().next().map(ToString::to_string).as_deref(), Some("flow.yaml:1:1: warning: sooner"));
    }
}
