//! From a plan to a stream that runs.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use pype_core::pipeline::plan as pipeline;
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{Acknowledge, Options, StreamState};
use pype_core::stream::lanes::Ordering;
use pype_core::stream::plan::{Engine, Handle as HandlePlan, Module, Parallel, Payload, PerBatch, Plan};
use pype_core::stream::{ERRORS, RECORDS, SOURCE};
use pype_plugin::host::Instance;
use pype_plugin::{Error, ErrorKind, stream};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::batch::{Batches, Bounds, Chain, Node};
use super::decode::{Decoder, Decoders};
use super::engine::Tasks;
use super::metrics::Watched;
use super::owner::{Owner, Settings, StreamError};
use super::pipeline::PerRecord;
use super::process::{self, Processes};
use crate::clock::seed;
use crate::loader::Loader;
use crate::pipeline::{Here, OpenError, Surroundings, ToOpen};
use crate::run::LibraryServices;
use crate::secret::Redactor;

/// How long a source may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// A stream whose modules are open.
pub struct OpenedStream {
    plan: Arc<Plan>,
    source: Arc<Instance>,
    runs: Runs,
    // If it runs in this process.
    pipeline: Option<Arc<PerRecord>>,
    cancel: CancellationToken,
    // For files that nobody needs afterwards: it goes with this.
    _scratch: TempDir,
}

/// The owner of its state, with the engine that the document asks for.
enum Runs {
    PerRecord(Owner<Tasks<PerRecord>>),
    Apart(Owner<Processes>),
    PerBatch(Owner<Batches>),
}

/// The pipeline that handles the records of a stream, before it is opened.
pub struct HandledBy<'a> {
    /// Its plan.
    pub plan: &'a Arc<pipeline::Plan>,
    /// What its stages have around them.
    pub around: &'a Surroundings,
}

/// Why a stream is not open.
#[derive(Debug, thiserror::Error)]
pub enum StreamOpenError {
    /// A module of it, or of its pipeline.
    #[error(transparent)]
    Module(#[from] OpenError),
    /// A child process for its pipeline.
    #[error("a child process of the stream does not start: {0}")]
    Child(Error),
}

impl OpenedStream {
    /// Opens the source of a stream, and what handles its records.
    ///
    /// # Errors
    /// A library is not there or has changed, or a module does not open.
    ///
    /// # Panics
    /// Its records are handled by a pipeline, and none is given.
    pub async fn open(
        plan: Arc<Plan>,
        around: &Surroundings,
        pipeline: Option<HandledBy<'_>>,
        loader: &Loader<LibraryServices>,
    ) -> Result<Self, StreamOpenError> {
        let scratch = tempfile::tempdir().map_err(OpenError::Scratch)?;
        let cancel = CancellationToken::new();
        let here = Here { scratch: scratch.path().to_owned(), cancel: cancel.clone() };
        let (source, acknowledge) = open_source(&plan, &plan.source, around, &here, loader).await?;
        let opening = Opening { plan: &plan, around, here: &here, loader, source: &source, acknowledge };
        match opening.runs(pipeline).await {
            Ok((runs, pipeline)) => Ok(Self { plan, source, runs, pipeline, cancel, _scratch: scratch }),
            Err(error) => {
                // It is not open: what else is, is closed.
                drop(source.close().await);
                Err(error)
            }
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Where it shows what it does.
    pub fn watched(&self) -> Watched {
        match &self.runs {
            Runs::PerRecord(owner) => owner.watched(),
            Runs::Apart(owner) => owner.watched(),
            Runs::PerBatch(owner) => owner.watched(),
        }
    }

    /// Serves its metrics, if the document asks for it; where.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub async fn serve_metrics(&self) -> Result<Option<SocketAddr>, std::io::Error> {
        match self.plan.metrics {
            None => Ok(None),
            Some(listen) => self.watched().serve(listen.0, self.cancel.clone()).await.map(Some),
        }
    }

    /// Runs until it is told to stop, or cannot go on; then everything is closed.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn run(self, stop: CancellationToken) -> Result<StreamState, StreamError> {
        // A task among those that handle the records: a thread that waited here would be woken for each that is done.
        let mut owning = JoinSet::new();
        match self.runs {
            Runs::PerRecord(owner) => owning.spawn(owner.run(stop)),
            Runs::Apart(owner) => owning.spawn(owner.run(stop)),
            Runs::PerBatch(owner) => owning.spawn(owner.run(stop)),
        };
        let ended = owning.join_next().await.expect("one was begun");
        let ended = ended.unwrap_or_else(|lost| match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(lost) => Err(StreamError::Handler(Error::cancelled().caused_by(lost))),
        });
        self.cancel.cancel();
        match tokio::time::timeout(CLOSE_PATIENCE, self.source.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(stream = self.plan.name.as_str(), "the source did not close: {error}"),
            Err(_) => tracing::warn!(stream = self.plan.name.as_str(), "the source did not close in time"),
        }
        if let Some(pipeline) = &self.pipeline {
            pipeline.close().await;
        }
        ended
    }
}

/// What opening the handler of a stream takes, whose source is open.
struct Opening<'a> {
    plan: &'a Plan,
    around: &'a Surroundings,
    here: &'a Here,
    loader: &'a Loader<LibraryServices>,
    source: &'a Arc<Instance>,
    acknowledge: Acknowledge,
}

impl Opening<'_> {
    /// The owner of the stream's state; and the pipeline, if it is open in this process.
    async fn runs(self, pipeline: Option<HandledBy<'_>>) -> Result<(Runs, Option<Arc<PerRecord>>), StreamOpenError> {
        let plan = self.plan;
        let mut redactor = self.around.secrets.redactor().clone();
        if let Some(pipeline) = &pipeline {
            redactor = redactor.and(pipeline.around.secrets.redactor());
        }
        let (settings, source) = (|options| settings(plan, options, redactor), self.source.clone());
        match &plan.handle {
            HandlePlan::Pipeline(per_record) => {
                let pipeline = pipeline.expect("its caller gives the pipeline that the plan names");
                let options =
                    plan.options(self.acknowledge, seed()).expect("a pipeline handles its records one by one");
                let Parallel { timeout, max_in_flight, engine, .. } = per_record.parallel;
                let decoders = Decoder::all_of(plan, self.around)?;
                if engine == Engine::Process {
                    let (engine, tells) = process::open(plan, per_record, &pipeline, decoders).await?;
                    return Ok((Runs::Apart(Owner::new(settings(options), source, engine, tells)), None));
                }
                let decoders =
                    Decoders::open(decoders, plan.name.as_str(), self.around, self.here, self.loader).await?;
                let handler = PerRecord::open(&pipeline, decoders, &per_record.map, self.loader).await?;
                let handler = Arc::new(handler);
                let (engine, tells) = Tasks::new(handler.clone(), Some(timeout), max_in_flight);
                Ok((Runs::PerRecord(Owner::new(settings(options), source, engine, tells)), Some(handler)))
            }
            HandlePlan::Batch(per_batch) => {
                let chain = open_chain(plan, per_batch, self.around, self.here, self.loader).await?;
                let rows = usize::try_from(per_batch.rows.get()).unwrap_or(usize::MAX);
                let bytes = usize::try_from(per_batch.bytes.0.get()).unwrap_or(usize::MAX);
                let bounds = Bounds { rows, bytes, interval: per_batch.interval.0 };
                let (engine, tells) = Batches::new(chain, bounds, plan.retry);
                let options = batch_options(plan, self.acknowledge, rows);
                Ok((Runs::PerBatch(Owner::new(settings(options), source, engine, tells)), None))
            }
        }
    }
}

pub(super) fn to_open<'a>(plan: &'a Plan, module: &'a Module) -> ToOpen<'a> {
    ToOpen {
        document: plan.name.as_str(),
        id: &module.id,
        module: &module.module,
        entry: &module.entry,
        configs: &module.configs,
        spans: &module.spans,
        source: &plan.document,
    }
}

async fn open_source(
    plan: &Plan,
    source: &Module,
    around: &Surroundings,
    here: &Here,
    loader: &Loader<LibraryServices>,
) -> Result<(Arc<Instance>, Acknowledge), OpenError> {
    let module = to_open(plan, source);
    let opener = module.opener(around, here, loader)?;
    let described = opener.describe().map_err(module.failed())?;
    let acknowledge = match described.acknowledge {
        Some(stream::Acknowledge::Offsets) => Acknowledge::Position,
        Some(stream::Acknowledge::EachRecord) => Acknowledge::Each,
        None => {
            let message = format!("`{}` comes to an end: it is no source of a stream", source.module);
            return Err(module.failed()(Error::new(ErrorKind::Unsupported, "bounded-source", message)));
        }
    };
    let opened = opener.open().await.map_err(module.failed())?;
    Ok((Arc::new(opened), acknowledge))
}

/// Opens the modules of batches.
async fn open_chain(
    plan: &Plan,
    per_batch: &PerBatch,
    around: &Surroundings,
    here: &Here,
    loader: &Loader<LibraryServices>,
) -> Result<Chain, OpenError> {
    let flow = &per_batch.flow;
    let mut nodes = Vec::new();
    // The decoders stand before the flow: what would read the source's records reads those of the last of them.
    let records = (plan.source.id.clone(), RECORDS.to_owned());
    let decoders = Decoder::all_of(plan, around)?;
    let decoded = decoders.last().map_or_else(|| records.clone(), Decoder::end);
    nodes.extend(Decoder::nodes(decoders, records.clone(), around, here, loader)?);
    for node in flow.nodes().iter().filter(|node| node.id.as_str() != SOURCE) {
        let module = ToOpen {
            document: plan.name.as_str(),
            id: &node.id,
            module: &node.module,
            entry: &node.entry,
            configs: &node.configs,
            spans: &node.spans,
            source: &plan.document,
        };
        let inputs = flow.inputs_of(&node.id).map(|edge| {
            let from = (edge.from.node.clone(), edge.from.port.to_string());
            (edge.to.port.to_string(), if from == records { decoded.clone() } else { from })
        });
        let has_errors = node.entry.output_ports.iter().any(|port| port.as_str() == ERRORS);
        let read = flow.outputs_of(&node.id).any(|edge| edge.from.port.as_str() == ERRORS);
        let settled = module.settled(around)?;
        let opener = match node.isolated {
            true => settled.opener_apart(&node.configs, around, here)?,
            false => settled.opener(around, here, loader)?,
        };
        nodes.push(Node {
            id: node.id.clone(),
            kind: node.entry.kind,
            opener,
            inputs: inputs.collect(),
            errors_unread: has_errors && !read,
        });
    }
    let failed = |(stage, error)| OpenError::Stage { pipeline: plan.name.to_string(), stage, error };
    Chain::open(nodes, None).await.map_err(failed)
}

/// Records in a batch are done together: no more is asked of their order than that they come in it. Two batches may be under way,
/// one of which is collected.
fn batch_options(plan: &Plan, acknowledge: Acknowledge, rows: usize) -> Options {
    let two = NonZeroUsize::new(rows.saturating_mul(2)).unwrap_or(NonZeroUsize::MIN);
    Options {
        ordering: Ordering::Unordered,
        acknowledge,
        limits: Limits::of(two),
        retry: plan.retry,
        dead_letters: plan.dead_letter.is_some(),
        seed: seed(),
    }
}

fn settings(plan: &Plan, options: Options, redactor: Redactor) -> Settings {
    let dead_letter = plan.dead_letter.as_ref();
    Settings {
        name: plan.name.to_string(),
        options,
        dead_letter: dead_letter.map(|letter| (letter.topic.to_string(), letter.payload == Payload::Full)),
        alerts: plan.alerts.as_ref().map(ToString::to_string),
        redactor,
        letter_timeout: dead_letter.map_or(Duration::ZERO, |letter| letter.timeout),
        commit_every: plan.commit_interval,
        revoke_grace: plan.settings.revoke_grace,
        drain: plan.settings.drain,
    }
}
