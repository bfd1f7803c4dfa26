//! What a sub flow was made from, and whether what an earlier session made of the same may be used again.

use std::collections::BTreeMap;
use std::path::Path;

use pype_core::catalog::ModuleKind;
use pype_core::flow::plan::{Endpoint, Plan, PlannedNode, SubFlow, SubFlowId};
use pype_core::name::NodeId;
use pype_core::run::event::StoredFor;
use pype_core::run::fingerprint::{Fingerprint, NodeFingerprint, ResourceState};
use pype_core::run::previous::StoredRows;
use pype_plugin::{Resource, Resources, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::engine::Job;
use super::node;
use super::turn::Turn;
use crate::artifact::{self, Kept, ParquetRows};

/// What a sub flow would be made from now, given the configs of its modules.
///
/// # Errors
/// A module cannot say what it reads: running it will tell.
pub(super) async fn fingerprint(
    job: &Job,
    turn: &Turn,
    sub_flow: &SubFlow,
    configs: &BTreeMap<NodeId, Value>,
) -> Result<Fingerprint> {
    let mut fingerprint = Fingerprint {
        wiring: job.wirings[&sub_flow.id].clone(),
        item: turn.iteration.as_ref().map(|iteration| {
            let item = iteration.item.to_string();
            job.key.as_ref().map_or_else(|| digest(item.as_bytes()), |key| key.hash(&item))
        }),
        ..Fingerprint::default()
    };
    for id in &sub_flow.nodes {
        let node = job.plan.node(id);
        fingerprint.nodes.insert(id.clone(), of_node(job, turn, node, &configs[id]).await?);
    }
    Ok(fingerprint)
}

/// The same after it has run: what was written is there now.
pub(super) async fn with_outputs(
    job: &Job,
    configs: &BTreeMap<NodeId, Value>,
    mut before: Fingerprint,
) -> Result<Fingerprint> {
    for (id, made_from) in &mut before.nodes {
        if made_from.outputs.is_some() {
            let node = job.plan.node(id);
            let now = job.libraries[id].resources(node, &configs[id]).await?;
            made_from.outputs = now.outputs.map(|all| states(job, all));
        }
    }
    Ok(before)
}

async fn of_node(job: &Job, turn: &Turn, node: &PlannedNode, configs: &Value) -> Result<NodeFingerprint> {
    let resources = match job.mocks {
        // What is mocked is not asked.
        Some(_) => Resources::default(),
        None => job.libraries[&node.id].resources(node, configs).await?,
    };
    let visible = match &job.key {
        Some(key) => node::sealed_configs(job, turn, node, key)?.to_string(),
        None => configs.to_string(),
    };
    Ok(NodeFingerprint {
        module: node.module.to_string(),
        library: job.libraries[&node.id].digest().to_string(),
        configs: digest(visible.as_bytes()),
        inputs: resources.inputs.map(|all| states(job, all)),
        outputs: resources.outputs.map(|all| states(job, all)),
        is_source: node.entry.kind == ModuleKind::Source,
    })
}

fn states(job: &Job, resources: Vec<Resource>) -> Vec<ResourceState> {
    let state = |Resource { mut uri, size, modified, etag }| {
        job.shared.secrets.redactor().string(&mut uri);
        ResourceState { uri, size, modified, etag }
    };
    resources.into_iter().map(state).collect()
}

/// Of each sub flow who feeds whom, what is kept of it, and which globals are wanted, hashed: it is the same for all
/// items of a loop.
#[must_use]
pub fn wirings(plan: &Plan) -> BTreeMap<SubFlowId, String> {
    plan.sub_flows().iter().map(|sub_flow| (sub_flow.id, wiring(plan, sub_flow))).collect()
}

fn wiring(plan: &Plan, sub_flow: &SubFlow) -> String {
    let mut hash = Sha256::new();
    for node in &sub_flow.nodes {
        for global in &plan.node(node).wanted_globals {
            hash.update(format!("{node}__{global}\n"));
        }
        for edge in plan.inputs_of(node) {
            hash.update(format!("{} - {}\n", edge.from, edge.to));
        }
        // All that it gives is kept, whoever reads it.
        if plan.node(node).checkpoint {
            hash.update(format!("keep {node}\n"));
        }
        for iterate in plan.loops_over(node) {
            hash.update(format!("items {iterate}\n"));
        }
    }
    half(&hash.finalize())
}

fn digest(bytes: &[u8]) -> String {
    half(&Sha256::digest(bytes))
}

/// Half of a digest: it tells versions apart, and keeps nobody out.
fn half(digest: &[u8]) -> String {
    hex::encode(&digest[..digest.len() / 2])
}

/// What a resume would do with a sub flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Which.
    pub sub_flow: SubFlowId,
    /// Why it would run; `None` if what it gave would be used again.
    pub runs_because: Option<String>,
}

/// What a resume would use again, as far as that can be told without running anything: what is in loops is compared item
/// by item when it runs.
pub async fn forecast(job: &Job) -> Vec<Forecast> {
    let turn = Turn::default();
    let mut forecasts = Vec::new();
    for sub_flow in job.plan.sub_flows().iter().filter(|one| one.iterate.is_none() && one.within.is_none()) {
        let made_from = match node::all_configs(job, &turn, sub_flow) {
            Ok(configs) => fingerprint(job, &turn, sub_flow, &configs).await,
            Err((_, error)) => Err(error),
        };
        let runs_because = match made_from {
            Ok(now) => use_again(job, &turn, sub_flow, &now),
            Err(error) => match upstream_that_ran(job, &turn, sub_flow) {
                Some(upstream) => Some(format!("`{upstream}` runs again")),
                None => Some(error.message.clone()),
            },
        };
        if runs_because.is_some() {
            turn.note_run(sub_flow.id, std::iter::empty());
        }
        forecasts.push(Forecast { sub_flow: sub_flow.id, runs_because });
    }
    forecasts
}

/// Why a sub flow must run, though an earlier session completed it; `None` if what it gave was used again.
pub(super) fn use_again(job: &Job, turn: &Turn, sub_flow: &SubFlow, now: &Fingerprint) -> Option<String> {
    let Some(before) = job.previous.completed(&sub_flow.name(), &turn.path) else {
        return Some("no earlier session completed it".to_owned());
    };
    if let Some(upstream) = upstream_that_ran(job, turn, sub_flow) {
        return Some(format!("`{upstream}` ran again"));
    }
    if let Some(upstream) = upstream_that_ran_since(job, turn, sub_flow) {
        return Some(format!("`{upstream}` ran again in an earlier session, and this did not"));
    }
    Fingerprint::difference(before, now).or_else(|| restore(job, turn, sub_flow).err())
}

/// Those that a sub flow, or a loop around it, waits for.
fn upstream<'a>(job: &'a Job, sub_flow: &'a SubFlow) -> impl Iterator<Item = &'a SubFlow> {
    let with_loops = std::iter::once(sub_flow).chain(job.plan.loops_around(sub_flow.id));
    with_loops.flat_map(|one| &one.after).map(|id| job.plan.sub_flow(*id))
}

/// One that has run in this session, itself or, if it is a loop, something within it.
fn upstream_that_ran(job: &Job, turn: &Turn, sub_flow: &SubFlow) -> Option<String> {
    upstream(job, sub_flow).find(|one| turn.has_run(one.id)).map(SubFlow::name)
}

/// One that has run in an earlier session after this sub flow was completed.
fn upstream_that_ran_since(job: &Job, turn: &Turn, sub_flow: &SubFlow) -> Option<String> {
    let began_since = |one: &&SubFlow| {
        let item = turn.path.outermost(job.plan.loops_around(one.id).count());
        job.previous.began_since((one.name(), item), (sub_flow.name(), turn.path.clone()))
    };
    upstream(job, sub_flow).find(began_since).map(SubFlow::name)
}

/// Brings back what the modules of a sub flow have announced, and the rows that were kept.
fn restore(job: &Job, turn: &Turn, sub_flow: &SubFlow) -> Result<(), String> {
    let (mut kept, mut lists, mut globals) = (Vec::new(), Vec::new(), Vec::new());
    for id in &sub_flow.nodes {
        for stored in job.previous.stored(id, &turn.path) {
            let path = job.run_folder.join(&stored.path);
            match stored.purpose {
                StoredFor::Checkpoint => {
                    let port = stored.port.parse().map_err(|_| format!("`{}` is no port", stored.port))?;
                    kept.push((Endpoint { node: id.clone(), port }, checkpoint(&path, stored)?));
                }
                StoredFor::Items => {
                    let items = artifact::read_items(&path).map_err(|error| format!("its items are lost: {error}"))?;
                    if items.len() as u64 != stored.rows {
                        return Err(format!("its items in `{}` are not whole", stored.path));
                    }
                    lists.push((id, stored.port.as_str(), items));
                }
                StoredFor::Spill => {}
            }
        }
    }
    needs(job, sub_flow, &kept, &lists)?;
    for id in &sub_flow.nodes {
        for (name, value) in job.previous.globals(id, &turn.path) {
            let value = value.clone().ok_or_else(|| format!("its global `{name}` held a secret, which is not kept"))?;
            globals.push((id, name, value));
        }
    }
    for (id, name, value) in globals {
        turn.set_global(id, name, value).map_err(|twice| twice.to_string())?;
    }
    for (from, rows) in kept {
        turn.keep(from, rows);
    }
    for (node, name, items) in lists {
        turn.set_list(node, name, items);
    }
    Ok(())
}

fn checkpoint(path: &Path, stored: &StoredRows) -> Result<Kept, String> {
    let lost = |why: String| format!("its checkpoint `{}` {why}", stored.path);
    let bytes = std::fs::metadata(path).map_err(|error| lost(format!("is lost: {error}")))?.len();
    if bytes != stored.bytes {
        return Err(lost(format!("has {bytes} bytes, not {}", stored.bytes)));
    }
    let rows = ParquetRows::open(path).map_err(|error| lost(format!("is damaged: {error}")))?;
    Ok(Kept::File(rows))
}

/// Whatever others read of it must be among what was kept.
fn needs(
    job: &Job,
    sub_flow: &SubFlow,
    kept: &[(Endpoint, Kept)],
    lists: &[(&NodeId, &str, Vec<Value>)],
) -> Result<(), String> {
    for id in &sub_flow.nodes {
        let read = job.plan.outputs_of(id).filter(|_| job.plan.node(id).checkpoint);
        if let Some(edge) = read.into_iter().find(|edge| kept.iter().all(|(from, _)| *from != edge.from)) {
            return Err(format!("the rows of `{}` were not kept", edge.from));
        }
        let is_there = |over: &str| lists.iter().any(|(of, name, _)| *of == id && *name == over);
        if let Some(iterate) = job.plan.loops_over(id).find(|iterate| !is_there(&iterate.over)) {
            return Err(format!("the items of `{iterate}` were not kept"));
        }
    }
    Ok(())
}
