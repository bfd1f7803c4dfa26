//! The tables of a document as JSON Schema (2020-12), for editors.

use serde_json::{Map, Value, json};

use super::{Content, Form, Key};

/// The schema of documents of this form.
pub(crate) fn document(title: &str, form: &Form) -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
    });
    if let (Some(schema), Value::Object(more)) = (schema.as_object_mut(), mapping(form)) {
        schema.extend(more);
    }
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

fn content(of: &Content) -> Value {
    match of {
        Content::Name(pattern) => json!({"type": "string", "pattern": pattern}),
        Content::Text => json!({"type": "string"}),
        Content::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Content::Patterned(pattern, about) => {
            json!({"type": "array", "items": {"type": "string", "pattern": pattern, "description": about}})
        }
        Content::Integer(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Content::Number(low, high) => json!({"type": "number", "minimum": low, "maximum": high}),
        Content::Bool => json!({"type": "boolean"}),
        Content::Choice(names) => json!({"type": "string", "enum": names}),
        Content::Labels => {
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}})
        }
        Content::Mapping(form) => mapping(form),
        Content::Mappings(form, least) => json!({"type": "array", "minItems": least, "items": mapping(form)}),
        Content::Named(pattern, of) => {
            json!({"type": "object", "patternProperties": {(*pattern): content(of)}, "additionalProperties": false})
        }
        Content::Either(kinds) => json!({"anyOf": kinds.iter().map(content).collect::<Vec<_>>()}),
        Content::Parameters => json!({"type": "object"}),
        Content::Any => json!({}),
    }
}

/// A key that need not be there may also be empty.
fn allow_null(schema: &mut Value) {
    if let Some(one) = schema["type"].as_str() {
        schema["type"] = json!([one, "null"]);
    }
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        choices.push(Value::Null);
    }
    if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.push(json!({"type": "null"}));
    }
}
