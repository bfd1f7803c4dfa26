//! What the free names of a template stand for.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use serde_json::Value;

use super::context::member;
use super::engine::to_template;
use super::references::References;
use super::secret::Secrets;
use super::{Context, Globals};

/// What a template reaches into. Globals answer however they are cased.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) context: minijinja::Value,
    pub(super) env: minijinja::Value,
    pub(super) globals: Arc<Globals>,
    pub(super) iter: minijinja::Value,
    pub(super) secret: minijinja::Value,
}

impl Names {
    /// Nothing else stands for anything.
    pub(super) fn of_context(context: minijinja::Value) -> Names {
        let nothing = minijinja::Value::UNDEFINED;
        Names { context, env: nothing.clone(), globals: Arc::default(), iter: nothing.clone(), secret: nothing }
    }
}

impl Object for Names {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        match key.as_str()? {
            "context" => Some(self.context.clone()),
            "env" => Some(self.env.clone()),
            "iter" => Some(self.iter.clone()),
            "secret" => Some(self.secret.clone()),
            name => self.globals.resolve(name).map(to_template),
        }
    }
}

/// The same for whoever asks whether a name is there.
pub(super) struct Known<'a> {
    pub(super) context: &'a Context,
    pub(super) globals: &'a Globals,
    /// `iter`, in a loop.
    pub(super) iter: Option<&'a Value>,
    pub(super) secrets: &'a Secrets,
}

impl Known<'_> {
    /// A name whose value is `null`, or holds it. What `~` is given cannot be seen before it has become text.
    pub(super) fn null_among(&self, references: &References) -> Option<String> {
        let of_context = references.context.iter().find(|name| self.context.get(name).is_some_and(holds_null));
        let of_iter = references.iter.iter().find(|name| self.iter(name).is_some_and(holds_null));
        let of_globals = references.globals.iter().find(|name| self.globals.resolve(name).is_some_and(holds_null));
        of_context
            .map(|name| format!("context.{name}"))
            .or_else(|| of_iter.map(|name| format!("iter.{name}")))
            .or_else(|| of_globals.cloned())
    }

    /// The value of a dotted name, without `iter.` before it.
    pub(super) fn iter(&self, name: &str) -> Option<&Value> {
        self.iter.and_then(|iter| member(iter, name))
    }
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(entries) => entries.values().any(holds_null),
    }
}
