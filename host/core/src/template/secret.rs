//! What `secret.*` stands for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};

use super::engine::{Leaf, is_lenient};
use super::references::{References, name_span};
use super::texts::each_template;
use crate::diagnostic::Span;
use crate::document::{Source, SpanMap};

/// A template names a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// Dotted, without `secret.` before it.
    pub name: String,
    /// Where the template names it.
    pub span: Option<Span>,
    /// Can the template do without, as with `default`?
    pub optional: bool,
}

/// The secrets that the templates of `value` name, each as often as it is named.
#[must_use]
pub fn secrets(value: &serde_json::Value, spans: &SpanMap, source: &Source) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    each_template(value, &mut |text, pointer| {
        // A malformed template is refused where it is filled in.
        let references = Leaf::of(text).and_then(|leaf| References::of(leaf).ok()).unwrap_or_default();
        uses.extend(references.secret.into_iter().map(|name| SecretUse {
            span: spans.value(pointer).map(|leaf| name_span(source, leaf, &format!("secret.{name}"))),
            optional: is_lenient(text),
            name,
        }));
    });
    uses
}

/// The secrets that one template names, as a template reaches into them.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Dotted; empty at the top.
    path: String,
    values: Arc<BTreeMap<String, Option<String>>>,
}

impl Secrets {
    /// Asks for each secret that `references` names.
    pub(super) fn of(references: &References, secret: &dyn Fn(&str) -> Option<String>) -> Secrets {
        let values = references.secret.iter().map(|name| (name.clone(), secret(name))).collect();
        Secrets { path: String::new(), values: Arc::new(values) }
    }

    /// Those that nobody knows.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str())
    }
}

impl Object for Secrets {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let part = key.as_str()?;
        let path = if self.path.is_empty() { part.to_owned() } else { format!("{}.{part}", self.path) };
        if let Some(value) = self.values.get(&path) {
            return value.clone().map(Value::from);
        }
        let is_above = |name: &String| name.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'));
        let below = self.values.keys().any(is_above);
        below.then(|| Value::from_object(Secrets { path, values: self.values.clone() }))
    }
}

/// Says which, never what.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}
