//! A pipeline that is run once a record.

use std::sync::Arc;

use pype_plugin::Result;

use super::engine::Handle;
use super::records::{Mapping, Place};
use crate::pipeline::{Asked, Opened};

/// Runs a pipeline for each record. Where the pipeline has a dispatch, the record is done when its job is durable: one job,
/// however often the record comes.
pub(super) struct PerRecord {
    opened: Arc<Opened>,
    mapping: Mapping,
}

impl PerRecord {
    /// A pipeline that is open, and how contexts are made of records.
    #[must_use]
    pub(super) fn new(opened: Arc<Opened>, mapping: Mapping) -> Self {
        Self { opened, mapping }
    }
}

impl Handle for PerRecord {
    async fn handle(&self, place: &Place, _: u32) -> Result<()> {
        let context = self.mapping.context(self.opened.plan().context(), place)?;
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
