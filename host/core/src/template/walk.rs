//! One pass over the string leaves of a value, and what it finds wrong with them.

use minijinja::ErrorKind;
use serde_json::Value;

use super::Context;
use super::engine::{Leaf, evaluate};
use super::iteration::depth;
use super::names::{Known, Names};
use super::references::{References, concatenates, name_span, words};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Source, SpanMap, child};
use crate::suggest;

pub(super) struct Walk<'a> {
    spans: &'a SpanMap,
    source: &'a Source,
    pub(super) found: Diagnostics,
}

/// A leaf that holds a template.
#[derive(Clone, Copy)]
pub(super) struct Template<'t> {
    pub(super) leaf: Leaf<'t>,
    /// All of the leaf's text.
    pub(super) text: &'t str,
    pub(super) pointer: &'t str,
}

/// What a pass does with a template: its value, or `None` to leave it as it is.
type OnTemplate<'f, 'a> = dyn FnMut(&mut Walk<'a>, Template<'_>) -> Option<Value> + 'f;

impl<'a> Walk<'a> {
    pub(super) fn new(spans: &'a SpanMap, source: &'a Source) -> Self {
        Walk { spans, source, found: Diagnostics::new() }
    }

    pub(super) fn finish(self, value: Value) -> Result<Value, Diagnostics> {
        if self.found.has_errors() { Err(self.found) } else { Ok(value) }
    }

    pub(super) fn value(&mut self, value: &Value, pointer: &str, on: &mut OnTemplate<'_, 'a>) -> Value {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            Value::String(text) => match Leaf::of(text) {
                None => value.clone(),
                Some(leaf) => on(self, Template { leaf, text, pointer }).unwrap_or_else(|| value.clone()),
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

    /// The names of a template; `None`, and a finding, if it is malformed or uses a name of no kind.
    pub(super) fn references(&mut self, template: Template<'_>) -> Option<References> {
        let Template { leaf, text, pointer } = template;
        let references = match References::of(leaf) {
            Ok(references) => references,
            Err(error) => {
                let message = format!("the template `{}` is malformed: {}", text.trim(), words(&error));
                self.report("bad-template", self.spans.value(pointer), message, None);
                return None;
            }
        };
        let misnamed = references.misnamed();
        for wrong in &misnamed {
            self.report(wrong.code, self.place(pointer, &wrong.name), wrong.message.clone(), Some(wrong.help.clone()));
        }
        misnamed.is_empty().then_some(references)
    }

    /// What a template becomes; `None`, and a finding, if it cannot be filled in.
    pub(super) fn evaluate(
        &mut self,
        template: Template<'_>,
        names: Names,
        references: &References,
        known: &Known<'_>,
    ) -> Option<Value> {
        let Template { leaf, text, pointer } = template;
        if concatenates(leaf)
            && let Some(name) = known.null_among(references)
        {
            self.null_concatenated(pointer, &name);
            return None;
        }
        let error = match evaluate(leaf, minijinja::Value::from_object(names)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::UndefinedError {
            if self.are_there(pointer, references, known) {
                self.missing_at_run(text, pointer, references);
            }
            return None;
        }
        // The engine may quote what a filter could not use, and nobody may see a secret.
        let why = if references.secret.is_empty() { words(&error) } else { error.kind().to_string() };
        let message = format!("the template `{}` cannot be filled in: {why}", text.trim());
        self.report("template-failed", self.spans.value(pointer), message, None);
        None
    }

    /// Are all names there whose values are known by name? Reports all that are missing.
    pub(super) fn are_there(&mut self, pointer: &str, references: &References, known: &Known<'_>) -> bool {
        let context = self.context_is_there(pointer, references, known.context);
        let missing: Vec<&String> = references.iter.iter().filter(|name| known.iter(name).is_none()).collect();
        missing.iter().for_each(|name| self.missing_member(pointer, name, known));
        let secrets: Vec<&str> = known.secrets.missing().collect();
        for name in &secrets {
            let help = "`--secrets` says where secrets come from".to_owned();
            let span = self.place(pointer, &format!("secret.{name}"));
            self.report("missing-secret", span, format!("the secret `{name}` is not there"), Some(help));
        }
        context && missing.is_empty() && secrets.is_empty()
    }

    /// The same for the context alone, which is all that validation knows.
    pub(super) fn context_is_there(&mut self, pointer: &str, references: &References, context: &Context) -> bool {
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

    /// Are there as many loops as the names ask for?
    pub(super) fn loops_are_there(&mut self, pointer: &str, references: &References, loops: usize) -> bool {
        let Some(name) = references.iter.iter().find(|name| depth(name).is_some_and(|depth| depth > loops)) else {
            return true;
        };
        let around = match loops {
            0 => "no loop leads to this module".to_owned(),
            1 => "only one loop is around this module".to_owned(),
            _ => format!("only {loops} loops are around this module"),
        };
        let help = "a control edge `a (1|iterate:NAME) b` runs what follows once for each item".to_owned();
        let span = self.place(pointer, &format!("iter.{name}"));
        self.report("no-loop", span, format!("`iter.{name}` stands for nothing: {around}"), Some(help));
        false
    }

    fn missing_member(&mut self, pointer: &str, name: &str, known: &Known<'_>) {
        // Only what is below an item can be missing: that there is a loop has been seen.
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        let members = known.iter(parent).and_then(Value::as_object).into_iter().flat_map(|members| members.keys());
        let help = suggest::help(last, members.map(String::as_str), &format!("`iter.{parent}` has"));
        let span = self.place(pointer, &format!("iter.{name}"));
        self.report("missing-member", span, format!("`iter.{parent}` has no `{last}`"), help);
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

    /// Where a name stands within a leaf, on whichever of its lines.
    fn place(&self, pointer: &str, name: &str) -> Option<Span> {
        self.spans.value(pointer).map(|leaf| name_span(self.source, leaf, name))
    }

    fn report(&mut self, code: &'static str, span: Option<Span>, message: String, help: Option<String>) {
        self.found.push(Diagnostic::error(code, &self.source.path, message).at(span).help_if(help));
    }
}
