//! Filling templates in.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::sync::Arc;

use serde_json::Value;

use super::engine::{Leaf, is_lenient, to_template};
use super::iteration::Iteration;
use super::names::{Known, Names};
use super::references::References;
use super::secret::Secrets;
use super::walk::{Template, Walk};
use super::{Context, Globals};
use crate::diagnostic::{Diagnostics, Span};
use crate::document::{Source, SpanMap};

/// All that a run can fill in.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `context.*`.
    pub context: &'a Context,
    /// `env.*`: asked for the names that templates use, and no others.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `moduleid__Var`.
    pub globals: &'a Globals,
    /// `iter.*`: the turn of the innermost loop.
    pub iter: Option<&'a Iteration>,
    /// `secret.*`: asked with the dotted names that templates use, `db.password` for `secret.db.password`.
    pub secret: &'a dyn Fn(&str) -> Option<String>,
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
/// One finding for each leaf with a name that is missing, or that is malformed. None holds a secret.
pub fn render(value: &Value, spans: &SpanMap, scope: &Scope<'_>, source: &Source) -> Result<Value, Diagnostics> {
    render_sealed(value, spans, scope, source, &|filled| filled)
}

/// The same for what others may see: each leaf that names a secret is handed to `seal`, filled in, and becomes what
/// that returns. A keyed hash of it changes with everything that the leaf is made of, and gives nothing away.
///
/// # Errors
/// As [`render`].
pub fn render_sealed(
    value: &Value,
    spans: &SpanMap,
    scope: &Scope<'_>,
    source: &Source,
    seal: &dyn Fn(Value) -> Value,
) -> Result<Value, Diagnostics> {
    // Most configs hold no template, and then nobody looks.
    let context = LazyCell::new(|| to_template(scope.context));
    let globals = LazyCell::new(|| Arc::new(scope.globals.clone()));
    let iter = LazyCell::new(|| scope.iter.map(Iteration::to_json));
    let loops = successors(scope.iter, |turn| turn.outer.as_deref()).count();
    let mut walk = Walk::new(spans, source);
    let rendered = walk.value(value, "", &mut |walk, template| {
        let references = walk.references(template)?;
        if !walk.loops_are_there(template.pointer, &references, loops) {
            return None;
        }
        let secrets = Secrets::of(&references, scope.secret);
        let known = Known { context: scope.context, globals: scope.globals, iter: iter.as_ref(), secrets: &secrets };
        if !is_lenient(template.text) && !walk.are_there(template.pointer, &references, &known) {
            return None;
        }
        let names = Names {
            context: context.clone(),
            env: environment_of(&references, scope.env),
            globals: globals.clone(),
            iter: iter.as_ref().map_or(minijinja::Value::UNDEFINED, to_template),
            secret: minijinja::Value::from_object(secrets.clone()),
        };
        let filled = walk.evaluate(template, names, &references, &known)?;
        Some(if references.secret.is_empty() { filled } else { seal(filled) })
    });
    walk.finish(rendered)
}

/// Fills in what validation knows, `context.*`, and checks the rest as far as it can be checked.
/// The findings come beside what could be checked, so that further checks can follow.
#[must_use]
pub fn check(value: &Value, spans: &SpanMap, context: &Context, source: &Source) -> (Checked, Diagnostics) {
    let of_template = LazyCell::new(|| to_template(context));
    let known = Known { context, globals: &Globals::new(), iter: None, secrets: &Secrets::default() };
    let mut walk = Walk::new(spans, source);
    let mut checked = Checked::default();
    checked.value = walk.value(value, "", &mut |walk, template| {
        let Template { text, pointer, .. } = template;
        let Some(references) = walk.references(template) else {
            checked.unresolved.insert(pointer.to_owned());
            return None;
        };
        let there = is_lenient(text) || walk.context_is_there(pointer, &references, context);
        let filled = match there && !references.need_the_run() {
            true => walk.evaluate(template, Names::of_context(of_template.clone()), &references, &known),
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

/// Checks the names of a bare expression, as far as validation can. No names come with one that is malformed.
pub(super) fn check_names(
    expression: &str,
    span: Span,
    context: &Context,
    source: &Source,
) -> (Option<References>, Diagnostics) {
    let spans = SpanMap::rooted(span);
    let mut walk = Walk::new(&spans, source);
    let references = walk.references(Template { leaf: Leaf::Expression(expression), text: expression, pointer: "" });
    if let Some(references) = references.as_ref().filter(|_| !is_lenient(expression)) {
        walk.context_is_there("", references, context);
    }
    (references, walk.found)
}

fn environment_of(references: &References, env: &dyn Fn(&str) -> Option<String>) -> minijinja::Value {
    let names = references.env.iter().map(|name| name.split('.').next().unwrap_or(name));
    minijinja::Value::from_pairs(names.filter_map(|name| Some((name, env(name)?))))
}
