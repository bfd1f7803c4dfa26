//! The section `connections`: data edges and control edges.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Node, Source, Spanned};
use crate::flow::edge::{control_edge, data_edge};
use crate::flow::form;
use crate::flow::spec::{Condition, ControlEdge, DataEdge};
use crate::form::fields::{Fields, list};
use crate::template::{Context, check_condition};

/// The edges of a document, as far as they can be read.
pub(super) struct Edges {
    pub(super) data: Vec<DataEdge>,
    pub(super) control: Vec<ControlEdge>,
    /// Could all be read? Else nobody may be blamed for the ports that are left open.
    pub(super) complete: bool,
}

/// Without a section there is nothing that could not be read.
impl Default for Edges {
    fn default() -> Self {
        Edges { data: Vec::new(), control: Vec::new(), complete: true }
    }
}

/// Reads both kinds.
pub(super) fn connections(source: &Source, node: &Spanned<Node>, context: &Context, found: &mut Diagnostics) -> Edges {
    let Some(mut fields) = Fields::of(source, node, &form::CONNECTIONS, found) else {
        return Edges { complete: false, ..Edges::default() };
    };
    let data = fields.optional("data");
    let control = fields.optional("control");
    fields.finish(found);
    let mut complete = true;
    let data = data_edges(source, data, &mut complete, found);
    let control = all(source, control, "control", control_edge, &mut complete, found);
    for ControlEdge { valve, .. } in &control {
        if let Condition::When(expression) = &valve.value.condition {
            found.append(check_condition(expression, valve.span, context, source));
        }
    }
    Edges { data, control, complete }
}

/// Reads data edges. `complete` becomes false if one of them cannot be read.
pub(crate) fn data_edges(
    source: &Source,
    node: Option<&Spanned<Node>>,
    complete: &mut bool,
    found: &mut Diagnostics,
) -> Vec<DataEdge> {
    all(source, node, "data", data_edge, complete, found)
}

fn all<T>(
    source: &Source,
    node: Option<&Spanned<Node>>,
    key: &str,
    read: fn(&Source, &Spanned<String>) -> Result<T, Vec<Diagnostic>>,
    complete: &mut bool,
    found: &mut Diagnostics,
) -> Vec<T> {
    let Some(node) = node else { return Vec::new() };
    let Some(items) = list(source, node, key, found) else {
        *complete = false;
        return Vec::new();
    };
    let mut edges = Vec::new();
    for item in items {
        let Node::Str(text) = &item.value else {
            let message = format!("an edge must be text, not {}", item.value.kind());
            found.push(source.error("wrong-type", item.span, message));
            continue;
        };
        match read(source, &Spanned::new(text.clone(), item.span)) {
            Ok(edge) => edges.push(edge),
            Err(problems) => found.extend(problems),
        }
    }
    *complete &= edges.len() == items.len();
    edges
}
