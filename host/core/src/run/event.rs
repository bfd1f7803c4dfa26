//! What a run tells about itself: to a progress display, to plain lines, to a JSON log.
//!
//! The events are a public format: fields may be added, none may change its meaning.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::scheduler::{EndState, Verdict};
use crate::flow::plan::SubFlowId;
use crate::name::{FlowName, NodeId, Version};

/// One thing that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// Always the first; a resumed run has one for each session.
    RunStarted {
        /// Which run.
        run_id: String,
        /// Of which flow.
        flow: FlowName,
        /// The flow's version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<Version>,
        /// 1 at first, one more with each resume.
        #[serde(default = "one")]
        session: u32,
        /// What will run, in the order of the plan.
        sub_flows: Vec<SubFlowInfo>,
    },
    /// A sub flow starts, or starts again.
    SubFlowStarted {
        /// Which.
        sub_flow: SubFlowId,
        /// For which items of the loops around it.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// 1 at first.
        attempt: u32,
    },
    /// A loop knows what it goes over.
    LoopStarted {
        /// Which.
        sub_flow: SubFlowId,
        /// For which items of the loops around it.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// How many items it has.
        items: u64,
    },
    /// A module is about to be opened and run.
    NodeStarted {
        /// Which.
        node: NodeId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
    },
    /// How far a module is. Sent at most a few times a second.
    NodeProgress {
        /// Which.
        node: NodeId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// Rows so far.
        rows: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// A module announced a value.
    Global {
        /// Which module.
        node: NodeId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// The name as the module declares it.
        name: String,
        /// The value.
        value: Value,
        /// Whether a secret was masked in it: it is not the value that readers get.
        #[serde(default, skip_serializing_if = "is_false")]
        masked: bool,
    },
    /// Rows were written to a file that the run keeps.
    Stored {
        /// The module that gave them.
        node: NodeId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// The port or list that they left by.
        port: String,
        /// What for.
        purpose: StoredFor,
        /// Where, relative to the run's folder.
        path: String,
        /// How many.
        rows: u64,
        /// The size of the file.
        bytes: u64,
    },
    /// A module has ended well.
    NodeFinished {
        /// Which.
        node: NodeId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
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
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// The plugin's error: kind, code, message, causes.
        error: Value,
    },
    /// A sub flow has ended, or never ran.
    SubFlowFinished {
        /// Which.
        sub_flow: SubFlowId,
        /// For which items.
        #[serde(default, skip_serializing_if = "ItemPath::is_outside")]
        item: ItemPath,
        /// How it ended.
        state: EndState,
        /// Whether an earlier session ran it, and what it gave was used again.
        #[serde(default, skip_serializing_if = "is_false")]
        reused: bool,
        /// Why it did not run to its end, or why it ran again; absent if there is nothing to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How long its last attempt ran.
        seconds: f64,
        /// What it was made from: for a resume to compare.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Fingerprint>,
    },
    /// The last of each session that came to its end.
    RunFinished {
        /// How the run ended.
        verdict: Verdict,
        /// How long this session ran.
        seconds: f64,
    },
}

/// What a file of the run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredFor {
    /// A checkpoint: a resume reads it again.
    Checkpoint,
    /// The items of a loop.
    Items,
    /// Too large for memory: removed when the run ends.
    Spill,
}

/// Which item of each loop around something, the outermost first; empty outside all loops. Written `3.0` in names like
/// `load#3.0`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemPath(Vec<u64>);

impl ItemPath {
    /// Whether no loop is around it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.0.is_empty()
    }

    /// The same for item `index` of one more loop.
    #[must_use]
    pub fn inner(&self, index: u64) -> ItemPath {
        ItemPath(self.0.iter().copied().chain([index]).collect())
    }

    /// The same without the innermost loop.
    #[must_use]
    pub fn outer(&self) -> ItemPath {
        ItemPath(self.0.split_last().map(|(_, around)| around.to_vec()).unwrap_or_default())
    }

    /// The same of the `depth` outermost loops.
    #[must_use]
    pub fn outermost(&self, depth: usize) -> ItemPath {
        ItemPath(self.0.iter().copied().take(depth).collect())
    }

    /// The indices, the outermost first.
    #[must_use]
    pub fn indices(&self) -> &[u64] {
        &self.0
    }

    /// `load`, `load#3`, `load#3.0`.
    #[must_use]
    pub fn name(&self, of: &str) -> String {
        if self.is_outside() { of.to_owned() } else { format!("{of}#{self}") }
    }
}

impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, index) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(".")?;
            }
            index.fmt(f)?;
        }
        Ok(())
    }
}

/// A sub flow, or a loop, as a run announces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubFlowInfo {
    /// Its number.
    pub id: SubFlowId,
    /// Its name: the id of its first module; of a loop what it goes over, `months.data`.
    pub name: String,
    /// Its modules, in topological order; none of a loop.
    pub nodes: Vec<NodeInfo>,
    /// The loop that it runs in, once per item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<SubFlowId>,
    /// Whether it is a loop: those that name it in `within` run once per item.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_loop: bool,
}

/// A module as a run announces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
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
