//! What earlier sessions of a run have completed: what a resume may use again.

use std::collections::HashMap;

use serde_json::Value;

use super::event::{ItemPath, RunEvent, StoredFor};
use super::fingerprint::Fingerprint;
use super::log::Record;
use super::scheduler::EndState;
use crate::flow::plan::SubFlowId;
use crate::name::NodeId;

/// What a log says is completed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Previous {
    /// How many sessions there were.
    pub sessions: u32,
    // By name: numbers change with the flow.
    completed: HashMap<(String, ItemPath), Fingerprint>,
    globals: HashMap<InTurn, Vec<SetGlobal>>,
    stored: HashMap<InTurn, Vec<StoredRows>>,
}

/// A module, and for which items it ran.
type InTurn = (NodeId, ItemPath);

/// A global and its value; none of one that held a secret, for that was not written down.
pub type SetGlobal = (String, Option<Value>);

/// A file that a run keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRows {
    /// The port or list that the rows left by.
    pub port: String,
    /// What for.
    pub purpose: StoredFor,
    /// Where, relative to the run's folder.
    pub path: String,
    /// How many rows.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
}

impl Previous {
    /// Reads a log. Whatever started again later is not completed, unless it was completed again.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut previous = Previous::default();
        let mut names: HashMap<SubFlowId, String> = HashMap::new();
        for record in records {
            match &record.event {
                RunEvent::RunStarted { sub_flows, .. } => {
                    previous.sessions += 1;
                    names = sub_flows.iter().map(|one| (one.id, one.name.clone())).collect();
                }
                RunEvent::SubFlowStarted { sub_flow, item, .. } => {
                    if let Some(name) = names.get(sub_flow) {
                        previous.completed.remove(&(name.clone(), item.clone()));
                    }
                }
                RunEvent::NodeStarted { node, item } => {
                    let key = (node.clone(), item.clone());
                    previous.globals.remove(&key);
                    previous.stored.remove(&key);
                }
                RunEvent::Global { node, item, name, value, masked } => {
                    let values = previous.globals.entry((node.clone(), item.clone())).or_default();
                    values.push((name.clone(), (!masked).then(|| value.clone())));
                }
                RunEvent::Stored { node, item, port, purpose, path, rows, bytes } => {
                    let stored = previous.stored.entry((node.clone(), item.clone())).or_default();
                    let (port, path) = (port.clone(), path.clone());
                    stored.push(StoredRows { port, purpose: *purpose, path, rows: *rows, bytes: *bytes });
                }
                RunEvent::SubFlowFinished { sub_flow, item, state, fingerprint, .. } => {
                    let Some(name) = names.get(sub_flow) else { continue };
                    let key = (name.clone(), item.clone());
                    match (state, fingerprint) {
                        (EndState::Success, Some(fingerprint)) => {
                            previous.completed.insert(key, fingerprint.clone());
                        }
                        (EndState::Success, None)
                        | (
                            EndState::Failed
                            | EndState::Handled
                            | EndState::Skipped
                            | EndState::UpstreamFailed
                            | EndState::Cancelled,
                            _,
                        ) => {}
                    }
                }
                RunEvent::LoopStarted { .. }
                | RunEvent::NodeProgress { .. }
                | RunEvent::NodeFinished { .. }
                | RunEvent::NodeFailed { .. }
                | RunEvent::RunFinished { .. } => {}
            }
        }
        previous
    }

    /// What a sub flow was made from, if it was completed.
    #[must_use]
    pub fn completed(&self, name: &str, item: &ItemPath) -> Option<&Fingerprint> {
        self.completed.get(&(name.to_owned(), item.clone()))
    }

    /// The globals that a module has set.
    #[must_use]
    pub fn globals(&self, node: &NodeId, item: &ItemPath) -> &[SetGlobal] {
        self.globals.get(&(node.clone(), item.clone())).map_or(&[], Vec::as_slice)
    }

    /// The files of a module's rows.
    #[must_use]
    pub fn stored(&self, node: &NodeId, item: &ItemPath) -> &[StoredRows] {
        self.stored.get(&(node.clone(), item.clone())).map_or(&[], Vec::as_slice)
    }

    /// Whether there is nothing to use again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.completed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::SubFlowInfo;

    fn records(events: Vec<RunEvent>) -> Vec<Record> {
        events.into_iter().map(|event| Record { at_ms: 0, event }).collect()
    }

    fn started() -> RunEvent {
        let info = SubFlowInfo { id: SubFlowId(0), name: "a".into(), nodes: vec![], within: None, is_loop: false };
        let (run_id, flow) = ("r".into(), "f".parse().expect("a name"));
        RunEvent::RunStarted { run_id, flow, version: None, session: 1, sub_flows: vec![info] }
    }

    fn ended(state: EndState) -> RunEvent {
        RunEvent::SubFlowFinished {
            sub_flow: SubFlowId(0),
            item: ItemPath::default(),
            state,
            reused: false,
            reason: None,
            seconds: 0.0,
            fingerprint: Some(Fingerprint::default()),
        }
    }

    fn begins() -> RunEvent {
        RunEvent::SubFlowStarted { sub_flow: SubFlowId(0), item: ItemPath::default(), attempt: 1 }
    }

    #[track_caller]
    fn check(events: Vec<RunEvent>, completed: bool) {
        let previous = Previous::of(&records(events));
        assert_eq!(previous.completed("a", &ItemPath::default()).is_some(), completed);
    }

    #[test]
    fn only_what_has_ended_well_and_not_begun_again_is_completed() {
        check(vec![started(), begins(), ended(EndState::Success)], true);
        check(vec![started(), begins()], false);
        check(vec![started(), begins(), ended(EndState::Failed)], false);
        check(vec![started(), begins(), ended(EndState::Success), started(), begins()], false);
        check(vec![started(), begins(), ended(EndState::Success), started(), ended(EndState::Cancelled)], true);
    }
}
