//! The configs of one module: against what the module says it can be told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexSet;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::catalog::{ModuleEntry, Parameter};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Node, Source, SpanMap, Spanned, child};
use crate::name::{ModuleName, NodeId};
use crate::suggest;
use crate::template::{Checked, Context, References, check, name_span};

/// What a document tells a module.
pub(crate) struct Given<'a> {
    source: &'a Source,
    id: &'a Spanned<NodeId>,
    configs: Map<String, Value>,
    spans: SpanMap,
}

/// The configs of a module as they are written.
pub(crate) struct Configs {
    /// All of them as one object.
    pub(crate) configs: Value,
    /// Where its values stand.
    pub(crate) spans: SpanMap,
    /// Which names its templates use.
    pub(crate) references: BTreeMap<String, References>,
}

/// A module as the registry has it, and the compiled schemas of its configs.
pub(crate) struct Described<'a> {
    pub(crate) name: &'a ModuleName,
    pub(crate) entry: &'a ModuleEntry,
    pub(crate) schemas: &'a mut Schemas,
}

impl<'a> Given<'a> {
    /// Nothing yet. What is missing is missed at `span`.
    pub(crate) fn new(source: &'a Source, id: &'a Spanned<NodeId>, span: Span) -> Self {
        Given { source, id, configs: Map::new(), spans: SpanMap::rooted(span) }
    }

    /// Adds the entries of a mapping; those that `takes` does not take are left out.
    pub(crate) fn add(&mut self, section: &Spanned<Node>, takes: impl Fn(&str) -> bool, found: &mut Diagnostics) {
        let Node::Map(entries) = &section.value else {
            let message = format!("configs must be a mapping, not {}", section.value.kind());
            found.push(self.source.error("wrong-type", section.span, message));
            return;
        };
        for (key, value) in entries.iter().filter(|(key, _)| takes(&key.value)) {
            if self.configs.contains_key(&key.value) {
                let message = format!("the config `{}` is given under `required` and `optional`", key.value);
                found.push(self.source.error("duplicate-config", key.span, message));
            }
            self.configs.insert(key.value.clone(), value.value.to_json());
            self.spans.insert_entry(key, value);
        }
    }

    /// Checks all that was given. An unknown module has been reported: its configs are read, not checked.
    pub(crate) fn check(self, described: Option<Described<'_>>, context: &Context, found: &mut Diagnostics) -> Configs {
        let Given { source, id, configs, spans } = self;
        let mut configs = Value::Object(configs);
        if let Some(Described { entry, .. }) = &described {
            // What is too large is found below, with the templates filled in.
            entry.settle_integers(&mut configs);
        }
        let (Checked { value, unresolved, references }, problems) = check(&configs, &spans, context, source);
        found.append(problems);
        if let Some(Described { name, entry, schemas }) = described {
            Check { source, id, spans: &spans, name, entry }.check(value, &unresolved, schemas, found);
        }
        Configs { configs, spans, references }
    }
}

impl Configs {
    /// Reports the names that templates use of what a flow alone has. Why it has none here goes into the message: of globals
    /// the first, of loops the second.
    pub(crate) fn refuse_globals(&self, source: &Source, no_globals: &str, no_loops: &str, found: &mut Diagnostics) {
        for (pointer, references) in &self.references {
            let leaf = self.spans.value(pointer);
            let mut refuse = |code, name: &str, why: &str| {
                let span = leaf.map(|leaf| name_span(source, leaf, name));
                found.push(source.error(code, span, format!("`{name}` stands for nothing: {why}")));
            };
            for name in &references.globals {
                refuse("unknown-global", name, no_globals);
            }
            for name in &references.iter {
                refuse("no-loop", &format!("iter.{name}"), no_loops);
            }
        }
    }
}

/// The schemas of the configs that were given so far, each compiled once a document.
#[derive(Default)]
pub(crate) struct Schemas(HashMap<(ModuleName, String), Schema>);

struct Schema {
    json: Value,
    /// Or why it is no schema.
    validator: Result<Validator, String>,
}

impl Schemas {
    fn get(&mut self, module: &ModuleName, name: &str, parameter: &Parameter) -> &Schema {
        self.0.entry((module.clone(), name.to_owned())).or_insert_with(|| {
            let json = parameter.json_schema().into_owned();
            let validator = jsonschema::draft202012::options().build(&json).map_err(|broken| broken.to_string());
            Schema { json, validator }
        })
    }
}

impl Schema {
    /// The keys that the schema has beside the keyword which refused one.
    fn properties(&self, error: &ValidationError<'_>) -> Vec<&str> {
        let properties = self.around(error).and_then(|schema| schema["properties"].as_object());
        properties.into_iter().flat_map(|all| all.keys().map(String::as_str)).collect()
    }

    /// What the schema says about the value that it refused.
    fn about(&self, error: &ValidationError<'_>) -> Option<String> {
        self.around(error)?["description"].as_str().map(str::to_owned)
    }

    /// The schema that has the keyword which was not met.
    fn around(&self, error: &ValidationError<'_>) -> Option<&Value> {
        error.schema_path().as_str().rsplit_once('/').and_then(|(parent, _)| self.json.pointer(parent))
    }
}

struct Check<'a> {
    source: &'a Source,
    id: &'a Spanned<NodeId>,
    spans: &'a SpanMap,
    name: &'a ModuleName,
    entry: &'a ModuleEntry,
}

impl Check<'_> {
    fn check(&self, mut value: Value, unresolved: &BTreeSet<String>, schemas: &mut Schemas, found: &mut Diagnostics) {
        let too_large = self.entry.settle_integers(&mut value);
        found.extend(too_large.iter().filter_map(|pointer| Some(self.too_large(pointer, value.pointer(pointer)?))));
        self.missing(&value, found);
        for (name, value) in value.as_object().into_iter().flatten() {
            match self.entry.config_schema.get(name) {
                Some(parameter) => self.value(name, value, schemas.get(self.name, name, parameter), unresolved, found),
                None => found.push(self.unknown(name)),
            }
        }
    }

    fn too_large(&self, pointer: &str, given: &Value) -> Diagnostic {
        let message = format!("`{}` must be a whole number, not {}", dotted(pointer), kind_of(given));
        let help = "a whole number beyond 2^53 is written without point and exponent";
        self.source.error("wrong-type", self.span(pointer), message).help(help)
    }

    fn missing(&self, configs: &Value, found: &mut Diagnostics) {
        for (name, parameter) in
            self.entry.config_schema.required.iter().filter(|(name, _)| configs.get(name.as_str()).is_none())
        {
            let message = format!("`{}` needs the config `{name}`", self.id.value);
            let what = Some(parameter.description.trim()).filter(|text| !text.is_empty()).unwrap_or("required");
            let help = format!("`{name}` ({}): {what}", parameter.kind);
            found.push(self.source.error("missing-config", self.id.span, message).help(help));
        }
    }

    fn unknown(&self, name: &str) -> Diagnostic {
        let known = self.entry.config_schema.iter().map(|(name, _)| name);
        let help = suggest::help(name, known, "its configs are");
        let message = format!("`{}` has no config `{name}`", self.id.value);
        self.source.error("unknown-config", self.spans.key(&child("", name)), message).help_if(help)
    }

    fn value(
        &self,
        name: &str,
        value: &Value,
        schema: &Schema,
        unresolved: &BTreeSet<String>,
        found: &mut Diagnostics,
    ) {
        let validator = match &schema.validator {
            Ok(validator) => validator,
            Err(broken) => {
                let message = format!("the schema of the config `{name}` is not one itself: {broken}");
                return found.push(self.source.error("bad-schema", self.id.span, message));
            }
        };
        for error in validator.iter_errors(value) {
            let pointer = format!("{}{}", child("", name), error.instance_path().as_str());
            if !waits(&pointer, &error, unresolved) {
                self.wrong(&pointer, &error, schema, found);
            }
        }
    }

    fn wrong(&self, pointer: &str, error: &ValidationError<'_>, schema: &Schema, found: &mut Diagnostics) {
        let name = dotted(pointer);
        let given = error.instance();
        let (message, help) = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                return found.extend(unexpected.iter().map(|key| self.unknown_key(pointer, key, error, schema)));
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                return self.no_branch(pointer, error, context, schema, found);
            }
            ValidationErrorKind::Type { kind } => {
                (format!("`{name}` must be {}, not {}", types(kind), kind_of(given)), None)
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let text = given.as_str().unwrap_or_default();
                (format!("{given} is not a value of `{name}`"), suggest::help(text, options, "it is one of"))
            }
            ValidationErrorKind::Pattern { .. } => (format!("{given} is not a value of `{name}`"), schema.about(error)),
            ValidationErrorKind::Required { property } => (format!("`{name}` needs the key {property}"), None),
            _ => (format!("`{name}` does not fit: {}", error.masked()), None),
        };
        found.push(self.source.error("wrong-type", self.span(pointer), message).help_if(help));
    }

    fn unknown_key(&self, pointer: &str, key: &str, error: &ValidationError<'_>, schema: &Schema) -> Diagnostic {
        let message = format!("`{}` has no key `{key}`", dotted(pointer));
        let help = suggest::help(key, schema.properties(error), "its keys are");
        self.source.error("wrong-type", self.spans.key(&child(pointer, key)), message).help_if(help)
    }

    /// None of several schemas fits. If one alone is of the right type and wrong further in only, that is what was meant.
    fn no_branch(
        &self,
        pointer: &str,
        error: &ValidationError<'_>,
        branches: &[Vec<ValidationError<'static>>],
        schema: &Schema,
        found: &mut Diagnostics,
    ) {
        let here = error.instance_path().as_str();
        if let Some(meant) = meant(here, branches) {
            for nested in meant {
                let further = nested.instance_path().as_str().strip_prefix(here).unwrap_or_default();
                self.wrong(&format!("{pointer}{further}"), nested, schema, found);
            }
            return;
        }
        // Where a mapping has other keys than any of them wants, it is not the type that is wrong.
        let by_keys = branches.iter().any(|branch| branch.iter().all(|nested| is_about_keys(here, nested)));
        let wanted: IndexSet<String> = branches
            .iter()
            .filter(|_| !by_keys)
            .flatten()
            .filter_map(|nested| match nested.kind() {
                ValidationErrorKind::Type { kind } => Some(types(kind)).filter(|text| text != "nothing"),
                _ => None,
            })
            .collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        let name = dotted(pointer);
        let message = match wanted.is_empty() {
            true => format!("`{name}` does not fit any of the forms it may have"),
            false => format!("`{name}` must be {}, not {}", wanted.join(" or "), kind_of(error.instance())),
        };
        let help = schema.about(error).filter(|_| wanted.is_empty());
        found.push(self.source.error("wrong-type", self.span(pointer), message).help_if(help));
    }

    fn span(&self, pointer: &str) -> Option<Span> {
        self.spans.value(pointer)
    }
}

/// The branch that was meant: the first that is wrong further in only, or else the one whose keys alone are wrong.
fn meant<'a>(here: &str, branches: &'a [Vec<ValidationError<'static>>]) -> Option<&'a [ValidationError<'static>]> {
    let deeper = |nested: &ValidationError<'_>| nested.instance_path().as_str().len() > here.len();
    let keys = |nested: &ValidationError<'_>| is_about_keys(here, nested);
    let further_in = branches.iter().find(|branch| branch.iter().all(deeper));
    let mut by_keys = branches.iter().filter(|branch| branch.iter().all(keys));
    let alone = by_keys.next().filter(|_| by_keys.next().is_none());
    further_in.or(alone).map(Vec::as_slice)
}

/// Is it about the keys of what stands `here`, or about what is further in?
fn is_about_keys(here: &str, nested: &ValidationError<'_>) -> bool {
    use ValidationErrorKind::{AdditionalProperties, Required};
    let deeper = nested.instance_path().as_str().len() > here.len();
    deeper || matches!(nested.kind(), AdditionalProperties { .. } | Required { .. })
}

/// `/options/level` as a person says it: `options.level`.
fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
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
