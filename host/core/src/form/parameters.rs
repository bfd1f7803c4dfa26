//! What modules can be told, as JSON Schema for editors.

use serde_json::{Map, Value, json};

use crate::catalog::{ConfigSchema, Parameter};
use crate::document::child;

/// The definitions of all parameters, for the `$defs` of the schema that stands at `home`, a JSON pointer.
pub(crate) fn definitions(described: &ConfigSchema, home: &str) -> Value {
    let definition = |(name, one): (&str, &Parameter)| (name.to_owned(), parameter(one, &place(home, name)));
    Value::Object(described.iter().map(definition).collect())
}

/// A reference to one of them.
pub(crate) fn reference(home: &str, name: &str) -> Value {
    json!({"$ref": format!("#{}", place(home, name))})
}

fn place(home: &str, name: &str) -> String {
    child(&format!("{home}/$defs"), name)
}

/// A pattern for this name and no other.
pub(crate) fn exactly(name: &str) -> String {
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

/// A boolean has nothing to add.
fn extend_map(schema: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        schema.extend(more);
    }
}
