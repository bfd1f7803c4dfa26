//! What earlier sessions of a run have completed: what a resume may use again.

use std::collections::HashMap;

use serde_json::Value;

use super::event::{ItemPath, RunEvent, StoredFor, SubFlowInfo};
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
    completed: HashMap<Named, Completed>,
    // When each last began, as the place of a record; of a loop, when anything within it did.
    began: HashMap<Named, usize>,
    globals: HashMap<InTurn, Vec<SetGlobal>>,
    stored: HashMap<InTurn, Vec<StoredRows>>,
}

/// A sub flow or loop, and for which items it ran.
type Named = (String, ItemPath);

#[derive(Debug, Clone, PartialEq)]
struct Completed {
    fingerprint: Fingerprint,
    /// The place of the record that says so, of the session that ran it.
    at: usize,
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
        let mut announced: HashMap<SubFlowId, &SubFlowInfo> = HashMap::new();
        for (at, record) in records.iter().enumerate() {
            match &record.event {
                RunEvent::RunStarted { sub_flows, .. } => {
                    previous.sessions += 1;
                    announced = sub_flows.iter().map(|one| (one.id, one)).collect();
                }
                RunEvent::SubFlowStarted { sub_flow, item, .. } => {
                    // A loop begins in every session, whatever of it runs.
                    if let Some(one) = announced.get(sub_flow).filter(|one| !one.is_loop) {
                        previous.completed.remove(&(one.name.clone(), item.clone()));
                        previous.begin(one, item, &announced, at);
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
                // What was used again was completed when it ran.
                RunEvent::SubFlowFinished { reused: true, .. } => {}
                RunEvent::SubFlowFinished { sub_flow, item, state, fingerprint, .. } => {
                    let Some(one) = announced.get(sub_flow) else { continue };
                    let key = (one.name.clone(), item.clone());
                    match (state, fingerprint) {
                        (EndState::Success, Some(fingerprint)) => {
                            previous.completed.insert(key, Completed { fingerprint: fingerprint.clone(), at });
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

    fn begin(&mut self, one: &SubFlowInfo, item: &ItemPath, announced: &HashMap<SubFlowId, &SubFlowInfo>, at: usize) {
        self.began.insert((one.name.clone(), item.clone()), at);
        let (mut around, mut item) = (one.within, item.clone());
        while let Some(one) = around.and_then(|id| announced.get(&id)) {
            item = item.outer();
            self.began.insert((one.name.clone(), item.clone()), at);
            around = one.within;
        }
    }

    /// What a sub flow was made from, if it was completed.
    #[must_use]
    pub fn completed(&self, name: &str, item: &ItemPath) -> Option<&Fingerprint> {
        self.completed.get(&(name.to_owned(), item.clone())).map(|completed| &completed.fingerprint)
    }

    /// Whether a sub flow, or anything in a loop, has begun after another one was completed: what that was made from may
    /// be another by now.
    #[must_use]
    pub fn began_since(&self, upstream: (String, ItemPath), completed: (String, ItemPath)) -> bool {
        match (self.began.get(&upstream), self.completed.get(&completed)) {
            (Some(began), Some(completed)) => *began > completed.at,
            (None, _) | (_, None) => false,
        }
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

    /// Session 1 completes `a` and `b`; session 2 runs `a` again and stops; session 3 must not take `b` for completed.
    #[test]
    fn what_follows_something_that_ran_again_in_an_earlier_session_is_stale() {
        let info = |id: usize, name: &str| SubFlowInfo {
            id: SubFlowId(id),
            name: name.into(),
            nodes: vec![],
            within: None,
            is_loop: false,
        };
        let session = || RunEvent::RunStarted {
            run_id: "r".into(),
            flow: "f".parse().expect("a name"),
            version: None,
            session: 1,
            sub_flows: vec![info(0, "a"), info(1, "b")],
        };
        let begins =
            |id: usize| RunEvent::SubFlowStarted { sub_flow: SubFlowId(id), item: ItemPath::default(), attempt: 1 };
        let ends = |id: usize, reused: bool| RunEvent::SubFlowFinished {
            sub_flow: SubFlowId(id),
            item: ItemPath::default(),
            state: EndState::Success,
            reused,
            reason: None,
            seconds: 0.0,
            fingerprint: Some(Fingerprint::default()),
        };
        let first = vec![session(), begins(0), ends(0, false), begins(1), ends(1, false)];
        let key = |name: &str| (name.to_owned(), ItemPath::default());
        let is_stale = |events: &[RunEvent]| Previous::of(&records(events.to_vec())).began_since(key("a"), key("b"));
        assert!(!is_stale(&first));
        assert!(!is_stale(&[first.clone(), vec![session(), ends(0, true), ends(1, true)]].concat()));
        assert!(is_stale(&[first.clone(), vec![session(), begins(0), ends(0, false)]].concat()));
        assert!(is_stale(&[first, vec![session(), begins(0), ends(0, false), session(), ends(0, true)]].concat()));
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
