//! One node: its configs resolved, its module opened and run.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use pype_core::flow::plan::PlannedNode;
use pype_core::flow::spec::ExecutionMode;
use pype_core::template::render;
use pype_plugin::host::{Instance, NodeFacts};
use pype_plugin::{Error, ErrorKind, Frame, Result};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::engine::Job;
use super::services::NodeServices;

/// A node's module, once it was opened, and what its run gave.
pub(super) struct Ran {
    pub(super) instance: Option<Instance>,
    pub(super) result: Result<Vec<(String, Frame)>>,
}

/// Opens and runs `node`. Cancellation ends either at once; what was opened is returned to be closed.
pub(super) async fn run(
    job: Arc<Job>,
    node: PlannedNode,
    inputs: Vec<(String, Frame)>,
    cancel: CancellationToken,
) -> Ran {
    let opened = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::cancelled()),
        opened = open(&job, &node, &cancel) => opened,
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

async fn open(job: &Arc<Job>, node: &PlannedNode, cancel: &CancellationToken) -> Result<Instance> {
    let configs = configs(job, node)?;
    let services = Arc::new(NodeServices {
        shared: job.shared.clone(),
        node: node.id.clone(),
        module: node.module.to_string(),
        declared_globals: node.entry.globals.clone(),
        cancel: cancel.clone(),
        last_progress_ms: AtomicU64::new(0),
    });
    let facts = NodeFacts {
        node_id: node.id.to_string(),
        iteration: None,
        eager: job.plan.settings.execution_mode == ExecutionMode::Eager,
        threads: job.limits.blocking_threads,
        temp_dir: job.temp_dir.clone(),
        wanted_globals: node.wanted_globals.iter().cloned().collect(),
    };
    job.libraries[&node.id].open(node.module.as_str(), &configs, &facts, services).await
}

/// The configs with templates filled in and paths made absolute.
fn configs(job: &Job, node: &PlannedNode) -> Result<Value> {
    let globals = job.shared.globals();
    let mut configs =
        render(&node.configs, &node.spans, &job.scope(&globals), &job.plan.source).map_err(|problems| {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Error::new(ErrorKind::Config, "template", message)
        })?;
    // What is too large to be whole the module itself refuses.
    drop(node.entry.settle_integers(&mut configs));
    node.entry.absolutize(&mut configs, &job.folder);
    Ok(configs)
}
