//! A pipeline that is run once a record.

use std::sync::Arc;

use indexmap::IndexMap;
use pype_core::name::FieldName;
use pype_core::stream::plan::RecordPart;
use pype_plugin::Result;

use super::decode::Decoders;
use super::engine::Handle;
use super::records::{Mapping, Place};
use crate::pipeline::{Asked, Opened};

/// Runs a pipeline for each record. Where the pipeline has a dispatch, the record is done when its job is durable: one job,
/// however often the record comes.
pub(super) struct PerRecord {
    opened: Arc<Opened>,
    decoders: Option<Decoders>,
    mapping: Mapping,
}

impl PerRecord {
    /// A pipeline that is open, what decodes its records, and which part of a record each field of its context is.
    #[must_use]
    pub(super) fn new(opened: Arc<Opened>, decoders: Option<Decoders>, map: &IndexMap<FieldName, RecordPart>) -> Self {
        let mapping = Mapping::new(opened.plan().context(), map, decoders.is_some());
        Self { opened, decoders, mapping }
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
