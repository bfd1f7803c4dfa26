//! What a child of this engine does: it runs a pipeline, once a record.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pype_core::catalog::parse_registry;
use pype_core::document::Source;
use pype_core::pipeline::load_and_plan;
use pype_plugin::stream::Records;
use pype_plugin::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use super::super::decode::Decoders;
use super::super::engine::{Handle, handled_in_time};
use super::super::open::HandledBy;
use super::super::pipeline::PerRecord;
use super::super::records::{Batch, Place};
use crate::loader::Loader;
use crate::observe::log::Log;
use crate::observe::spans::{self, Spans};
use crate::pipeline::{Here, Metrics, OpenError, Surroundings, logged};
use crate::run::LibraryServices;
use crate::secret::Secrets;
use crate::worker::records::{Handling, start};
use crate::worker::{Child, PipelineToOpen, Turn, What};

/// Handles records until the host says that it is all.
///
/// # Errors
/// This process cannot work.
pub(crate) fn serve(child: Child) -> io::Result<()> {
    let (working, what, mut handling, stop) = start(child)?;
    let What::Pipeline(to_open) = what else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not what records are handled for"));
    };
    let (spans, exporter) = spans::from_environment(working.runtime.handle()).unzip();
    let timeout = Duration::from_millis(to_open.timeout_ms);
    let opening = open(*to_open, spans.unwrap_or_default(), working.log.clone(), working.threads, &working.loader);
    match working.runtime.block_on(opening) {
        Err(error) => {
            working.begun(Err(error));
            working.runtime.block_on(stop.cancelled());
        }
        Ok(handler) => {
            working.begun(Ok(()));
            working.runtime.block_on(async {
                let ended = handle_all(&handler, timeout, &mut handling, &stop).await;
                if let Err(error) = ended {
                    tracing::error!("this process cannot go on: {error}");
                }
                handler.close().await;
            });
        }
    }
    drop(exporter);
    working.end()
}

async fn open(
    to_open: PipelineToOpen,
    spans: Spans,
    log: Log,
    threads: usize,
    loader: &Loader<LibraryServices>,
) -> Result<PerRecord> {
    let PipelineToOpen { path, text, catalog, context, secrets, folder, libraries, stream, decoders, map, .. } =
        to_open;
    let (catalog, _) = parse_registry(&path, &catalog);
    let (plan, _) = load_and_plan(&Source::new(&path, text), &catalog, &context).map_err(|found| {
        Error::new(ErrorKind::Internal, "invalid", format!("the pipeline is not what the host has planned: {found}"))
    })?;
    let around = Surroundings {
        context,
        secrets: Secrets::of(secrets),
        folder,
        libraries,
        threads,
        log,
        observer: logged(),
        metrics: Metrics::default(),
        spans,
        post_mortems: PathBuf::new(),
    };
    let scratch = std::env::temp_dir();
    let here = Here { scratch, cancel: CancellationToken::new() };
    let opening = async {
        let decoders = Decoders::open(decoders, &stream, &around, &here, loader).await?;
        let pipeline = HandledBy { plan: &Arc::new(plan), around: &around };
        PerRecord::open(&pipeline, decoders, &map, loader).await
    };
    let failed = |error: OpenError| Error::new(ErrorKind::Unavailable, "not-open", error.to_string());
    opening.await.map_err(failed)
}

/// Handles what the host gives, one record after the other, until `stop`.
///
/// # Errors
/// What came is no records, or the host cannot be told.
pub(in crate::stream) async fn handle_all(
    handler: &impl Handle,
    timeout: Duration,
    handling: &mut Handling,
    stop: &CancellationToken,
) -> Result<()> {
    let mut is_done = true;
    loop {
        let given = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            given = handling.next() => given?,
        };
        let Some(given) = given else { break };
        let batch = Batch::new(Records::try_from(&given.records)?);
        if given.turns.len() > 1 {
            // The host must know that all before are over: what crashes here is not the fault of the last of them.
            handling.tell();
            let first = Place::new(batch.clone(), 0);
            let preparing = handler.prepare(&first);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // Whether it was in time, the records find out.
                _ = tokio::time::timeout(timeout, preparing) => {}
            }
        }
        for (row, Turn { attempt, follows }) in (0..).zip(given.turns) {
            if follows && !is_done {
                handling.pass();
                continue;
            }
            handling.begin()?;
            let place = Place::new(batch.clone(), row);
            let handled = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                handled = handled_in_time(handler, Some(timeout), &place, attempt) => Some(handled),
            };
            is_done = matches!(handled, Some(Ok(())));
            match handled {
                Some(Ok(())) => {}
                Some(Err(error)) => handling.failed(error),
                None => {
                    handling.broken_off()?;
                    handling.tell();
                    return Ok(());
                }
            }
        }
    }
    handling.tell();
    Ok(())
}
