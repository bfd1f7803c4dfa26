//! A config, walked beside the schema that describes it.

use serde_json::Value;

use crate::document::child;

/// Calls `on` for every scalar of `value` with its JSON pointer, which starts with `pointer`, and with each of the
/// schemas that may describe it: alternatives are not told apart.
pub(super) fn each_scalar(
    value: &mut Value,
    schema: &Value,
    pointer: &str,
    on: &mut dyn FnMut(&mut Value, &str, &Value),
) {
    walk(value, schema, schema, pointer, on);
}

fn walk(value: &mut Value, schema: &Value, root: &Value, pointer: &str, on: &mut dyn FnMut(&mut Value, &str, &Value)) {
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| resolve(root, reference)) {
        walk(value, target, root, pointer, on);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            walk(value, branch, root, pointer, on);
        }
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => on(value, pointer, schema),
        Value::Array(items) => {
            let prefix = schema["prefixItems"].as_array().map_or(&[][..], Vec::as_slice);
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, prefix.get(index).unwrap_or(&schema["items"]), root, &format!("{pointer}/{index}"), on);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                let property = schema["properties"].get(key);
                walk(item, property.unwrap_or(&schema["additionalProperties"]), root, &child(pointer, key), on);
            }
        }
    }
}

fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}
