//! Frames on their way from a node's outputs to its readers.

use std::collections::{BTreeMap, BTreeSet};

use pype_core::flow::plan::{DataEdge, Endpoint, Plan, SubFlow};
use pype_core::name::NodeId;
use pype_core::run::event::{RunEvent, StoredFor};
use pype_plugin::{Error, ErrorKind, Frame, Result};
use serde_json::Value;

use super::engine::Job;
use super::turn::{Items, Turn};
use crate::artifact::{self, Kept, ParquetRows};

/// The frames that wait for nodes which have not started yet.
pub(super) struct Frames<'a> {
    job: &'a Job,
    turn: &'a Turn,
    plan: &'a Plan,
    // By reader, then by the edge's place in the flow.
    waiting: BTreeMap<NodeId, BTreeMap<usize, (String, Frame)>>,
}

/// What became of one output port.
pub(super) struct PortRows {
    pub(super) port: String,
    pub(super) rows: Option<u64>,
}

impl<'a> Frames<'a> {
    /// What other sub flows have kept for `sub_flow` waits already.
    ///
    /// # Errors
    /// Something is missing.
    pub(super) fn new(job: &'a Job, turn: &'a Turn, sub_flow: &SubFlow) -> Result<Self> {
        let mut frames = Self { job, turn, plan: &job.plan, waiting: BTreeMap::new() };
        for reader in &sub_flow.nodes {
            let kept =
                job.plan.numbered_inputs_of(reader).filter(|(_, edge)| job.plan.node(&edge.from.node).checkpoint);
            for (at, edge) in kept {
                let rows = turn.kept(&edge.from).ok_or_else(|| not_kept(&edge.from))?;
                let inbox = frames.waiting.entry(reader.clone()).or_default();
                inbox.insert(at, (edge.to.port.as_str().to_owned(), rows.frame()));
            }
        }
        Ok(frames)
    }

    /// What arrived for `node`, in the order of the flow's edges.
    pub(super) fn take(&mut self, node: &NodeId) -> Vec<(String, Frame)> {
        self.waiting.remove(node).unwrap_or_default().into_values().collect()
    }

    /// Passes the outputs of `node` on to those who read them.
    pub(super) async fn give(&mut self, node: &NodeId, outputs: Vec<(String, Frame)>) -> Result<Vec<PortRows>> {
        let mut given = self.by_port(node, outputs)?;
        if self.plan.node(node).checkpoint {
            return self.keep_all(node, given).await;
        }
        let mut rows = Vec::new();
        let items = self.iterate(node, &mut given).await?;
        let mut ports: BTreeMap<&str, Vec<(usize, &DataEdge)>> = BTreeMap::new();
        for (at, edge) in self.plan.numbered_outputs_of(node) {
            ports.entry(edge.from.port.as_str()).or_default().push((at, edge));
        }
        for (port, readers) in ports {
            let (copies, counted) = match items.get(port) {
                Some(kept) => (readers.iter().map(|_| kept.frame()).collect(), Some(kept.rows())),
                None => self.copies(node, port, given.remove(port).ok_or_else(|| no_output(port))?, &readers).await?,
            };
            rows.push(PortRows { port: port.to_owned(), rows: counted });
            for ((at, edge), frame) in readers.into_iter().zip(copies) {
                let inbox = self.waiting.entry(edge.to.node.clone()).or_default();
                inbox.insert(at, (edge.to.port.as_str().to_owned(), frame));
            }
        }
        Ok(rows)
    }

    /// Writes every output to a checkpoint.
    async fn keep_all(&self, node: &NodeId, given: BTreeMap<String, Frame>) -> Result<Vec<PortRows>> {
        let read = self.plan.outputs_of(node).map(|edge| edge.from.port.as_str());
        let over = self.plan.loops_over(node).map(|iterate| iterate.over.as_str());
        let entry = &self.plan.node(node).entry;
        let needed: BTreeSet<&str> = read.chain(over.filter(|over| entry.output_port(over).is_some())).collect();
        if let Some(missing) = needed.into_iter().find(|port| !given.contains_key(*port)) {
            return Err(no_output(missing));
        }
        let mut rows = Vec::new();
        for (port, frame) in given {
            let kept = self.checkpoint(node, &port, frame).await?;
            if self.plan.loops_over(node).any(|iterate| iterate.over == port) {
                self.store_items(node, &port, artifact::items_of(kept.frame()).await?).await?;
            }
            rows.push(PortRows { port, rows: Some(kept.rows()) });
        }
        self.store_lists(node).await?;
        Ok(rows)
    }

    async fn checkpoint(&self, node: &NodeId, port: &str, frame: Frame) -> Result<Kept> {
        let name = format!("{}.{port}.parquet", self.turn.path.name(node.as_str()));
        let (path, place) = self.job.place(&name);
        let stored = artifact::store(frame, &path).await?;
        self.tell_stored(node, port, StoredFor::Checkpoint, place, stored.rows, stored.bytes);
        let kept = Kept::File(ParquetRows::open(&path)?);
        let port = port.parse().map_err(|_| plugin_fault("bad-port", format!("`{port}` is no name of a port")))?;
        self.turn.keep(Endpoint { node: node.clone(), port }, kept.clone());
        Ok(kept)
    }

    /// Keeps the items that loops go over. Rows that others read too stay.
    async fn iterate(&self, node: &NodeId, given: &mut BTreeMap<String, Frame>) -> Result<BTreeMap<String, Kept>> {
        let mut items = BTreeMap::new();
        for iterate in self.plan.loops_over(node) {
            let port = &iterate.over;
            if self.plan.node(node).entry.output_port(port).is_none() || items.contains_key(port) {
                continue;
            }
            let frame = given.remove(port).ok_or_else(|| no_output(port))?;
            let kept = self.hold(node, port, frame).await?;
            self.store_items(node, port, artifact::items_of(kept.frame()).await?).await?;
            items.insert(port.clone(), kept);
        }
        self.store_lists(node).await?;
        Ok(items)
    }

    /// Lists that the module has announced.
    async fn store_lists(&self, node: &NodeId) -> Result<()> {
        let entry = &self.plan.node(node).entry;
        let lists: BTreeSet<&str> = self.plan.loops_over(node).map(|iterate| iterate.over.as_str()).collect();
        for list in lists.into_iter().filter(|list| entry.output_port(list).is_none()) {
            // One that is missing is told by the loop.
            if let Some(items) = self.turn.list(node, list) {
                self.write_items(node, list, items).await?;
            }
        }
        Ok(())
    }

    async fn store_items(&self, node: &NodeId, over: &str, items: Vec<Value>) -> Result<()> {
        self.turn.set_list(node, over, items);
        match self.turn.list(node, over) {
            Some(items) => self.write_items(node, over, items).await,
            None => Ok(()),
        }
    }

    /// Keeps items for a resume, unless one holds a secret: no file may.
    async fn write_items(&self, node: &NodeId, over: &str, items: Items) -> Result<()> {
        let name = format!("{}.{over}.items.ndjson", self.turn.path.name(node.as_str()));
        let (path, place) = self.job.place(&name);
        let (count, secrets) = (items.len() as u64, self.job.shared.secrets.redactor().clone());
        let write = move || match items.iter().any(|item| secrets.hides_in(item)) {
            true => Ok(None),
            false => artifact::write_items(&items, &path).map(Some),
        };
        let written = tokio::task::spawn_blocking(write).await;
        if let Some(bytes) = written.map_err(|lost| Error::cancelled().caused_by(lost))?? {
            self.tell_stored(node, over, StoredFor::Items, place, count, bytes);
        }
        Ok(())
    }

    fn tell_stored(&self, node: &NodeId, port: &str, purpose: StoredFor, path: String, rows: u64, bytes: u64) {
        let (node, item, port) = (node.clone(), self.turn.path.clone(), port.to_owned());
        self.job.shared.tell(RunEvent::Stored { node, item, port, purpose, path, rows, bytes });
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
    async fn copies(
        &self,
        node: &NodeId,
        port: &str,
        frame: Frame,
        readers: &[(usize, &DataEdge)],
    ) -> Result<(Vec<Frame>, Option<u64>)> {
        if !self.plan.is_eager() && !self.parts(readers) {
            let clones: Option<Vec<_>> = (1..readers.len()).map(|_| frame.try_clone()).collect();
            if let Some(mut clones) = clones {
                clones.push(frame);
                return Ok((clones, None));
            }
        }
        let kept = self.hold(node, port, frame).await?;
        let copies = readers.iter().map(|_| kept.frame()).collect();
        Ok((copies, Some(kept.rows())))
    }

    /// Keeps the rows of an output, in memory or in a file until nobody has them any more.
    async fn hold(&self, node: &NodeId, port: &str, frame: Frame) -> Result<Kept> {
        let kept = self.job.shared.hold(frame).await?;
        if let Kept::File(rows) = &kept {
            let path = rows.path().display().to_string();
            self.tell_stored(node, port, StoredFor::Spill, path, rows.rows(), rows.bytes());
        }
        Ok(kept)
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

fn not_kept(from: &Endpoint) -> Error {
    Error::new(ErrorKind::Internal, "checkpoint-missing", format!("the rows of `{from}` are not there"))
}

fn no_output(port: &str) -> Error {
    plugin_fault("missing-output", format!("the module gave no frame at its output port `{port}`"))
}

fn plugin_fault(code: &str, message: String) -> Error {
    Error::new(ErrorKind::Internal, code, message).hint("this is a fault in the plugin: report it to its author")
}
