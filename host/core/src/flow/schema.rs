//! The JSON Schema (2020-12) of a flow document, for editors.
//!
//! It takes every document that [`super::load`] takes. What no schema can say (does the id exist, is the expression
//! well formed) it lets pass.

use serde_json::{Map, Value, json};

use super::edge::{CONTROL_PATTERN, DATA_PATTERN};
use super::form::{self, Content, Form, Key};
use crate::catalog::{Catalog, ModuleEntry, Parameter};
use crate::document::child;

/// The schema of flows of any modules.
#[must_use]
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pype flow",
    });
    extend(&mut schema, mapping(&form::DOCUMENT));
    schema
}

/// The schema of flows of these modules: what each can be told is checked too.
#[must_use]
pub fn schema_with(catalog: &Catalog) -> Value {
    let mut schema = schema();
    let modules: Vec<_> = catalog.iter().filter(|(_, entry)| entry.kind.in_flows()).collect();
    let module = &mut schema["properties"]["modules"]["items"];
    module["properties"]["name"]["enum"] = modules.iter().map(|(name, _)| name.as_str()).collect();
    module["allOf"] = modules.iter().map(|(name, entry)| configs_of(name.as_str(), entry)).collect();
    let definitions = modules.iter().map(|(name, entry)| (name.to_string(), described(name.as_str(), entry)));
    schema["$defs"] = Value::Object(definitions.collect());
    schema
}

fn mapping(form: &Form) -> Value {
    let properties: Map<String, Value> = form.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = form.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": form.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = content(&key.value);
    if !key.required {
        allow_null(&mut schema);
    }
    schema["description"] = json!(key.about);
    schema
}

fn content(content: &Content) -> Value {
    match content {
        Content::Name(pattern) => json!({"type": "string", "pattern": pattern}),
        Content::Text => json!({"type": "string"}),
        Content::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Content::Integer(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Content::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Content::Bool => json!({"type": "boolean"}),
        Content::Choice(names) => json!({"type": "string", "enum": names}),
        Content::Labels => {
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}})
        }
        Content::Mapping(form) => mapping(form),
        Content::Modules(form) => json!({"type": "array", "minItems": 1, "items": mapping(form)}),
        Content::Parameters => json!({"type": "object"}),
        Content::DataEdges => {
            edges(DATA_PATTERN, "`id.port - id.port`: from an output of one module to an input of another.")
        }
        Content::ControlEdges => edges(CONTROL_PATTERN, VALVE),
    }
}

const VALVE: &str = "\
`id (order|condition) id`: from a source, sink or solo to the source or solo that starts after it.

The order is `1`, `2`, … or `Last`, ascending among the edges that leave one sub flow; equal orders run in parallel.

The condition is one of
- nothing, or `ok`: it has succeeded
- `error`: it has failed; this handles the failure
- `done`: it has ended, either way
- an expression over globals and context, such as `orders__row_count > 100`: it has succeeded, and this is true
- `start`: as `ok`, but no later order waits for what follows; with `start detach` the run does not either
- `iterate:NAME`, or `iterate*4:NAME` for four at a time: once for each item of an output or list";

fn edges(pattern: &str, about: &str) -> Value {
    json!({"type": "array", "items": {"type": "string", "pattern": pattern, "description": about}})
}

/// A key that need not be there may also be empty.
fn allow_null(schema: &mut Value) {
    if let Some(one) = schema["type"].as_str() {
        schema["type"] = json!([one, "null"]);
    }
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        choices.push(Value::Null);
    }
}

/// A module of this name has these configs.
fn configs_of(name: &str, entry: &ModuleEntry) -> Value {
    let is_it = json!({"properties": {"name": {"const": name}}, "required": ["name"]});
    let mut then = json!({"properties": {"configs": {"$ref": format!("#{}", home(name))}}});
    if !entry.config_schema.required.is_empty() {
        then["required"] = json!(["configs"]);
    }
    json!({"if": is_it, "then": then})
}

/// Where the definition of a module's configs stands, as a JSON pointer.
fn home(name: &str) -> String {
    child("/$defs", name)
}

/// The configs of one module. Each parameter may stand in either section; those that belong there come as properties,
/// which editors propose, and the others by pattern.
fn described(name: &str, entry: &ModuleEntry) -> Value {
    let parameters = &entry.config_schema;
    let reference =
        |parameter: &str| json!({"$ref": format!("#{}", child(&format!("{}/$defs", home(name)), parameter))});
    let section = |own: &mut dyn Iterator<Item = &String>, others: &mut dyn Iterator<Item = &String>| {
        let own: Map<String, Value> = own.map(|one| (one.clone(), reference(one))).collect();
        let others: Map<String, Value> = others.map(|one| (exactly(one), reference(one))).collect();
        json!({
            "type": ["object", "null"],
            "properties": own,
            "patternProperties": others,
            "additionalProperties": false,
        })
    };
    let (required, optional) = (&parameters.required, &parameters.optional);
    let mut configs = json!({
        "description": format!("{} ({}): {}", name, entry.kind, entry.description),
        "properties": {
            "required": section(&mut required.keys(), &mut optional.keys()),
            "optional": section(&mut optional.keys(), &mut required.keys()),
        },
    });
    if !required.is_empty() {
        configs["type"] = json!("object");
        configs["allOf"] = required.keys().map(|one| given(one)).collect();
    }
    let definition = |(parameter, one): (&str, &Parameter)| {
        let home = child(&format!("{}/$defs", home(name)), parameter);
        (parameter.to_owned(), self::parameter(one, &home))
    };
    configs["$defs"] = Value::Object(parameters.iter().map(definition).collect());
    configs
}

/// The parameter stands in one of the sections.
fn given(parameter: &str) -> Value {
    let within = |section: &str| json!({"properties": {section: {"type": "object", "required": [parameter]}}, "required": [section]});
    json!({"anyOf": [within("required"), within("optional")]})
}

/// A pattern for this name and no other.
fn exactly(name: &str) -> String {
    let escaped = name.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => c.to_string(),
        c => format!("\\{c}"),
    });
    format!("^{}$", escaped.collect::<String>())
}

/// What a parameter takes. `home` is where this stands, as a JSON pointer.
fn parameter(parameter: &Parameter, home: &str) -> Value {
    let given = parameter.json_schema();
    // A registry may hold what is no schema. Loading says so; the editor's other help need not suffer for it.
    let usable = jsonschema::draft202012::options().build(&given).is_ok();
    let mut inner = if usable { plain(&given, home) } else { json!(true) };
    let mut schema = Map::from_iter([("description".to_owned(), json!(parameter.description))]);
    schema.extend(parameter.default.clone().map(|default| ("default".to_owned(), default)));
    for key in ["description", "default"] {
        inner.as_object_mut().and_then(|inner| inner.shift_remove(key));
    }
    let definitions = inner.as_object_mut().and_then(|inner| inner.shift_remove("$defs"));
    schema.extend(definitions.map(|definitions| ("$defs".to_owned(), definitions)));
    extend_map(&mut schema, or_template(inner));
    Value::Object(schema)
}

/// Of the schema at a place where a value stands: that, or text with a template in it, for what comes of the template
/// is checked when it is filled in.
fn or_template(schema: Value) -> Value {
    if takes_all_text(&schema) {
        return schema;
    }
    json!({"anyOf": [schema, {"type": "string", "pattern": r"\{\{|\{%"}]})
}

fn takes_all_text(schema: &Value) -> bool {
    const NARROWING: [&str; 12] =
        ["$ref", "allOf", "anyOf", "const", "enum", "if", "maxLength", "minLength", "not", "oneOf", "pattern", "then"];
    let Some(schema) = schema.as_object() else { return schema == &json!(true) };
    let takes_text = match schema.get("type") {
        None => true,
        Some(Value::Array(types)) => types.iter().any(|one| one == "string"),
        Some(one) => one == "string",
    };
    takes_text && !NARROWING.iter().any(|keyword| schema.contains_key(*keyword))
}

/// The schema of a value of a config, as it reads at `home`: references lead there, and wherever a value stands further
/// in, a template may.
fn plain(schema: &Value, home: &str) -> Value {
    let Some(keywords) = schema.as_object() else { return schema.clone() };
    let place = |schema: &Value| or_template(plain(schema, home));
    let each = |schemas: &Value, change: &dyn Fn(&Value) -> Value| match schemas {
        Value::Array(items) => items.iter().map(change).collect(),
        Value::Object(entries) => entries.iter().map(|(key, one)| (key.clone(), change(one))).collect(),
        other => other.clone(),
    };
    let rewritten = keywords.iter().filter_map(|(keyword, value)| {
        let value = match keyword.as_str() {
            "$ref" => json!(moved(value.as_str()?, home)?),
            "properties" | "patternProperties" | "prefixItems" => each(value, &place),
            "items" | "additionalProperties" if value.is_object() => place(value),
            "$defs" | "anyOf" | "oneOf" | "allOf" => each(value, &|one| plain(one, home)),
            "then" | "else" => plain(value, home),
            _ => value.clone(),
        };
        Some((keyword.clone(), value))
    });
    Value::Object(rewritten.collect())
}

/// Where a reference leads once its root is at `home`. None to places that are not definitions: they have moved.
fn moved(reference: &str, home: &str) -> Option<String> {
    let kept = reference == "#" || reference.starts_with("#/$defs/");
    kept.then(|| reference.replacen('#', &format!("#{home}"), 1))
}

fn extend(schema: &mut Value, more: Value) {
    if let Some(schema) = schema.as_object_mut() {
        extend_map(schema, more);
    }
}

/// A boolean has nothing to add.
fn extend_map(schema: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        schema.extend(more);
    }
}
