//! The configs of one module: against what the module says it can be told.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::catalog::{ConfigSchema, ModuleEntry};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Node, Source, SpanMap, Spanned, child};
use crate::flow::spec::NodeId;
use crate::suggest;
use crate::template::{Checked, Context, References, check};

/// The configs of a module as they are written.
pub(super) struct Configs {
    /// `required` and `optional` as one object.
    pub(super) configs: Value,
    /// Where its values stand.
    pub(super) spans: SpanMap,
    /// Which names its templates use.
    pub(super) references: BTreeMap<String, References>,
}

/// Reads the configs of a module. An unknown module has been reported: its configs are read, not checked.
pub(super) fn configs(
    source: &Source,
    id: &Spanned<NodeId>,
    given: Option<&Spanned<Node>>,
    entry: Option<&ModuleEntry>,
    context: &Context,
    found: &mut Diagnostics,
) -> Configs {
    let mut spans = SpanMap::rooted(given.map_or(id.span, |node| node.span));
    let mut configs = Map::new();
    let sections = given.and_then(|node| Fields::of(source, node, "`configs`", found)).map(|mut fields| {
        let sections = [fields.optional("required"), fields.optional("optional")];
        fields.finish(found);
        sections
    });
    for section in sections.into_iter().flatten().flatten() {
        merge(source, section, &mut configs, &mut spans, found);
    }
    let configs = Value::Object(configs);
    let (checked, problems) = check(&configs, &spans, context, source);
    found.append(problems);
    if let Some(entry) = entry {
        Check { source, id, spans: &spans, schema: &entry.config_schema }.check(&checked, found);
    }
    Configs { configs, spans, references: checked.references }
}

fn merge(
    source: &Source,
    section: &Spanned<Node>,
    configs: &mut Map<String, Value>,
    spans: &mut SpanMap,
    found: &mut Diagnostics,
) {
    let Node::Map(entries) = &section.value else {
        let message = format!("configs must be a mapping, not {}", section.value.kind());
        found.push(source.error("wrong-type", section.span, message));
        return;
    };
    for (key, value) in entries {
        if configs.contains_key(&key.value) {
            let message = format!("the config `{}` is given under `required` and `optional`", key.value);
            found.push(source.error("duplicate-config", key.span, message));
        }
        configs.insert(key.value.clone(), value.value.to_json());
        spans.insert_entry(key, value);
    }
}

struct Check<'a> {
    source: &'a Source,
    id: &'a Spanned<NodeId>,
    spans: &'a SpanMap,
    schema: &'a ConfigSchema,
}

impl Check<'_> {
    fn check(&self, checked: &Checked, found: &mut Diagnostics) {
        self.missing(&checked.value, found);
        for (name, value) in checked.value.as_object().into_iter().flatten() {
            match self.schema.get(name) {
                Some(parameter) => self.value(name, value, &parameter.json_schema(), &checked.unresolved, found),
                None => found.push(self.unknown(name)),
            }
        }
    }

    fn missing(&self, configs: &Value, found: &mut Diagnostics) {
        for (name, parameter) in self.schema.required.iter().filter(|(name, _)| configs.get(name.as_str()).is_none()) {
            let message = format!("`{}` needs the config `{name}`", self.id.value);
            let what = Some(parameter.description.trim()).filter(|text| !text.is_empty()).unwrap_or("required");
            let help = format!("`{name}` ({}): {what}", parameter.kind);
            found.push(self.source.error("missing-config", self.id.span, message).help(help));
        }
    }

    fn unknown(&self, name: &str) -> Diagnostic {
        let known = self.schema.iter().map(|(name, _)| name);
        let help = suggest::help(name, known, "its configs are");
        let message = format!("`{}` has no config `{name}`", self.id.value);
        self.source.error("unknown-config", self.spans.key(&child("", name)), message).help_if(help)
    }

    fn value(&self, name: &str, value: &Value, schema: &Value, unresolved: &BTreeSet<String>, found: &mut Diagnostics) {
        let validator = match jsonschema::draft202012::options().build(schema) {
            Ok(validator) => validator,
            Err(broken) => {
                let message = format!("the schema of the config `{name}` is not one itself: {broken}");
                return found.push(self.source.error("bad-schema", self.id.span, message));
            }
        };
        for error in validator.iter_errors(value) {
            let pointer = format!("{}{}", child("", name), error.instance_path().as_str());
            if !waits(&pointer, &error, unresolved) {
                found.push(self.wrong(&pointer, &error));
            }
        }
    }

    fn wrong(&self, pointer: &str, error: &ValidationError<'_>) -> Diagnostic {
        let name = pointer.trim_start_matches('/').replace('/', ".");
        let given = error.instance();
        let (message, help) = match error.kind() {
            ValidationErrorKind::Type { kind } => {
                (format!("`{name}` must be {}, not {}", types(kind), kind_of(given)), None)
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let text = given.as_str().unwrap_or_default();
                (format!("{given} is not a value of `{name}`"), suggest::help(text, options, "it is one of"))
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                (format!("`{name}` has no key {}", suggest::quoted_list(unexpected.iter().map(String::as_str))), None)
            }
            ValidationErrorKind::Required { property } => (format!("`{name}` needs the key {property}"), None),
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                return self.no_branch(pointer, error, context);
            }
            _ => (format!("`{name}` does not fit: {}", error.masked()), None),
        };
        self.source.error("wrong-type", self.span(pointer), message).help_if(help)
    }

    /// None of several schemas fits. If one is of the right type and wrong further in only, that is what was meant.
    fn no_branch(
        &self,
        pointer: &str,
        error: &ValidationError<'_>,
        branches: &[Vec<ValidationError<'static>>],
    ) -> Diagnostic {
        let here = error.instance_path().as_str();
        let deeper = |branch: &&Vec<ValidationError<'static>>| {
            branch.iter().all(|nested| nested.instance_path().as_str().len() > here.len())
        };
        if let Some(nested) = branches.iter().find(deeper).and_then(|branch| branch.first()) {
            let further = nested.instance_path().as_str().strip_prefix(here).unwrap_or_default();
            return self.wrong(&format!("{pointer}{further}"), nested);
        }
        let wanted: Vec<String> = branches
            .iter()
            .flatten()
            .filter_map(|nested| match nested.kind() {
                ValidationErrorKind::Type { kind } => Some(types(kind)).filter(|text| text != "nothing"),
                _ => None,
            })
            .collect();
        let name = pointer.trim_start_matches('/').replace('/', ".");
        let message = match wanted.is_empty() {
            true => format!("`{name}` does not fit any of the forms it may have"),
            false => format!("`{name}` must be {}, not {}", wanted.join(" or "), kind_of(error.instance())),
        };
        self.source.error("wrong-type", self.span(pointer), message)
    }

    fn span(&self, pointer: &str) -> Option<Span> {
        self.spans.value(pointer)
    }
}

/// Can an error only be judged at run? So it is for a leaf whose value comes with the run, and for a choice that
/// depends on such a leaf.
fn waits(pointer: &str, error: &ValidationError<'_>, unresolved: &BTreeSet<String>) -> bool {
    let chooses = matches!(
        error.kind(),
        ValidationErrorKind::AnyOf { .. }
            | ValidationErrorKind::OneOfNotValid { .. }
            | ValidationErrorKind::OneOfMultipleValid { .. }
            | ValidationErrorKind::Not { .. }
    );
    unresolved.iter().any(|leaf| match leaf.strip_prefix(pointer) {
        Some("") => true,
        Some(below) => chooses && below.starts_with('/'),
        None => false,
    })
}

fn types(kind: &TypeKind) -> String {
    let all = |types: &mut dyn Iterator<Item = JsonType>| types.map(type_name).collect::<Vec<_>>().join(" or ");
    match kind {
        TypeKind::Single(one) => type_name(*one).to_owned(),
        TypeKind::Multiple(many) => all(&mut many.iter().filter(|one| *one != JsonType::Null)),
    }
}

fn type_name(json_type: JsonType) -> &'static str {
    match json_type {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a mapping",
        JsonType::String => "text",
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}
