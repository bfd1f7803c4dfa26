//! From YAML text to the tree, and from the parser's complaints to ours.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::{Error, Location, NonFiniteFloatPolicy};

use super::{Node, Source, Spanned};
use crate::diagnostic::{Diagnostic, Diagnostics, Position, Span};

/// Deeper than any document that a person writes.
const MAX_DEPTH: usize = 48;
/// Enough for a generated flow of tens of thousands of modules.
const MAX_NODES: usize = 1_000_000;
/// The parser counts the ends of lists and mappings too.
const MAX_EVENTS: usize = 3 * MAX_NODES;
/// What the aliases of a document may add to what is written in it.
const MAX_ALIASED: usize = 100_000;
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;
/// Aliases, anchors and merge keys are each counted for themselves.
const MAX_SHORTHANDS: usize = 50_000;

pub(super) fn parse(source: &Source) -> Result<Spanned<Node>, Diagnostics> {
    let raw = read(source).map_err(|error| Diagnostics::from(complaint(source, &error)))?;
    let mut found = Diagnostics::new();
    let tree = place(source, raw, &mut found);
    if found.has_errors() {
        return Err(found);
    }
    if matches!(tree.value, Node::Null) {
        let empty = source
            .error("empty-document", Span::at(Position::START), "the document is empty")
            .help("start with `flow:`, or make an example with `pype init`");
        return Err(empty.into());
    }
    Ok(tree)
}

fn read(source: &Source) -> Result<serde_yaml::Spanned<Raw>, Error> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            max_total_scalar_bytes: MAX_TEXT_BYTES,
            max_aliases: MAX_SHORTHANDS,
            max_anchors: MAX_SHORTHANDS,
            max_merge_keys: MAX_SHORTHANDS,
            // A block of defaults that a thousand modules share is no attack: what aliases expand to is bounded.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
        },
        with_snippet: false,
        strict_booleans: true,
        // `!vault x` is not the text `x`.
        reject_unsupported_tags: true,
        // Passed on so that they are reported beside all else that is wrong.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_yaml::from_str_with_options(&source.text, options)
}

/// The tree as the parser gives it: keys may be anything, places are the parser's.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    TooLarge,
    Float(f64),
    Str(String),
    Seq(Vec<serde_yaml::Spanned<Raw>>),
    Map(Vec<(serde_yaml::Spanned<Raw>, serde_yaml::Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::TooLarge, Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn place(source: &Source, raw: serde_yaml::Spanned<Raw>, found: &mut Diagnostics) -> Spanned<Node> {
    let span = span_of(source, &raw.referenced);
    let written = source.slice(span_of(source, &raw.defined));
    let node = match raw.value {
        Raw::Null => Node::Null,
        Raw::Bool(value) => Node::Bool(value),
        Raw::Int(value) => Node::Int(value),
        Raw::TooLarge => refused(too_large(source, span, written), found),
        Raw::Float(value) => {
            float(value, written).unwrap_or_else(|refuse| refused(refuse(source, span, written), found))
        }
        Raw::Str(value) => Node::Str(value),
        Raw::Seq(items) => Node::Seq(items.into_iter().map(|item| place(source, item, found)).collect()),
        Raw::Map(entries) => Node::Map(place_entries(source, entries, span, found)),
    };
    Spanned::new(node, span)
}

/// The tree goes no further than its findings, so what stands in for a refused value does not matter.
fn refused(finding: Diagnostic, found: &mut Diagnostics) -> Node {
    found.push(finding);
    Node::Null
}

type Refuse = fn(&Source, Span, &str) -> Diagnostic;

/// What the parser takes for a float because it fits no integer: a number, a text of digits, or neither.
fn float(value: f64, written: &str) -> Result<Node, Refuse> {
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // `007` is an article number or a postal code: as a number it would lose its zeros.
        true if digits.starts_with('0') => Ok(Node::Str(written.to_owned())),
        true => Err(too_large),
        false if !value.is_finite() => Err(not_finite),
        false => Ok(Node::Float(value)),
    }
}

fn too_large(source: &Source, span: Span, written: &str) -> Diagnostic {
    source
        .error("number-too-large", span, format!("the number {written} is too large for 64 bits"))
        .help(format!("quote it if it is a text: \"{written}\""))
}

fn not_finite(source: &Source, span: Span, written: &str) -> Diagnostic {
    source
        .error("number-not-finite", span, format!("`{written}` is no finite number"))
        .help(format!("quote it if it is a text: \"{written}\""))
}

fn place_entries(
    source: &Source,
    entries: Vec<(serde_yaml::Spanned<Raw>, serde_yaml::Spanned<Raw>)>,
    map: Span,
    found: &mut Diagnostics,
) -> Vec<(Spanned<String>, Spanned<Node>)> {
    let mut placed = Vec::with_capacity(entries.len());
    let mut seen = HashSet::with_capacity(entries.len());
    for (key, value) in entries {
        match key_text(source, key, map) {
            Ok(key) => {
                // The parser has refused keys of one type: these are `1` and `"1"`.
                if !seen.insert(key.value.clone()) {
                    found.push(duplicate_key(source, Some(key.span), &key.value));
                }
                placed.push((key, place(source, value, found)));
            }
            Err(refused) => found.push(refused),
        }
    }
    placed
}

/// A key as it is written: `1: x` has the key `1`, where an alias stands for it too. A key that is a collection is
/// refused; it is nearly always a template that lacks its quotes.
fn key_text(source: &Source, key: serde_yaml::Spanned<Raw>, map: Span) -> Result<Spanned<String>, Diagnostic> {
    let span = span_of(source, &key.referenced);
    match key.value {
        Raw::Str(text) => Ok(Spanned::new(text, span)),
        Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::TooLarge | Raw::Float(_) => {
            let written = source.slice(span_of(source, &key.defined));
            Ok(Spanned::new(written.to_owned(), span))
        }
        Raw::Seq(_) | Raw::Map(_) => {
            Err(unquoted_template(source, map.start)
                .unwrap_or_else(|| source.error("bad-key", span, "a key must be text")))
        }
    }
}

fn duplicate_key(source: &Source, span: Option<Span>, key: &str) -> Diagnostic {
    source.error("duplicate-key", span, format!("the key `{key}` is given twice")).help("keep one of them")
}

/// `key: {{context.x}}` is a mapping to YAML, with a mapping as its key.
fn unquoted_template(source: &Source, from: Position) -> Option<Diagnostic> {
    let line = source.text.get(from.offset..)?.lines().next()?;
    let template = line.strip_prefix("{{").and_then(|rest| Some(&line[..rest.find("}}")? + 4]))?;
    let span = Span { start: from, end: from.after(template) };
    Some(
        source
            .error("unquoted-template", span, format!("the template `{template}` stands without quotes"))
            .help(format!("quote it: \"{template}\"")),
    )
}

fn span_of(source: &Source, location: &Location) -> Span {
    let start = Position {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
        offset: usize_of(location.span().byte_offset()),
    };
    let end = start.offset + usize_of(location.span().byte_len());
    let text = source.text.get(start.offset..end).unwrap_or_default();
    // A block scalar's span reaches to the next token.
    Span { start, end: start.after(text.trim_end()) }
}

fn usize_of(number: Option<u64>) -> usize {
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// The parser's error in our words, at its place.
fn complaint(source: &Source, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let span = error.location().map(|location| placed(source, span_of(source, &location)));
    let say = |code, message: String, help: &str| source.error(code, span, message).help(help);
    match innermost(error) {
        Error::DuplicateMappingKey { key, .. } => duplicate_key(source, span, key.as_deref().unwrap_or_default()),
        Error::UnsupportedTag { tag, .. } => say(
            "unknown-tag",
            format!("the tag `{tag}` is not known"),
            "take it out, or quote the whole value if it is a text that starts with `!`",
        ),
        Error::MultipleDocuments { .. } => say(
            "several-documents",
            "a second document starts here".to_owned(),
            "a file holds one document: take the `---` before it out, or make it a file of its own",
        ),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. } => say(
            "alias-bomb",
            format!("the aliases of this document expand to more than {MAX_ALIASED} values, or to themselves"),
            "write the values out instead of using `*` aliases",
        ),
        Error::Budget { breach, .. } => over_budget(source, span, breach),
        other => syntax_error(source, span, &without_place(other)),
    }
}

fn over_budget(source: &Source, span: Option<Span>, breach: &BudgetBreach) -> Diagnostic {
    let too_large = |what: String| {
        source
            .error("too-large", span, format!("the document has more than {what}"))
            .help("split it into several documents")
    };
    match breach {
        BudgetBreach::Depth { .. } => too_deep(source, span),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => too_large(format!("{MAX_NODES} values")),
        BudgetBreach::ScalarBytes { .. } => too_large(format!("{} MiB of text", MAX_TEXT_BYTES >> 20)),
        BudgetBreach::Aliases { .. } => too_large(format!("{MAX_SHORTHANDS} `*` aliases")),
        BudgetBreach::Anchors { .. } => too_large(format!("{MAX_SHORTHANDS} `&` anchors")),
        BudgetBreach::MergeKeys { .. } => too_large(format!("{MAX_SHORTHANDS} `<<` merge keys")),
        BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. } => {
            too_large("its parser can keep below `&` anchors".to_owned())
        }
        other => source.error("too-large", span, format!("the parser gives up on this document: {other:?}")),
    }
}

/// What is wrong with an alias's content is wrapped in where the alias stands.
fn innermost(error: &Error) -> &Error {
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => innermost(error),
        other => other,
    }
}

fn syntax_error(source: &Source, span: Option<Span>, message: &str) -> Diagnostic {
    if let Some(tab) = span.filter(|_| message.contains("tab")).and_then(|span| indenting_tab(source, span.start)) {
        let message = "a tab stands in the indentation";
        return source.error("tab-indent", tab, message).help("indent with spaces: YAML does not allow tabs");
    }
    let line = span.map(|span| line_of(source, span.start)).unwrap_or_default();
    if message.contains("recursion limit") {
        return too_deep(source, span);
    }
    if let Some(refused) = span.and_then(|span| unquoted_in_line(source, span.start, line)) {
        return refused;
    }
    let help = message.contains("mapping values").then(|| "a text with `: ` in it needs quotes".to_owned());
    source.error("yaml-syntax", span, format!("this is not YAML: {message}")).help_if(help)
}

/// The first tab in an indentation, in the line of a complaint or after it: a tab may end up in the text before it.
fn indenting_tab(source: &Source, from: Position) -> Option<Span> {
    let mut offset = source.text[..from.offset].rfind('\n').map_or(0, |newline| newline + 1);
    for line in source.text[offset..].split_inclusive('\n') {
        let indentation = &line[..line.len() - line.trim_start().len()];
        if let Some(tab) = indentation.find('\t') {
            return Some(Span::at(source.position(offset + tab)));
        }
        offset += line.len();
    }
    None
}

fn too_deep(source: &Source, span: Option<Span>) -> Diagnostic {
    source
        .error("too-deep", span, format!("the document is nested more than {MAX_DEPTH} levels deep"))
        .help("check the brackets and the indentation before this place")
}

/// `key: {{context.x}}/more` is no YAML at all.
fn unquoted_in_line(source: &Source, position: Position, line: &str) -> Option<Diagnostic> {
    let at = line.find(": {{").or_else(|| line.find("- {{"))? + 2;
    let line_start = source.text[..position.offset].rfind('\n').map_or(0, |newline| newline + 1);
    let value = line[at..].split(" #").next().unwrap_or_default().trim_end();
    let start = source.position(line_start + at);
    let message = format!("the template `{value}` stands without quotes");
    let quoted = format!("quote it: \"{}\"", value.replace('"', "'"));
    let span = Span { start, end: start.after(value) };
    Some(source.error("unquoted-template", span, message).help(quoted))
}

fn line_of(source: &Source, position: Position) -> &str {
    let (before, after) = source.text.split_at_checked(position.offset).unwrap_or((&source.text, ""));
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = before.len() + after.find('\n').unwrap_or(after.len());
    &source.text[start..end]
}

/// The scanner's errors have a line and a column, but no offset.
fn placed(source: &Source, span: Span) -> Span {
    if span.start.offset > 0 || (span.start.line, span.start.column) == (1, 1) {
        return span;
    }
    let (line, column) = (span.start.line as usize, span.start.column as usize);
    let before: usize = source.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let text = source.text.get(before..).unwrap_or_default();
    let within: usize = text.chars().take(column - 1).map(char::len_utf8).sum();
    Span::at(Position { offset: before + within, ..span.start })
}

/// The parser ends its messages with " at line 1, column 2", which we say our way.
fn without_place(error: &Error) -> String {
    let text = error.to_string();
    text.find(" at line ").map_or(text.clone(), |at| text[..at].to_owned())
}
