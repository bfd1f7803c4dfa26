//! The columns of a batch, and those of a file.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray,
    RecordBatch, StringArray, StringViewArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pype_plugin::{Error, ErrorKind, Result};

/// The columns of text, in the order of the files.
const TEXTS: [&str; 6] =
    ["event_type_key", "worker_id", "simulation_id", "payload_format_hint", "event_id", "correlation_id"];
const SIMULATION_ID: usize = 2;

/// The columns of a file.
pub(crate) fn file_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, true);
        Arc::new(Schema::new(vec![
            Field::new("timestamp_ns", DataType::Int64, false),
            text("event_type_key"),
            text("worker_id"),
            text("simulation_id"),
            text("payload_format_hint"),
            Field::new("event_payload", DataType::Binary, true),
            text("event_id"),
            text("correlation_id"),
        ]))
    });
    SCHEMA.clone()
}

/// A batch of events, and the records they came as.
pub(crate) struct EventRows {
    topic: Texts,
    partition: Int32Array,
    offset: Int64Array,
    timestamp_ns: Int64Array,
    texts: [Texts; 6],
    event_payload: Binaries,
}

impl EventRows {
    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.offset.len()
    }

    pub(crate) fn topic(&self, row: usize) -> &str {
        self.topic.get(row).unwrap_or_default()
    }

    pub(crate) fn partition(&self, row: usize) -> i32 {
        self.partition.value(row)
    }

    /// The sequence: an offset is never negative.
    pub(crate) fn sequence(&self, row: usize) -> u64 {
        self.offset.value(row).cast_unsigned()
    }

    pub(crate) fn timestamp_ns(&self, row: usize) -> i64 {
        self.timestamp_ns.value(row)
    }

    pub(crate) fn simulation_id(&self, row: usize) -> &str {
        self.texts[SIMULATION_ID].get(row).unwrap_or_default()
    }
}

impl TryFrom<&RecordBatch> for EventRows {
    type Error = Error;

    fn try_from(batch: &RecordBatch) -> Result<Self> {
        let rows = Self {
            topic: texts(batch, "topic")?,
            partition: whole(batch, "partition", &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            offset: whole(batch, "offset", &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            timestamp_ns: whole(batch, "timestamp_ns", &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            texts: [
                texts(batch, TEXTS[0])?,
                texts(batch, TEXTS[1])?,
                texts(batch, TEXTS[2])?,
                texts(batch, TEXTS[3])?,
                texts(batch, TEXTS[4])?,
                texts(batch, TEXTS[5])?,
            ],
            event_payload: binaries(batch, "event_payload")?,
        };
        match rows.offset.values().iter().find(|offset| **offset < 0) {
            Some(offset) => Err(Error::new(ErrorKind::Data, "bad-offset", format!("`offset` is {offset}"))),
            None => Ok(rows),
        }
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let message = format!("the events have no column `{name}`");
        Error::new(ErrorKind::Data, "missing-column", message)
            .hint("`event_decode` gives all of them; other decoders have to keep `topic`, `partition` and `offset`")
    })
}

/// A column without nulls.
fn whole<'a>(batch: &'a RecordBatch, name: &str, expected: &DataType) -> Result<&'a ArrayRef> {
    let column = column(batch, name)?;
    if column.data_type() != expected {
        return Err(wrong_type(name, column, &expected.to_string()));
    }
    if column.null_count() > 0 {
        let message = format!("`{name}` is null in {} events", column.null_count());
        return Err(Error::new(ErrorKind::Data, "null-value", message)
            .hint("have the decoder require it: then such records are among the dead letters"));
    }
    Ok(column)
}

fn wrong_type(name: &str, column: &ArrayRef, expected: &str) -> Error {
    let message = format!("the column `{name}` should be {expected}, but is {}", column.data_type());
    Error::new(ErrorKind::Data, "wrong-type", message)
}

/// A column of text, in any of the forms that modules make.
enum Texts {
    Short(StringArray),
    Large(LargeStringArray),
    View(StringViewArray),
}

impl Texts {
    fn get(&self, row: usize) -> Option<&str> {
        match self {
            Self::Short(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Self::Large(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Self::View(texts) => texts.is_valid(row).then(|| texts.value(row)),
        }
    }
}

fn texts(batch: &RecordBatch, name: &str) -> Result<Texts> {
    let column = column(batch, name)?;
    match column.data_type() {
        DataType::Utf8 => Ok(Texts::Short(column.as_string::<i32>().clone())),
        DataType::LargeUtf8 => Ok(Texts::Large(column.as_string::<i64>().clone())),
        DataType::Utf8View => Ok(Texts::View(column.as_string_view().clone())),
        _ => Err(wrong_type(name, column, "text")),
    }
}

/// A column of bytes, likewise.
enum Binaries {
    Short(BinaryArray),
    Large(LargeBinaryArray),
    View(BinaryViewArray),
}

impl Binaries {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Short(bytes) => bytes.is_valid(row).then(|| bytes.value(row)),
            Self::Large(bytes) => bytes.is_valid(row).then(|| bytes.value(row)),
            Self::View(bytes) => bytes.is_valid(row).then(|| bytes.value(row)),
        }
    }
}

fn binaries(batch: &RecordBatch, name: &str) -> Result<Binaries> {
    let column = column(batch, name)?;
    match column.data_type() {
        DataType::Binary => Ok(Binaries::Short(column.as_binary::<i32>().clone())),
        DataType::LargeBinary => Ok(Binaries::Large(column.as_binary::<i64>().clone())),
        DataType::BinaryView => Ok(Binaries::View(column.as_binary_view().clone())),
        _ => Err(wrong_type(name, column, "bytes")),
    }
}

/// Rows on their way into a file.
#[derive(Default)]
pub(crate) struct RowsBuilder {
    timestamp_ns: Int64Builder,
    texts: [StringBuilder; 6],
    event_payload: BinaryBuilder,
    bytes: usize,
}

impl RowsBuilder {
    /// Copies a row.
    pub(crate) fn push(&mut self, rows: &EventRows, row: usize) {
        self.timestamp_ns.append_value(rows.timestamp_ns(row));
        for (builder, texts) in self.texts.iter_mut().zip(&rows.texts) {
            let text = texts.get(row);
            self.bytes += text.map_or(0, str::len);
            builder.append_option(text);
        }
        let payload = rows.event_payload.get(row);
        self.bytes += payload.map_or(0, <[u8]>::len);
        self.event_payload.append_option(payload);
    }

    pub(crate) fn len(&self) -> usize {
        self.timestamp_ns.values_slice().len()
    }

    /// How many bytes of texts and payloads there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows. There are none afterwards.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        let [event_type_key, worker_id, simulation_id, payload_format_hint, event_id, correlation_id] =
            self.texts.each_mut().map(|texts| Arc::new(texts.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.timestamp_ns.finish()),
            event_type_key,
            worker_id,
            simulation_id,
            payload_format_hint,
            Arc::new(self.event_payload.finish()),
            event_id,
            correlation_id,
        ];
        Ok(RecordBatch::try_new(file_schema(), columns)?)
    }
}
