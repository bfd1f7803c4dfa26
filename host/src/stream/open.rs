//! From a plan to a stream that runs.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use pype_core::stream::admission::Limits;
use pype_core::stream::control::{Acknowledge, Options, StreamState};
use pype_core::stream::lanes::Ordering;
use pype_core::stream::plan::{Engine, Handle as HandlePlan, Module, Parallel, Payload, PerBatch, Plan};
use pype_core::stream::{RECORDS, SOURCE};
use pype_plugin::host::Instance;
use pype_plugin::{Error, ErrorKind, stream};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::batch::{Batches, Bounds, Chain, ERRORS, Node};
use super::engine::Tasks;
use super::metrics::Watched;
use super::owner::{Owner, Settings, StreamError};
use super::pipeline::PerRecord;
use super::records::Mapping;
use crate::clock::seed;
use crate::loader::Loader;
use crate::pipeline::{Here, OpenError, Opened, Surroundings, ToOpen};
use crate::run::LibraryServices;

/// How long a source may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// A stream whose modules are open.
pub struct OpenedStream {
    plan: Arc<Plan>,
    source: Arc<Instance>,
    runs: Runs,
    pipeline: Option<Arc<Opened>>,
    cancel: CancellationToken,
    // For files that nobody needs afterwards: it goes with this.
    _scratch: TempDir,
}

/// The owner of its state, with the engine that the document asks for.
enum Runs {
    PerRecord(Owner<Tasks<PerRecord>>),
    PerBatch(Owner<Batches>),
}

/// Why a stream is not open.
#[derive(Debug, thiserror::Error)]
pub enum StreamOpenError {
    /// A module of it, or of its pipeline.
    #[error(transparent)]
    Module(#[from] OpenError),
}

impl OpenedStream {
    /// Opens the source of a stream whose records a pipeline handles, which is open.
    ///
    /// # Errors
    /// The library is not there or has changed, or the source does not open.
    pub async fn open(
        plan: Arc<Plan>,
        around: &Surroundings,
        pipeline: Option<Arc<Opened>>,
        loader: &Loader<LibraryServices>,
    ) -> Result<Self, StreamOpenError> {
        supported(&plan)?;
        let scratch = tempfile::tempdir().map_err(OpenError::Scratch)?;
        let cancel = CancellationToken::new();
        let here = Here { scratch: scratch.path().to_owned(), cancel: cancel.clone() };
        let (source, acknowledge) = open_source(&plan, &plan.source, around, &here, loader).await?;
        let runs = match &plan.handle {
            HandlePlan::Pipeline(per_record) => {
                let pipeline = pipeline.clone().expect("its caller has opened the pipeline");
                let options = plan.options(acknowledge, seed()).expect("a pipeline handles its records one by one");
                let mapping = Mapping::new(pipeline.plan().context(), &per_record.map);
                let handler = Arc::new(PerRecord::new(pipeline, mapping));
                let Parallel { timeout, max_in_flight, .. } = per_record.parallel;
                let (engine, tells) = Tasks::new(handler, Some(timeout), max_in_flight);
                Runs::PerRecord(Owner::new(settings(&plan, options), source.clone(), engine, tells))
            }
            HandlePlan::Batch(per_batch) => {
                let chain = match open_chain(&plan, per_batch, around, &here, loader).await {
                    Ok(chain) => chain,
                    Err(error) => {
                        // It is not open: what else is, is closed.
                        drop(source.close().await);
                        return Err(error.into());
                    }
                };
                let rows = usize::try_from(per_batch.rows.get()).unwrap_or(usize::MAX);
                let bytes = usize::try_from(per_batch.bytes.0.get()).unwrap_or(usize::MAX);
                let bounds = Bounds { rows, bytes, interval: per_batch.interval.0 };
                let (engine, tells) = Batches::new(chain, bounds, plan.retry);
                let options = batch_options(&plan, acknowledge, rows);
                Runs::PerBatch(Owner::new(settings(&plan, options), source.clone(), engine, tells))
            }
        };
        Ok(Self { plan, source, runs, pipeline, cancel, _scratch: scratch })
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
        let ended = match self.runs {
            Runs::PerRecord(owner) => owner.run(stop).await,
            Runs::PerBatch(owner) => owner.run(stop).await,
        };
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

/// What the document may say, and this host does not do yet.
fn supported(plan: &Plan) -> Result<(), OpenError> {
    let HandlePlan::Pipeline(per_record) = &plan.handle else { return Ok(()) };
    let refused = |module: &Module, code, message| {
        Err(to_open(plan, module).failed()(Error::new(ErrorKind::Unsupported, code, message)))
    };
    if let Some(decoder) = plan.decode.first() {
        let message = "before a pipeline nothing is decoded yet: JSON values need no decoder, batches may have some";
        return refused(decoder, "decode", message);
    }
    if per_record.parallel.engine == Engine::Process {
        let message = "child processes do not handle records yet: `engine: async` does";
        return refused(&plan.source, "engine", message);
    }
    Ok(())
}

fn to_open<'a>(plan: &'a Plan, module: &'a Module) -> ToOpen<'a> {
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
    let mut decoded = (plan.source.id.clone(), RECORDS.to_owned());
    for module in &plan.decode {
        let (input, outputs) = (&module.entry.input_ports[0], &module.entry.output_ports);
        let output = outputs.iter().find(|port| port.as_str() != ERRORS).expect("a decoder has one output");
        let to_open = to_open(plan, module);
        nodes.push(Node {
            id: module.id.clone(),
            kind: module.entry.kind,
            opener: to_open.opener(around, here, loader)?,
            inputs: vec![(input.to_string(), decoded)],
            errors_unread: outputs.iter().any(|port| port.as_str() == ERRORS),
        });
        decoded = (module.id.clone(), output.to_string());
    }
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
        let inputs = flow
            .inputs_of(&node.id)
            .map(|edge| (edge.to.port.to_string(), (edge.from.node.clone(), edge.from.port.to_string())));
        let has_errors = node.entry.output_ports.iter().any(|port| port.as_str() == ERRORS);
        let read = flow.outputs_of(&node.id).any(|edge| edge.from.port.as_str() == ERRORS);
        nodes.push(Node {
            id: node.id.clone(),
            kind: node.entry.kind,
            opener: module.opener(around, here, loader)?,
            inputs: inputs.collect(),
            errors_unread: has_errors && !read,
        });
    }
    let failed = |(stage, error)| OpenError::Stage { pipeline: plan.name.to_string(), stage, error };
    Chain::open(nodes).await.map_err(failed)
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

fn settings(plan: &Plan, options: Options) -> Settings {
    let dead_letter = plan.dead_letter.as_ref();
    Settings {
        name: plan.name.to_string(),
        options,
        dead_letter: dead_letter.map(|letter| (letter.topic.to_string(), letter.payload == Payload::Full)),
        letter_timeout: dead_letter.map_or(Duration::ZERO, |letter| letter.timeout),
        commit_every: plan.commit_interval,
        revoke_grace: plan.settings.revoke_grace,
        drain: plan.settings.drain,
    }
}
