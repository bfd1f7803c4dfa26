//! Runs a decoder on records.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::{Metadata, Schema};
use pype_plugin::stream::{NewRecord, RecordsBuilder, records_schema};
use pype_plugin::testing::{block_on, module};
use pype_plugin::{Frame, Mod};
use serde_json::Value;

/// The value of a record.
pub(crate) struct Given(Option<Vec<u8>>);

impl Given {
    pub(crate) fn value(value: impl AsRef<[u8]>) -> Self {
        Self(Some(value.as_ref().to_owned()))
    }

    pub(crate) fn none() -> Self {
        Self(None)
    }
}

/// What came of records whose offsets are their places.
pub(crate) struct Decoded {
    pub(crate) rows: RecordBatch,
    pub(crate) rejected: RecordBatch,
    /// `offset: error`.
    pub(crate) errors: Vec<String>,
    pub(crate) errors_metadata: Metadata,
}

impl Decoded {
    pub(crate) fn names(&self) -> Vec<String> {
        self.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    pub(crate) fn offsets(&self) -> Vec<i64> {
        let offsets = self.rows.column_by_name("offset").expect("it was kept");
        offsets.as_primitive::<Int64Type>().values().to_vec()
    }
}

/// Decodes records of a stream `events`.
pub(crate) fn decoded<M: Mod>(config: Value, given: &[Given]) -> Decoded {
    let mut records = RecordsBuilder::default();
    for (offset, value) in (0..).zip(given) {
        let record =
            NewRecord { topic: "events", offset, key: Some(b"k"), value: value.0.as_deref(), ..NewRecord::default() };
        records.push(record, [("h", Some(b"1".as_slice()))]);
    }
    let metadata = HashMap::from([
        ("nats.stream".to_owned(), "events".to_owned()),
        ("nats.created".to_owned(), "2025-01-01T00:00:00Z".to_owned()),
    ]);
    let schema = Arc::new(Schema::new_with_metadata(records_schema().fields().clone(), metadata));
    let batch = records.finish().with_schema(schema.clone()).expect("the same columns");
    let mut done = module::<M>(config).input("records", Frame::from_record_batches(schema, [batch])).run();
    let rows = whole(&done.output("output"));
    let rejected = whole(&done.output("errors"));
    let errors = rejected.column(7).as_string::<i32>().iter().flatten();
    let offsets = rejected.column(2).as_primitive::<Int64Type>().values();
    let errors = offsets.iter().zip(errors).map(|(offset, error)| format!("{offset}: {error}")).collect();
    Decoded { errors_metadata: rejected.schema().metadata().clone(), rows, rejected, errors }
}

/// The one batch of a frame, or an empty one.
fn whole(frame: &Frame) -> RecordBatch {
    block_on(async {
        let schema = frame.arrow_schema().await.expect("a schema");
        let batch = frame.next_record_batch(&schema).await.expect("readable");
        assert!(frame.next_record_batch(&schema).await.expect("readable").is_none());
        batch.unwrap_or_else(|| RecordBatch::new_empty(schema))
    })
}
