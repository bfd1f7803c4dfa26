//! The JSON Schema (2020-12) of a pipeline document, for editors.
//!
//! It takes every document that loading takes. What no schema can say (is there one dispatch, is the shard key a field) it
//! lets pass.

use serde_json::{Map, Value, json};

use super::form;
use super::load::{QUEUE, SCHEDULE_JOB};
use crate::catalog::{Catalog, ModuleEntry, ModuleKind};
use crate::document::child;
use crate::form::parameters;
use crate::form::schema::document;
use crate::name::ModuleName;

/// The schema of pipelines of any modules.
#[must_use]
pub fn schema() -> Value {
    let mut schema = document("A pype pipeline", &form::DOCUMENT);
    let alone = |key: &str| json!({"properties": {key: {"type": "string"}}, "required": [key]});
    schema["properties"]["stages"]["items"]["oneOf"] = json!([alone("execute"), alone("dispatch")]);
    schema
}

/// The schema of pipelines of these modules: what each can be told is checked too.
#[must_use]
pub fn schema_with(catalog: &Catalog) -> Value {
    let mut schema = schema();
    let of = |kind| catalog.iter().filter(move |(_, entry)| entry.kind == kind);
    let executes: Vec<_> = of(ModuleKind::Execute).collect();
    let queues: Vec<_> = of(ModuleKind::Dispatch).collect();
    let names = |of: &[(&ModuleName, &ModuleEntry)]| of.iter().map(|(name, _)| json!(name)).collect::<Vec<_>>();

    let stage = &mut schema["properties"]["stages"]["items"];
    stage["properties"]["execute"]["enum"] = names(&executes).into_iter().chain([Value::Null]).collect();
    let dispatches = names(&queues).into_iter().chain([json!(SCHEDULE_JOB), Value::Null]);
    stage["properties"]["dispatch"]["enum"] = dispatches.collect();
    let executed = executes.iter().map(|(name, entry)| told("execute", name, entry));
    let dispatched = queues.iter().map(|(name, entry)| told("dispatch", name, entry));
    let scheduled = queues.iter().map(|(name, entry)| scheduled(name, entry));
    stage["allOf"] = executed.chain(dispatched).chain(scheduled).chain([schedule_job(&names(&queues))]).collect();

    if let Some((name, _)) = executes.iter().find(|(name, _)| name.as_str() == "storage_write") {
        let large = &mut schema["properties"]["stages"]["items"]["properties"]["large"];
        large["properties"]["configs"] = json!({"$ref": format!("#{}", home(name))});
    }

    let dead_letter = &mut schema["properties"]["on_error"]["properties"]["dead_letter"];
    dead_letter["properties"]["execute"]["enum"] = names(&executes).into();
    dead_letter["allOf"] = executes.iter().map(|(name, entry)| told("execute", name, entry)).collect();

    let all = executes.iter().chain(&queues);
    let definitions = all.map(|(name, entry)| (name.to_string(), described(name, entry, None)));
    schema["$defs"] = Value::Object(definitions.collect());
    schema
}

/// A stage of this module has these configs.
fn told(key: &str, name: &ModuleName, entry: &ModuleEntry) -> Value {
    let is_it = json!({"properties": {key: {"const": name}}, "required": [key]});
    let configs = json!({"$ref": format!("#{}", home(name))});
    json!({"if": is_it, "then": with_configs(configs, !entry.config_schema.required.is_empty())})
}

/// `schedule_job` needs a queue, which a template may name.
fn schedule_job(queues: &[Value]) -> Value {
    let queue = json!({"anyOf": [{"enum": queues}, {"type": "string", "pattern": r"\{\{|\{%"}]});
    let configs = json!({"type": "object", "properties": {QUEUE: queue}, "required": [QUEUE]});
    let is_it = json!({"properties": {"dispatch": {"const": SCHEDULE_JOB}}, "required": ["dispatch"]});
    json!({"if": is_it, "then": with_configs(configs, true)})
}

/// With `schedule_job`, what a queue is told stands beside its name.
fn scheduled(name: &ModuleName, entry: &ModuleEntry) -> Value {
    let queue = json!({"properties": {QUEUE: {"const": name}}, "required": [QUEUE]});
    let is_it = json!({
        "properties": {"dispatch": {"const": SCHEDULE_JOB}, "configs": queue},
        "required": ["dispatch", "configs"],
    });
    json!({"if": is_it, "then": with_configs(described(name, entry, Some(QUEUE)), true)})
}

fn with_configs(configs: Value, required: bool) -> Value {
    let mut schema = json!({"properties": {"configs": configs}});
    if required {
        schema["required"] = json!(["configs"]);
    }
    schema
}

/// Where the definition of a module's configs stands, as a JSON pointer.
fn home(name: &ModuleName) -> String {
    child("/$defs", name.as_str())
}

/// The configs of one module, and perhaps another key beside them, which hides a parameter of that name.
fn described(name: &ModuleName, entry: &ModuleEntry, beside: Option<&str>) -> Value {
    let told = &entry.config_schema;
    let home = home(name);
    let own = told.iter().map(|(one, _)| (one.to_owned(), parameters::reference(&home, one)));
    let properties: Map<String, Value> = own.chain(beside.map(|key| (key.to_owned(), json!(true)))).collect();
    let required: Vec<&String> = told.required.keys().collect();
    let mut schema = json!({
        "description": format!("{name} ({}): {}", entry.kind, entry.description),
        "type": if required.is_empty() && beside.is_none() { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if beside.is_none() {
        schema["$defs"] = parameters::definitions(told, &home);
    }
    schema
}
