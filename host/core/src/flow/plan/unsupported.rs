//! What the language has and this version does not run yet. Refused by name, so that nothing that a
//! flow says is silently ignored.

use crate::diagnostic::{Diagnostics, Span};
use crate::document::Source;
use crate::flow::spec::{Condition, Flow, Isolation, Module};

pub(super) fn check(flow: &Flow, found: &mut Diagnostics) {
    for module in &flow.modules {
        misc(module, &flow.source, found);
    }
    for edge in &flow.control_edges {
        if let Condition::Iterate { .. } = edge.valve.value.condition {
            refuse("`iterate`", edge.valve.span, &flow.source, found);
        }
    }
}

fn misc(module: &Module, source: &Source, found: &mut Diagnostics) {
    let misc = &module.misc;
    if let Some(checkpoint) = misc.checkpoint.filter(|checkpoint| checkpoint.value) {
        refuse("`checkpoint`", checkpoint.span, source, found);
    }
    if let Some(isolation) = misc.isolation.filter(|one| one.value == Isolation::Process) {
        refuse("`isolation: process`", isolation.span, source, found);
    }
}

fn refuse(what: &str, span: Span, source: &Source, found: &mut Diagnostics) {
    let message = format!("{what} is not supported by this version of pype");
    found.push(source.error("unsupported", span, message));
}
