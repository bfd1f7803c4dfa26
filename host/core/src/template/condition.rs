//! The expression on a control edge.

use serde_json::Value;

use super::Context;
use super::render::{Scope, check_names, render};
use crate::diagnostic::{Diagnostics, Span};
use crate::document::{Source, SpanMap};

/// Evaluates the condition of a control edge. It knows no secrets.
///
/// # Errors
/// In words: a name is missing, or it gives something other than true or false.
pub fn condition(expression: &str, scope: &Scope<'_>) -> Result<bool, String> {
    let leaf = Value::String(format!("{{{{ {expression} }}}}"));
    let scope = Scope { secret: &|_| None, ..*scope };
    // Its place in the document was named when the flow was planned; the edge itself names it now.
    let given = render(&leaf, &SpanMap::default(), &scope, &Source::new("", "")).map_err(|found| {
        let messages: Vec<_> = found.iter().map(|one| one.message.clone()).collect();
        messages.join("; ")
    })?;
    given.as_bool().ok_or_else(|| format!("it gives {given}, which is neither true nor false"))
}

/// What is wrong with the names in a well-formed condition, as far as validation can tell; whether there are such
/// globals is for the planner.
pub(crate) fn check_condition(expression: &str, span: Span, context: &Context, source: &Source) -> Diagnostics {
    let (references, mut found) = check_names(expression, span, context, source);
    for name in references.iter().flat_map(|references| &references.secret) {
        let message = format!("the condition `{expression}` asks for the secret `{name}`");
        let help = "what a run decides can be seen; put the secret into the configs of a module instead";
        found.push(source.error("secret-in-a-condition", span, message).help(help));
    }
    found
}
