//! `event_decode`: the events of Fish Eco Sim.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BinaryBuilder, Int64Builder, StringBuilder};
use arrow_schema::{DataType, Field};
use prost::Message;
use pype_plugin::prelude::*;
use pype_plugin::{Inputs, Outputs};

use crate::decoding::{self, Reason, Rows, present};
use crate::keep::Keep;

/// `fes.common.events.GenericEventRequest`, proto3. Declared by hand, so that nobody needs protoc.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GenericEventRequest {
    #[prost(string, tag = "1")]
    pub(crate) event_id: String,
    #[prost(string, tag = "2")]
    pub(crate) event_type_key: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) event_payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(crate) timestamp_ns: i64,
    #[prost(string, tag = "5")]
    pub(crate) source_worker_id: String,
    #[prost(string, tag = "6")]
    pub(crate) simulation_id: String,
    #[prost(string, tag = "7")]
    pub(crate) payload_content_type: String,
    #[prost(string, tag = "8")]
    pub(crate) correlation_id: String,
}

/// Configs of `event_decode`: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {}

/// Gives the columns that the event log keeps, and those that tell records apart. The payload stays as it is.
pub(crate) struct EventDecode;

impl Mod for EventDecode {
    const NAME: &str = "event_decode";
    const DESCRIPTION: &str = "Decodes `fes.common.events.GenericEventRequest`; what is none leaves at `errors`.";
    const CATEGORY: &str = "Decode";
    const PACKAGES: &[&str] = &["prost"];
    const INPUTS: &[&str] = decoding::INPUTS;
    const OUTPUTS: &[&str] = decoding::OUTPUTS;
    type Config = Config;

    async fn open(_: Config, _: &Context) -> Result<Self> {
        Ok(Self)
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        decoding::decode(inputs, Events::default(), &Keep::default(), ctx).await
    }
}

#[derive(Default)]
struct Events {
    timestamp_ns: Int64Builder,
    event_type_key: StringBuilder,
    worker_id: StringBuilder,
    simulation_id: StringBuilder,
    payload_format_hint: StringBuilder,
    event_payload: BinaryBuilder,
    event_id: StringBuilder,
    correlation_id: StringBuilder,
}

impl Rows for Events {
    fn fields(&self) -> Vec<Field> {
        let text = |name| Field::new(name, DataType::Utf8, false);
        vec![
            Field::new("timestamp_ns", DataType::Int64, false),
            text("event_type_key"),
            text("worker_id"),
            text("simulation_id"),
            text("payload_format_hint"),
            Field::new("event_payload", DataType::Binary, false),
            text("event_id"),
            text("correlation_id"),
        ]
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), Reason> {
        let event = GenericEventRequest::decode(present(value)?).map_err(|error| error.to_string())?;
        self.timestamp_ns.append_value(event.timestamp_ns);
        self.event_type_key.append_value(event.event_type_key);
        self.worker_id.append_value(event.source_worker_id);
        self.simulation_id.append_value(event.simulation_id);
        self.payload_format_hint.append_value(event.payload_content_type);
        self.event_payload.append_value(event.event_payload);
        self.event_id.append_value(event.event_id);
        self.correlation_id.append_value(event.correlation_id);
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.timestamp_ns.finish()),
            Arc::new(self.event_type_key.finish()),
            Arc::new(self.worker_id.finish()),
            Arc::new(self.simulation_id.finish()),
            Arc::new(self.payload_format_hint.finish()),
            Arc::new(self.event_payload.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.correlation_id.finish()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use serde_json::json;

    use super::*;
    use crate::testing::{Given, decoded};

    fn event(number: u8) -> GenericEventRequest {
        GenericEventRequest {
            event_id: format!("e{number}"),
            event_type_key: "fish.moved".to_owned(),
            event_payload: vec![number, 0, 255],
            timestamp_ns: 1_700_000_000_000_000_000 + i64::from(number),
            source_worker_id: "worker-1".to_owned(),
            simulation_id: "sim".to_owned(),
            payload_content_type: "application/x-flatbuffers".to_owned(),
            correlation_id: String::new(),
        }
    }

    #[test]
    fn events_become_the_columns_of_the_log() {
        let given: Vec<_> = (0..3).map(|number| Given::value(event(number).encode_to_vec())).collect();
        let done = decoded::<EventDecode>(json!({}), &given);
        let columns: Vec<_> =
            done.rows.schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(
            columns,
            [
                "timestamp_ns Int64",
                "event_type_key Utf8",
                "worker_id Utf8",
                "simulation_id Utf8",
                "payload_format_hint Utf8",
                "event_payload Binary",
                "event_id Utf8",
                "correlation_id Utf8",
                "topic Utf8",
                "partition Int32",
                "offset Int64",
            ]
        );
        assert_eq!(done.rows.column(0).as_primitive::<Int64Type>().value(2), 1_700_000_000_000_000_002);
        assert_eq!(done.rows.column(2).as_string::<i32>().value(0), "worker-1");
        assert_eq!(done.rows.column(4).as_string::<i32>().value(0), "application/x-flatbuffers");
        assert_eq!(done.rows.column(5).as_binary::<i32>().value(1), [1, 0, 255]);
        assert_eq!(done.rows.column(6).as_string::<i32>().value(1), "e1");
        assert_eq!(done.offsets(), [0, 1, 2]);
        assert_eq!(done.errors, [""; 0]);
        let metadata = done.rows.schema().metadata().clone();
        assert_eq!((&metadata, metadata.len()), (&done.errors_metadata, 2));
    }

    #[test]
    fn what_is_no_event_is_rejected_as_it_came() {
        let mut cut = event(1).encode_to_vec();
        cut.truncate(cut.len() - 1);
        let given = [
            Given::value(event(1).encode_to_vec()),
            Given::value(cut),
            Given::none(),
            Given::value(b"not a message"),
            Given::value(b"\x0a\x01\xff"),
            Given::value(b""),
        ];
        let done = decoded::<EventDecode>(json!({}), &given);
        // The empty message is one: all its fields have their defaults.
        assert_eq!(done.offsets(), [0, 5]);
        let errors: Vec<_> = done.errors.iter().map(|error| error.split(": ").collect::<Vec<_>>()).collect();
        assert_eq!(errors.iter().map(|error| error[0]).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
        assert_eq!(errors[1][1], "the record has no value");
        assert!(errors[3].iter().any(|part| part.contains("UTF-8")), "{errors:?}");
        assert_eq!(done.rejected.column(5).as_binary::<i32>().value(2), b"not a message");
        assert_eq!(done.rejected.column(0).as_string::<i32>().value(0), "events");
    }

    #[test]
    fn no_records_give_no_rows() {
        let done = decoded::<EventDecode>(json!({}), &[]);
        assert_eq!((done.rows.num_rows(), done.rejected.num_rows(), done.names().len()), (0, 0, 11));
    }
}
