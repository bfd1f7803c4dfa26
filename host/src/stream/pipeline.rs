//! A pipeline that is run once a record.

use std::sync::Arc;

use indexmap::IndexMap;
use pype_core::name::FieldName;
use pype_core::stream::plan::RecordPart;
use pype_plugin::Result;

use super::decode::Decoders;
use super::engine::Handle;
use super::open::HandledBy;
use super::records::{Mapping, Place};
use crate::loader::Loader;
use crate::pipeline::{Asked, OpenError, Opened};
use crate::run::LibraryServices;

/// Runs a pipeline for each record. Where the pipeline has a dispatch, the record is done when its job is durable: one job,
/// however often the record comes.
pub(super) struct PerRecord {
    opened: Arc<Opened>,
    decoders: Option<Decoders>,
    mapping: Mapping,
}

impl PerRecord {
    /// Opens a pipeline behind `decoders`, which are closed if it does not open. `map` says which part of a record each field of
    /// its context is.
    ///
    /// # Errors
    /// A library is not there or has changed, or a stage does not open.
    pub(super) async fn open(
        pipeline: &HandledBy<'_>,
        decoders: Option<Decoders>,
        map: &IndexMap<FieldName, RecordPart>,
        loader: &Loader<LibraryServices>,
    ) -> Result<Self, OpenError> {
        let mapping = Mapping::new(pipeline.plan.context(), map, decoders.is_some());
        match Opened::open(pipeline.plan.clone(), pipeline.around, loader).await {
            Ok(opened) => Ok(Self { opened, decoders, mapping }),
            Err(error) => {
                if let Some(decoders) = decoders {
                    decoders.close().await;
                }
                Err(error)
            }
        }
    }

    /// Closes what it has opened.
    pub(super) async fn close(&self) {
        self.opened.close().await;
        if let Some(decoders) = &self.decoders {
            decoders.close().await;
        }
    }
}

impl Handle for PerRecord {
    async fn prepare(&self, place: &Place) {
        if let Some(decoders) = &self.decoders {
            // Each record hears of it that fails.
            drop(place.parts().0.decoded(decoders).await);
        }
    }

    async fn handle(&self, place: &Place, _: u32) -> Result<()> {
        let row = match &self.decoders {
            Some(decoders) => Some(place.decoded(decoders).await?),
            None => None,
        };
        let context = self.mapping.context(self.opened.plan().context(), place, row.as_deref())?;
        let dispatched = self.opened.plan().dispatch().is_some();
        let trace = place.record().headers().find(|(key, _)| *key == "traceparent").and_then(|(_, value)| value);
        let asked = Asked {
            idempotency_key: dispatched.then(|| place.name()),
            trace: trace.and_then(|trace| String::from_utf8(trace.to_vec()).ok()),
            over_http: false,
        };
        self.opened.run(context, asked).await.map(drop)
    }
}
