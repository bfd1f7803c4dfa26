//! Globals: is what is read declared, and set by the time it is read.

use std::collections::{BTreeMap, BTreeSet};

use super::wiring::Wiring;
use super::{Plan, SubFlowId};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::Source;
use crate::flow::spec::{Condition, Flow, NodeId};
use crate::suggest;
use crate::template::{References, name_span, split_global};

/// A template or a condition uses a module's global.
pub(super) struct Read {
    reader: NodeId,
    when: When,
    pub(super) writer: NodeId,
    /// As the writer declares it.
    pub(super) name: String,
    span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// In the reader's configs, when it starts.
    Start,
    /// In the condition of an edge that leaves the reader, when its sub flow has ended.
    End,
}

/// All reads of globals that exist; an error for each of one that does not.
pub(super) fn resolve(flow: &Flow, wiring: &Wiring<'_>, found: &mut Diagnostics) -> Vec<Read> {
    let mut reads = Vec::new();
    for module in &flow.modules {
        for (pointer, references) in &module.references {
            let leaf = module.spans.value(pointer).unwrap_or(module.id.span);
            for name in &references.globals {
                let span = name_span(&flow.source, leaf, name);
                reads.extend(read(flow, wiring, &module.id.value, When::Start, name, span, found));
            }
        }
    }
    for edge in &flow.control_edges {
        let Condition::When(expression) = &edge.valve.value.condition else { continue };
        // A malformed one was refused when the edge was read.
        for name in References::of_expression(expression).into_iter().flat_map(|references| references.globals) {
            let span = name_span(&flow.source, edge.valve.span, &name);
            reads.extend(read(flow, wiring, &edge.from.value, When::End, &name, span, found));
        }
    }
    reads
}

/// A global is readable only where its writer has ended for sure.
pub(super) fn check_order(plan: &Plan, reads: &[Read], source: &Source, found: &mut Diagnostics) {
    let mut before: BTreeMap<SubFlowId, BTreeSet<SubFlowId>> = BTreeMap::new();
    for read in reads {
        let home = |id: &NodeId| plan.sub_flow_of(id).map(|sub_flow| sub_flow.id);
        let (Some(reader), Some(writer)) = (home(&read.reader), home(&read.writer)) else { continue };
        if reader == writer && read.when == When::End {
            continue;
        }
        let ended = before.entry(reader).or_insert_with(|| plan.ended_before(reader));
        if ended.contains(&writer) {
            continue;
        }
        let loops = |id: SubFlowId| plan.loops_around(id).map(|one| one.id);
        match loops(writer).find(|around| loops(reader).all(|other| other != *around)) {
            Some(around) => found.push(inside_a_loop(read, &plan.sub_flow(around).name(), source)),
            None => found.push(too_early(read, reader == writer, source)),
        }
    }
}

fn inside_a_loop(read: &Read, over: &str, source: &Source) -> Diagnostic {
    let Read { reader, writer, name, span, .. } = read;
    let message =
        format!("`{reader}` cannot read `{writer}__{name}`: it has one value per item of the loop over `{over}`");
    source.error("global-inside-loop", *span, message).help("only what runs within that loop can read it")
}

fn too_early(read: &Read, together: bool, source: &Source) -> Diagnostic {
    let Read { reader, writer, name, span, .. } = read;
    let (why, help) = match together {
        true => (
            "both run at the same time, in one sub flow".to_owned(),
            format!("read it in a sub flow that control reaches after `{writer}`"),
        ),
        false => (
            format!("nothing makes it wait until `{writer}` has ended"),
            format!("let control lead from the sub flow of `{writer}` to that of `{reader}`"),
        ),
    };
    let message = format!("`{reader}` reads `{writer}__{name}` too early: {why}");
    source.error("global-too-early", *span, message).help(help)
}

fn read(
    flow: &Flow,
    wiring: &Wiring<'_>,
    reader: &NodeId,
    when: When,
    name: &str,
    span: Span,
    found: &mut Diagnostics,
) -> Option<Read> {
    let known = split_global(name).find_map(|(node, variable)| {
        let writer = wiring.ids().iter().find(|id| id.as_str().eq_ignore_ascii_case(node))?;
        Some((writer, variable))
    });
    let Some((writer, variable)) = known else {
        let node = split_global(name).last().map_or(name, |(node, _)| node);
        let ids = wiring.ids().iter().map(NodeId::as_str);
        let help = suggest::help(node, ids, "the modules of this flow are");
        let message = format!("the global `{name}` belongs to no module of this flow");
        found.push(flow.source.error("unknown-global", span, message).help_if(help));
        return None;
    };
    let entry = wiring.entry(writer)?;
    let Some(declared) = entry.global(variable) else {
        let globals = entry.globals.iter().map(String::as_str);
        let help = suggest::help(variable, globals, &format!("the globals of `{writer}` are"));
        let message = format!("`{writer}` declares no global `{variable}`");
        found.push(flow.source.error("unknown-global", span, message).help_if(help));
        return None;
    };
    Some(Read { reader: reader.clone(), when, writer: writer.clone(), name: declared.to_owned(), span })
}
