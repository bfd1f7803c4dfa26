//! From a plan to stages that are open.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pype_core::catalog::{ModuleEntry, ModuleKind};
use pype_core::document::{Source, SpanMap};
use pype_core::name::{ModuleName, NodeId};
use pype_core::pipeline::plan::{Plan, Stage};
use pype_core::template::{self, Globals, Scope};
use pype_plugin::host::{HostServices, Instance, NodeFacts};
use pype_plugin::{Artifact, Error, ErrorKind, Frame, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::instances::{Home, Instances, Opener};
use super::large::{self, LargeStore};
use super::metrics::{Metrics, Runs};
use super::stage::{Observer, OpenStage};
use crate::loader::{LoadError, Loaded, Loader};
use crate::observe::log::{Level, Log, Record};
use crate::observe::spans::Spans;
use crate::prepare::LibraryFile;
use crate::run::LibraryServices;
use crate::run::services::{fields_with, log_metric};
use crate::run::settled;
use crate::secret::{self, Secrets};
use crate::worker::{Apart, Around};

/// What the stages of a pipeline have around them.
pub struct Surroundings {
    /// What `{{context.…}}` stands for.
    pub context: template::Context,
    /// What `{{secret.…}}` stands for.
    pub secrets: Secrets,
    /// Relative paths start here.
    pub folder: PathBuf,
    /// Where the library of each stage is.
    pub libraries: BTreeMap<NodeId, LibraryFile>,
    /// How many threads blocking work may use.
    pub threads: usize,
    /// Where records go.
    pub log: Log,
    /// Who hears of failures.
    pub observer: Observer,
    /// Where runs and jobs are counted.
    pub metrics: Metrics,
    /// Where they are traced.
    pub spans: Spans,
    /// Where it is kept why a child process died. Pipelines have none, unless they handle the records of a stream.
    pub post_mortems: PathBuf,
}

impl Surroundings {
    /// What child processes have around them.
    pub(crate) fn apart(&self) -> Around {
        Around {
            log: self.log.clone(),
            threads: self.threads,
            redactor: self.secrets.redactor().clone(),
            post_mortems: self.post_mortems.clone(),
        }
    }
}

/// A pipeline whose stages are open, once and for all runs.
pub struct Opened {
    pub(super) plan: Arc<Plan>,
    pub(super) stages: Vec<Arc<OpenStage>>,
    pub(super) dead_letter: Option<Arc<OpenStage>>,
    pub(super) large: Option<LargeStore>,
    pub(super) observer: Observer,
    pub(super) metrics: Metrics,
    pub(super) runs: Runs,
    pub(super) spans: Spans,
    /// Told to stages when what is under way is to end at once.
    pub(super) cancel: CancellationToken,
    pub(super) queue_key: Option<String>,
    // For files that nobody needs afterwards: it goes with this.
    pub(super) _scratch: TempDir,
}

/// What the modules of one opened document share.
pub(crate) struct Here {
    pub(crate) scratch: PathBuf,
    pub(crate) cancel: CancellationToken,
}

/// Why a pipeline is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A library cannot be used.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// There is no room for temporary files.
    #[error("cannot make a temporary folder: {0}")]
    Scratch(std::io::Error),
    /// A stage does not open.
    #[error("the stage `{stage}` of `{pipeline}` does not open: {error}")]
    Stage {
        /// The pipeline.
        pipeline: String,
        /// Which.
        stage: NodeId,
        /// Why.
        error: Error,
    },
}

impl Opened {
    /// Opens the stages in their order. What is open already when one does not is closed again.
    ///
    /// # Errors
    /// A library is not there or has changed, or a stage does not open.
    pub async fn open(
        plan: Arc<Plan>,
        around: &Surroundings,
        loader: &Loader<LibraryServices>,
    ) -> Result<Arc<Self>, OpenError> {
        let scratch = tempfile::tempdir().map_err(OpenError::Scratch)?;
        let cancel = CancellationToken::new();
        let here = Here { scratch: scratch.path().to_owned(), cancel: cancel.clone() };
        let mut opened = Self {
            plan: plan.clone(),
            stages: Vec::with_capacity(plan.stages().len()),
            dead_letter: None,
            large: None,
            observer: around.metrics.counting(around.observer.clone()),
            metrics: around.metrics.clone(),
            runs: around.metrics.runs(plan.name().as_str()),
            spans: around.spans.clone(),
            cancel: cancel.clone(),
            queue_key: None,
            _scratch: scratch,
        };
        match opened.open_all(around, &here, loader).await {
            Ok(()) => Ok(Arc::new(opened)),
            Err(error) => {
                opened.close().await;
                Err(error)
            }
        }
    }

    async fn open_all(
        &mut self,
        around: &Surroundings,
        here: &Here,
        loader: &Loader<LibraryServices>,
    ) -> Result<(), OpenError> {
        let plan = self.plan.clone();
        for stage in plan.stages() {
            let (one, configs) = open_stage(&plan, stage, around, here, loader).await?;
            if stage.kind() == ModuleKind::Dispatch {
                self.queue_key = Some(format!("{} {configs} {}", stage.module, around.folder.display()));
            }
            self.stages.push(Arc::new(one));
        }
        if let Some(stage) = plan.dead_letter() {
            self.dead_letter = Some(Arc::new(open_stage(&plan, stage, around, here, loader).await?.0));
        }
        if let Some(large) = plan.large() {
            let (write, _) = open_stage(&plan, &large.write, around, here, loader).await?;
            let (read, _) = open_stage(&plan, &large.read, around, here, loader).await?;
            let (delete, _) = open_stage(&plan, &large.delete, around, here, loader).await?;
            self.large = Some(LargeStore { over_bytes: large.over_bytes, write, read, delete });
        }
        Ok(())
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The queue, if there is a dispatch.
    pub fn queue(&self) -> Option<Arc<Instance>> {
        let at = self.plan.resume_at().checked_sub(1).filter(|_| self.plan.dispatch().is_some())?;
        Some(self.stages[at].instances.first().clone())
    }

    /// The same for all pipelines with the same queue.
    pub fn queue_key(&self) -> Option<&str> {
        self.queue_key.as_deref()
    }

    /// Closes all stages, the last first. A run that is under way keeps its stage from closing for so long only.
    pub async fn close(&self) {
        self.cancel.cancel();
        let stages = self.dead_letter.iter().chain(self.stages.iter().rev()).map(Arc::as_ref);
        for one in self.large.iter().flat_map(LargeStore::stages).chain(stages) {
            one.close().await;
        }
    }
}

/// The queue of a pipeline alone; `None` if it has no dispatch.
///
/// # Errors
/// The library is not there or has changed, or the queue does not open.
pub async fn open_queue(
    plan: &Plan,
    around: &Surroundings,
    loader: &Loader<LibraryServices>,
) -> Result<Option<Arc<Instance>>, OpenError> {
    match plan.dispatch() {
        Some(stage) => {
            let here = Here { scratch: std::env::temp_dir(), cancel: CancellationToken::new() };
            let (opened, _) = open_stage(plan, stage, around, &here, loader).await?;
            Ok(Some(opened.instances.first().clone()))
        }
        None => Ok(None),
    }
}

/// Forgets the large bytes of jobs that are no more.
///
/// # Errors
/// The library is not there or has changed, or the stage that deletes them does not open.
pub async fn forget_large(
    plan: &Plan,
    jobs: impl IntoIterator<Item = String>,
    around: &Surroundings,
    loader: &Loader<LibraryServices>,
) -> Result<(), OpenError> {
    let Some(large) = plan.large() else { return Ok(()) };
    let here = Here { scratch: std::env::temp_dir(), cancel: CancellationToken::new() };
    let (delete, _) = open_stage(plan, &large.delete, around, &here, loader).await?;
    for job in jobs {
        large::forget(&delete, large::of_job(plan, &job)).await;
    }
    delete.close().await;
    Ok(())
}

/// A stage, and the configs that it was opened with.
async fn open_stage(
    plan: &Plan,
    stage: &Stage,
    around: &Surroundings,
    here: &Here,
    loader: &Loader<LibraryServices>,
) -> Result<(OpenStage, Value), OpenError> {
    let module = ToOpen {
        document: plan.name().as_str(),
        id: &stage.id,
        module: &stage.module,
        entry: &stage.entry,
        configs: &stage.configs,
        spans: &stage.spans,
        source: plan.source(),
    };
    let opener = module.opener(around, here, loader)?;
    let configs = opener.configs.clone();
    let instances = Instances::open(opener).await.map_err(module.failed())?;
    let redactor = around.secrets.redactor().clone();
    Ok((OpenStage { stage: stage.clone(), instances, redactor, spans: around.spans.clone() }, configs))
}

/// A module of a document, before it is opened.
#[derive(Clone, Copy)]
pub(crate) struct ToOpen<'a> {
    /// The name of the pipeline or stream.
    pub(crate) document: &'a str,
    pub(crate) id: &'a NodeId,
    pub(crate) module: &'a ModuleName,
    pub(crate) entry: &'a ModuleEntry,
    pub(crate) configs: &'a Value,
    pub(crate) spans: &'a SpanMap,
    pub(crate) source: &'a Source,
}

impl ToOpen<'_> {
    /// With templates filled in and paths made absolute.
    pub(crate) fn opener(
        &self,
        around: &Surroundings,
        here: &Here,
        loader: &Loader<LibraryServices>,
    ) -> Result<Opener<StageServices>, OpenError> {
        self.settled(around)?.opener(around, here, loader)
    }

    /// The same, before its library is loaded.
    pub(crate) fn settled(&self, around: &Surroundings) -> Result<SettledModule, OpenError> {
        Ok(SettledModule {
            document: self.document.to_owned(),
            id: self.id.clone(),
            module: self.module.to_string(),
            configs: self.configs(around).map_err(self.failed())?,
            library: around.libraries[self.id].clone(),
            folder: around.folder.clone(),
        })
    }

    fn configs(&self, around: &Surroundings) -> Result<Value> {
        let globals = Globals::new();
        let secret = around.secrets.lookup();
        let scope =
            Scope { context: &around.context, globals: &globals, env: &secret::environment, iter: None, secret };
        let configs = template::render(self.configs, self.spans, &scope, self.source);
        settled(self.entry, configs, &around.folder)
    }

    pub(crate) fn failed(&self) -> impl FnOnce(Error) -> OpenError + use<> {
        let (pipeline, stage) = (self.document.to_owned(), self.id.clone());
        move |error| OpenError::Stage { pipeline, stage, error }
    }
}

/// A module whose configs are settled: another process may open it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SettledModule {
    document: String,
    pub(crate) id: NodeId,
    module: String,
    configs: Value,
    library: LibraryFile,
    folder: PathBuf,
}

impl SettledModule {
    /// What opens it. Of what is around it counts what is of no document.
    pub(crate) fn opener(
        self,
        around: &Surroundings,
        here: &Here,
        loader: &Loader<LibraryServices>,
    ) -> Result<Opener<StageServices>, OpenError> {
        let Loaded { library, .. } = loader.load(&self.library.path, self.library.sha256.as_ref())?;
        let described = library.describe().map_err(|error| {
            let (pipeline, stage) = (self.document.clone(), self.id.clone());
            OpenError::Stage { pipeline, stage, error }
        })?;
        let exclusive = described.modules.iter().any(|one| one.name == self.module && one.exclusive);
        Ok(self.at(Home::Here(library), exclusive, around, here))
    }

    /// The same in a process of its own; `written` are its configs as the document has them.
    pub(crate) fn opener_apart(
        self,
        written: &Value,
        around: &Surroundings,
        here: &Here,
    ) -> Result<Opener<StageServices>, OpenError> {
        let library = Arc::new(Apart::new(&self.library, around.apart())?);
        let tags = [("stream", self.document.clone()), ("node", self.id.to_string()), ("module", self.module.clone())];
        let tags = tags.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        Ok(self.at(Home::Apart { library, written: written.clone(), tags }, false, around, here))
    }

    fn at(
        self,
        home: Home<StageServices>,
        exclusive: bool,
        around: &Surroundings,
        here: &Here,
    ) -> Opener<StageServices> {
        let Self { document, id, module, configs, folder, .. } = self;
        let facts = NodeFacts {
            node_id: id.to_string(),
            threads: around.threads,
            temp_dir: here.scratch.clone(),
            folder,
            ..NodeFacts::default()
        };
        let services = Arc::new(StageServices {
            log: around.log.clone(),
            spans: around.spans.clone(),
            pipeline: document,
            stage: id.to_string(),
            cancel: here.cancel.clone(),
        });
        Opener { home, module, configs, facts, services, exclusive }
    }
}

/// What a stage may ask of the host.
pub(crate) struct StageServices {
    pub(super) log: Log,
    pub(super) spans: Spans,
    pub(super) pipeline: String,
    pub(super) stage: String,
    pub(super) cancel: CancellationToken,
}

impl HostServices for StageServices {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        self.log.keeps(Level::from_number(level), target) || self.spans.takes(target)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &[u8]) {
        if self.spans.takes(target) {
            self.spans.describe(fields);
            if !self.log.keeps(Level::from_number(level), target) {
                return;
            }
        }
        let ours = [("pipeline", Some(self.pipeline.clone())), ("stage", Some(self.stage.clone()))];
        self.log.write(Record::now(Level::from_number(level), target, message, fields_with(ours, fields)));
    }

    fn set_global(&self, name: &str, _: Value) -> Result<()> {
        let message = format!("the global `{name}` can be set in flows only");
        Err(Error::new(ErrorKind::Unsupported, "no-globals", message))
    }

    fn global(&self, _: &str) -> Option<Value> {
        None
    }

    fn progress(&self, _: u64, _: u64) {}

    fn metric(&self, name: &str, value: f64) {
        log_metric(self, name, value);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.cancel.clone().cancelled_owned()
    }

    fn register_artifact(&self, _: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static {
        let error = Error::new(ErrorKind::Unsupported, "no-artifacts", "artifacts are registered in flows only");
        std::future::ready(Err(error))
    }
}
