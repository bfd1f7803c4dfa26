//! The JSON Schema (2020-12) of a stream document, for editors.
//!
//! It takes every document that loading takes. What no schema can say (do the modules hang together, is a key given that
//! says nothing beside another) it lets pass.

use serde_json::{Value, json};

use super::form;
use crate::catalog::{Catalog, ModuleEntry, ModuleKind};
use crate::flow::schema::{definitions, restrict};
use crate::form::schema::document;
use crate::name::ModuleName;

/// The schema of streams of any modules.
#[must_use]
pub fn schema() -> Value {
    let mut schema = document("A pype stream", &form::DOCUMENT);
    let pipeline = json!({
        "properties": {"pipeline": {"type": "string"}, "batch": {"type": "null"}},
        "required": ["pipeline"],
    });
    let batch = json!({
        "properties": {"pipeline": {"type": "null"}, "batch": {"type": "object"}, "modules": {"type": "array"}},
        "required": ["batch", "modules"],
    });
    schema["properties"]["handle"]["oneOf"] = json!([pipeline, batch]);
    schema
}

/// The schema of streams of these modules: what each can be told is checked too.
#[must_use]
pub fn schema_with(catalog: &Catalog) -> Value {
    let mut schema = schema();
    let of = |takes: fn(&ModuleEntry) -> bool| -> Vec<(&ModuleName, &ModuleEntry)> {
        catalog.iter().filter(|(_, entry)| takes(entry)).collect()
    };
    let sources = of(|entry| entry.kind == ModuleKind::Source && entry.unbounded);
    let decoders = of(|entry| entry.kind == ModuleKind::Mod);
    let modules = of(|entry| matches!(entry.kind, ModuleKind::Mod | ModuleKind::Sink));
    restrict(&mut schema["properties"]["source"], &sources);
    restrict(&mut schema["properties"]["decode"]["items"], &decoders);
    restrict(&mut schema["properties"]["handle"]["properties"]["modules"]["items"], &modules);
    schema["$defs"] = definitions(&[sources, modules].concat());
    schema
}
