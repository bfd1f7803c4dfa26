//! Which values of a config are whole numbers, and that they are written as such.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ModuleEntry;
use super::beside::each_scalar;
use crate::document::{child, whole_number};

impl ModuleEntry {
    /// Writes `10.0`, `1e3` and what `{{ context.n / 2 }}` gives as whole numbers where a schema wants one: JSON Schema
    /// takes them for whole, the modules' own types do not. To be called on configs as they are checked and as they run.
    ///
    /// Gives the JSON pointers of the floats that are whole only because they are too large (beyond 2^53) to have a
    /// fraction: they stay as they are, and no module takes them.
    pub fn settle_integers(&self, configs: &mut Value) -> BTreeSet<String> {
        let mut too_large = BTreeSet::new();
        for (name, value) in configs.as_object_mut().into_iter().flatten() {
            if let Some(parameter) = self.config_schema.get(name) {
                too_large.append(&mut settle(value, &parameter.json_schema(), &child("", name)));
            }
        }
        too_large
    }
}

fn settle(value: &mut Value, schema: &Value, pointer: &str) -> BTreeSet<String> {
    let mut too_large = BTreeSet::new();
    let mut any_number = BTreeSet::new();
    each_scalar(value, schema, pointer, &mut |value, pointer, schema| {
        let Some(float) = value.as_f64().filter(|_| value.is_f64()) else { return };
        if wants(schema, "number") {
            any_number.insert(pointer.to_owned());
        }
        if !wants(schema, "integer") {
            return;
        }
        match whole_number(float) {
            Some(whole) => *value = Value::from(whole),
            None if float.fract() == 0.0 => {
                too_large.insert(pointer.to_owned());
            }
            None => {}
        }
    });
    &too_large - &any_number
}

fn wants(schema: &Value, type_name: &str) -> bool {
    match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == type_name),
        one => one == type_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ConfigSchema;
    use serde_json::json;

    #[test]
    fn whole_floats_become_integers_where_one_is_wanted() {
        let schema = json!({
            "properties": {
                "n": {"type": "integer"},
                "f": {"type": "number"},
                "list": {"anyOf": [{"type": "array", "items": {"type": ["integer", "null"]}}, {"type": "null"}]},
                "inner": {"$ref": "#/$defs/Inner"},
                "either": {"oneOf": [{"type": "integer"}, {"type": "number"}]}
            },
            "$defs": {"Inner": {"type": "object", "properties": {"at/x": {"type": "integer"}}}}
        });
        let entry: ModuleEntry = serde_json::from_value(json!({"module_path": "x", "type": "solo"}))
            .expect("an entry needs no more than this");
        let entry = ModuleEntry { config_schema: ConfigSchema::from_json_schema(&schema), ..entry };
        let mut configs = json!({
            "n": 10.0, "f": 10.0, "list": [1e3, null, 0.5, -0.0], "inner": {"at/x": 1e300}, "either": 1e300, "other": 1.0
        });
        let too_large = entry.settle_integers(&mut configs);
        let expected = json!({
            "n": 10, "f": 10.0, "list": [1000, null, 0.5, 0], "inner": {"at/x": 1e300}, "either": 1e300, "other": 1.0
        });
        assert_eq!(configs, expected);
        assert_eq!(too_large.into_iter().collect::<Vec<_>>(), ["/inner/at~1x"]);
    }
}
