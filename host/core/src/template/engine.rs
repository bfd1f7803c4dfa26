//! The minijinja environment, and what a leaf is to it.

use std::io;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, escape_formatter};

use super::plain::{check_config, check_text, guard_filters};
use super::texts::is_template;

/// How many steps of the engine one leaf may take: enough for a loop over tens of thousands of items.
pub(super) const MAX_STEPS: u64 = 100_000;
/// No text that belongs in a config is longer.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// A string leaf that holds a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf<'a> {
    /// Exactly one expression: keeps its type.
    Expression(&'a str),
    /// Text with templates in it.
    Text(&'a str),
}

impl<'a> Leaf<'a> {
    /// The template in a text; `None` if there is none, and the text stands for itself.
    pub(super) fn of(text: &'a str) -> Option<Leaf<'a>> {
        if !is_template(text) {
            return None;
        }
        let sole = sole_expression(text).filter(|inner| ENVIRONMENT.compile_expression_owned(*inner).is_ok());
        Some(sole.map_or(Leaf::Text(text), Leaf::Expression))
    }
}

/// `x` of `{{ x }}`; the caller finds out whether it is one expression, `a }} {{ b` is none.
fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    // `{{-` trims white space to the left of it, of which there is none: it is no minus sign.
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(inner.strip_suffix(['-', '+']).unwrap_or(inner))
}

/// Does a template bring a default of its own, or ask whether a name is there? Then only filling it in can tell whether
/// a name that is missing matters.
pub(super) fn is_lenient(text: &str) -> bool {
    text.contains("default") || text.contains("defined")
}

/// What every template is filled in by. Without templates nobody makes it.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// A missing name is an error, and so is `null` in a text; text keeps its last newline, nothing is escaped for HTML; no
/// template runs for ever.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_syntax(keep_trailing_newline());
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_formatter(|out, state, value| {
        check_text(value)?;
        escape_formatter(out, state, value)
    });
    guard_filters(&mut environment);
    environment
}

fn keep_trailing_newline() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().expect("the default delimiters differ from one another")
}

/// Evaluates a leaf. `names` answers for its free names.
pub(super) fn evaluate(leaf: Leaf<'_>, names: Value) -> Result<serde_json::Value, Error> {
    match leaf {
        Leaf::Text(text) => text_of(text, names).map(serde_json::Value::String),
        Leaf::Expression(text) => {
            let value = ENVIRONMENT.compile_expression_owned(text)?.eval(names)?;
            check_config(&value)?;
            if value.as_str().is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
                return Err(too_long());
            }
            serde_json::to_value(&value).map_err(|error| {
                Error::new(ErrorKind::BadSerialization, "the value is not plain data").with_source(error)
            })
        }
    }
}

fn text_of(template: &str, names: Value) -> Result<String, Error> {
    let mut text = Bounded::default();
    let rendered = ENVIRONMENT.template_from_str(template)?.render_captured_to(names, &mut text).map(drop);
    if text.overflown {
        return Err(too_long());
    }
    rendered?;
    Ok(String::from_utf8(text.bytes).expect("a template writes whole characters"))
}

/// Plain data as a template sees it.
pub(super) fn to_template(value: impl serde::Serialize) -> Value {
    Value::from(minijinja::value::Serde(value))
}

fn too_long() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("its text is longer than {MAX_TEXT_BYTES} bytes"))
}

/// Takes [`MAX_TEXT_BYTES`] and no more.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflown: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > MAX_TEXT_BYTES {
            self.overflown = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_one_expression_or_a_text() {
        let leaf = Leaf::of;
        assert_eq!(leaf("plain { text }"), None);
        assert_eq!(leaf("{{ a.b }}"), Some(Leaf::Expression(" a.b ")));
        assert_eq!(leaf("{{- a -}}"), Some(Leaf::Expression(" a ")));
        assert_eq!(leaf("{{ \"}}\" }}"), Some(Leaf::Expression(" \"}}\" ")));
        for text in ["{{ a }} {{ b }}", "{{ a }}/x", " {{ a }}", "{% if a %}b{% endif %}"] {
            assert_eq!(leaf(text), Some(Leaf::Text(text)));
        }
    }
}
