//! The minijinja environment, and what a leaf is to it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, escape_formatter};

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
    pub(super) fn of(text: &'a str, environment: &Environment<'static>) -> Option<Leaf<'a>> {
        if !text.contains("{{") && !text.contains("{%") {
            return None;
        }
        let sole = sole_expression(text).filter(|inner| environment.compile_expression_owned(*inner).is_ok());
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

/// A missing name is an error, text keeps its last newline, nothing is escaped for HTML.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_syntax(keep_trailing_newline());
    environment.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::None {
            return Err(Error::new(ErrorKind::InvalidOperation, "`null` has no place in a text"));
        }
        escape_formatter(out, state, value)
    });
    environment
}

fn keep_trailing_newline() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().expect("the default delimiters differ from one another")
}

/// Evaluates a leaf. `names` answers for its free names.
pub(super) fn evaluate(
    environment: &Environment<'static>,
    leaf: Leaf<'_>,
    names: Value,
) -> Result<serde_json::Value, Error> {
    match leaf {
        Leaf::Text(text) => environment.render_str(text, names).map(serde_json::Value::String),
        Leaf::Expression(text) => {
            let value = environment.compile_expression_owned(text)?.eval(names)?;
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            serde_json::to_value(&value).map_err(|error| {
                Error::new(ErrorKind::BadSerialization, "the value is not plain data").with_source(error)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_one_expression_or_a_text() {
        let environment = environment();
        let leaf = |text| Leaf::of(text, &environment);
        assert_eq!(leaf("plain { text }"), None);
        assert_eq!(leaf("{{ a.b }}"), Some(Leaf::Expression(" a.b ")));
        assert_eq!(leaf("{{- a -}}"), Some(Leaf::Expression(" a ")));
        assert_eq!(leaf("{{ \"}}\" }}"), Some(Leaf::Expression(" \"}}\" ")));
        for text in ["{{ a }} {{ b }}", "{{ a }}/x", " {{ a }}", "{% if a %}b{% endif %}"] {
            assert_eq!(leaf(text), Some(Leaf::Text(text)));
        }
    }
}
