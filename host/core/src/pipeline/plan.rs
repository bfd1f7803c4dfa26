//! A pipeline that can be run.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::context::ContextSpec;
use crate::catalog::{ModuleEntry, ModuleKind};
use crate::document::{Source, SpanMap};
pub use crate::form::meta::About;
use crate::name::{ModuleName, NodeId, PipelineName, Version};
use crate::retry::Retry;

/// A pipeline that can be run: some stages, one of them at most a dispatch, their ids unique. Only [`Plan::new`] makes one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    name: PipelineName,
    version: Version,
    #[serde(flatten)]
    about: About,
    context: ContextSpec,
    stages: Vec<Stage>,
    /// The place of the dispatch among them.
    #[serde(skip)]
    dispatch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    large: Option<Large>,
    settings: Settings,
    #[serde(skip)]
    source: Source,
}

/// What a plan is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The name of the pipeline.
    pub name: PipelineName,
    /// The version of the pipeline.
    pub version: Version,
    /// Who wrote it, what for.
    pub about: About,
    /// What its stages work on.
    pub context: ContextSpec,
    /// All stages, from top to bottom. That of a module of kind dispatch is the dispatch.
    pub stages: Vec<Stage>,
    /// The stage that is given the context of a job that is dead, or of a run that failed.
    pub dead_letter: Option<Stage>,
    /// Where large bytes wait, instead of in the queue.
    pub large: Option<Large>,
    /// How to run it.
    pub settings: Settings,
    /// The document that the spans of the stages belong to.
    pub source: Source,
}

/// How to run a pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Settings {
    /// The bound of each part, the caller's and the background's.
    #[serde(rename = "timeout_s", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its id in the pipeline.
    pub id: NodeId,
    /// The module it is an instance of; of a dispatch the queue.
    pub module: ModuleName,
    /// That module, as the catalog described it.
    pub entry: ModuleEntry,
    /// Its configs. Templates are not filled in.
    pub configs: Value,
    /// Where the values of `configs` stand in the document.
    pub spans: SpanMap,
    /// When it is tried again; of a dispatch, when the job is.
    pub retry: Retry,
    /// The bound of one attempt.
    pub timeout: Option<Duration>,
    /// Of a dispatch: how its jobs wait.
    pub queueing: Queueing,
}

/// Where bytes of a context wait that are too large for the queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Large {
    /// A field of more bytes than this waits there.
    pub over_bytes: u64,
    /// Writes the field `file_content` to the object `file_path`.
    pub write: Stage,
    /// Reads it again.
    pub read: Stage,
    /// Deletes it.
    pub delete: Stage,
}

/// How jobs wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Queueing {
    /// Whether those of one shard run one after the other, the oldest first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
    /// So long at least.
    #[serde(rename = "delay_s", serialize_with = "in_seconds", skip_serializing_if = "Duration::is_zero")]
    pub delay: Duration,
}

/// Why stages make no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlan {
    /// There are none.
    #[error("a pipeline needs a stage")]
    NoStages,
    /// One pipeline has one background.
    #[error("`{second}` is a second dispatch: `{first}` hands the rest to the background")]
    SecondDispatch {
        /// The first dispatch.
        first: NodeId,
        /// The second.
        second: NodeId,
    },
    /// Ids differ in more than their case.
    #[error("the id `{id}` is given twice")]
    DuplicateId {
        /// The second of them.
        id: NodeId,
    },
    /// Its module is none of pipelines, or the dead letter's is a queue.
    #[error("`{id}` cannot be a stage here: its module is a {kind}")]
    WrongKind {
        /// The stage.
        id: NodeId,
        /// The kind of its module.
        kind: ModuleKind,
    },
}

impl Plan {
    /// Puts a plan together.
    ///
    /// # Errors
    /// If these stages make no pipeline.
    pub fn new(parts: Parts) -> Result<Plan, NotAPlan> {
        let Parts { name, version, about, context, stages, dead_letter, large, settings, source } = parts;
        if stages.is_empty() {
            return Err(NotAPlan::NoStages);
        }
        let stores = || large.iter().flat_map(Large::stages);
        kinds_fit(&stages, dead_letter.iter().chain(stores()))?;
        ids_are_unique(stages.iter().chain(&dead_letter).chain(stores()))?;
        let dispatch = only_dispatch(&stages)?;
        Ok(Plan { name, version, about, context, stages, dispatch, dead_letter, large, settings, source })
    }

    /// The name of the pipeline.
    #[must_use]
    pub fn name(&self) -> &PipelineName {
        &self.name
    }

    /// The version of the pipeline.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Who wrote it, what for.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What its stages work on.
    #[must_use]
    pub fn context(&self) -> &ContextSpec {
        &self.context
    }

    /// How to run it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The document that the spans of the stages belong to.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All stages, the dispatch too.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stages that run in the caller: all of them, if there is no dispatch.
    #[must_use]
    pub fn before(&self) -> &[Stage] {
        &self.stages[..self.dispatch.unwrap_or(self.stages.len())]
    }

    /// The stage that hands the rest to the background.
    #[must_use]
    pub fn dispatch(&self) -> Option<&Stage> {
        self.dispatch.map(|at| &self.stages[at])
    }

    /// The stages that run in the background.
    #[must_use]
    pub fn after(&self) -> &[Stage] {
        &self.stages[self.resume_at()..]
    }

    /// Where the background starts: the place of its first stage in [`Plan::stages`].
    #[must_use]
    pub fn resume_at(&self) -> usize {
        self.dispatch.map_or(self.stages.len(), |at| at + 1)
    }

    /// The stage that is given the context of a job that is dead, or of a run without a dispatch that failed.
    #[must_use]
    pub fn dead_letter(&self) -> Option<&Stage> {
        self.dead_letter.as_ref()
    }

    /// Where large bytes wait, instead of in the queue.
    #[must_use]
    pub fn large(&self) -> Option<&Large> {
        self.large.as_ref()
    }

    /// Everything that is opened to run it: its stages, that of the dead letters, and those that carry large bytes.
    pub fn opened(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().chain(&self.dead_letter).chain(self.large.iter().flat_map(Large::stages))
    }

    /// What the background is made of, as 16 hexadecimal digits: the ids and modules of its stages, in their order. A worker
    /// whose plan has another than a job says would resume it in the wrong place.
    #[must_use]
    pub fn signature(&self) -> String {
        let stages = self.after().iter().map(|stage| format!("{}\u{0}{}\n", stage.id, stage.module));
        format!("{:016x}", xxh3_64(stages.collect::<String>().as_bytes()))
    }
}

fn kinds_fit<'a>(stages: &'a [Stage], mut beside: impl Iterator<Item = &'a Stage>) -> Result<(), NotAPlan> {
    let misplaced = stages.iter().find(|stage| !stage.kind().in_pipelines());
    let misplaced = misplaced.or_else(|| beside.find(|stage| stage.kind() != ModuleKind::Execute));
    match misplaced {
        Some(stage) => Err(NotAPlan::WrongKind { id: stage.id.clone(), kind: stage.kind() }),
        None => Ok(()),
    }
}

fn ids_are_unique<'a>(stages: impl Iterator<Item = &'a Stage>) -> Result<(), NotAPlan> {
    let mut seen = std::collections::BTreeSet::new();
    for stage in stages {
        if !seen.insert(stage.id.as_str().to_lowercase()) {
            return Err(NotAPlan::DuplicateId { id: stage.id.clone() });
        }
    }
    Ok(())
}

fn only_dispatch(stages: &[Stage]) -> Result<Option<usize>, NotAPlan> {
    let mut dispatches = stages.iter().enumerate().filter(|(_, stage)| stage.kind() == ModuleKind::Dispatch);
    match (dispatches.next(), dispatches.next()) {
        (Some((_, first)), Some((_, second))) => {
            Err(NotAPlan::SecondDispatch { first: first.id.clone(), second: second.id.clone() })
        }
        (only, _) => Ok(only.map(|(at, _)| at)),
    }
}

impl Large {
    fn stages(&self) -> [&Stage; 3] {
        [&self.write, &self.read, &self.delete]
    }
}

impl Stage {
    /// Whether it executes or dispatches.
    #[must_use]
    pub fn kind(&self) -> ModuleKind {
        self.entry.kind
    }

    /// Its id; with its module, where that is called otherwise: `schedule_job: local`.
    #[must_use]
    pub fn title(&self) -> String {
        match self.id.as_str() == self.module.as_str() {
            true => self.id.to_string(),
            false => format!("{}: {}", self.id, self.module),
        }
    }
}

/// What a person wants to know of it: neither the module's whole entry nor where its configs stand.
impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stage = serializer.serialize_struct("Stage", 7)?;
        stage.serialize_field("id", &self.id)?;
        stage.serialize_field("module", &self.module)?;
        stage.serialize_field("kind", &self.kind())?;
        stage.serialize_field("configs", &self.configs)?;
        stage.serialize_field("retry", &self.retry)?;
        match self.timeout {
            Some(timeout) => stage.serialize_field("timeout_s", &timeout.as_secs_f64())?,
            None => stage.skip_field("timeout_s")?,
        }
        match self.queueing == Queueing::default() {
            true => stage.skip_field("queueing")?,
            false => stage.serialize_field("queueing", &self.queueing)?,
        }
        stage.end()
    }
}

fn in_seconds<S: Serializer>(delay: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    delay.as_secs_f64().serialize(serializer)
}

#[allow(clippy::ref_option, reason = "serde passes a reference")]
fn seconds<S: Serializer>(timeout: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    timeout.map(|timeout| timeout.as_secs_f64()).serialize(serializer)
}
