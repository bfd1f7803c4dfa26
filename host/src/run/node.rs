//! One node: its configs resolved, its module opened and run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pype_core::catalog::ModuleEntry;
use pype_core::diagnostic::Diagnostics;
use pype_core::flow::plan::{PlannedNode, SubFlow};
use pype_core::flow::spec::ExecutionMode;
use pype_core::name::NodeId;
use pype_core::template::render_sealed;
use pype_plugin::host::{Instance, NodeFacts};
use pype_plugin::{Error, ErrorKind, Frame, Iteration, Result};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::engine::Job;
use super::services::{Gate, NodeServices};
use super::turn::Turn;
use crate::secret;

/// A node's module, once it was opened, and what its run gave.
pub(super) struct Ran {
    pub(super) instance: Option<Instance>,
    pub(super) result: Result<Vec<(String, Frame)>>,
}

/// Opens and runs `node`. Cancellation ends either at once; what was opened is returned to be closed.
pub(super) async fn run(
    job: Arc<Job>,
    turn: Arc<Turn>,
    (id, configs): (NodeId, Value),
    inputs: Vec<(String, Frame)>,
    cancel: CancellationToken,
) -> Ran {
    let node = job.plan.node(&id);
    if let Some(mocks) = &job.mocks
        && mocks.stands_in(node)
    {
        return Ran { instance: None, result: mocks.run(&turn, node, inputs).await };
    }
    let opened = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::cancelled()),
        opened = open(&job, &turn, node, &configs, &cancel) => opened,
    };
    let instance = match opened {
        Ok(instance) => instance,
        Err(error) => return Ran { instance: None, result: Err(error) },
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::cancelled()),
        ran = instance.run(inputs) => ran,
    };
    Ran { instance: Some(instance), result }
}

async fn open(
    job: &Arc<Job>,
    turn: &Arc<Turn>,
    node: &PlannedNode,
    configs: &Value,
    cancel: &CancellationToken,
) -> Result<Instance> {
    let services = Arc::new(NodeServices {
        job: job.clone(),
        turn: turn.clone(),
        node: node.id.clone(),
        cancel: cancel.clone(),
        progress: Gate::default(),
    });
    let facts = NodeFacts {
        node_id: turn.path.name(node.id.as_str()),
        iteration: turn.iteration.as_ref().map(|one| Iteration { item: one.item.clone(), index: one.index }),
        eager: job.plan.settings.execution_mode == ExecutionMode::Eager,
        threads: job.limits.blocking_threads,
        temp_dir: job.temp_dir.clone(),
        folder: job.folder.clone(),
        wanted_globals: node.wanted_globals.iter().cloned().collect(),
    };
    job.libraries[&node.id].open(node, configs, &facts, services).await
}

/// The configs of every module of a sub flow.
///
/// # Errors
/// A template of this module cannot be filled in.
pub(super) fn all_configs(
    job: &Job,
    turn: &Turn,
    sub_flow: &SubFlow,
) -> Result<BTreeMap<NodeId, Value>, (NodeId, Error)> {
    let of_node = |id: &NodeId| match configs(job, turn, job.plan.node(id)) {
        Ok(configs) => Ok((id.clone(), configs)),
        Err(error) => Err((id.clone(), error)),
    };
    sub_flow.nodes.iter().map(of_node).collect()
}

/// The configs with templates filled in and paths made absolute.
fn configs(job: &Job, turn: &Turn, node: &PlannedNode) -> Result<Value> {
    filled_in(job, turn, node, &|filled| filled)
}

/// The same for a fingerprint: what holds a secret is hashed.
pub(super) fn sealed_configs(job: &Job, turn: &Turn, node: &PlannedNode, key: &secret::Key) -> Result<Value> {
    filled_in(job, turn, node, &|filled| key.hash(&filled.to_string()).into())
}

fn filled_in(job: &Job, turn: &Turn, node: &PlannedNode, seal: &dyn Fn(Value) -> Value) -> Result<Value> {
    let globals = turn.globals();
    let scope = job.scope(turn, &globals);
    let configs = render_sealed(&node.configs, &node.spans, &scope, &job.plan.source, seal);
    settled(&node.entry, configs, &job.folder)
}

/// Configs as a module gets them, once their templates are filled in: whole numbers whole, and paths absolute.
pub(crate) fn settled(entry: &ModuleEntry, configs: Result<Value, Diagnostics>, folder: &Path) -> Result<Value> {
    let mut configs = configs.map_err(|problems| {
        let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Error::new(ErrorKind::Config, "template", message)
    })?;
    // What is too large to be whole the module itself refuses.
    drop(entry.settle_integers(&mut configs));
    entry.absolutize(&mut configs, folder);
    Ok(configs)
}
