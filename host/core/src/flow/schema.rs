//! The JSON Schema (2020-12) of a flow document, for editors.
//!
//! It takes every document that [`super::load`] takes. What no schema can say (does the id exist, is the expression
//! well formed) it lets pass.

use serde_json::{Map, Value, json};

use super::form;
use crate::catalog::{Catalog, ModuleEntry};
use crate::document::child;
use crate::form::parameters::{self, exactly};
use crate::form::schema::document;
use crate::name::ModuleName;

/// The schema of flows of any modules.
#[must_use]
pub fn schema() -> Value {
    document("A pype flow", &form::DOCUMENT)
}

/// The schema of flows of these modules: what each can be told is checked too.
#[must_use]
pub fn schema_with(catalog: &Catalog) -> Value {
    let mut schema = schema();
    let modules: Vec<_> = catalog.iter().filter(|(_, entry)| entry.kind.in_flows() && !entry.unbounded).collect();
    restrict(&mut schema["properties"]["modules"]["items"], &modules);
    schema["$defs"] = definitions(&modules);
    schema
}

/// Has the schema of a mapping with `name` and `configs` take these modules only, which [`definitions`] describes.
pub(crate) fn restrict(module: &mut Value, modules: &[(&ModuleName, &ModuleEntry)]) {
    module["properties"]["name"]["enum"] = modules.iter().map(|(name, _)| name.as_str()).collect();
    module["allOf"] = modules.iter().map(|(name, entry)| configs_of(name.as_str(), entry)).collect();
}

/// What these modules can be told, for the `$defs` of the document.
pub(crate) fn definitions(modules: &[(&ModuleName, &ModuleEntry)]) -> Value {
    let definitions = modules.iter().map(|(name, entry)| (name.to_string(), described(name.as_str(), entry)));
    Value::Object(definitions.collect())
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
    let described = &entry.config_schema;
    let home = home(name);
    let reference = |parameter: &str| parameters::reference(&home, parameter);
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
    let (required, optional) = (&described.required, &described.optional);
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
    configs["$defs"] = parameters::definitions(described, &home);
    configs
}

/// The parameter stands in one of the sections.
fn given(parameter: &str) -> Value {
    let within = |section: &str| json!({"properties": {section: {"type": "object", "required": [parameter]}}, "required": [section]});
    json!({"anyOf": [within("required"), within("optional")]})
}
