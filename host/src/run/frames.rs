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
        let mut given = self.by_port(node, outputs)?;
        let mut ports: BTreeMap<&str, Vec<(usize, &DataEdge)>> = BTreeMap::new();
        for (at, edge) in self.plan.numbered_outputs_of(node) {
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

    fn by_port(&self, node: &NodeId, outputs: Vec<(String, Frame)>) -> Result<BTreeMap<String, Frame>> {
        let entry = &self.plan.node(node).entry;
        let mut given = BTreeMap::new();
        for (port, frame) in outputs {
            if entry.output_port(&port).is_none() {
                return Err(plugin_fault(
                    "undeclared-output",
                    format!("the module gave a frame at `{port}`, a port that it does not declare"),
                ));
            }
            if given.insert(port.clone(), frame).is_some() {
                return Err(plugin_fault(
                    "doubled-output",
                    format!("the module gave two frames at its output port `{port}`"),
                ));
            }
        }
        Ok(given)
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
        let ends = self.ends_of(readers.iter().map(|(_, edge)| &edge.to.node));
        let ports =
            |node: &NodeId| self.plan.outputs_of(node).map(|edge| &edge.from.port).collect::<BTreeSet<_>>().len();
        let several = readers.len() > 1 || readers.iter().any(|(_, edge)| ports(&edge.to.node) > 1);
        several && ends.len() > 1
    }

    /// The nodes without readers of their own that the rows of `nodes` come to.
    fn ends_of<'b>(&'b self, nodes: impl Iterator<Item = &'b NodeId>) -> BTreeSet<&'b NodeId> {
        let mut seen = BTreeSet::new();
        let mut ends = BTreeSet::new();
        let mut next: Vec<_> = nodes.collect();
        while let Some(node) = next.pop() {
            if !seen.insert(node) {
                continue;
            }
            let known = next.len();
            next.extend(self.plan.outputs_of(node).map(|edge| &edge.to.node));
            if next.len() == known {
                ends.insert(node);
            }
        }
        ends
    }
}

fn no_output(port: &str) -> Error {
    plugin_fault("missing-output", format!("the module gave no frame at its output port `{port}`"))
}

fn plugin_fault(code: &str, message: String) -> Error {
    Error::new(ErrorKind::Internal, code, message).hint("this is a fault in the plugin: report it to its author")
}
