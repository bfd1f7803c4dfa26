//! A document as a tree in which every value knows its place.
//!
//! It stands between the YAML parser and the types: the types are read from it by
//! [`crate::flow::load`], which can then report all that is wrong, each at its own line.

mod span_map;
mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Diagnostics, Position, Span};

pub use span_map::SpanMap;
pub(crate) use span_map::child;

/// A text and the path it was read from. The path is only shown, never opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the text came from.
    pub path: PathBuf,
    /// The text.
    pub text: Arc<str>,
}

impl Source {
    /// A text and where it came from.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> Self {
        Source { path: path.into(), text: text.into() }
    }

    /// The text of a span; empty if the span is of another text.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start.offset..span.end.offset).unwrap_or_default()
    }

    /// The place of a byte offset.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        Position::START.after(self.text.get(..offset).unwrap_or(&self.text))
    }

    /// The span of `part`, a slice of the scalar's own value; the whole scalar where its text is not its value.
    pub(crate) fn span_of_part(&self, scalar: &Spanned<String>, part: &str) -> Span {
        let text = self.slice(scalar.span);
        let within = (part.as_ptr() as usize).checked_sub(scalar.value.as_ptr() as usize);
        let (Some(value_at), Some(within)) = (text.find(scalar.value.as_str()), within) else { return scalar.span };
        let Some(before) = text.get(..value_at + within) else { return scalar.span };
        let start = scalar.span.start.after(before);
        Span { start, end: start.after(part) }
    }

    pub(crate) fn error(
        &self,
        code: &'static str,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::error(code, &self.path, message).at(span)
    }
}

/// A value and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value at a place.
    pub fn new(value: T, span: Span) -> Self {
        Spanned { value, span }
    }

    /// Another value at the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: change(self.value), span: self.span }
    }
}

/// A value of a document. Every string is as written, before templates are filled in.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`; `yes` and `on` are text.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// Text; `1.0.0` is text, and so is `007`.
    Str(String),
    /// A sequence.
    Seq(Vec<Spanned<Node>>),
    /// A mapping, in the order of the document, each key once.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// The same value without its places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::from(*value),
            Node::Float(value) => Value::from(*value),
            Node::Str(value) => Value::String(value.clone()),
            Node::Seq(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Node::Map(entries) => {
                Value::Object(entries.iter().map(|(key, item)| (key.value.clone(), item.value.to_json())).collect())
            }
        }
    }

    /// What kind of value it is, in the words of an error message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "a boolean",
            Node::Int(_) => "a whole number",
            Node::Float(_) => "a number",
            Node::Str(_) => "text",
            Node::Seq(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }
}

/// The whole number that a float is, if it is one and no other whole number has the same float.
pub(crate) fn whole_number(float: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let is_whole = float.fract() == 0.0 && float.abs() <= EXACT;
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is far from the bounds of an i64")]
    is_whole.then_some(float as i64)
}

/// Parses a YAML document: 1.2, and of 1.1 the merge key. `<<: *defaults` adds the entries of another mapping that are
/// not given beside it; an entry so added stands, for its findings, where the `<<` does. A text of digits that starts
/// with `0` is text.
///
/// # Errors
/// One clear finding for what a parser can refuse: bad syntax, a tab as indentation, a key given
/// twice, an unknown tag, aliases or nesting beyond any honest document, several documents, an empty file. Numbers that
/// 64 bits cannot hold are all found at once.
pub fn parse(source: &Source) -> Result<Spanned<Node>, Diagnostics> {
    yaml::parse(source)
}
