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
}

pub(super) struct Ended {
    pub(super) state: EndState,
    pub(super) reason: Option<String>,
    pub(super) seconds: f64,
}

pub(super) struct NodeView {
    pub(super) id: NodeId,
    pub(super) module: String,
    pub(super) state: NodeState,
    /// Rows and bytes so far.
    pub(super) rows: Option<u64>,
    pub(super) bytes: u64,
    pub(super) outputs: Vec<OutputInfo>,
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
            RunEvent::RunStarted { run_id, flow, sub_flows } => {
                self.run_id.clone_from(run_id);
                self.flow = flow.to_string();
                self.sub_flows = sub_flows.iter().map(SubFlowView::new).collect();
                for (at, one) in sub_flows.iter().enumerate() {
                    self.places.insert(one.id, at);
                    let nodes = one.nodes.iter().enumerate();
                    self.node_places.extend(nodes.map(|(within, node)| (node.id.clone(), (at, within))));
                }
            }
            RunEvent::SubFlowStarted { sub_flow, attempt } => {
                if let Some(at) = self.sub_flow(*sub_flow) {
                    let one = &mut self.sub_flows[at];
                    one.attempt = *attempt;
                    one.nodes.iter_mut().for_each(NodeView::forget);
                }
            }
            RunEvent::NodeStarted { node } => {
                self.change(node, |node| node.state = NodeState::Running { since: now });
            }
            RunEvent::NodeProgress { node, rows, bytes } => self.change(node, |node| {
                node.rows = Some(*rows);
                node.bytes = *bytes;
            }),
            RunEvent::Global { .. } => {}
            RunEvent::NodeFinished { node, rows, bytes, seconds, outputs } => self.change(node, |node| {
                node.state = NodeState::Finished { seconds: *seconds };
                node.rows = *rows;
                node.bytes = *bytes;
                node.outputs.clone_from(outputs);
            }),
            RunEvent::NodeFailed { node, error } => self.change(node, |node| {
                node.state = NodeState::Failed(failure(node, error));
            }),
            RunEvent::SubFlowFinished { sub_flow, state, reason, seconds } => {
                if let Some(at) = self.sub_flow(*sub_flow) {
                    let one = &mut self.sub_flows[at];
                    one.ended = Some(Ended { state: *state, reason: reason.clone(), seconds: *seconds });
                    one.nodes.iter_mut().for_each(NodeView::stop);
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
        Self { name: info.name.clone(), nodes, attempt: 0, ended: None }
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
        }
    }

    /// Another attempt begins.
    fn forget(&mut self) {
        self.state = NodeState::Waiting;
        self.rows = None;
        self.bytes = 0;
        self.outputs.clear();
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
fn failure(node: &NodeView, error: &serde_json::Value) -> Failure {
    let failure = match serde_json::from_value::<pype_plugin::Error>(error.clone()) {
        Ok(error) => Failure::from(&error),
        Err(_) => Failure::invalid("failed", error.as_str().map_or_else(|| error.to_string(), str::to_owned)),
    };
    failure.place(format!("`{}` ({})", node.id, node.module))
}

pub(super) fn state_word(state: EndState) -> &'static str {
    match state {
        EndState::Success => "succeeded",
        EndState::Failed => "failed",
        EndState::Handled => "failed, handled",
        EndState::Skipped => "skipped",
        EndState::UpstreamFailed => "upstream failed",
        EndState::Cancelled => "cancelled",
    }
}

pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::TimedOut => "timed out",
        Verdict::Cancelled => "was cancelled",
    }
}
