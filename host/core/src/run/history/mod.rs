//! What became of a run: its event log, folded into what a reader wants to know.
//!
//! [`History::of`] reads the records of all sessions. What a later session says stands over what an earlier one said; of
//! what it does not speak, the earlier word holds. A sub flow that was reused keeps what its modules did when they ran.
//!
//! The result stays small however many items a loop has: sums over all of them, and [`LISTED`] by name.

mod fold;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::event::{ItemPath, StoredFor};
use super::fingerprint::Fingerprint;
use super::log::Record;
use super::scheduler::{EndState, Verdict};
use crate::flow::plan::SubFlowId;
use crate::name::{FlowName, NodeId, PortName, Version};

/// Of what there is one per item, so many are kept one by one: of items the first and, beyond them, those that failed.
pub const LISTED: usize = 50;

/// A run, as its event log tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Which run.
    pub run_id: String,
    /// Of which flow; absent if the log was torn before it said so.
    pub flow: Option<FlowName>,
    /// The flow's version.
    pub version: Option<Version>,
    /// One at first, one more with each resume.
    pub sessions: Vec<Session>,
    /// What the last session announced, in the order of the plan.
    pub sub_flows: Vec<SubFlowHistory>,
    places: HashMap<NodeId, (usize, usize)>,
}

/// From a start, or a resume, to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// 1 at first.
    pub number: u32,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When the last that is known of it happened.
    pub ended_ms: u64,
    /// How it ended; absent if it was killed, or still runs.
    pub verdict: Option<Verdict>,
}

/// Where a sub flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubFlowState {
    /// Nothing was said about it.
    Waiting,
    /// It has started and not ended.
    Running,
    /// It has ended, or it is settled that it does not run.
    Ended(EndState),
}

/// What became of a sub flow, or of a loop.
#[derive(Debug, Clone, PartialEq)]
pub struct SubFlowHistory {
    /// Its number in the last session.
    pub id: SubFlowId,
    /// Its name.
    pub name: String,
    /// The loop that it runs in.
    pub within: Option<SubFlowId>,
    /// Whether it is a loop.
    pub is_loop: bool,
    /// Where it stands; with items the gravest of theirs.
    pub state: SubFlowState,
    /// Whether it was used again instead of being run.
    pub reused: bool,
    /// Why it did not run to its end, or ran again; with items the first reason for its state.
    pub reason: Option<String>,
    /// Every start of it, in all sessions; of what runs once per item see [`Items::listed`].
    pub attempts: Vec<Attempt>,
    /// What it was made from; absent of what runs once per item.
    pub fingerprint: Option<Fingerprint>,
    /// Its modules.
    pub nodes: Vec<NodeHistory>,
    /// Of a loop, and of what runs within one: item by item.
    pub items: Option<Items>,
}

/// One start of a sub flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// In which session.
    pub session: u32,
    /// 1 at first.
    pub number: u32,
    /// When it began.
    pub started_ms: u64,
    /// When it ended; absent if nothing says so.
    pub ended_ms: Option<u64>,
    /// The first module that failed in it, and how.
    pub failure: Option<Failure>,
}

/// The error of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which module.
    pub node: NodeId,
    /// For which item.
    pub item: ItemPath,
    /// In which session.
    pub session: u32,
    /// In which attempt.
    pub attempt: u32,
    /// When.
    pub at_ms: u64,
    /// The error as the event has it: kind, code, message, causes, hint, retryable.
    pub error: Value,
}

/// What became of the items of a loop.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Items {
    /// How many there are, as far as the loop has said; at least those that were begun.
    pub count: u64,
    /// How many of them were used again instead of being run.
    pub reused: u64,
    /// How many stand where, the gravest first.
    pub tallies: Vec<Tally>,
    /// The first ones, and of the others those that failed; at most [`LISTED`] of each.
    pub listed: Vec<ItemHistory>,
}

/// So many items stand so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Where they stand.
    pub state: SubFlowState,
    /// How many.
    pub count: u64,
    /// The first reason that was given.
    pub reason: Option<String>,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemHistory {
    /// Which.
    pub path: ItemPath,
    /// Where it stands.
    pub state: SubFlowState,
    /// Whether it was used again.
    pub reused: bool,
    /// Why it did not run to its end.
    pub reason: Option<String>,
    /// Every start; of a whole loop see those of the sub flows within.
    pub attempts: Vec<Attempt>,
}

/// Where a module stands; of several items the greatest of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeState {
    /// It was not started.
    Waiting,
    /// Its sub flow ended without it.
    Stopped,
    /// It has ended well, for some items at least.
    Finished,
    /// It has started, and nothing says that it ended.
    Running,
    /// It has failed, at least once.
    Failed,
}

/// What became of a module: in its last attempt, summed over the items.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeHistory {
    /// Which.
    pub id: NodeId,
    /// The module it is an instance of.
    pub module: String,
    /// Where it stands.
    pub state: NodeState,
    /// When it was first started.
    pub started_ms: Option<u64>,
    /// When it last ended.
    pub ended_ms: Option<u64>,
    /// Rows that went through it, as far as they were counted.
    pub rows: Option<u64>,
    /// Bytes that went through it.
    pub bytes: u64,
    /// How long it worked.
    pub seconds: f64,
    /// How often it ended well: for so many items.
    pub finished: u64,
    /// How often it failed.
    pub failed: u64,
    /// How it failed, at most [`LISTED`] times.
    pub failures: Vec<Failure>,
    /// What it gave to the modules after it, by port.
    pub ports: BTreeMap<PortName, Volume>,
    /// What it has left outside: at most [`LISTED`].
    pub written: Vec<Written>,
    /// How many more there are.
    pub more_written: u64,
    /// What it announced; in a loop for its first items.
    pub globals: Vec<Announced>,
    /// What the run keeps of its output in files: at most [`LISTED`].
    pub stored: Vec<StoredFile>,
    /// How many more there are.
    pub more_stored: u64,
}

/// How much there is of something, where it was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// In rows.
    pub rows: Option<u64>,
    /// In bytes.
    pub bytes: Option<u64>,
}

/// What a sink has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// For which item.
    pub item: ItemPath,
    /// Where; empty if the sink does not say.
    pub uri: String,
    /// How much.
    pub volume: Volume,
}

/// A global that was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// For which item.
    pub item: ItemPath,
    /// As the module declares it.
    pub name: String,
    /// What it is.
    pub value: Value,
    /// Whether a secret in it is hidden.
    pub is_masked: bool,
}

/// Rows in a file that the run keeps, or kept while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// For which item.
    pub item: ItemPath,
    /// The port or list that they left by.
    pub port: String,
    /// What for.
    pub purpose: StoredFor,
    /// Where, relative to the run's folder.
    pub path: String,
    /// How many.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
}

impl History {
    /// Reads a log. What it says about things that it never announced is left out.
    #[must_use]
    pub fn of(records: &[Record]) -> History {
        fold::history(records)
    }

    /// How the run ended; absent if it was killed, or still runs.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.sessions.last()?.verdict
    }

    /// When it began.
    #[must_use]
    pub fn started_ms(&self) -> Option<u64> {
        self.sessions.first().map(|session| session.started_ms)
    }

    /// When the last that is known of it happened.
    #[must_use]
    pub fn ended_ms(&self) -> Option<u64> {
        self.sessions.last().map(|session| session.ended_ms)
    }

    /// How long all sessions took together.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.sessions.iter().map(Session::seconds).sum()
    }

    /// A sub flow by its number in the last session.
    #[must_use]
    pub fn sub_flow(&self, id: SubFlowId) -> Option<&SubFlowHistory> {
        self.sub_flows.get(id.index()).filter(|found| found.id == id)
    }

    /// The sub flow that has these modules, in this order.
    #[must_use]
    pub fn sub_flow_with(&self, nodes: &[NodeId]) -> Option<&SubFlowHistory> {
        let (at, _) = self.places.get(nodes.first()?)?;
        let found = &self.sub_flows[*at];
        found.nodes.iter().map(|node| &node.id).eq(nodes).then_some(found)
    }

    /// A module.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeHistory> {
        let (sub_flow, node) = self.places.get(id)?;
        Some(&self.sub_flows[*sub_flow].nodes[*node])
    }

    /// All modules.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeHistory> {
        self.sub_flows.iter().flat_map(|sub_flow| &sub_flow.nodes)
    }

    /// Those that did not end well, and of those in loops the ones that did not for some item.
    pub fn not_done(&self) -> impl Iterator<Item = &SubFlowHistory> {
        self.sub_flows.iter().filter(|one| !one.is_done() && !self.stands_for_no_item(one))
    }

    /// Whether it runs once per item of a loop that came to a good end without it: there was no item.
    fn stands_for_no_item(&self, one: &SubFlowHistory) -> bool {
        let around = one.within.and_then(|around| self.sub_flow(around));
        one.state == SubFlowState::Waiting
            && around.is_some_and(|around| around.is_done() || self.stands_for_no_item(around))
    }
}

impl Session {
    /// How long it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended_ms.saturating_sub(self.started_ms) as f64 / 1000.0
    }
}

impl SubFlowHistory {
    /// Whether it came to a good end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == SubFlowState::Ended(EndState::Success)
    }

    /// In words why it does not stand where it should.
    #[must_use]
    pub fn why(&self) -> &str {
        let silent = match self.state {
            SubFlowState::Waiting => "the run ended before its turn",
            SubFlowState::Running => "the run ended while it ran",
            SubFlowState::Ended(EndState::Cancelled) => "the run was stopped",
            SubFlowState::Ended(_) => "",
        };
        self.reason.as_deref().unwrap_or(silent)
    }
}

impl SubFlowState {
    /// Of several, the one that a reader has to know of.
    fn gravity(self) -> u8 {
        match self {
            SubFlowState::Waiting => 0,
            SubFlowState::Ended(EndState::Skipped) => 1,
            SubFlowState::Ended(EndState::Success) => 2,
            SubFlowState::Ended(EndState::Handled) => 3,
            SubFlowState::Ended(EndState::UpstreamFailed) => 4,
            SubFlowState::Ended(EndState::Cancelled) => 5,
            SubFlowState::Running => 6,
            SubFlowState::Ended(EndState::Failed) => 7,
        }
    }
}

impl NodeHistory {
    /// How long it worked: what it says itself, or else how long it was from its start to its end.
    #[must_use]
    pub fn took(&self) -> Option<f64> {
        if self.seconds > 0.0 {
            return Some(self.seconds);
        }
        let lasted = self.ended_ms?.saturating_sub(self.started_ms?);
        Some(lasted as f64 / 1000.0)
    }

    /// Whether its work was done as part of a later module's query, so that nobody counted its rows.
    #[must_use]
    pub fn was_fused(&self) -> bool {
        self.state == NodeState::Finished && self.rows.is_none() && !self.ports.is_empty()
    }
}

impl Failure {
    /// What went wrong, in a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        let message = self.error.get("message").unwrap_or(&self.error);
        message.as_str().map_or_else(|| message.to_string(), str::to_owned)
    }

    /// `kind`, `code` or `hint`, if the error has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.error.get(name)?.as_str()
    }

    /// What caused it, nearest first.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        let causes = self.error.get("causes").and_then(Value::as_array);
        causes.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether the module says that another attempt may go better.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.error.get("retryable").and_then(Value::as_bool).unwrap_or_default()
    }
}

impl Volume {
    /// As much as both; what only one of them counted is what is known.
    #[must_use]
    pub fn and(self, more: Volume) -> Volume {
        Volume { rows: sum(self.rows, more.rows), bytes: sum(self.bytes, more.bytes) }
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (known, None) | (None, known) => known,
    }
}
