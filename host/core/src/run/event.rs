//! What a run tells about itself: to a progress display, to plain lines, to a JSON log.
//!
//! The events are a public format: fields may be added, none may change its meaning.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scheduler::{EndState, Verdict};
use crate::flow::plan::SubFlowId;
use crate::name::{FlowName, NodeId};

/// One thing that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// Always the first.
    RunStarted {
        /// Which run.
        run_id: String,
        /// Of which flow.
        flow: FlowName,
        /// What will run, in the order of the plan.
        sub_flows: Vec<SubFlowInfo>,
    },
    /// A sub flow starts, or starts again.
    SubFlowStarted {
        /// Which.
        sub_flow: SubFlowId,
        /// 1 at first.
        attempt: u32,
    },
    /// A module is about to be opened and run.
    NodeStarted {
        /// Which.
        node: NodeId,
    },
    /// How far a module is. Sent at most a few times a second.
    NodeProgress {
        /// Which.
        node: NodeId,
        /// Rows so far.
        rows: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// A module announced a value.
    Global {
        /// Which module.
        node: NodeId,
        /// The name as the module declares it.
        name: String,
        /// The value.
        value: Value,
    },
    /// A module has ended well.
    NodeFinished {
        /// Which.
        node: NodeId,
        /// Rows that went through it; absent where a fused query kept no count.
        rows: Option<u64>,
        /// Bytes that went through it.
        bytes: u64,
        /// How long it ran.
        seconds: f64,
        /// What it gave.
        outputs: Vec<OutputInfo>,
    },
    /// A module has failed.
    NodeFailed {
        /// Which.
        node: NodeId,
        /// The plugin's error: kind, code, message, causes.
        error: Value,
    },
    /// A sub flow has ended, or never ran.
    SubFlowFinished {
        /// Which.
        sub_flow: SubFlowId,
        /// How it ended.
        state: EndState,
        /// Why it did not run to its end; absent if it did, well or not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How long its last attempt ran.
        seconds: f64,
    },
    /// Always the last.
    RunFinished {
        /// How the run ended.
        verdict: Verdict,
        /// How long it ran.
        seconds: f64,
    },
}

/// A sub flow as a run announces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubFlowInfo {
    /// Its number.
    pub id: SubFlowId,
    /// Its name: the id of its first module.
    pub name: String,
    /// Its modules, in topological order.
    pub nodes: Vec<NodeInfo>,
}

/// A module as a run announces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id in the flow.
    pub id: NodeId,
    /// The module it is an instance of.
    pub module: String,
}

/// One output of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputInfo {
    /// A port, or the URI of what a sink has written.
    pub target: String,
    /// Its rows, where they were counted.
    pub rows: Option<u64>,
    /// Its bytes, where they were counted.
    pub bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_itself() {
        let event = RunEvent::RunFinished { verdict: Verdict::TimedOut, seconds: 1.5 };
        let text = serde_json::to_string(&event).expect("an event is plain data");
        assert_eq!(text, r#"{"event":"run_finished","verdict":"timed_out","seconds":1.5}"#);
        let back: RunEvent = serde_json::from_str(&text).expect("an event reads back");
        assert_eq!(back, event);
    }
}
