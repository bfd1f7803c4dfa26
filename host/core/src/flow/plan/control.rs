//! Control edges: may control go there, and in which order.

use std::collections::BTreeMap;

use super::Trigger;
use super::assemble::ControlPart;
use super::topology::Topology;
use super::wiring::Wiring;
use crate::diagnostic::Diagnostics;
use crate::flow::spec::{Condition, ControlEdge, Flow, Order};
use crate::suggest;

/// The sound control edges between sub flows, their orders resolved.
pub(super) fn check(flow: &Flow, wiring: &Wiring<'_>, found: &mut Diagnostics) -> Vec<ControlPart> {
    let sub_flows = SubFlows::of(flow, wiring);
    let between: Vec<Between<'_>> = flow
        .control_edges
        .iter()
        .filter_map(|edge| {
            let from = wiring.find(flow, &edge.from, found);
            let to = wiring.find(flow, &edge.to, found);
            let (from, to) = (from?, to?);
            // With unsound data edges sub flows fall apart, and this would blame the innocent.
            let joins = wiring.complete && sub_flows.joins(flow, wiring, edge, from, to, found);
            joins.then(|| Between { edge, leaves: sub_flows.component[from] })
        })
        .collect();
    resolve_orders(&between)
}

/// A control edge that joins two sub flows.
struct Between<'a> {
    edge: &'a ControlEdge,
    leaves: usize,
}

/// `Last` is one more than the highest order of the edges that leave the same sub flow.
fn resolve_orders(between: &[Between<'_>]) -> Vec<ControlPart> {
    let mut highest: BTreeMap<usize, u32> = BTreeMap::new();
    for Between { edge, leaves } in between {
        if let Order::Nth(order) = edge.valve.value.order {
            let entry = highest.entry(*leaves).or_insert(0);
            *entry = (*entry).max(order.get());
        }
    }
    between
        .iter()
        .map(|Between { edge, leaves }| {
            let order = match edge.valve.value.order {
                Order::Nth(order) => order.get(),
                Order::Last => highest.get(leaves).copied().unwrap_or(0).saturating_add(1),
            };
            ControlPart {
                from: edge.from.value.clone(),
                to: edge.to.value.clone(),
                order,
                trigger: Trigger::of(edge.valve.value.condition.clone()),
            }
        })
        .collect()
}

struct SubFlows {
    data: Topology,
    /// For each module the lowest that it hangs together with, checkpoints left out.
    component: Vec<usize>,
}

impl SubFlows {
    fn of(flow: &Flow, wiring: &Wiring<'_>) -> Self {
        let edges: Vec<(usize, usize)> = wiring
            .data_edges
            .iter()
            .filter_map(|edge| Some((wiring.place(&edge.from.node)?, wiring.place(&edge.to.node)?)))
            .collect();
        let count = wiring.ids().len();
        let whole = edges.iter().copied().filter(|(from, _)| !flow.modules[*from].misc.keeps_output());
        SubFlows { component: Topology::new(count, whole).components(), data: Topology::new(count, edges) }
    }

    /// Does an edge join two sub flows, and may it? All that is wrong with it is reported.
    fn joins(
        &self,
        flow: &Flow,
        wiring: &Wiring<'_>,
        edge: &ControlEdge,
        from: usize,
        to: usize,
        found: &mut Diagnostics,
    ) -> bool {
        if self.component[from] == self.component[to] {
            self.inside(flow, edge, from, to, found);
            return false;
        }
        let leaves = self.may_leave(flow, wiring, edge, from, found);
        let enters = self.may_enter(flow, wiring, edge, to, found);
        let has_items = has_items(flow, wiring, edge, found);
        leaves && enters && has_items
    }

    /// Data already settles the order within a sub flow: an edge that agrees is idle, any other wrong.
    fn inside(&self, flow: &Flow, edge: &ControlEdge, from: usize, to: usize, found: &mut Diagnostics) {
        let (first, second) = (&edge.from.value, &edge.to.value);
        let path = &flow.source.path;
        if from == to {
            found.error("control-to-itself", path, edge.span(), format!("`{first}` cannot wait for itself"));
        } else if let Condition::Iterate { .. } = edge.valve.value.condition {
            let message =
                format!("data goes between `{first}` and `{second}`, so they run as one and not once per item");
            let help = "let the loop begin with a source that reads its `iter.item`, or with a solo";
            found.push(flow.source.error("loop-inside-sub-flow", edge.span(), message).help(help));
        } else if self.data.leads_to(from, to) {
            let message = format!(
                "this control edge does nothing: data already goes from `{first}` to `{second}`, in one sub flow"
            );
            found.warning("idle-control-edge", path, edge.span(), message);
        } else if self.data.leads_to(to, from) {
            let message = format!("control goes from `{first}` to `{second}`, but data goes the other way");
            found.error("control-against-data", path, edge.span(), message);
        } else {
            let message = format!("`{first}` and `{second}` are in one sub flow, which runs as one");
            found.error("control-inside-sub-flow", path, edge.span(), message);
        }
    }

    fn may_leave(
        &self,
        flow: &Flow,
        wiring: &Wiring<'_>,
        edge: &ControlEdge,
        from: usize,
        found: &mut Diagnostics,
    ) -> bool {
        let Some(entry) = wiring.entry(&edge.from.value) else { return false };
        if entry.kind.control_may_leave() {
            return true;
        }
        let message = format!("`{}` is a {}: control leaves a source, sink or solo", edge.from.value, entry.kind);
        let others = self.members(wiring, from, |other| other.control_may_leave());
        let help = hint("it can leave this sub flow from", &others);
        found.push(flow.source.error("control-kind", edge.from.span, message).help_if(help));
        false
    }

    fn may_enter(
        &self,
        flow: &Flow,
        wiring: &Wiring<'_>,
        edge: &ControlEdge,
        to: usize,
        found: &mut Diagnostics,
    ) -> bool {
        let Some(entry) = wiring.entry(&edge.to.value) else { return false };
        if entry.kind.control_may_enter() {
            return true;
        }
        let message = format!("`{}` is a {}: control enters a source or solo", edge.to.value, entry.kind);
        let others = self.members(wiring, to, |other| other.control_may_enter());
        let help = hint("it can enter this sub flow at", &others);
        found.push(flow.source.error("control-kind", edge.to.span, message).help_if(help));
        false
    }

    /// The modules of the same sub flow that are of the right kind.
    fn members(
        &self,
        wiring: &Wiring<'_>,
        of: usize,
        right: impl Fn(crate::catalog::ModuleKind) -> bool,
    ) -> Vec<String> {
        let same = wiring.ids().iter().enumerate().filter(|(index, _)| self.component[*index] == self.component[of]);
        same.filter(|(_, id)| wiring.entry(id).is_some_and(|entry| right(entry.kind)))
            .map(|(_, id)| id.to_string())
            .collect()
    }
}

/// Does the module of an ITERATE edge declare what the loop is to go over?
fn has_items(flow: &Flow, wiring: &Wiring<'_>, edge: &ControlEdge, found: &mut Diagnostics) -> bool {
    let Condition::Iterate { over, .. } = &edge.valve.value.condition else { return true };
    let Some(entry) = wiring.entry(&edge.from.value) else { return false };
    if entry.output_port(over).is_some() || entry.lists.contains(over) {
        return true;
    }
    let declared: Vec<&str> = entry.lists.iter().chain(&entry.output_ports).map(String::as_str).collect();
    let known = format!("`{}` can be iterated over", edge.from.value);
    let help = match declared.is_empty() {
        true => Some(format!("`{}` has nothing to iterate over", edge.from.value)),
        false => suggest::help(over, declared.iter().copied(), &known),
    };
    let message = format!("`{}` has neither an output port nor a list `{over}`", edge.from.value);
    found.push(flow.source.error("unknown-items", edge.valve.span, message).help_if(help));
    false
}

fn hint(what: &str, ids: &[String]) -> Option<String> {
    let list = suggest::quoted_list(ids.iter().map(String::as_str));
    (!ids.is_empty()).then(|| format!("{what} {list}"))
}
