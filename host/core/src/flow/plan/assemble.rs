//! From checked parts to a plan: sorting, sub flows, what waits for what.

use std::collections::{BTreeMap, BTreeSet};

use super::topology::Topology;
use super::{ControlEdge, DataEdge, NodePlace, Plan, PlannedNode, SubFlow, SubFlowId, Trigger};
use super::{control, globals, unsupported, wiring};
use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostics, Span};
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
    /// An edge names a module that is not there.
    Unknown(NodeId),
}

pub(super) fn plan(flow: Flow, catalog: &Catalog) -> Result<(Plan, Diagnostics), Diagnostics> {
    let mut found = Diagnostics::new();
    unsupported::check(&flow, &mut found);
    let wiring = wiring::check(&flow, catalog, &mut found);
    let control_edges = control::check(&flow, &wiring, &mut found);
    let reads = globals::resolve(&flow, &wiring, &mut found);
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
            let (code, message, span) = spans.describe(&unsorted);
            found.error(code, &source.path, span, message);
            return Err(found);
        }
    };
    if edges_complete && !found.has_errors() {
        globals::check_order(&plan, &reads, &source, &mut found);
    }
    if found.has_errors() { Err(found) } else { Ok((plan, found)) }
}

impl Plan {
    /// The only constructor.
    pub(in crate::flow) fn assemble(parts: Parts) -> Result<Plan, Unsorted> {
        let nodes = sorted_nodes(parts.nodes, &parts.data_edges)?;
        let component = components(&nodes, &parts.data_edges)?;
        let sub_flows = sub_flows(&nodes, &component, &parts.control_edges)?;
        let places = node_places(&nodes, &parts.data_edges, &sub_flows);
        let control_edges = number(parts.control_edges, &places);
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
            places,
        })
    }
}

impl Plan {
    /// What it was assembled from, but for the modules that `keeps` refuses and the edges from and to them.
    pub(in crate::flow) fn parts(&self, keeps: impl Fn(&NodeId) -> bool) -> Parts {
        let data = self.data_edges.iter().filter(|edge| keeps(&edge.from.node) && keeps(&edge.to.node));
        let control = self.control_edges.iter().filter(|edge| keeps(&edge.from) && keeps(&edge.to));
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
    let order = data_topology(&nodes, edges)?.sort().map_err(|circle| Unsorted::Data(ids(&nodes, circle)))?;
    let mut nodes: Vec<Option<PlannedNode>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| nodes[index].take()).collect())
}

fn components(nodes: &[PlannedNode], edges: &[DataEdge]) -> Result<Vec<usize>, Unsorted> {
    Ok(data_topology(nodes, edges)?.components())
}

fn data_topology(nodes: &[PlannedNode], edges: &[DataEdge]) -> Result<Topology, Unsorted> {
    let places = places(nodes);
    let pairs: Result<Vec<_>, Unsorted> =
        edges.iter().map(|edge| Ok((place(&places, &edge.from.node)?, place(&places, &edge.to.node)?))).collect();
    Ok(Topology::new(nodes.len(), pairs?))
}

/// Groups `nodes` by component and numbers the groups so that each comes after those it waits for.
fn sub_flows(nodes: &[PlannedNode], component: &[usize], control: &[ControlPart]) -> Result<Vec<SubFlow>, Unsorted> {
    let firsts: Vec<usize> = component.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let group_of = |index: usize| firsts.partition_point(|first| *first < component[index]);
    let places = places(nodes);
    let edges: Result<Vec<Edge>, Unsorted> = control
        .iter()
        .map(|edge| {
            Ok(Edge {
                from: group_of(place(&places, &edge.from)?),
                to: group_of(place(&places, &edge.to)?),
                order: edge.order,
                starts: matches!(edge.trigger, Trigger::Start { .. }),
            })
        })
        .collect();
    let edges = edges?;

    let circle = |groups: Vec<usize>| Unsorted::Control(ids(nodes, groups.into_iter().map(|group| firsts[group])));
    Topology::new(firsts.len(), edges.iter().map(|edge| (edge.from, edge.to))).sort().map_err(circle)?;
    let after = precedence::starts_after(firsts.len(), &edges);
    let waits = after.iter().enumerate().flat_map(|(to, all)| all.iter().map(move |from| (*from, to)));
    let order = Topology::new(firsts.len(), waits).sort().map_err(circle)?;

    let mut number = vec![SubFlowId(0); firsts.len()];
    for (position, group) in order.iter().enumerate() {
        number[*group] = SubFlowId(position);
    }
    let mut members = vec![Vec::new(); firsts.len()];
    (0..nodes.len()).for_each(|index| members[group_of(index)].push(index));
    let sub_flow = |group: usize| SubFlow {
        id: number[group],
        nodes: ids(nodes, members[group].iter().copied()),
        after: after[group].iter().map(|before| number[*before]).collect(),
        join: join(members[group].iter().filter_map(|index| nodes[*index].join)),
    };
    Ok(order.into_iter().map(sub_flow).collect())
}

/// The stricter one, where modules of a sub flow differ.
fn join(mut said: impl Iterator<Item = Join>) -> Join {
    if said.any(|join| join == Join::All) { Join::All } else { Join::Taken }
}

fn number(control: Vec<ControlPart>, places: &BTreeMap<NodeId, NodePlace>) -> Vec<ControlEdge> {
    control
        .into_iter()
        .filter_map(|edge| {
            Some(ControlEdge {
                from_sub_flow: SubFlowId(places.get(&edge.from)?.sub_flow),
                to_sub_flow: SubFlowId(places.get(&edge.to)?.sub_flow),
                from: edge.from,
                to: edge.to,
                order: edge.order,
                trigger: edge.trigger,
            })
        })
        .collect()
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

    fn describe(&self, unsorted: &Unsorted) -> (&'static str, String, Option<Span>) {
        match unsorted {
            Unsorted::Data(circle) => {
                ("data-cycle", format!("data goes in a circle: {}", arrows(circle)), self.closing(circle))
            }
            Unsorted::Control(circle) => (
                "control-cycle",
                format!("sub flows wait for each other in a circle: {}", arrows(circle)),
                self.closing(circle).or(self.first),
            ),
            Unsorted::Unknown(id) => ("unknown-id", format!("there is no module `{id}`"), None),
        }
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
