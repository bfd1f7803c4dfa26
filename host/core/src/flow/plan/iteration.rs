//! `iter.item` and `iter.index`: are they used where there is an item?

use super::Plan;
use crate::diagnostic::{Diagnostics, Span};
use crate::document::Source;
use crate::flow::spec::{Condition, Flow, NodeId};
use crate::template::{References, depth, name_span};

/// A template or a condition asks for the item of a loop.
pub(super) struct Use {
    by: NodeId,
    /// `item.path`, `outer.index`.
    name: String,
    span: Span,
}

/// All of them.
pub(super) fn uses(flow: &Flow) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut note = |by: &NodeId, references: &References, leaf: Span| {
        uses.extend(references.iter.iter().map(|name| {
            let span = name_span(&flow.source, leaf, format!("iter.{name}").trim_end_matches('.'));
            Use { by: by.clone(), name: name.clone(), span }
        }));
    };
    for module in &flow.modules {
        for (pointer, references) in &module.references {
            note(&module.id.value, references, module.spans.value(pointer).unwrap_or(module.id.span));
        }
    }
    for edge in &flow.control_edges {
        let Condition::When(expression) = &edge.valve.value.condition else { continue };
        // A malformed one was refused when the edge was read.
        if let Ok(references) = References::of_expression(expression) {
            note(&edge.from.value, &references, edge.valve.span);
        }
    }
    uses
}

/// What a `start detach` edge leads to outlives what started it, and in a loop nobody would wait for it.
pub(super) fn check_detached(plan: &Plan, flow_edges: &[(NodeId, Span)], source: &Source, found: &mut Diagnostics) {
    for (from, span) in flow_edges {
        let in_loop = plan.sub_flow_of(from).is_some_and(|one| one.within.is_some());
        if in_loop {
            let message = format!("`{from}` runs in a loop, whose items end with all that they have started");
            found.push(
                source
                    .error("detach-inside-loop", *span, message)
                    .help("write `start`: the item waits for it at its end"),
            );
        }
    }
}

/// The edges of a document that detach.
pub(super) fn detaching(flow: &Flow) -> Vec<(NodeId, Span)> {
    let detaches = flow
        .control_edges
        .iter()
        .filter(|edge| matches!(edge.valve.value.condition, Condition::Start { detach: true }));
    detaches.map(|edge| (edge.from.value.clone(), edge.valve.span)).collect()
}

/// Each needs as many loops around it as it goes outwards.
pub(super) fn check(plan: &Plan, uses: &[Use], source: &Source, found: &mut Diagnostics) {
    for Use { by, name, span } in uses {
        let Some(sub_flow) = plan.sub_flow_of(by) else { continue };
        let around = plan.loops_around(sub_flow.id).count();
        // A name of no loop was refused when the flow was loaded.
        let needed = depth(name).unwrap_or(0);
        if around < needed {
            let message = match around {
                0 => format!("`{by}` runs in no loop, so there is no `iter.{name}`"),
                1 => format!("`{by}` runs in one loop only, so there is no `iter.{name}`"),
                _ => format!("`{by}` runs in {around} loops only, so there is no `iter.{name}`"),
            };
            let help = "control must come to it by `some_module (1|iterate:PORT) …`";
            found.push(source.error("iter-outside-loop", *span, message).help(help));
        }
    }
}
