//! The section `connections`: data edges and control edges.

use super::fields::{Fields, list};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Node, Source, Spanned};
use crate::flow::edge::{control_edge, data_edge};
use crate::flow::spec::{ControlEdge, DataEdge};

/// Reads both kinds. None if one of them cannot be read: what follows would blame the ports that it leaves open.
pub(super) fn connections(
    source: &Source,
    node: &Spanned<Node>,
    found: &mut Diagnostics,
) -> Option<(Vec<DataEdge>, Vec<ControlEdge>)> {
    let mut fields = Fields::of(source, node, "`connections`", found)?;
    let data = fields.optional("data");
    let control = fields.optional("control");
    fields.finish(found);
    let data = all(source, data, "data", data_edge, found);
    let control = all(source, control, "control", control_edge, found);
    Some((data?, control?))
}

fn all<T>(
    source: &Source,
    node: Option<&Spanned<Node>>,
    key: &str,
    read: fn(&Source, &Spanned<String>) -> Result<T, Vec<Diagnostic>>,
    found: &mut Diagnostics,
) -> Option<Vec<T>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let items = list(source, node, key, found)?;
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
    Some(edges).filter(|edges| edges.len() == items.len())
}
