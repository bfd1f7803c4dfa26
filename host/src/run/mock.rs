//! Stand-ins of a test: rows instead of what a source brings, and a place for what a sink would write.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pype_core::catalog::ModuleKind;
use pype_core::flow::plan::PlannedNode;
use pype_core::name::NodeId;
use pype_plugin::{Frame, Result};
use serde_json::Value;

use super::turn::Turn;
use crate::artifact::{self, Kept};

/// What stands in for modules.
pub struct Mocks {
    /// Of sources, the rows at each port.
    sources: BTreeMap<NodeId, BTreeMap<String, Kept>>,
    /// Of each sink, the rows that came, by the name of the node: `save`, `save#2`.
    captured: Mutex<BTreeMap<String, Vec<Value>>>,
}

impl Mocks {
    /// With these rows at the ports of sources. No sink is itself.
    pub fn new(sources: BTreeMap<NodeId, BTreeMap<String, Kept>>) -> Self {
        Self { sources, captured: Mutex::default() }
    }

    /// Whether the module itself does not run.
    pub(super) fn stands_in(&self, node: &PlannedNode) -> bool {
        node.entry.kind == ModuleKind::Sink || self.sources.contains_key(&node.id)
    }

    /// What comes of a node that is mocked.
    pub(super) async fn run(
        &self,
        turn: &Turn,
        node: &PlannedNode,
        inputs: Vec<(String, Frame)>,
    ) -> Result<Vec<(String, Frame)>> {
        if let Some(ports) = self.sources.get(&node.id) {
            return Ok(ports.iter().map(|(port, rows)| (port.clone(), rows.frame())).collect());
        }
        let mut rows = Vec::new();
        for (_, frame) in inputs {
            rows.extend(artifact::items_of(frame).await?);
        }
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        captured.insert(turn.path.name(node.id.as_str()), rows);
        Ok(Vec::new())
    }

    /// What came to the sinks.
    pub fn captured(&self) -> BTreeMap<String, Vec<Value>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
