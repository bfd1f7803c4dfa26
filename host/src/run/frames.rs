//! Frames on their way from a node's outputs to its readers.

use std::collections::{BTreeMap, BTreeSet};

use pype_core::flow::plan::{DataEdge, Plan};
use pype_core::name::NodeId;
use pype_plugin::{Error, ErrorKind, Frame, Result, SharedBatches};

/// The frames that wait for nodes which have not started yet.
pub(super) struct Frames<'a> {
    plan: &'a Plan,
    eager: bool,
    // By reader, then by the edge's place in the flow.
    waiting: BTreeMap<NodeId, BTreeMap<usize, (String, Frame)>>,
}

/// What became of one output port.
pub(super) struct PortRows {
    pub(super) port: String,
    pub(super) rows: Option<u64>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(plan: &'a Plan, eager: bool) -> Self {
        Self { plan, eager, waiting: BTreeMap::new() }
    }

    /// What arrived for `node`, in the order of the flow's edges.
    pub(super) fn take(&mut self, node: &NodeId) -> Vec<(String, Frame)> {
        self.waiting.remove(node).unwrap_or_default().into_values().collect()
    }

    /// Passes the outputs of `node` on to those who read them.
    pub(super) async fn give(&mut self, node: &NodeId, outputs: Vec<(String, Frame)>) -> Result<Vec<PortRows>> {
        let mut rows = Vec::new();
        let mut given: BTreeMap<String, Frame> = outputs.into_iter().collect();
        let mut ports: BTreeMap<&str, Vec<(usize, &DataEdge)>> = BTreeMap::new();
        for (at, edge) in self.plan.data_edges().iter().enumerate().filter(|(_, edge)| edge.from.node == *node) {
            ports.entry(edge.from.port.as_str()).or_default().push((at, edge));
        }
        for (port, readers) in ports {
            let frame = given.remove(port).ok_or_else(|| no_output(port))?;
            let (copies, counted) = self.copies(frame, &readers).await?;
            rows.push(PortRows { port: port.to_owned(), rows: counted });
            for ((at, edge), frame) in readers.into_iter().zip(copies) {
                let inbox = self.waiting.entry(edge.to.node.clone()).or_default();
                inbox.insert(at, (edge.to.port.as_str().to_owned(), frame));
            }
        }
        Ok(rows)
    }

    /// As many frames as there are readers, and the row count if it became known.
    async fn copies(&self, frame: Frame, readers: &[(usize, &DataEdge)]) -> Result<(Vec<Frame>, Option<u64>)> {
        if !self.eager && !self.parts(readers) {
            let clones: Option<Vec<_>> = (1..readers.len()).map(|_| frame.try_clone()).collect();
            if let Some(mut clones) = clones {
                clones.push(frame);
                return Ok((clones, None));
            }
        }
        let batches = SharedBatches::read(&frame).await?;
        let copies = readers.iter().map(|_| Frame::new(batches.clone())).collect();
        Ok((copies, Some(batches.rows())))
    }

    /// Whether the rows take several ways: to several readers, or through a reader with several outputs in use. Where
    /// all ways end in one sink they still make one query, which finds what its branches share.
    fn parts(&self, readers: &[(usize, &DataEdge)]) -> bool {
        let ends: BTreeSet<&NodeId> = readers.iter().flat_map(|(_, edge)| self.ends_of(&edge.to.node)).collect();
        let ports =
            |node: &NodeId| self.plan.outputs_of(node).map(|edge| &edge.from.port).collect::<BTreeSet<_>>().len();
        let several = readers.len() > 1 || readers.iter().any(|(_, edge)| ports(&edge.to.node) > 1);
        several && ends.len() > 1
    }

    fn ends_of<'b>(&'b self, node: &'b NodeId) -> Vec<&'b NodeId> {
        let mut ends: Vec<_> = self.plan.outputs_of(node).flat_map(|edge| self.ends_of(&edge.to.node)).collect();
        ends.sort();
        ends.dedup();
        if ends.is_empty() { vec![node] } else { ends }
    }
}

fn no_output(port: &str) -> Error {
    let message = format!("the module gave no frame at its output port `{port}`");
    Error::new(ErrorKind::Internal, "missing-output", message).hint("this is a fault in the plugin")
}
