//! Filling templates in: as far as possible at validation, wholly at run.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, ErrorKind};
use serde_json::Value;

use super::engine::{Leaf, environment, evaluate};
use super::references::{References, concatenates, name_span, words};
use super::{Context, Globals};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Source, SpanMap, child};
use crate::suggest;

/// All that a run can fill in.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `context.*`.
    pub context: &'a Context,
    /// `env.*`: asked for the names that templates use, and no others.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `moduleid__Var`.
    pub globals: &'a Globals,
}

/// Configs with what validation knows filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// The value, with the leaves that depend on `context.*` alone filled in.
    pub value: Value,
    /// The JSON pointers of the leaves that were left as they are: they wait for the run.
    pub unresolved: BTreeSet<String>,
    /// Which names each template uses, by JSON pointer.
    pub references: BTreeMap<String, References>,
}

/// Fills in every template of `value`.
///
/// # Errors
/// One finding for each leaf with a name that is missing, or that is malformed.
pub fn render(value: &Value, spans: &SpanMap, scope: &Scope<'_>, source: &Source) -> Result<Value, Diagnostics> {
    // Most configs hold no template, and then nobody looks.
    let context = LazyCell::new(|| to_template(scope.context));
    let globals = LazyCell::new(|| Arc::new(scope.globals.clone()));
    let mut walk = Walk::new(spans, source);
    let rendered = walk.value(value, "", &mut |walk, leaf, text, pointer| {
        let references = walk.references(leaf, text, pointer)?;
        if !walk.context_names(text, pointer, &references, scope.context) {
            return None;
        }
        if let Some(name) = references.secret.first() {
            walk.unsupported_secret(pointer, name);
            return None;
        }
        let names = minijinja::Value::from_object(Names {
            context: context.clone(),
            env: environment_of(&references, scope.env),
            globals: globals.clone(),
        });
        walk.evaluate(leaf, text, pointer, names, &references, scope)
    });
    walk.finish(rendered)
}

/// Fills in what validation knows, `context.*`, and checks the rest as far as it can be checked.
/// The findings come beside what could be checked, so that further checks can follow.
#[must_use]
pub fn check(value: &Value, spans: &SpanMap, context: &Context, source: &Source) -> (Checked, Diagnostics) {
    let names = minijinja::Value::from_object(Names {
        context: to_template(context),
        env: minijinja::Value::UNDEFINED,
        globals: Arc::default(),
    });
    let scope = Scope { context, env: &|_| None, globals: &Globals::new() };
    let mut walk = Walk::new(spans, source);
    let mut checked = Checked::default();
    checked.value = walk.value(value, "", &mut |walk, leaf, text, pointer| {
        let Some(references) = walk.references(leaf, text, pointer) else {
            checked.unresolved.insert(pointer.to_owned());
            return None;
        };
        let known = walk.context_names(text, pointer, &references, context);
        let filled = match known && !references.need_the_run() {
            true => walk.evaluate(leaf, text, pointer, names.clone(), &references, &scope),
            false => None,
        };
        if filled.is_none() {
            checked.unresolved.insert(pointer.to_owned());
        }
        checked.references.insert(pointer.to_owned(), references);
        filled
    });
    (checked, walk.found)
}

/// What free names stand for. Globals answer however they are cased.
#[derive(Debug)]
struct Names {
    context: minijinja::Value,
    env: minijinja::Value,
    globals: Arc<Globals>,
}

impl Object for Names {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        match key.as_str()? {
            "context" => Some(self.context.clone()),
            "env" => Some(self.env.clone()),
            name => self.globals.resolve(name).map(to_template),
        }
    }
}

fn environment_of(references: &References, env: &dyn Fn(&str) -> Option<String>) -> minijinja::Value {
    let names = references.env.iter().map(|name| name.split('.').next().unwrap_or(name));
    minijinja::Value::from_pairs(names.filter_map(|name| Some((name, env(name)?))))
}

/// A name whose value is `null`, or holds it. What `~` is given cannot be seen before it has become text.
fn null_among(references: &References, scope: &Scope<'_>) -> Option<String> {
    let of_context = references.context.iter().find(|name| scope.context.get(name).is_some_and(holds_null));
    let of_globals = references.globals.iter().find(|name| scope.globals.resolve(name).is_some_and(holds_null));
    of_context.map(|name| format!("context.{name}")).or_else(|| of_globals.cloned())
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(entries) => entries.values().any(holds_null),
    }
}

fn to_template(value: impl serde::Serialize) -> minijinja::Value {
    minijinja::Value::from(minijinja::value::Serde(value))
}

/// One pass over the string leaves of a value.
struct Walk<'a> {
    environment: Environment<'static>,
    spans: &'a SpanMap,
    source: &'a Source,
    found: Diagnostics,
}

/// What a pass does with a template: its value, or `None` to leave it as it is.
type OnTemplate<'f, 'a> = dyn FnMut(&mut Walk<'a>, Leaf<'_>, &str, &str) -> Option<Value> + 'f;

impl<'a> Walk<'a> {
    fn new(spans: &'a SpanMap, source: &'a Source) -> Self {
        Walk { environment: environment(), spans, source, found: Diagnostics::new() }
    }

    fn finish(self, value: Value) -> Result<Value, Diagnostics> {
        if self.found.has_errors() { Err(self.found) } else { Ok(value) }
    }

    fn value(&mut self, value: &Value, pointer: &str, on: &mut OnTemplate<'_, 'a>) -> Value {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            Value::String(text) => match Leaf::of(text, &self.environment) {
                None => value.clone(),
                Some(leaf) => on(self, leaf, text, pointer).unwrap_or_else(|| value.clone()),
            },
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.value(item, &format!("{pointer}/{index}"), on))
                .collect(),
            Value::Object(entries) => {
                entries.iter().map(|(key, item)| (key.clone(), self.value(item, &child(pointer, key), on))).collect()
            }
        }
    }

    /// The names of a leaf; `None`, and a finding, if it is malformed or uses a name of no kind.
    fn references(&mut self, leaf: Leaf<'_>, text: &str, pointer: &str) -> Option<References> {
        match References::of(&self.environment, leaf) {
            Err(error) => {
                let message = format!("the template `{}` is malformed: {}", text.trim(), words(&error));
                self.report("bad-template", self.spans.value(pointer), message, None);
                None
            }
            Ok(references) if references.env.contains("") => {
                let span = self.place(pointer, "env");
                let message = "the environment is only asked by name".to_owned();
                self.report("unnamed-env", span, message, Some("write `env.NAME`".to_owned()));
                None
            }
            Ok(references) if references.unknown.is_empty() => Some(references),
            Ok(references) => {
                for name in &references.unknown {
                    let help = suggest::nearest(name, ["context", "env", "iter", "secret"]).map_or_else(
                        || format!("write `context.{name}`, `env.{name}`, or a global `moduleid__{name}`"),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let span = self.place(pointer, name);
                    self.report(
                        "unknown-name",
                        span,
                        format!("`{name}` is not a name that templates know"),
                        Some(help),
                    );
                }
                None
            }
        }
    }

    fn evaluate(
        &mut self,
        leaf: Leaf<'_>,
        text: &str,
        pointer: &str,
        names: minijinja::Value,
        references: &References,
        scope: &Scope<'_>,
    ) -> Option<Value> {
        if concatenates(leaf)
            && let Some(name) = null_among(references, scope)
        {
            self.null_concatenated(pointer, &name);
            return None;
        }
        let error = match evaluate(&self.environment, leaf, names) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::UndefinedError {
            if self.missing_context(pointer, references, scope.context) {
                self.missing_at_run(text, pointer, references);
            }
            return None;
        }
        let message = format!("the template `{}` cannot be filled in: {}", text.trim(), words(&error));
        self.report("template-failed", self.spans.value(pointer), message, None);
        None
    }

    /// Are the context names of a leaf there? One that brings its own default, or asks whether a name is there, can
    /// only be judged by filling it in.
    fn context_names(&mut self, text: &str, pointer: &str, references: &References, context: &Context) -> bool {
        text.contains("default") || text.contains("defined") || self.missing_context(pointer, references, context)
    }

    /// True if none is missing.
    fn missing_context(&mut self, pointer: &str, references: &References, context: &Context) -> bool {
        let known: Vec<&str> = context.values().keys().map(String::as_str).collect();
        let names = references.context.iter().filter(|name| !name.is_empty());
        let missing: Vec<&String> = names.filter(|name| context.get(name).is_none()).collect();
        for name in &missing {
            let help = suggest::nearest(name, known.iter().copied()).map_or_else(
                || format!("give it with `--set {name}=…` or in the context file"),
                |near| format!("did you mean `context.{near}`?"),
            );
            let span = self.place(pointer, &format!("context.{name}"));
            self.report("missing-context", span, format!("the context has no `{name}`"), Some(help));
        }
        missing.is_empty()
    }

    fn null_concatenated(&mut self, pointer: &str, name: &str) {
        let span = self.place(pointer, name);
        let help = "write `{{ … }}` beside the text instead of `~`, where it can be seen whether `null` gets in";
        self.report(
            "null-in-a-text",
            span,
            format!("`~` would make a text of `{name}`, which holds `null`"),
            Some(help.to_owned()),
        );
    }

    fn missing_at_run(&mut self, text: &str, pointer: &str, references: &References) {
        let env = references.env.iter().map(|name| format!("env.{name}"));
        let names: Vec<String> = env.chain(references.globals.iter().cloned()).collect();
        let asked = names.iter().map(String::as_str);
        let message = match names.len() {
            0 => format!("the template `{}` uses a name that has no value", text.trim()),
            1 => format!("{} has no value", suggest::quoted_list(asked)),
            _ => format!("one of {} has no value", suggest::quoted_list(asked)),
        };
        let span = names.first().map_or_else(|| self.spans.value(pointer), |name| self.place(pointer, name));
        self.report("missing-name", span, message, None);
    }

    fn unsupported_secret(&mut self, pointer: &str, name: &str) {
        let span = self.place(pointer, &format!("secret.{name}"));
        let message = format!("`secret.{name}`: secrets are not supported by this version of pype");
        self.report("unsupported", span, message, None);
    }

    /// Where a name stands within a leaf, on whichever of its lines.
    fn place(&self, pointer: &str, name: &str) -> Option<Span> {
        self.spans.value(pointer).map(|leaf| name_span(self.source, leaf, name))
    }

    fn report(&mut self, code: &'static str, span: Option<Span>, message: String, help: Option<String>) {
        self.found.push(Diagnostic::error(code, &self.source.path, message).at(span).help_if(help));
    }
}
