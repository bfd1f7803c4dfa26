//! Mods and sinks that handle records batch by batch.
//!
//! A batch goes through all modules, then every sink commits, and only then its records are done. What a mod cannot read leaves it
//! through its port `errors`, and its records go to the dead letters, each for itself. When a module fails, nothing of its batch is
//! done: all modules are closed and opened anew, and the batch is tried again, as the document says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pype_core::catalog::ModuleKind;
use pype_core::name::NodeId;
use pype_core::retry::Retry;
use pype_core::stream::control::Work;
use pype_core::stream::{ERRORS, RECORDS, SOURCE};
use pype_plugin::host::Instance;
use pype_plugin::stream::Records;
use pype_plugin::{Error, ErrorKind, Frame, Result, SharedBatches};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::engine::{Engine, Told};
use super::records::{Batch as Together, Place};
use crate::clock::random;
use crate::pipeline::{Opener, StageServices};

/// How long a module may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// When a batch is full.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) interval: Duration,
}

/// A module, and where what it reads comes from.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) kind: ModuleKind,
    pub(super) opener: Opener<StageServices>,
    /// Its input ports, each with the node and the port that feed it.
    pub(super) inputs: Vec<(String, (NodeId, String))>,
    /// Whether it has a port for what it cannot read, which nobody reads.
    pub(super) errors_unread: bool,
}

/// Modules, in an order in which each comes after what it reads from.
pub(super) struct Chain {
    nodes: Vec<Node>,
    instances: Vec<Instance>,
    /// How many read each port.
    readers: HashMap<(NodeId, String), usize>,
    /// The port whose rows are given back.
    end: Option<(NodeId, String)>,
}

/// What became of a batch.
pub(super) struct Handled {
    /// The records that could not be read, each with why.
    pub(super) unread: Vec<(Records, usize, String)>,
    /// The rows at the end, if somebody wants them.
    pub(super) end: Option<Frame>,
}

/// The error of a module.
pub(super) struct Failure {
    pub(super) node: NodeId,
    pub(super) error: Error,
}

impl Chain {
    /// Opens all of them. `nodes` may be in any order; the rows at the port `end` are given back.
    pub(super) async fn open(nodes: Vec<Node>, end: Option<(NodeId, String)>) -> Result<Self, (NodeId, Error)> {
        let mut readers: HashMap<_, usize> = HashMap::new();
        let read = nodes.iter().flat_map(|node| &node.inputs).map(|(_, from)| from);
        for from in read.chain(&end) {
            *readers.entry(from.clone()).or_default() += 1;
        }
        let mut chain = Self { nodes: in_order(nodes), instances: Vec::new(), readers, end };
        match chain.open_all().await {
            Ok(()) => Ok(chain),
            Err(Failure { node, error }) => {
                chain.close().await;
                Err((node, error))
            }
        }
    }

    async fn open_all(&mut self) -> Result<(), Failure> {
        for node in &self.nodes[self.instances.len()..] {
            let opened = node.opener.open().await.map_err(|error| Failure { node: node.id.clone(), error })?;
            self.instances.push(opened);
        }
        Ok(())
    }

    /// Closes all of them, the last first.
    pub(super) async fn close(&mut self) {
        while let Some(instance) = self.instances.pop() {
            let node = self.nodes[self.instances.len()].id.as_str();
            match tokio::time::timeout(CLOSE_PATIENCE, instance.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(node, "the module did not close: {error}"),
                Err(_) => tracing::warn!(node, "the module did not close in time"),
            }
        }
    }

    /// Puts a batch through, and commits it.
    pub(super) async fn handle(&mut self, records: Frame) -> Result<Handled, Failure> {
        self.open_all().await?;
        let mut frames: HashMap<(NodeId, String), Vec<Frame>> = HashMap::new();
        let source = SOURCE.parse().expect("it is the name of a node");
        self.give(&mut frames, (source, RECORDS.to_owned()), records).await.map_err(|error| self.at(0, error))?;
        let mut unread = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let take = |(port, from): &(String, (NodeId, String))| {
                let frame = frames.get_mut(from).and_then(Vec::pop);
                frame.map(|frame| (port.clone(), frame))
            };
            let inputs: Vec<_> = node.inputs.iter().filter_map(take).collect();
            let outputs = self.instances[at].run(inputs).await.map_err(|error| self.at(at, error))?;
            for (port, frame) in outputs {
                if node.errors_unread && port == ERRORS {
                    unread.extend(refused(&frame).await.map_err(|error| self.at(at, error))?);
                } else {
                    let given = self.give(&mut frames, (node.id.clone(), port), frame).await;
                    given.map_err(|error| self.at(at, error))?;
                }
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if node.kind == ModuleKind::Sink {
                self.instances[at].commit().await.map_err(|error| self.at(at, error))?;
            }
        }
        let end = self.end.as_ref().and_then(|end| frames.get_mut(end)?.pop());
        Ok(Handled { unread, end })
    }

    /// Keeps a frame for each of its readers.
    async fn give(
        &self,
        frames: &mut HashMap<(NodeId, String), Vec<Frame>>,
        port: (NodeId, String),
        frame: Frame,
    ) -> Result<()> {
        let readers = self.readers.get(&port).copied().unwrap_or_default();
        let copies = match readers {
            0 => return Ok(()),
            1 => vec![frame],
            _ => {
                let shared = SharedBatches::read(&frame).await?;
                (0..readers).map(|_| Frame::new(shared.clone())).collect()
            }
        };
        frames.insert(port, copies);
        Ok(())
    }

    fn at(&self, at: usize, error: Error) -> Failure {
        Failure { node: self.nodes[at].id.clone(), error }
    }
}

/// The records in a frame of such as could not be read, each with why.
async fn refused(frame: &Frame) -> Result<Vec<(Records, usize, String)>> {
    let mut refused = Vec::new();
    for records in Records::read(frame).await? {
        for row in 0..records.len() {
            let why = records.texts("error").map_or("it could not be read", |errors| errors.value(row)).to_owned();
            refused.push((records.clone(), row, why));
        }
    }
    Ok(refused)
}

/// Each after what it reads from. The plan has no cycles.
fn in_order(mut nodes: Vec<Node>) -> Vec<Node> {
    let mut ordered: Vec<Node> = Vec::with_capacity(nodes.len());
    while !nodes.is_empty() {
        let before = nodes.len();
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id.clone()).collect();
        let is_ready = |node: &mut Node| node.inputs.iter().all(|(_, (from, _))| !ids.contains(from));
        ordered.extend(nodes.extract_if(.., is_ready));
        assert!(nodes.len() < before, "a plan has no cycles");
    }
    ordered
}

/// Collects batches, and puts them through the modules one after the other, the next being collected meanwhile.
pub(super) struct Batches {
    works: mpsc::UnboundedSender<Work<Place>>,
    shared: Arc<Shared>,
    bounds: Bounds,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Bytes of keys and values that are in hand.
    bytes: AtomicUsize,
    hurry: Notify,
}

impl Batches {
    /// The engine, and where it tells what became of records.
    pub(super) fn new(chain: Chain, bounds: Bounds, retry: Retry) -> (Self, mpsc::Receiver<Told>) {
        // What is in hand is bounded by the control plane, and by `is_full`.
        let (works, waiting) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::channel(bounds.rows.clamp(1, 65_536));
        let shared = Arc::new(Shared::default());
        let run = Run { chain, bounds, retry, waiting, tell, shared: shared.clone(), over: None };
        (Self { works, shared, bounds, task: tokio::spawn(run.run()) }, told)
    }
}

impl Engine for Batches {
    /// A batch is done as a whole: none of it is before another.
    fn goes_on(&self) -> bool {
        false
    }

    fn start(&mut self, works: Vec<Work<Place>>) {
        for work in works {
            self.shared.bytes.fetch_add(bytes(&work), Ordering::Relaxed);
            // Once the task is gone it has said why.
            drop(self.works.send(work));
        }
    }

    fn is_full(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) >= self.bounds.bytes.saturating_mul(2)
    }

    fn hurry(&mut self) {
        self.shared.hurry.notify_one();
    }

    async fn abort(&mut self) {
        let (works, _) = mpsc::unbounded_channel();
        // Without a sender the task comes to its end, and closes the modules.
        self.works = works;
        self.shared.hurry.notify_one();
        let ended = tokio::time::timeout(CLOSE_PATIENCE, &mut self.task).await;
        if ended.is_err() {
            tracing::warn!("a batch was broken off");
            self.task.abort();
        }
    }
}

fn bytes(work: &Work<Place>) -> usize {
    let (batch, row) = work.payload.parts();
    batch.records().bytes(row)
}

struct Run {
    chain: Chain,
    bounds: Bounds,
    retry: Retry,
    waiting: mpsc::UnboundedReceiver<Work<Place>>,
    tell: mpsc::Sender<Told>,
    shared: Arc<Shared>,
    /// The record that was too much for the last batch.
    over: Option<Work<Place>>,
}

impl Run {
    async fn run(mut self) {
        while let Some(batch) = self.collect().await {
            let in_hand = batch.iter().map(bytes).sum();
            let going_on = self.handle(batch).await;
            self.shared.bytes.fetch_sub(in_hand, Ordering::Relaxed);
            if !going_on {
                break;
            }
        }
        self.chain.close().await;
    }

    /// The next batch; none when there is nobody any more who gives records.
    async fn collect(&mut self) -> Option<Vec<Work<Place>>> {
        let first = match self.over.take() {
            Some(work) => work,
            None => self.waiting.recv().await?,
        };
        let until = Instant::now() + self.bounds.interval;
        let mut size = bytes(&first);
        let mut batch = vec![first];
        while batch.len() < self.bounds.rows && size < self.bounds.bytes {
            let next = tokio::select! {
                biased;
                next = self.waiting.recv() => next,
                () = self.shared.hurry.notified() => None,
                () = tokio::time::sleep_until(until) => None,
            };
            let Some(work) = next else { break };
            size += bytes(&work);
            if size > self.bounds.bytes {
                self.over = Some(work);
                break;
            }
            batch.push(work);
        }
        Some(batch)
    }

    /// Whether to go on.
    async fn handle(&mut self, batch: Vec<Work<Place>>) -> bool {
        let began = Instant::now();
        let mut attempt = 1;
        loop {
            let handled = self.chain.handle(frame(&batch)).await;
            let Failure { node, error } = match handled {
                Ok(Handled { unread, .. }) => return self.tell_all(batch, unread, began.elapsed()).await,
                Err(failure) => failure,
            };
            // What a module holds of a batch that failed must not get into the next.
            self.chain.close().await;
            let again = self.retry.takes(error.retryable).then(|| self.retry.delay(attempt, random())).flatten();
            let (node, rows) = (node.as_str(), batch.len());
            match again {
                Some(after) if !self.tell.is_closed() => {
                    let after_ms = after.as_millis();
                    tracing::warn!(node, rows, attempt, "a batch failed, and is tried again in {after_ms} ms: {error}");
                    let message = format!("a batch failed in `{node}`, and is tried again: {error}");
                    // Whoever is gone will not miss it.
                    drop(self.tell.send(Told::Struggles(message)).await);
                    tokio::time::sleep(after).await;
                    attempt += 1;
                }
                _ => {
                    tracing::error!(node, rows, attempt, "a batch failed: {error}");
                    // Whoever is gone will not miss it.
                    drop(self.tell.send(Told::Broken(error)).await);
                    return false;
                }
            }
        }
    }

    async fn tell_all(&self, batch: Vec<Work<Place>>, unread: Vec<(Records, usize, String)>, took: Duration) -> bool {
        let named = |(records, row, why): (Records, usize, String)| {
            let record = records.get(row);
            ((record.topic().to_owned(), record.partition(), record.offset()), why)
        };
        let mut unread: BTreeMap<_, _> = unread.into_iter().map(named).collect();
        for work in batch {
            let why = (!unread.is_empty()).then(|| {
                let record = work.payload.record();
                unread.remove(&(record.topic().to_owned(), record.partition(), record.offset()))
            });
            let result = match why.flatten() {
                None => Ok(()),
                Some(why) => Err(Error::new(ErrorKind::Data, "undecodable", why)),
            };
            if self.tell.send(Told::Handled { work, result, took }).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// The records of a batch. Those that are neighbours already are not copied.
fn frame(batch: &[Work<Place>]) -> Frame {
    let mut parts: Vec<(&Arc<Together>, usize, usize)> = Vec::new();
    for work in batch {
        let (together, row) = work.payload.parts();
        match parts.last_mut() {
            Some((last, from, count)) if Arc::ptr_eq(last, together) && *from + *count == row => *count += 1,
            _ => parts.push((together, row, 1)),
        }
    }
    let batches: Vec<_> =
        parts.into_iter().map(|(together, from, count)| together.records().batch().slice(from, count)).collect();
    let schema = batches.first().expect("a batch has a record").schema();
    Frame::from_record_batches(schema, batches)
}
