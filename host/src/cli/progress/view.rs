//! What is the case in a run, told by its events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pype_core::flow::plan::SubFlowId;
use pype_core::name::{NodeId, PortName};
use pype_core::run::event::{NodeInfo, OutputInfo, RunEvent, SubFlowInfo};
use pype_core::run::scheduler::{EndState, Verdict};

use crate::cli::render::Failure;

#[derive(Default)]
pub(super) struct View {
    pub(super) run_id: String,
    pub(super) flow: String,
    pub(super) sub_flows: Vec<SubFlowView>,
    pub(super) ended: Option<(Verdict, f64)>,
    /// The names of the sub flows that are not selected.
    pub(super) left_out: Vec<String>,
    /// Where each sub flow stands, and each node: its sub flow's place, and its own there.
    places: HashMap<SubFlowId, usize>,
    node_places: HashMap<NodeId, (usize, usize)>,
}

pub(super) struct SubFlowView {
    pub(super) name: String,
    pub(super) nodes: Vec<NodeView>,
    pub(super) attempt: u32,
    pub(super) ended: Option<Ended>,
    /// How many items it has, if it is a loop and that is known.
    pub(super) goes_over: Option<u64>,
    /// The loop that it runs in.
    within: Option<SubFlowId>,
    /// In a loop: for how many items it ended how, and the first reason given.
    pub(super) items: Vec<ItemsEnded>,
}

/// For how many items a sub flow ended in a state.
pub(super) struct ItemsEnded {
    pub(super) state: EndState,
    pub(super) count: u64,
    pub(super) reason: Option<String>,
}

pub(super) struct Ended {
    pub(super) state: EndState,
    pub(super) reused: bool,
    pub(super) reason: Option<String>,
    pub(super) seconds: f64,
}

/// Of what a module writes in a loop, so much is shown.
const OUTPUTS_SHOWN: usize = 10;

pub(super) struct NodeView {
    pub(super) id: NodeId,
    pub(super) module: String,
    pub(super) state: NodeState,
    /// Rows and bytes so far.
    pub(super) rows: Option<u64>,
    pub(super) bytes: u64,
    pub(super) outputs: Vec<OutputInfo>,
    /// How many outputs more there are.
    pub(super) more_outputs: usize,
}

pub(super) enum NodeState {
    Waiting,
    Running {
        since: Instant,
    },
    Finished {
        seconds: f64,
    },
    Failed(Failure),
    /// Its sub flow ended without it.
    Stopped,
}

impl View {
    pub(super) fn apply(&mut self, event: &RunEvent, now: Instant) {
        match event {
            RunEvent::RunStarted { run_id, flow, sub_flows, .. } => {
                self.run_id.clone_from(run_id);
                self.flow = flow.to_string();
                self.sub_flows = sub_flows.iter().map(SubFlowView::new).collect();
                for (at, one) in sub_flows.iter().enumerate() {
                    self.places.insert(one.id, at);
                    let nodes = one.nodes.iter().enumerate();
                    self.node_places.extend(nodes.map(|(within, node)| (node.id.clone(), (at, within))));
                }
            }
            RunEvent::SubFlowStarted { sub_flow, item, attempt } => {
                if let Some(at) = self.sub_flow(*sub_flow) {
                    let one = &mut self.sub_flows[at];
                    one.attempt = *attempt;
                    if item.is_outside() {
                        one.nodes.iter_mut().for_each(NodeView::forget);
                    }
                }
            }
            RunEvent::LoopStarted { sub_flow, items, .. } => {
                if let Some(at) = self.sub_flow(*sub_flow) {
                    *self.sub_flows[at].goes_over.get_or_insert(0) += items;
                }
            }
            RunEvent::NodeStarted { node, .. } => self.change(node, |node| {
                if !matches!(node.state, NodeState::Failed(_)) {
                    node.state = NodeState::Running { since: now };
                }
            }),
            RunEvent::NodeProgress { node, item, rows, bytes } if item.is_outside() => self.change(node, |node| {
                node.rows = Some(*rows);
                node.bytes = *bytes;
            }),
            RunEvent::NodeProgress { .. } | RunEvent::Global { .. } | RunEvent::Stored { .. } => {}
            RunEvent::NodeFinished { node, item, rows, bytes, seconds, outputs } => self.change(node, |node| {
                if item.is_outside() {
                    node.forget();
                }
                node.finish(*rows, *bytes, *seconds, outputs);
            }),
            RunEvent::NodeFailed { node, item, error } => self.change(node, |node| {
                if !matches!(node.state, NodeState::Failed(_)) {
                    node.state = NodeState::Failed(failure(&item.name(node.id.as_str()), &node.module, error));
                }
            }),
            RunEvent::SubFlowFinished { sub_flow, item, state, reused, reason, seconds, .. } => {
                let Some(at) = self.sub_flow(*sub_flow) else { return };
                let one = &mut self.sub_flows[at];
                if !item.is_outside() {
                    one.count(*state, reason.as_ref());
                    return;
                }
                one.ended = Some(Ended { state: *state, reused: *reused, reason: reason.clone(), seconds: *seconds });
                one.nodes.iter_mut().for_each(NodeView::stop);
                if one.goes_over.is_some() {
                    let inner = self.sub_flows.iter_mut().filter(|inner| inner.within == Some(*sub_flow));
                    inner.flat_map(|inner| &mut inner.nodes).for_each(NodeView::stop);
                }
            }
            RunEvent::RunFinished { verdict, seconds } => self.ended = Some((*verdict, *seconds)),
        }
    }

    /// The place of a sub flow.
    pub(super) fn sub_flow(&self, id: SubFlowId) -> Option<usize> {
        self.places.get(&id).copied()
    }

    /// The place of a node: its sub flow's, and its own there.
    pub(super) fn node(&self, id: &NodeId) -> Option<(usize, usize)> {
        self.node_places.get(id).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.sub_flows.iter().flat_map(|one| &one.nodes)
    }

    fn change(&mut self, id: &NodeId, change: impl FnOnce(&mut NodeView)) {
        if let Some((at, within)) = self.node(id) {
            change(&mut self.sub_flows[at].nodes[within]);
        }
    }
}

impl SubFlowView {
    fn new(info: &SubFlowInfo) -> Self {
        let nodes = info.nodes.iter().map(NodeView::new).collect();
        Self {
            name: info.name.clone(),
            nodes,
            attempt: 0,
            ended: None,
            goes_over: None,
            within: info.within,
            items: Vec::new(),
        }
    }

    fn count(&mut self, state: EndState, reason: Option<&String>) {
        match self.items.iter_mut().find(|items| items.state == state) {
            Some(items) => items.count += 1,
            None => self.items.push(ItemsEnded { state, count: 1, reason: reason.cloned() }),
        }
    }

    /// Whether it runs once per item of a loop.
    pub(super) fn is_inner(&self) -> bool {
        self.within.is_some()
    }

    /// Whether it was started at all.
    pub(super) fn ran(&self) -> bool {
        self.attempt > 0
    }
}

impl NodeView {
    fn new(info: &NodeInfo) -> Self {
        Self {
            id: info.id.clone(),
            module: info.module.clone(),
            state: NodeState::Waiting,
            rows: None,
            bytes: 0,
            outputs: Vec::new(),
            more_outputs: 0,
        }
    }

    /// It has done its work, or that for one item more.
    fn finish(&mut self, rows: Option<u64>, bytes: u64, seconds: f64, outputs: &[OutputInfo]) {
        if !matches!(self.state, NodeState::Failed(_)) {
            self.state = NodeState::Finished { seconds };
        }
        self.rows = rows.map(|rows| rows + self.rows.unwrap_or(0)).or(self.rows);
        self.bytes += bytes;
        let room = OUTPUTS_SHOWN.saturating_sub(self.outputs.len());
        self.outputs.extend(outputs.iter().take(room).cloned());
        self.more_outputs += outputs.len().saturating_sub(room);
    }

    /// Another attempt begins.
    fn forget(&mut self) {
        self.state = NodeState::Waiting;
        self.rows = None;
        self.bytes = 0;
        self.outputs.clear();
        self.more_outputs = 0;
    }

    fn stop(&mut self) {
        if matches!(self.state, NodeState::Waiting | NodeState::Running { .. }) {
            self.state = NodeState::Stopped;
        }
    }

    /// How long it has been running.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        match &self.state {
            NodeState::Running { since } => now.saturating_duration_since(*since),
            NodeState::Finished { seconds } => Duration::try_from_secs_f64(*seconds).unwrap_or_default(),
            NodeState::Waiting | NodeState::Failed(_) | NodeState::Stopped => Duration::ZERO,
        }
    }

    /// What it has left behind for others, unlike what only went on to the next module.
    pub(super) fn written(&self) -> impl Iterator<Item = &OutputInfo> {
        self.outputs.iter().filter(|output| output.target.parse::<PortName>().is_err())
    }
}

/// A plugin's error as the event has it.
fn failure(node: &str, module: &str, error: &serde_json::Value) -> Failure {
    let failure = match serde_json::from_value::<pype_plugin::Error>(error.clone()) {
        Ok(error) => Failure::from(&error),
        Err(_) => Failure::invalid("failed", error.as_str().map_or_else(|| error.to_string(), str::to_owned)),
    };
    failure.place(format!("`{node}` ({module})"))
}

pub(in crate::cli) fn state_word(state: EndState) -> &'static str {
    match state {
        EndState::Success => "succeeded",
        EndState::Failed => "failed",
        EndState::Handled => "failed, handled",
        EndState::Skipped => "skipped",
        EndState::UpstreamFailed => "upstream failed",
        EndState::Cancelled => "cancelled",
    }
}

pub(in crate::cli) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::TimedOut => "timed out",
        Verdict::Cancelled => "was cancelled",
    }
}
