//! The values that a document gets from its environment: `context/<job>_<env>.json` and `--set`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::diagnostic::{Diagnostics, Position, Span};
use crate::document::{Node, Source, parse};

/// What `context.*` stands for: a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(Map<String, Value>);

/// Why a `--set` could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no `=`, or nothing before it.
    #[error("`{given}` is not of the form `name=value`")]
    Form {
        /// What was given.
        given: String,
    },
    /// A part of the name is empty.
    #[error("`{name}` is not a name: an empty part stands around a `.`")]
    EmptyPart {
        /// What was given before the `=`.
        name: String,
    },
    /// A value stands where the name needs a mapping.
    #[error("cannot set `{name}`: `{parent}` is a value, not a mapping")]
    NotAMapping {
        /// The whole name.
        name: String,
        /// The part that is in the way.
        parent: String,
    },
}

/// Reads `k.sub=v`. The value is the text itself, unless the whole of it is `true`, `false`, `null` or `~`, a number as
/// JSON writes it (`3`, `-0.5`, and so `12345e7`), or one quoted text (`"3"`), which then is text for sure.
///
/// # Errors
/// If there is no name.
pub fn parse_set(given: &str) -> Result<(Vec<String>, Value), SetError> {
    let Some((name, value)) = given.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
        return Err(SetError::Form { given: given.to_owned() });
    };
    let path: Vec<String> = name.trim().split('.').map(|part| part.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) {
        return Err(SetError::EmptyPart { name: name.to_owned() });
    }
    Ok((path, scalar(value)))
}

/// Whatever is not wholly one of these stays as it was given: half of `Report #3` or `&a b` would be YAML too.
fn scalar(text: &str) -> Value {
    let given = text.trim();
    match given {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" | "~" => Value::Null,
        _ => number(given).or_else(|| quoted(given)).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

/// A number, in JSON's grammar: `01234` and `1_000` are none. One that would lose digits is text.
fn number(given: &str) -> Option<Value> {
    let number: Number = serde_json::from_str(given).ok()?;
    let is_whole = !given.contains(['.', 'e', 'E']);
    (!is_whole || number.is_i64() || number.is_u64()).then_some(Value::Number(number))
}

/// A text in quotes, with YAML's escapes.
fn quoted(given: &str) -> Option<Value> {
    if !given.starts_with(['"', '\'']) {
        return None;
    }
    let node = parse(&Source::new("--set", given)).ok()?;
    match node.value {
        Node::Str(text) if node.span.end.offset == given.len() => Some(Value::String(text)),
        _ => None,
    }
}

impl Context {
    /// A context without values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The context that a JSON text holds.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn from_json(source: &Source) -> Result<Context, Diagnostics> {
        serde_json::from_str(&source.text).map(Context).map_err(|error| {
            let (line, column) = (error.line().max(1), error.column().max(1));
            let position = Position {
                line: u32::try_from(line).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
                offset: offset_of(&source.text, line, column),
            };
            source
                .error("bad-context", Span::at(position), format!("not a context: {error}"))
                .help("a context is one JSON object, `{\"name\": \"value\"}`")
                .into()
        })
    }

    /// Sets a value that [`parse_set`] has read, making the mappings on the way to it.
    ///
    /// # Errors
    /// If a value stands where the path needs a mapping.
    pub fn set(&mut self, path: &[String], value: Value) -> Result<(), SetError> {
        let Some((last, parents)) = path.split_last() else { return Ok(()) };
        let mut object = &mut self.0;
        for (depth, part) in parents.iter().enumerate() {
            let next = object.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
            object = next
                .as_object_mut()
                .ok_or_else(|| SetError::NotAMapping { name: path.join("."), parent: path[..=depth].join(".") })?;
        }
        object.insert(last.clone(), value);
        Ok(())
    }

    /// The value of a dotted name, without `context.` before it.
    #[must_use]
    pub fn get(&self, dotted: &str) -> Option<&Value> {
        let (first, rest) = dotted.split_once('.').map_or((dotted, None), |(first, rest)| (first, Some(rest)));
        let first = self.0.get(first)?;
        rest.map_or(Some(first), |rest| member(first, rest))
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Context {
    fn from(values: Map<String, Value>) -> Self {
        Context(values)
    }
}

/// The value of a dotted name below `value`.
pub(super) fn member<'v>(value: &'v Value, dotted: &str) -> Option<&'v Value> {
    dotted.split('.').try_fold(value, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
        _ => None,
    })
}

/// The byte offset of a 1-based line and 1-based byte column, as `serde_json` counts.
pub(crate) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    (start + column - 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn set_reads_scalars_and_keeps_everything_else_as_text() {
        let value = |given: &str| parse_set(given).map(|(_, value)| value);
        assert_eq!(value("n=3"), Ok(json!(3)));
        assert_eq!(value("n=true"), Ok(json!(true)));
        assert_eq!(value("n=\"3\""), Ok(json!("3")));
        assert_eq!(value("n=null"), Ok(Value::Null));
        assert_eq!(value("n="), Ok(json!("")));
        assert_eq!(value("n=2025-01-15"), Ok(json!("2025-01-15")));
        assert_eq!(value("n=a=b"), Ok(json!("a=b")));
        assert_eq!(value("n=[1, 2]"), Ok(json!("[1, 2]")));
        assert_eq!(value("n=a: b: c"), Ok(json!("a: b: c")));
        assert_eq!(value("n= -0.5 "), Ok(json!(-0.5)));
        assert_eq!(value("n=12345e7"), Ok(json!(123_450_000_000.0)));
        assert_eq!(value("n=18446744073709551615"), Ok(json!(u64::MAX)));
        assert_eq!(value("n='it''s # 3'"), Ok(json!("it's # 3")));
        assert_eq!(value("n=\"a\\tb\""), Ok(json!("a\tb")));
        let texts = [
            "Report #3",
            "&a b",
            "!t b",
            "01234",
            "1_000",
            "0x10",
            "+3",
            ".5",
            "1.",
            ".nan",
            "1e999",
            "True",
            "no",
            "123456789012345678901",
            "\"a\" # b \"c\"",
            "'a",
            " x ",
            "*a",
            "- 3",
            "{a: 1}",
            "|",
        ];
        for text in texts {
            assert_eq!(value(&format!("n={text}")), Ok(json!(text)));
        }
        assert!(value("n").is_err());
        assert!(value("=3").is_err());
        assert!(value("a..b=3").is_err());
    }

    #[test]
    fn set_makes_the_mappings_on_its_way() {
        let mut context = Context::new();
        let (path, value) = parse_set("db.host=h").expect("well formed");
        context.set(&path, value).expect("nothing is in the way");
        assert_eq!(context.get("db.host"), Some(&json!("h")));
        let (path, value) = parse_set("db.host.port=1").expect("well formed");
        let refused = context.set(&path, value).map_err(|error| error.to_string());
        assert_eq!(refused, Err("cannot set `db.host.port`: `db.host` is a value, not a mapping".to_owned()));
    }
}
