//! The words and signs of the text form, and what a word means where a value is expected.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

use super::operator::Operator;
use super::value::{Literal, Ordered};

/// What is wrong with a stretch of the text, in bytes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Fault {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Fault { at, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A word or sign and its place in bytes.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) at: Range<usize>,
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// Not quoted: a word of the language, a key or a value.
    Word(&'a str),
    /// What stood between quotes.
    Quoted(String),
    /// A parenthesis, a comma or a comparison.
    Sign(&'static str),
    /// After the last.
    End,
}

/// The longer ones first.
const SIGNS: [&str; 12] = ["==", "!=", ">=", "<=", "=", ">", "<", "(", ")", "[", "]", ","];
/// What other languages write.
const FOREIGN: [(&str, &str); 6] = [("&&", "and"), ("&", "and"), ("||", "or"), ("|", "or"), ("<>", "!="), ("!", "not")];
const WORDS: [&str; 6] = ["and", "or", "not", "true", "false", "null"];

/// Cuts a text into tokens, `End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let token = token(text, at)?;
        at = token.at.end;
        let ended = matches!(token.kind, Kind::End);
        tokens.push(token);
        if ended {
            return Ok(tokens);
        }
    }
}

fn token(text: &str, start: usize) -> Result<Token<'_>, Fault> {
    let rest = &text[start..];
    let Some(first) = rest.chars().next() else { return Ok(Token { kind: Kind::End, at: start..start }) };
    if let Some((sign, ours)) = FOREIGN.into_iter().find(|(sign, _)| rest.starts_with(sign) && !rest.starts_with("!="))
    {
        let at = start..start + sign.len();
        return Err(Fault::new(at, format!("`{sign}` is not a sign of rules")).help(format!("write `{ours}`")));
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok(Token { kind: Kind::Sign(sign), at: start..start + sign.len() });
    }
    if matches!(first, '"' | '\'') {
        return quoted(text, start, first);
    }
    let length = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
    if length == 0 {
        let at = start..start + first.len_utf8();
        return Err(Fault::new(at, format!("`{first}` has no meaning here")).help("quote a text that holds it"));
    }
    Ok(Token { kind: Kind::Word(&rest[..length]), at: start..start + length })
}

/// A text in single quotes, which doubles the quotes in it, or in double quotes, with backslashes.
fn quoted(text: &str, start: usize, quote: char) -> Result<Token<'_>, Fault> {
    let mut inner = String::new();
    let mut chars = text[start + 1..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        let at = start + 1 + offset;
        match c {
            '\'' if quote == '\'' && chars.next_if(|(_, next)| *next == '\'').is_some() => inner.push('\''),
            _ if c == quote => return Ok(Token { kind: Kind::Quoted(inner), at: start..at + 1 }),
            '\\' if quote == '"' => inner.push(escaped(&mut chars, at)?),
            _ => inner.push(c),
        }
    }
    Err(Fault::new(start..start + 1, "this quote is never closed"))
}

fn escaped(chars: &mut Peekable<CharIndices<'_>>, at: usize) -> Result<char, Fault> {
    match chars.next() {
        Some((_, c @ ('"' | '\'' | '\\'))) => Ok(c),
        Some((_, 'n')) => Ok('\n'),
        Some((_, 't')) => Ok('\t'),
        Some((_, 'r')) => Ok('\r'),
        Some((_, c)) => Err(Fault::new(at..at + 1 + c.len_utf8(), format!("`\\{c}` is not an escape"))
            .help("the escapes are `\\\"`, `\\'`, `\\\\`, `\\n`, `\\t` and `\\r`; in single quotes there are none")),
        None => Err(Fault::new(at..at + 1, "the text ends within an escape")),
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || "_-./:@+".contains(c)
}

/// Is it a word of the language, and so no key?
pub(super) fn is_reserved(word: &str) -> bool {
    WORDS.iter().any(|reserved| reserved.eq_ignore_ascii_case(word)) || Operator::of_name(word).is_some()
}

/// Can it stand without quotes, as a key and as a value, and be read as this text?
pub(super) fn is_plain(text: &str) -> bool {
    let is_word = !text.is_empty() && text.chars().all(is_word_char);
    is_word && !is_reserved(text) && matches!(literal(text), Ok(Literal::Ordered(Ordered::Text(_))))
}

/// The value of a word, as YAML has it; or why there is none.
pub(super) fn literal(word: &str) -> Result<Literal, &'static str> {
    match word.to_ascii_lowercase().as_str() {
        "null" => return Ok(Literal::Null),
        "true" => return Ok(Literal::Bool(true)),
        "false" => return Ok(Literal::Bool(false)),
        ".nan" | ".inf" | "+.inf" | "-.inf" => return Err("is not finite, and no label is"),
        _ => {}
    }
    if has_spelling_of_yaml(word) {
        return Err("may be a number or a text");
    }
    match number(word) {
        Some(found) => found.map(Literal::Ordered),
        None => Ok(Literal::from(word)),
    }
}

/// None if it is not a number: `1.2.0`, `2024-01-01`.
fn number(word: &str) -> Option<Result<Ordered, &'static str>> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(word.parse().map(Ordered::Int).map_err(|_| "is larger than 64 signed bits hold"));
    }
    // Without a digit or a point in front, the standard library reads `inf` and `nan` too.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let number: f64 = word.parse().ok()?;
    Some(Some(Ordered::Float(number)).filter(Ordered::is_finite).ok_or("is too large for a number"))
}

/// Numbers such as `0x1f` and `1_000`, which YAML has and most people would take for texts.
fn has_spelling_of_yaml(word: &str) -> bool {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    let based = ["0x", "0o", "0b"].iter().find_map(|base| word.strip_prefix(base));
    let is_based = based.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_grouped = word.starts_with(|c: char| c.is_ascii_digit())
        && word.contains('_')
        && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    is_based || is_grouped
}
