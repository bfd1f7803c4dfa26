//! The templates in a value, unread.

use serde_json::Value;

use crate::document::child;

/// Does a text hold a template? Any other stands for itself.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// Calls `on` for each template in `value`, with its JSON pointer.
pub(crate) fn each_template(value: &Value, on: &mut dyn FnMut(&str, &str)) {
    each_below(value, "", on);
}

fn each_below(value: &Value, pointer: &str, on: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) if is_template(text) => on(text, pointer),
        Value::String(_) => {}
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| each_below(item, &format!("{pointer}/{index}"), on));
        }
        Value::Object(entries) => {
            entries.iter().for_each(|(key, item)| each_below(item, &child(pointer, key), on));
        }
    }
}
