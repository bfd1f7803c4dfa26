//! Which values of a config are paths, and what they are relative to.

use std::path::Path;

use serde_json::Value;

use super::ModuleEntry;

impl ModuleEntry {
    /// Makes absolute every path in `configs` that is relative: to `base`, the document's folder. A
    /// path is a text whose schema says `format: path`; what has a scheme (`s3://…`) is left alone.
    pub fn absolutize(&self, configs: &mut Value, base: &Path) {
        let Value::Object(entries) = configs else { return };
        for (name, value) in entries {
            if let Some(schema) = self.config_schema.get(name).and_then(|one| one.schema.as_ref()) {
                absolutize(value, schema, schema, base);
            }
        }
    }
}

/// Walks a value beside its schema.
fn absolutize(value: &mut Value, schema: &Value, root: &Value, base: &Path) {
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| resolve(root, reference)) {
        absolutize(value, target, root, base);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            absolutize(value, branch, root, base);
        }
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => {
            if schema["format"] == "path" {
                make_absolute(text, base);
            }
        }
        Value::Array(items) => {
            let prefix = schema["prefixItems"].as_array().map_or(&[][..], Vec::as_slice);
            for (index, item) in items.iter_mut().enumerate() {
                absolutize(item, prefix.get(index).unwrap_or(&schema["items"]), root, base);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                let property = schema["properties"].get(key);
                absolutize(item, property.unwrap_or(&schema["additionalProperties"]), root, base);
            }
        }
    }
}

fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// Idempotent, for several branches of a schema may lead here.
fn make_absolute(text: &mut String, base: &Path) {
    if text.is_empty() || text.contains("://") || Path::new(text).is_absolute() {
        return;
    }
    let relative = text.strip_prefix("./").unwrap_or(text);
    *text = base.join(relative).to_string_lossy().into_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{ConfigSchema, ModuleKind};
    use serde_json::json;

    #[test]
    fn paths_are_found_wherever_the_schema_has_them() {
        let path = json!({"type": "string", "format": "path"});
        let schema = json!({
            "properties": {
                "file": path,
                "name": {"type": "string"},
                "files": {"anyOf": [path, {"type": "array", "items": path}]},
                "tables": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Table"}}
            },
            "$defs": {"Table": {"type": "object", "properties": {"at": path}}}
        });
        let entry: ModuleEntry = serde_json::from_value(json!({"module_path": "x", "type": ModuleKind::Source}))
            .expect("an entry needs no more than this");
        let entry = ModuleEntry { config_schema: ConfigSchema::from_json_schema(&schema), ..entry };
        let mut configs = json!({
            "file": "./in.csv",
            "name": "in.csv",
            "files": ["a.csv", "/b.csv", "s3://bucket/c.csv"],
            "tables": {"t": {"at": "t.csv"}}
        });
        entry.absolutize(&mut configs, Path::new("/job"));
        let expected = json!({
            "file": "/job/in.csv",
            "name": "in.csv",
            "files": ["/job/a.csv", "/b.csv", "s3://bucket/c.csv"],
            "tables": {"t": {"at": "/job/t.csv"}}
        });
        assert_eq!(configs, expected);
    }
}
