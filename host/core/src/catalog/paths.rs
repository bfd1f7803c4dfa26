//! Which values of a config are paths, and what they are relative to.

use std::path::Path;

use serde_json::Value;

use super::ModuleEntry;
use super::beside::each_scalar;

impl ModuleEntry {
    /// Makes absolute every path in `configs` that is relative: to `base`, the document's folder. A
    /// path is a text whose schema says `format: path`; what has a scheme (`s3://…`) is left alone.
    pub fn absolutize(&self, configs: &mut Value, base: &Path) {
        let Value::Object(entries) = configs else { return };
        for (name, value) in entries {
            if let Some(schema) = self.config_schema.get(name).and_then(|one| one.schema.as_ref()) {
                each_scalar(value, schema, "", &mut |value, _, schema| {
                    if let (Value::String(text), true) = (value, schema["format"] == "path") {
                        make_absolute(text, base);
                    }
                });
            }
        }
    }
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
