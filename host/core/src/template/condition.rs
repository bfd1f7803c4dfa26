//! The expression on a control edge.

use serde_json::Value;

use super::render::{Scope, render};
use crate::document::{Source, SpanMap};

/// Evaluates the condition of a control edge.
///
/// # Errors
/// In words: a name is missing, or it gives something other than true or false.
pub fn condition(expression: &str, scope: &Scope<'_>) -> Result<bool, String> {
    let leaf = Value::String(format!("{{{{ {expression} }}}}"));
    // Its place in the document was named when the flow was planned; the edge itself names it now.
    let given = render(&leaf, &SpanMap::default(), scope, &Source::new("", "")).map_err(|found| {
        let messages: Vec<_> = found.iter().map(|one| one.message.clone()).collect();
        messages.join("; ")
    })?;
    given.as_bool().ok_or_else(|| format!("it gives {given}, which is neither true nor false"))
}
