//! What a module can be told: its parameters, each with a JSON Schema.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The parameters of a module, in the order of its author.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigSchema {
    /// Those that a flow must give.
    #[serde(default)]
    pub required: IndexMap<String, Parameter>,
    /// Those that have a default.
    #[serde(default)]
    pub optional: IndexMap<String, Parameter>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its type in a word.
    #[serde(rename = "type", default)]
    pub kind: ParameterType,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What an absent parameter means. The module fills it in, not the host.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    pub default: Option<Value>,
    /// Exactly what is accepted; absent in a registry written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// The type of a parameter in a word, for lists and descriptions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Text.
    Str,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// A list.
    List,
    /// A mapping.
    Dict,
    /// One of several types; see the schema.
    #[default]
    #[serde(other)]
    Any,
}

impl ParameterType {
    /// As it is written: `str`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ParameterType::Str => "str",
            ParameterType::Int => "int",
            ParameterType::Float => "float",
            ParameterType::Bool => "bool",
            ParameterType::List => "list",
            ParameterType::Dict => "dict",
            ParameterType::Any => "any",
        }
    }

    fn json_schema(self) -> Value {
        match self {
            ParameterType::Str => json!({"type": "string"}),
            ParameterType::Int => json!({"type": "integer"}),
            ParameterType::Float => json!({"type": "number"}),
            ParameterType::Bool => json!({"type": "boolean"}),
            ParameterType::List => json!({"type": "array"}),
            ParameterType::Dict => json!({"type": "object"}),
            ParameterType::Any => json!(true),
        }
    }
}

impl std::fmt::Display for ParameterType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ConfigSchema {
    /// The parameters of a config struct, from the JSON Schema that `schemars` makes of it. A
    /// property that `required` names is required, every other is optional.
    #[must_use]
    pub fn from_json_schema(schema: &Value) -> ConfigSchema {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut parameters = ConfigSchema::default();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let parameter = Parameter::from_json_schema(property, schema);
            let section =
                if required.contains(&name.as_str()) { &mut parameters.required } else { &mut parameters.optional };
            section.insert(name.clone(), parameter);
        }
        parameters
    }

    /// The parameter of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.required.get(name).or_else(|| self.optional.get(name))
    }

    /// All parameters, the required ones first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.required.iter().chain(&self.optional).map(|(name, one)| (name.as_str(), one))
    }
}

impl Parameter {
    /// The schema of a value of this parameter: its own, or what its type says.
    #[must_use]
    pub fn json_schema(&self) -> Cow<'_, Value> {
        match &self.schema {
            Some(schema) => Cow::Borrowed(schema),
            None => Cow::Owned(self.kind.json_schema()),
        }
    }

    fn from_json_schema(property: &Value, whole: &Value) -> Parameter {
        let text = |key: &str| property[key].as_str().map(str::to_owned);
        Parameter {
            kind: type_of(property),
            description: text("description").or_else(|| text("title")).unwrap_or_default(),
            default: property.get("default").cloned(),
            schema: Some(with_definitions(property, whole)),
        }
    }
}

/// A default of `null` is a default.
fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A property on its own, with the shared definitions that it refers to.
fn with_definitions(property: &Value, whole: &Value) -> Value {
    let mut schema = property.clone();
    let refers = property.to_string().contains("\"$ref\"");
    if let (true, Some(schema), Some(definitions)) = (refers, schema.as_object_mut(), whole.get("$defs")) {
        schema.insert("$defs".to_owned(), definitions.clone());
    }
    schema
}

fn type_of(schema: &Value) -> ParameterType {
    if let Some(name) = schema["type"].as_str() {
        return named_type(name);
    }
    if let Some(names) = schema["type"].as_array() {
        return only(names.iter().filter_map(Value::as_str).filter(|name| *name != "null").map(named_type));
    }
    if let Some(values) = schema["enum"].as_array() {
        return only(values.iter().map(type_of_value));
    }
    if let Some(value) = schema.get("const") {
        return type_of_value(value);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(branches) = schema[key].as_array() {
            return only(branches.iter().filter(|branch| branch["type"] != "null").map(type_of));
        }
    }
    ParameterType::Any
}

/// The one type that all are of.
fn only(mut types: impl Iterator<Item = ParameterType>) -> ParameterType {
    let Some(first) = types.next() else { return ParameterType::Any };
    if types.all(|other| other == first) { first } else { ParameterType::Any }
}

fn named_type(name: &str) -> ParameterType {
    match name {
        "string" => ParameterType::Str,
        "integer" => ParameterType::Int,
        "number" => ParameterType::Float,
        "boolean" => ParameterType::Bool,
        "array" => ParameterType::List,
        "object" => ParameterType::Dict,
        _ => ParameterType::Any,
    }
}

fn type_of_value(value: &Value) -> ParameterType {
    match value {
        Value::Null => ParameterType::Any,
        Value::Bool(_) => ParameterType::Bool,
        Value::Number(number) if number.is_f64() => ParameterType::Float,
        Value::Number(_) => ParameterType::Int,
        Value::String(_) => ParameterType::Str,
        Value::Array(_) => ParameterType::List,
        Value::Object(_) => ParameterType::Dict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_from_a_json_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string", "format": "path", "description": "Path to CSV file"},
                "encoding": {"type": "string", "default": "utf-8"},
                "limit": {"type": ["integer", "null"], "default": null},
                "mode": {"oneOf": [{"const": "a"}, {"const": "b"}], "default": "a"},
                "rule": {"anyOf": [{"type": "string"}, {"type": "object"}]},
                "inner": {"$ref": "#/$defs/Inner"}
            },
            "required": ["file_path", "inner"],
            "$defs": {"Inner": {"type": "object"}}
        });
        let parameters = ConfigSchema::from_json_schema(&schema);
        let kinds: Vec<_> = parameters.iter().map(|(name, one)| (name, one.kind.as_str())).collect();
        assert_eq!(
            kinds,
            [
                ("file_path", "str"),
                ("inner", "any"),
                ("encoding", "str"),
                ("limit", "int"),
                ("mode", "str"),
                ("rule", "any")
            ]
        );
        assert_eq!(parameters.required["inner"].json_schema()["$defs"]["Inner"]["type"], "object");
        assert_eq!(parameters.optional["encoding"].default, Some(json!("utf-8")));
        assert_eq!(parameters.optional["limit"].default, Some(Value::Null));
    }
}
