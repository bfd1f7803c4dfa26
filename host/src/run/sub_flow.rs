//! One sub flow: its nodes in waves, then the commits of its sinks, then every close.
//!
//! The promise: a sink's rows become visible only after every node of the sub flow has done its work, and whatever was
//! opened is closed, after success, failure and cancellation alike.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_core::catalog::ModuleKind;
use pype_core::flow::plan::SubFlow;
use pype_core::name::NodeId;
use pype_core::run::event::{OutputInfo, RunEvent};
use pype_plugin::host::Instance;
use pype_plugin::{Commit, Error, ErrorKind, Result};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::Job;
use super::frames::{Frames, PortRows};
use super::node::{self, Ran};
use super::turn::Turn;

/// How long a commit may go on after the run was stopped.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a module may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// How a sub flow ended.
pub(super) enum End {
    Succeeded {
        /// Whether its end was told and is written down.
        told: bool,
    },
    Failed {
        retryable: bool,
        reason: Option<String>,
    },
    Cancelled,
}

/// Runs the sub flow to its end; every failure has been told to the observer.
pub(super) async fn run(
    job: &Arc<Job>,
    turn: &Arc<Turn>,
    sub_flow: &SubFlow,
    configs: BTreeMap<NodeId, Value>,
    cancel: CancellationToken,
) -> End {
    let mut attempt = Attempt {
        job,
        turn,
        configs,
        sub_flow,
        // A failing node stops its neighbours, not the whole run.
        cancel: cancel.child_token(),
        opened: Vec::new(),
        started: BTreeMap::new(),
        committed: false,
    };
    let worked = attempt.work().await;
    let committed = match worked {
        Ok(()) if cancel.is_cancelled() => Err(Failure::cancelled()),
        Ok(()) => attempt.commit().await,
        Err(failure) => Err(failure),
    };
    let closed = attempt.close().await;
    // What a sink has made visible once must not be written again.
    let may_retry = !attempt.committed;
    match committed.and(closed) {
        Ok(()) => End::Succeeded { told: false },
        Err(failure) if failure.error.kind == ErrorKind::Cancelled && cancel.is_cancelled() => End::Cancelled,
        Err(failure) => {
            let retryable = failure.error.retryable && may_retry;
            job.failed(failure.node.as_ref(), &turn.path, failure.error);
            if cancel.is_cancelled() { End::Cancelled } else { End::Failed { retryable, reason: None } }
        }
    }
}

/// A node at work.
type Work = Pin<Box<dyn Future<Output = (NodeId, Ran)> + Send>>;

struct Failure {
    node: Option<NodeId>,
    error: Error,
}

impl Failure {
    fn of(node: &NodeId) -> impl FnOnce(Error) -> Self {
        let node = Some(node.clone());
        move |error| Self { node, error }
    }

    fn cancelled() -> Self {
        Self { node: None, error: Error::cancelled() }
    }
}

struct Attempt<'a> {
    job: &'a Arc<Job>,
    turn: &'a Arc<Turn>,
    /// Of nodes that have not started.
    configs: BTreeMap<NodeId, Value>,
    sub_flow: &'a SubFlow,
    cancel: CancellationToken,
    opened: Vec<(NodeId, Instance)>,
    started: BTreeMap<NodeId, Instant>,
    /// Whether a sink has committed.
    committed: bool,
}

impl Attempt<'_> {
    /// Runs each node as soon as all that it reads from have run.
    async fn work(&mut self) -> Result<(), Failure> {
        let job = self.job.clone();
        let turn = self.turn.clone();
        let mut frames = Frames::new(&job, &turn, self.sub_flow).map_err(|error| Failure { node: None, error })?;
        let mut waiting = self.waits();
        let mut running = JoinSet::new();
        let mut alone = None;
        let mut failure = None;
        loop {
            if failure.is_none() {
                let mut ready = self.ready(&mut waiting, &mut frames);
                // What runs alone needs no task of its own.
                match ready.pop() {
                    Some(work) if ready.is_empty() && running.is_empty() => alone = Some(work),
                    last => ready.into_iter().chain(last).for_each(|work| drop(running.spawn(work))),
                }
            }
            let joined = match alone.take() {
                Some(work) => Ok(work.await),
                None => match running.join_next().await {
                    Some(joined) => joined,
                    None => break,
                },
            };
            let (node, Ran { instance, result }) = match joined {
                Ok(ran) => ran,
                Err(lost) => {
                    self.cancel.cancel();
                    failure.get_or_insert(Failure { node: None, error: lost_task(&lost) });
                    continue;
                }
            };
            self.opened.extend(instance.map(|instance| (node.clone(), instance)));
            let given = match result {
                Ok(outputs) => tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => Err(Error::cancelled()),
                    given = frames.give(&node, outputs) => given,
                },
                Err(error) => Err(error),
            };
            match given {
                Ok(rows) => {
                    self.finished_unless_sink(&node, rows);
                    waiting.values_mut().for_each(|upstream| upstream.retain(|waited_for| *waited_for != node));
                }
                Err(error) => {
                    self.cancel.cancel();
                    // The first failure is the cause; the others were told to stop.
                    failure.get_or_insert(Failure::of(&node)(error));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// For each node, those of the sub flow it reads from; what others have kept is there.
    fn waits(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let plan = &self.job.plan;
        let upstream = |node: &NodeId| {
            let feeding = plan.inputs_of(node).map(|edge| &edge.from.node);
            feeding.filter(|from| !plan.node(from).checkpoint).cloned().collect()
        };
        self.sub_flow.nodes.iter().map(|node| (node.clone(), upstream(node))).collect()
    }

    /// The work of those nodes that have all they read.
    fn ready(&mut self, waiting: &mut BTreeMap<NodeId, BTreeSet<NodeId>>, frames: &mut Frames<'_>) -> Vec<Work> {
        let ready: Vec<_> = waiting.extract_if(.., |_, upstream| upstream.is_empty()).map(|(node, _)| node).collect();
        let mut work: Vec<Work> = Vec::with_capacity(ready.len());
        for node in ready {
            self.job.shared.tell(RunEvent::NodeStarted { node: node.clone(), item: self.turn.path.clone() });
            self.started.insert(node.clone(), Instant::now());
            let inputs = frames.take(&node);
            let configs = self.configs.remove(&node).unwrap_or_default();
            let (job, turn, cancel) = (self.job.clone(), self.turn.clone(), self.cancel.clone());
            work.push(Box::pin(async move {
                let ran = node::run(job, turn, (node.clone(), configs), inputs, cancel).await;
                (node, ran)
            }));
        }
        work
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let sinks: Vec<_> = self.opened.iter().filter(|(node, _)| self.is_sink(node)).collect();
        let mut committed = Vec::new();
        let mut failure = None;
        for (node, instance) in sinks {
            match self.patiently(instance.commit()).await {
                Ok(commits) => committed.push((node.clone(), commits)),
                Err(error) => {
                    failure = Some(Failure::of(node)(error));
                    break;
                }
            }
        }
        self.committed = !committed.is_empty();
        for (node, commits) in committed {
            self.finished(&node, commits.into_iter().map(output_of).collect());
        }
        failure.map_or(Ok(()), Err)
    }

    /// A commit is not broken off half-way; but once the run is stopped it has only so long.
    async fn patiently(&self, commit: impl Future<Output = Result<Vec<Commit>>>) -> Result<Vec<Commit>> {
        let stopped = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(COMMIT_PATIENCE).await;
        };
        tokio::select! {
            biased;
            committed = commit => committed,
            () = stopped => Err(commit_took_too_long()),
        }
    }

    /// Closes everything, the last opened first; gives the first failure.
    async fn close(&mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some((node, instance)) = self.opened.pop() {
            let closed = tokio::time::timeout(CLOSE_PATIENCE, instance.close()).await;
            let closed = closed.unwrap_or_else(|_| Err(close_took_too_long()));
            if let Err(error) = &closed {
                tracing::warn!(node = node.as_str(), "the module did not close: {error}");
            }
            first = first.and(closed.map_err(Failure::of(&node)));
        }
        first
    }

    fn is_sink(&self, node: &NodeId) -> bool {
        self.job.plan.node(node).entry.kind == ModuleKind::Sink
    }

    fn finished_unless_sink(&self, node: &NodeId, rows: Vec<PortRows>) {
        if !self.is_sink(node) {
            let outputs =
                rows.into_iter().map(|PortRows { port, rows }| OutputInfo { target: port, rows, bytes: None });
            self.finished(node, outputs.collect());
        }
    }

    fn finished(&self, node: &NodeId, outputs: Vec<OutputInfo>) {
        let rows = outputs.iter().map(|output| output.rows).sum::<Option<u64>>().filter(|_| !outputs.is_empty());
        let bytes = outputs.iter().filter_map(|output| output.bytes).sum();
        let seconds = self.started.get(node).map_or(0.0, |start| start.elapsed().as_secs_f64());
        self.job.shared.tell(RunEvent::NodeFinished {
            node: node.clone(),
            item: self.turn.path.clone(),
            rows,
            bytes,
            seconds,
            outputs,
        });
    }
}

fn output_of(Commit { rows, bytes, uri }: Commit) -> OutputInfo {
    OutputInfo { target: uri.unwrap_or_default(), rows, bytes }
}

fn lost_task(lost: &tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "host-panicked", format!("the host failed while it ran a node: {lost}"))
}

fn commit_took_too_long() -> Error {
    let message = format!("its commit went on for {} s after the run was stopped", COMMIT_PATIENCE.as_secs());
    Error::new(ErrorKind::TimedOut, "commit-timed-out", message)
        .hint("look whether its output is there: the commit may have come to its end unseen")
}

fn close_took_too_long() -> Error {
    let message = format!("it did not close within {} s", CLOSE_PATIENCE.as_secs());
    Error::new(ErrorKind::TimedOut, "close-timed-out", message)
}
