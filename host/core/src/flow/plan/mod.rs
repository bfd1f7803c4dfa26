//! A flow, wired: which modules form which sub flow, in which order, after what.
//!
//! A [`Plan`] is acyclic and complete: its only constructor sorts it, and that is reached from [`plan`], which reports
//! all that is wrong with a flow, and from [`crate::flow::dag`], which reads what a plan was written to.

mod assemble;
mod control;
mod globals;
mod groups;
mod iteration;
mod scopes;
mod topology;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::edge;
use super::precedence;
use super::spec::{
    About, Condition, ExecutionMode, Flow, FlowName, Join, ModuleName, NodeId, PortName, Settings, Version,
};
use crate::catalog::{Catalog, ModuleEntry};
use crate::diagnostic::Diagnostics;
use crate::document::{Source, SpanMap};

pub(super) use assemble::{ControlPart, Parts, Unsorted};

/// The number of a sub flow: its place in [`Plan::sub_flows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubFlowId(pub(crate) usize);

impl SubFlowId {
    /// The place in [`Plan::sub_flows`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for SubFlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A flow that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The name of the flow.
    pub name: FlowName,
    /// The version of the flow.
    pub version: Version,
    /// Who wrote the flow, when, what for.
    pub about: About,
    /// How to run it.
    pub settings: Settings,
    /// The document that the spans of the nodes belong to.
    pub source: Source,
    nodes: Vec<PlannedNode>,
    data_edges: Vec<DataEdge>,
    control_edges: Vec<ControlEdge>,
    sub_flows: Vec<SubFlow>,
    /// The places of the loops among them.
    loops: Vec<usize>,
    places: BTreeMap<NodeId, NodePlace>,
}

/// Where a module of a plan is found.
#[derive(Debug, Clone, Default, PartialEq)]
struct NodePlace {
    node: usize,
    sub_flow: usize,
    /// Of the data edges that feed it, the places.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

/// One module of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedNode {
    /// Its id in the flow.
    pub id: NodeId,
    /// The module it is an instance of.
    pub module: ModuleName,
    /// That module, as the catalog described it.
    pub entry: ModuleEntry,
    /// Its configs, `required` and `optional` in one object. Templates are not filled in.
    pub configs: Value,
    /// Where the values of `configs` stand in the document.
    pub spans: SpanMap,
    /// Those of its globals that others read, as the module spells them.
    pub wanted_globals: BTreeSet<String>,
    /// What it can be selected by.
    pub labels: Map<String, Value>,
    /// When its sub flow runs, if it has a say.
    pub join: Option<Join>,
    /// Whether its output is kept: the data edges that leave it join sub flows, then.
    pub checkpoint: bool,
    /// Whether it runs in a process of its own.
    pub isolated: bool,
}

/// A port of a planned module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The module.
    pub node: NodeId,
    /// Its port, as the flow names it: `in_left` where the module declares `in*`.
    pub port: PortName,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.port)
    }
}

/// Data that goes from an output to an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataEdge {
    /// The output.
    pub from: Endpoint,
    /// The input. No other edge feeds it.
    pub to: Endpoint,
}

/// Control that goes from one sub flow to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlEdge {
    /// The module it leaves.
    pub from: NodeId,
    /// The module it enters.
    pub to: NodeId,
    /// The sub flow it leaves.
    pub from_sub_flow: SubFlowId,
    /// The sub flow it enters.
    pub to_sub_flow: SubFlowId,
    /// Its rank, `Last` resolved.
    pub order: u32,
    /// What makes it fire.
    pub trigger: Trigger,
}

/// What makes a control edge fire. On disk and in messages it is the condition's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Trigger {
    /// The sub flow it leaves has succeeded.
    Ok,
    /// It has failed: its failure is handled.
    Error,
    /// It has succeeded or failed.
    Done,
    /// It has succeeded, and this expression over globals and context is true.
    When(String),
    /// It has succeeded, and nobody waits for what follows.
    Start {
        /// The run does not wait for it at its end either, and does not count its failure.
        detach: bool,
    },
    /// It has succeeded, and what follows runs once per item.
    Iterate {
        /// The output port or list of the module it leaves.
        over: String,
        /// How many items at a time.
        parallel: NonZeroU32,
    },
    /// It has succeeded, and its kept output is there to be read: a data edge out of a checkpoint. Order 0, and needed
    /// whatever else leads there. No document writes it.
    Data,
}

impl Trigger {
    fn of(condition: Condition) -> Trigger {
        match condition {
            Condition::Ok => Trigger::Ok,
            Condition::Error => Trigger::Error,
            Condition::Done => Trigger::Done,
            Condition::When(expression) => Trigger::When(expression),
            Condition::Start { detach } => Trigger::Start { detach },
            Condition::Iterate { over, parallel } => Trigger::Iterate { over, parallel },
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trigger::Ok => "ok",
            Trigger::Error => "error",
            Trigger::Done => "done",
            Trigger::When(expression) => expression,
            Trigger::Start { detach: false } => "start",
            Trigger::Start { detach: true } => "start detach",
            Trigger::Iterate { over, parallel: NonZeroU32::MIN } => return write!(f, "iterate:{over}"),
            Trigger::Iterate { over, parallel } => return write!(f, "iterate*{parallel}:{over}"),
            Trigger::Data => "data",
        })
    }
}

impl From<Trigger> for String {
    fn from(trigger: Trigger) -> String {
        trigger.to_string()
    }
}

impl TryFrom<String> for Trigger {
    type Error = String;

    fn try_from(text: String) -> Result<Trigger, String> {
        edge::condition_of(&text).map(Trigger::of)
    }
}

/// Modules that data joins, and which therefore run, fail and are retried as one. Or a loop: it has no modules of its
/// own, and other sub flows run within it, once per item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubFlow {
    /// Its number.
    pub id: SubFlowId,
    /// Its modules, each after those that feed it; none of a loop.
    pub nodes: Vec<NodeId>,
    /// What it goes over, if it is a loop.
    pub iterate: Option<Iterate>,
    /// The loop that it runs in, the innermost. Control does not cross from one loop to another.
    pub within: Option<SubFlowId>,
    /// The sub flows that must have ended before it starts; what those wait for is not named again. All have lower
    /// numbers.
    pub after: BTreeSet<SubFlowId>,
    /// When it runs, with several control edges that lead to it.
    pub join: Join,
}

/// What a loop goes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iterate {
    /// The module that has the items.
    pub node: NodeId,
    /// Its output port, whose rows are the items, or its list.
    pub over: String,
    /// How many items at a time.
    pub parallel: NonZeroU32,
}

impl fmt::Display for Iterate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.over)
    }
}

/// Wires a flow.
///
/// # Errors
/// All that is wrong with it at once. With a plan come warnings only.
pub fn plan(flow: Flow, catalog: &Catalog) -> Result<(Plan, Diagnostics), Diagnostics> {
    assemble::plan(flow, catalog)
}

impl SubFlow {
    /// Its name: the id of its first module; of a loop what it goes over, `files.data`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.iterate {
            Some(iterate) => iterate.to_string(),
            None => self.nodes[0].to_string(),
        }
    }
}

impl Plan {
    /// All modules, each after those that feed it, otherwise as the document lists them.
    #[must_use]
    pub fn nodes(&self) -> &[PlannedNode] {
        &self.nodes
    }

    /// One module of this plan.
    ///
    /// # Panics
    /// If the id is another plan's.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> &PlannedNode {
        &self.nodes[self.places.get(id).expect("an id of a plan names one of its modules").node]
    }

    /// All data edges, as the document lists them.
    #[must_use]
    pub fn data_edges(&self) -> &[DataEdge] {
        &self.data_edges
    }

    /// The data edges that feed a module.
    pub fn inputs_of<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = &'a DataEdge> {
        self.numbered_inputs_of(id).map(|(_, edge)| edge)
    }

    /// The same, each with its place in [`Plan::data_edges`].
    pub fn numbered_inputs_of<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = (usize, &'a DataEdge)> {
        let edges = self.places.get(id).into_iter().flat_map(|place| &place.inputs);
        edges.map(|edge| (*edge, &self.data_edges[*edge]))
    }

    /// The data edges that a module feeds.
    pub fn outputs_of<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = &'a DataEdge> {
        self.numbered_outputs_of(id).map(|(_, edge)| edge)
    }

    /// The same, each with its place in [`Plan::data_edges`].
    pub fn numbered_outputs_of<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = (usize, &'a DataEdge)> {
        let edges = self.places.get(id).into_iter().flat_map(|place| &place.outputs);
        edges.map(|edge| (*edge, &self.data_edges[*edge]))
    }

    /// All control edges between sub flows: as the document lists them, then those that checkpoints make. An edge that
    /// iterates enters its loop.
    #[must_use]
    pub fn control_edges(&self) -> &[ControlEdge] {
        &self.control_edges
    }

    /// All sub flows, each after those it waits for.
    #[must_use]
    pub fn sub_flows(&self) -> &[SubFlow] {
        &self.sub_flows
    }

    /// One sub flow of this plan.
    ///
    /// # Panics
    /// If the id is another plan's.
    #[must_use]
    pub fn sub_flow(&self, id: SubFlowId) -> &SubFlow {
        &self.sub_flows[id.0]
    }

    /// The sub flow that a module belongs to.
    #[must_use]
    pub fn sub_flow_of(&self, id: &NodeId) -> Option<&SubFlow> {
        self.places.get(id).map(|place| &self.sub_flows[place.sub_flow])
    }

    /// The loops that a sub flow runs in, the innermost first.
    pub fn loops_around(&self, id: SubFlowId) -> impl Iterator<Item = &SubFlow> {
        let around = |one: &SubFlow| one.within.map(|outer| self.sub_flow(outer));
        std::iter::successors(around(self.sub_flow(id)), move |one| around(one))
    }

    /// All that must have ended when a sub flow starts: what it waits for, and what the loops around it do.
    pub(crate) fn ended_before(&self, id: SubFlowId) -> BTreeSet<SubFlowId> {
        let waits = |of: usize| {
            let of = &self.sub_flows[of];
            let with_loops = std::iter::once(of).chain(self.loops_around(of.id));
            with_loops.flat_map(|one| one.after.iter().map(|before| before.0)).collect()
        };
        precedence::all_before(id.0, waits).into_iter().map(SubFlowId).collect()
    }

    /// The loops over an output port or list of a module.
    pub fn loops_over<'a>(&'a self, id: &'a NodeId) -> impl Iterator<Item = &'a Iterate> {
        let loops = self.loops.iter().filter_map(|at| self.sub_flows[*at].iterate.as_ref());
        loops.filter(move |iterate| iterate.node == *id)
    }

    /// Sub flows that may run side by side, wave after wave; those in a loop behind it, and before what follows it.
    #[must_use]
    pub fn waves(&self) -> Vec<Vec<SubFlowId>> {
        // The last wave of each, of a loop with all that it holds.
        let mut last: Vec<usize> = Vec::with_capacity(self.sub_flows.len());
        let mut first = last.clone();
        let mut waves: Vec<Vec<SubFlowId>> = Vec::new();
        for sub_flow in &self.sub_flows {
            let before = sub_flow.after.iter().map(|before| last[before.0] + 1);
            let wave = before.chain(sub_flow.within.map(|around| first[around.0] + 1)).max().unwrap_or(0);
            first.push(wave);
            last.push(wave);
            for around in self.loops_around(sub_flow.id) {
                last[around.id.0] = last[around.id.0].max(wave);
            }
            if waves.len() == wave {
                waves.push(Vec::new());
            }
            waves[wave].push(sub_flow.id);
        }
        waves
    }

    /// Does every module hold its whole output before its readers start?
    #[must_use]
    pub fn is_eager(&self) -> bool {
        self.settings.execution_mode == ExecutionMode::Eager
    }
}
