//! From checked parts to a plan: sorting, sub flows, what waits for what.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::Groups;
use super::scopes::{self, Loop, Scopes};
use super::topology::Topology;
use super::{ControlEdge, DataEdge, Iterate, NodePlace, Plan, PlannedNode, SubFlow, SubFlowId, Trigger};
use super::{control, globals, iteration, wiring};
use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::Source;
use crate::flow::precedence::{self, Edge};
use crate::flow::spec::{self, Flow, FlowMeta, Join, NodeId, Settings};

/// What a plan is made of, unsorted.
pub(in crate::flow) struct Parts {
    pub(in crate::flow) meta: FlowMeta,
    pub(in crate::flow) settings: Settings,
    pub(in crate::flow) source: Source,
    pub(in crate::flow) nodes: Vec<PlannedNode>,
    pub(in crate::flow) data_edges: Vec<DataEdge>,
    pub(in crate::flow) control_edges: Vec<ControlPart>,
}

/// A control edge between sub flows that have no numbers yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flow) struct ControlPart {
    pub(in crate::flow) from: NodeId,
    pub(in crate::flow) to: NodeId,
    pub(in crate::flow) order: u32,
    pub(in crate::flow) trigger: Trigger,
}

/// Why parts cannot be sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flow) enum Unsorted {
    /// Data goes in a circle through these modules.
    Data(Vec<NodeId>),
    /// Control goes in a circle through the sub flows of these modules.
    Control(Vec<NodeId>),
    /// Data edges that lead round checkpoints, after whose checkpoint it is.
    Bypassed(Vec<(NodeId, DataEdge)>),
    /// Control edges that enter a loop from outside, by their ends, before the module that the loop goes over.
    EntersLoop(Vec<(NodeId, NodeId, NodeId)>),
    /// An edge names a module that is not there.
    Unknown(NodeId),
}

pub(super) fn plan(flow: Flow, catalog: &Catalog) -> Result<(Plan, Diagnostics), Diagnostics> {
    let mut found = Diagnostics::new();
    let wiring = wiring::check(&flow, catalog, &mut found);
    let control_edges = control::check(&flow, &wiring, &mut found);
    let reads = globals::resolve(&flow, &wiring, &mut found);
    let items = iteration::uses(&flow);
    let detaching = iteration::detaching(&flow);
    let spans = EdgeSpans::of(&flow);
    let source = flow.source.clone();
    let edges_complete = flow.edges_complete;

    let parts = Parts {
        meta: flow.meta,
        settings: flow.settings,
        source: flow.source,
        nodes: wiring::nodes(flow.modules, &reads, catalog),
        data_edges: wiring.data_edges,
        control_edges,
    };
    let plan = match Plan::assemble(parts) {
        Ok(plan) => plan,
        Err(unsorted) => {
            spans.report(&unsorted, &source, &mut found);
            return Err(found);
        }
    };
    if edges_complete && !found.has_errors() {
        globals::check_order(&plan, &reads, &source, &mut found);
        iteration::check(&plan, &items, &source, &mut found);
        iteration::check_detached(&plan, &detaching, &source, &mut found);
    }
    if found.has_errors() { Err(found) } else { Ok((plan, found)) }
}

impl Plan {
    /// The only constructor.
    pub(in crate::flow) fn assemble(parts: Parts) -> Result<Plan, Unsorted> {
        let nodes = sorted_nodes(parts.nodes, &parts.data_edges)?;
        let wired = Wired::new(&nodes, &parts.data_edges, parts.control_edges)?;
        let sub_flows = wired.sub_flows()?;
        let control_edges = wired.control_edges(&sub_flows);
        let sub_flows: Vec<SubFlow> = sub_flows.in_order;
        let places = node_places(&nodes, &parts.data_edges, &sub_flows);
        let loops = sub_flows.iter().filter(|one| one.iterate.is_some()).map(|one| one.id.0).collect();
        Ok(Plan {
            name: parts.meta.name,
            version: parts.meta.version,
            about: parts.meta.about,
            settings: parts.settings,
            source: parts.source,
            nodes,
            data_edges: parts.data_edges,
            control_edges,
            sub_flows,
            loops,
            places,
        })
    }
}

impl Plan {
    /// What it was assembled from, but for the modules that `keeps` refuses and the edges from and to them.
    pub(in crate::flow) fn parts(&self, keeps: impl Fn(&NodeId) -> bool) -> Parts {
        let data = self.data_edges.iter().filter(|edge| keeps(&edge.from.node) && keeps(&edge.to.node));
        let written = self.control_edges.iter().filter(|edge| edge.trigger != Trigger::Data);
        let control = written.filter(|edge| keeps(&edge.from) && keeps(&edge.to));
        let control = control.map(|edge| ControlPart {
            from: edge.from.clone(),
            to: edge.to.clone(),
            order: edge.order,
            trigger: edge.trigger.clone(),
        });
        Parts {
            meta: FlowMeta { name: self.name.clone(), version: self.version.clone(), about: self.about.clone() },
            settings: self.settings.clone(),
            source: self.source.clone(),
            nodes: self.nodes.iter().filter(|node| keeps(&node.id)).cloned().collect(),
            data_edges: data.cloned().collect(),
            control_edges: control.collect(),
        }
    }
}

fn node_places(nodes: &[PlannedNode], edges: &[DataEdge], sub_flows: &[SubFlow]) -> BTreeMap<NodeId, NodePlace> {
    let place = |(node, of): (usize, &PlannedNode)| (of.id.clone(), NodePlace { node, ..NodePlace::default() });
    let mut places: BTreeMap<NodeId, NodePlace> = nodes.iter().enumerate().map(place).collect();
    for sub_flow in sub_flows {
        for node in &sub_flow.nodes {
            places.entry(node.clone()).and_modify(|place| place.sub_flow = sub_flow.id.0);
        }
    }
    for (at, edge) in edges.iter().enumerate() {
        places.entry(edge.from.node.clone()).and_modify(|place| place.outputs.push(at));
        places.entry(edge.to.node.clone()).and_modify(|place| place.inputs.push(at));
    }
    places
}

fn sorted_nodes(nodes: Vec<PlannedNode>, edges: &[DataEdge]) -> Result<Vec<PlannedNode>, Unsorted> {
    let pairs = data_pairs(&nodes, edges)?;
    let order = Topology::new(nodes.len(), pairs).sort().map_err(|circle| Unsorted::Data(ids(&nodes, circle)))?;
    let mut nodes: Vec<Option<PlannedNode>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| nodes[index].take()).collect())
}

fn data_pairs(nodes: &[PlannedNode], edges: &[DataEdge]) -> Result<Vec<(usize, usize)>, Unsorted> {
    let places = places(nodes);
    edges.iter().map(|edge| Ok((place(&places, &edge.from.node)?, place(&places, &edge.to.node)?))).collect()
}

/// Groups of modules and the control edges between them. Loops are counted on behind the groups.
struct Wired<'a> {
    nodes: &'a [PlannedNode],
    groups: Groups,
    control: Vec<ControlPart>,
    /// The groups that each control edge joins.
    ends: Vec<(usize, usize)>,
    loops: Vec<Loop>,
    scopes: Scopes,
}

/// Sub flows, and which of them each group or loop became.
struct Numbered {
    in_order: Vec<SubFlow>,
    number: Vec<SubFlowId>,
}

impl<'a> Wired<'a> {
    fn new(nodes: &'a [PlannedNode], data: &[DataEdge], mut control: Vec<ControlPart>) -> Result<Self, Unsorted> {
        let pairs = data_pairs(nodes, data)?;
        let groups = Groups::new(nodes.len(), &pairs, |from| nodes[from].checkpoint).map_err(|bypasses| {
            let named = bypasses.iter().map(|one| (nodes[one.checkpoint].id.clone(), data[one.edge].clone()));
            Unsorted::Bypassed(named.collect())
        })?;
        control.extend(cut_edges(data, &pairs, &groups, nodes));
        let at = places(nodes);
        let group = |id: &NodeId| Ok(groups.of[place(&at, id)?]);
        let ends: Vec<(usize, usize)> =
            control.iter().map(|edge| Ok((group(&edge.from)?, group(&edge.to)?))).collect::<Result<_, Unsorted>>()?;
        let first = |group: usize| nodes[groups.members[group][0]].id.clone();
        Topology::new(groups.members.len(), ends.iter().copied())
            .sort()
            .map_err(|circle| Unsorted::Control(circle.into_iter().map(first).collect()))?;
        let loops: Vec<Loop> = control
            .iter()
            .zip(&ends)
            .enumerate()
            .filter(|(_, (part, _))| matches!(part.trigger, Trigger::Iterate { .. }))
            .map(|(edge, (_, (from, to)))| Loop { edge, from: *from, to: *to })
            .collect();
        let brings_data = |edge: usize| control[edge].trigger == Trigger::Data;
        let scopes = scopes::find(groups.members.len(), &ends, &loops, brings_data).map_err(|intruders| {
            let named = intruders.iter().map(|one| {
                let (edge, entry) = (&control[one.edge], &control[loops[one.into].edge]);
                (edge.from.clone(), edge.to.clone(), entry.from.clone())
            });
            Unsorted::EntersLoop(named.collect())
        })?;
        Ok(Wired { nodes, groups, control, ends, loops, scopes })
    }

    /// The group or loop that a control edge enters: what brings data into a loop is there before it begins.
    fn enters(&self, edge: usize) -> usize {
        let (from, to) = self.ends[edge];
        self.scopes.entered(from, to).map_or(to, |at| self.groups.members.len() + at)
    }

    /// Numbers groups and loops so that each comes after those it waits for, and after the loop that it runs in.
    fn sub_flows(&self) -> Result<Numbered, Unsorted> {
        let (groups, count) = (self.groups.members.len(), self.groups.members.len() + self.loops.len());
        let edges: Vec<Edge> = (0..self.control.len())
            .map(|edge| Edge {
                from: self.ends[edge].0,
                to: self.enters(edge),
                order: self.control[edge].order,
                starts: matches!(self.control[edge].trigger, Trigger::Start { .. }),
            })
            .collect();
        let after = precedence::starts_after(count, &edges);
        let after = &after;
        let waits = after.iter().enumerate().flat_map(|(to, all)| all.iter().map(move |from| (*from, to)));
        let bodies = self.bodies();
        // What runs within a loop comes behind it, and before all that waits for it.
        let in_loops = bodies.iter().enumerate().flat_map(|(at, body)| {
            let waiting = (0..count).filter(move |index| after[*index].contains(&(groups + at)));
            let enters = body.iter().map(move |inner| (groups + at, *inner));
            enters.chain(waiting.flat_map(|index| body.iter().map(move |inner| (*inner, index)))).collect::<Vec<_>>()
        });
        let circle = |circle: Vec<usize>| {
            let of_groups = circle.into_iter().filter(|index| *index < groups);
            Unsorted::Control(of_groups.map(|group| self.nodes[self.groups.members[group][0]].id.clone()).collect())
        };
        let order = Topology::new(count, waits.chain(in_loops)).sort().map_err(circle)?;
        let mut number = vec![SubFlowId(0); count];
        for (position, index) in order.iter().enumerate() {
            number[*index] = SubFlowId(position);
        }
        let in_order = order.into_iter().map(|index| self.sub_flow(index, &after[index], &number)).collect();
        Ok(Numbered { in_order, number })
    }

    /// For each loop the groups and loops within, however deep.
    fn bodies(&self) -> Vec<Vec<usize>> {
        let mut bodies = vec![Vec::new(); self.loops.len()];
        let scopes = self.scopes.of_groups.iter().chain(&self.scopes.of_loops);
        for (index, scope) in scopes.enumerate() {
            let mut around = *scope;
            while let Some(at) = around {
                bodies[at].push(index);
                around = self.scopes.of_loops[at];
            }
        }
        bodies
    }

    fn sub_flow(&self, index: usize, after: &BTreeSet<usize>, number: &[SubFlowId]) -> SubFlow {
        let groups = self.groups.members.len();
        let number_of_loop = |at: usize| number[groups + at];
        let (members, within, iterate) = match index.checked_sub(groups) {
            None => (self.groups.members[index].as_slice(), self.scopes.of_groups[index], None),
            Some(at) => (&[][..], self.scopes.of_loops[at], self.iterate(self.loops[at])),
        };
        SubFlow {
            id: number[index],
            nodes: ids(self.nodes, members.iter().copied()),
            iterate,
            within: within.map(number_of_loop),
            after: after.iter().map(|before| number[*before]).collect(),
            join: join(members.iter().filter_map(|index| self.nodes[*index].join)),
        }
    }

    fn iterate(&self, one: Loop) -> Option<Iterate> {
        let part = &self.control[one.edge];
        match &part.trigger {
            Trigger::Iterate { over, parallel } => {
                Some(Iterate { node: part.from.clone(), over: over.clone(), parallel: *parallel })
            }
            Trigger::Ok | Trigger::Error | Trigger::Done | Trigger::When(_) | Trigger::Start { .. } | Trigger::Data => {
                None
            }
        }
    }

    fn control_edges(&self, numbered: &Numbered) -> Vec<ControlEdge> {
        let edge = |(at, part): (usize, &ControlPart)| ControlEdge {
            from: part.from.clone(),
            to: part.to.clone(),
            from_sub_flow: numbered.number[self.ends[at].0],
            to_sub_flow: numbered.number[self.enters(at)],
            order: part.order,
            trigger: part.trigger.clone(),
        };
        self.control.iter().enumerate().map(edge).collect()
    }
}

/// A data edge out of a checkpoint is a control edge too; one for each pair of sub flows.
fn cut_edges(data: &[DataEdge], pairs: &[(usize, usize)], groups: &Groups, nodes: &[PlannedNode]) -> Vec<ControlPart> {
    let mut open = groups.cuts.clone();
    let mut edges = Vec::new();
    for (edge, (from, to)) in data.iter().zip(pairs) {
        if nodes[*from].checkpoint && open.remove(&(groups.of[*from], groups.of[*to])) {
            let (from, to) = (edge.from.node.clone(), edge.to.node.clone());
            edges.push(ControlPart { from, to, order: 0, trigger: Trigger::Data });
        }
    }
    edges
}

/// The stricter one, where modules of a sub flow differ.
fn join(mut said: impl Iterator<Item = Join>) -> Join {
    if said.any(|join| join == Join::All) { Join::All } else { Join::Taken }
}

fn places(nodes: &[PlannedNode]) -> BTreeMap<&str, usize> {
    nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect()
}

fn place(places: &BTreeMap<&str, usize>, id: &NodeId) -> Result<usize, Unsorted> {
    places.get(id.as_str()).copied().ok_or_else(|| Unsorted::Unknown(id.clone()))
}

fn ids(nodes: &[PlannedNode], indices: impl IntoIterator<Item = usize>) -> Vec<NodeId> {
    indices.into_iter().map(|index| nodes[index].id.clone()).collect()
}

/// Where the edges of a document stand, to show the one that closes a circle.
struct EdgeSpans {
    edges: Vec<(NodeId, NodeId, Span)>,
    first: Option<Span>,
}

impl EdgeSpans {
    fn of(flow: &Flow) -> Self {
        let data =
            flow.data_edges.iter().map(|edge| (edge.from.node.value.clone(), edge.to.node.value.clone(), edge.span()));
        let control =
            flow.control_edges.iter().map(|edge| (edge.from.value.clone(), edge.to.value.clone(), edge.span()));
        let first = flow.control_edges.first().map(spec::ControlEdge::span);
        EdgeSpans { edges: data.chain(control).collect(), first }
    }

    fn report(&self, unsorted: &Unsorted, source: &Source, found: &mut Diagnostics) {
        match unsorted {
            Unsorted::Data(circle) => {
                let message = format!("data goes in a circle: {}", arrows(circle));
                found.error("data-cycle", &source.path, self.closing(circle), message);
            }
            Unsorted::Control(circle) => {
                let message = format!("sub flows wait for each other in a circle: {}", arrows(circle));
                found.error("control-cycle", &source.path, self.closing(circle).or(self.first), message);
            }
            Unsorted::Bypassed(edges) => {
                for (checkpoint, edge) in edges {
                    let message = format!(
                        "`{edge_from} - {edge_to}` leads round the checkpoint of `{checkpoint}`, which then cuts nothing off",
                        edge_from = edge.from,
                        edge_to = edge.to
                    );
                    let help =
                        format!("keep the output of `{}` too, or read it from a source of its own", edge.from.node);
                    let span = self.find(&edge.from.node, &edge.to.node);
                    found.push(Diagnostic::error("checkpoint-bypassed", &source.path, message).at(span).help(help));
                }
            }
            Unsorted::EntersLoop(edges) => {
                for (from, to, over) in edges {
                    let message = format!(
                        "`{to}` runs once per item of the loop over `{over}`, so nothing outside the loop may lead to it"
                    );
                    let help =
                        format!("let what `{from}` leads to follow the loop: an edge of `{over}` with a higher order");
                    let span = self.find(from, to);
                    found.push(Diagnostic::error("enters-loop", &source.path, message).at(span).help(help));
                }
            }
            Unsorted::Unknown(id) => {
                found.error("unknown-id", &source.path, None, format!("there is no module `{id}`"));
            }
        }
    }

    fn find(&self, one: &NodeId, other: &NodeId) -> Option<Span> {
        self.edges.iter().find(|(from, to, _)| from == one && to == other).map(|(_, _, span)| *span)
    }

    fn closing(&self, circle: &[NodeId]) -> Option<Span> {
        let (first, last) = (circle.first()?, circle.last()?);
        self.edges.iter().rfind(|(from, to, _)| from == last && to == first).map(|(_, _, span)| *span)
    }
}

/// "`a` → `b` → `a`".
fn arrows(circle: &[NodeId]) -> String {
    let names = circle.iter().chain(circle.first()).map(|id| format!("`{id}`"));
    names.collect::<Vec<_>>().join(" → ")
}
