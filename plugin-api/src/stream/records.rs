//! Records as Arrow batches.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{ArrayBuilder, TimestampMillisecondBuilder};
use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_array::{StructArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::column::{BytesColumn, HeadersColumn};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;

/// The columns of records: `topic` (text), `partition` (int32), `offset` (int64), `timestamp` (milliseconds, UTC; may be null),
/// `key` and `value` (binary; may be null), `headers` (a list of `key`, text, and `value`, binary, which may be null).
pub fn records_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let headers = Field::new("item", DataType::Struct(header_fields()), false);
        Arc::new(Schema::new(vec![
            Field::new("topic", DataType::Utf8, false),
            Field::new("partition", DataType::Int32, false),
            Field::new("offset", DataType::Int64, false),
            Field::new("timestamp", timestamp, true),
            Field::new("key", DataType::Binary, true),
            Field::new("value", DataType::Binary, true),
            Field::new("headers", DataType::List(Arc::new(headers)), false),
        ]))
    });
    SCHEMA.clone()
}

fn header_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)].into()
}

/// A record about to become a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The topic or the subject.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// Makes a batch of records.
pub struct RecordsBuilder {
    topic: StringBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    timestamp: TimestampMillisecondBuilder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: ListBuilder<StructBuilder>,
}

impl Default for RecordsBuilder {
    fn default() -> Self {
        let entry = StructBuilder::new(
            header_fields(),
            vec![Box::new(StringBuilder::new()) as Box<dyn ArrayBuilder>, Box::new(BinaryBuilder::new())],
        );
        let headers = ListBuilder::new(entry).with_field(Field::new("item", DataType::Struct(header_fields()), false));
        Self {
            topic: StringBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            timestamp: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            headers,
        }
    }
}

impl RecordsBuilder {
    /// A record more.
    pub fn push<'h>(&mut self, record: NewRecord<'_>, headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>) {
        self.topic.append_value(record.topic);
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.timestamp.append_option(record.timestamp_ms);
        self.key.append_option(record.key);
        self.value.append_option(record.value);
        let entries = self.headers.values();
        for (key, value) in headers {
            entries.field_builder::<StringBuilder>(0).expect("the first is the key").append_value(key);
            entries.field_builder::<BinaryBuilder>(1).expect("the second is the value").append_option(value);
            entries.append(true);
        }
        self.headers.append(true);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offset.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes their keys and values have.
    pub fn bytes(&self) -> usize {
        self.key.values_slice().len() + self.value.values_slice().len()
    }

    /// The batch. The builder is empty afterwards.
    pub fn finish(&mut self) -> RecordBatch {
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.headers.finish()),
        ];
        RecordBatch::try_new(records_schema(), columns).expect("each column was built for this schema")
    }

    /// The batch as a frame.
    pub fn finish_frame(&mut self) -> Frame {
        Frame::from_record_batches(records_schema(), [self.finish()])
    }

    /// The batch as a frame, whose schema's metadata says more of where its records are from.
    pub fn finish_frame_with(&mut self, metadata: &HashMap<String, String>) -> Frame {
        let schema = Arc::new(records_schema().as_ref().clone().with_metadata(metadata.clone()));
        let batch = self.finish().with_schema(schema.clone()).expect("it differs in its metadata only");
        Frame::from_record_batches(schema, [batch])
    }
}

/// A batch of records that was checked: what can be read of it without a further look. It may have further columns. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Records {
    batch: RecordBatch,
    topic: StringArray,
    partition: Int32Array,
    offset: Int64Array,
    timestamp: TimestampMillisecondArray,
    key: BinaryArray,
    value: BinaryArray,
    headers: ListArray,
    header_keys: StringArray,
    header_values: BinaryArray,
}

/// A batch made of rows has no more bytes: the offsets of its columns have 32 bits.
const MOST_BYTES: usize = 1 << 30;

/// A record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    records: &'a Records,
    row: usize,
}

impl Records {
    /// Reads a frame to its end. Its schema may have metadata.
    ///
    /// # Errors
    /// The frame fails, or is not of [`records_schema`].
    pub async fn read(frame: &Frame) -> Result<Vec<Self>> {
        let schema = frame.arrow_schema().await?;
        let mut all = Vec::with_capacity(1);
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            all.push(Self::try_from(&batch)?);
        }
        Ok(all)
    }

    /// Rows as records to be published, all of them to `topic`, or else each to the one in the column `topic`. `value` is a
    /// column of text or bytes; so is `key`, if it is there, and `headers` has lists of names and values. Many bytes come in
    /// several batches.
    ///
    /// # Errors
    /// A column is missing, or of another type; or a row has no topic, or is too large.
    pub fn of_rows(batch: &RecordBatch, topic: Option<&str>) -> Result<Vec<Self>> {
        let bytes = |name: &str| -> Result<Option<BytesColumn>> {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            BytesColumn::of(column).map(Some).ok_or_else(|| wrong_type(name, column, "text or bytes"))
        };
        let (keys, topics) = (bytes("key")?, if topic.is_none() { bytes("topic")? } else { None });
        let values = bytes("value")?.ok_or_else(|| no_column(batch, "value"))?;
        let headers = batch.column_by_name("headers").map(|column| {
            HeadersColumn::of(column).ok_or_else(|| wrong_type("headers", column, "lists of names and values"))
        });
        let headers = headers.transpose()?;
        let (mut all, mut records, mut bytes) = (Vec::new(), RecordsBuilder::default(), 0);
        for row in 0..batch.num_rows() {
            let own = topics.as_ref().and_then(|topics| topics.text(row));
            let topic = topic.or(own).ok_or_else(|| {
                Error::new(ErrorKind::Data, "no-topic", format!("the row {row} says no topic"))
                    .hint("give it one in the column `topic`, or all of them one in the configs")
            })?;
            let (key, value) = (keys.as_ref().and_then(|keys| keys.get(row)), values.get(row));
            let of_row = || headers.iter().flat_map(|headers| headers.get(row));
            let of_headers = of_row().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
            let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + of_headers;
            if size > MOST_BYTES {
                let message = format!("the row {row} has {size} bytes, and a record may have {MOST_BYTES}");
                return Err(Error::new(ErrorKind::Data, "too-large", message)
                    .hint("keep the bytes in a store, and pass on their name"));
            }
            if bytes + size > MOST_BYTES {
                all.push(Self::try_from(&std::mem::take(&mut records).finish())?);
                bytes = 0;
            }
            bytes += size;
            records.push(NewRecord { topic, key, value, ..NewRecord::default() }, of_row());
        }
        all.push(Self::try_from(&records.finish())?);
        Ok(all)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offset.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the key and the value of one have.
    pub fn bytes(&self, row: usize) -> usize {
        let record = self.get(row);
        record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
    }

    /// One of them.
    ///
    /// # Panics
    /// There are not so many.
    pub fn get(&self, row: usize) -> Record<'_> {
        assert!(row < self.len(), "row {row} of {}", self.len());
        Record { records: self, row }
    }

    /// All of them, with all their columns.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// A further column, if it is there and holds texts.
    pub fn texts(&self, column: &str) -> Option<&StringArray> {
        self.batch.column_by_name(column)?.as_string_opt::<i32>()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|row| Record { records: self, row })
    }
}

impl TryFrom<&RecordBatch> for Records {
    type Error = Error;

    fn try_from(batch: &RecordBatch) -> Result<Self> {
        let schema = records_schema();
        let column = |at: usize| {
            let field = schema.field(at);
            let Some(column) = batch.column_by_name(field.name()) else {
                return Err(no_records(&format!("it has no column `{}`", field.name())));
            };
            let same = column.data_type().equals_datatype(field.data_type());
            if !same || (!field.is_nullable() && column.null_count() > 0) {
                return Err(no_records(&format!("`{}` is {} or has nulls", field.name(), column.data_type())));
            }
            Ok(column)
        };
        let headers = column(6)?.as_list::<i32>().clone();
        let entries: &StructArray = headers.values().as_struct();
        Ok(Self {
            batch: batch.clone(),
            topic: column(0)?.as_string::<i32>().clone(),
            partition: column(1)?.as_primitive::<Int32Type>().clone(),
            offset: column(2)?.as_primitive::<Int64Type>().clone(),
            timestamp: column(3)?.as_primitive::<TimestampMillisecondType>().clone(),
            key: column(4)?.as_binary::<i32>().clone(),
            value: column(5)?.as_binary::<i32>().clone(),
            header_keys: entries.column(0).as_string::<i32>().clone(),
            header_values: entries.column(1).as_binary::<i32>().clone(),
            headers,
        })
    }
}

/// That a column is not there which somebody needs.
pub fn no_column(batch: &RecordBatch, name: &str) -> Error {
    let schema = batch.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    let message = format!("there is no column `{name}`, but {}", names.join(", "));
    Error::new(ErrorKind::Data, "no-column", message).hint("rename the column, or correct the configs")
}

/// That a column is of another type than somebody needs.
pub fn wrong_type(name: &str, column: &ArrayRef, expected: &str) -> Error {
    let message = format!("the column `{name}` is of `{}`, and not {expected}", column.data_type());
    Error::new(ErrorKind::Data, "wrong-type", message)
}

fn no_records(found: &str) -> Error {
    let message = format!("this is no batch of records: {found}");
    Error::new(ErrorKind::Data, "no-records", message).hint("this is a fault in the plugin that made it")
}

impl<'a> Record<'a> {
    /// The topic or the subject.
    pub fn topic(&self) -> &'a str {
        self.records.topic.value(self.row)
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.records.partition.value(self.row)
    }

    /// Its place there.
    pub fn offset(&self) -> i64 {
        self.records.offset.value(self.row)
    }

    /// Milliseconds since 1970.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.records.timestamp.is_valid(self.row).then(|| self.records.timestamp.value(self.row))
    }

    /// The key.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.records.key.is_valid(self.row).then(|| self.records.key.value(self.row))
    }

    /// The value.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.records.value.is_valid(self.row).then(|| self.records.value.value(self.row))
    }

    /// The headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let records = self.records;
        let range = records.headers.value_offsets()[self.row]..records.headers.value_offsets()[self.row + 1];
        range.map(move |at| {
            let at = usize::try_from(at).expect("offsets into a list are not negative");
            let values = &records.header_values;
            (records.header_keys.value(at), values.is_valid(at).then(|| values.value(at)))
        })
    }

    /// The record, to be put into another batch.
    pub fn to_new(&self) -> NewRecord<'a> {
        NewRecord {
            topic: self.topic(),
            partition: self.partition(),
            offset: self.offset(),
            timestamp_ms: self.timestamp_ms(),
            key: self.key(),
            value: self.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let mut builder = RecordsBuilder::default();
        let full = NewRecord {
            topic: "orders",
            partition: 3,
            offset: 5000,
            timestamp_ms: Some(17),
            key: Some(b"k"),
            value: Some(b"v"),
        };
        builder.push(full, [("a", Some(b"1".as_slice())), ("b", None)]);
        builder.push(NewRecord { topic: "orders", offset: 5002, ..NewRecord::default() }, []);
        builder.push(full, [("c", Some(b"".as_slice()))]);
        assert_eq!((builder.len(), builder.bytes()), (3, 4));
        let records = Records::try_from(&builder.finish()).expect("of the schema");
        let told: Vec<_> = records
            .iter()
            .map(|record| {
                (
                    record.offset(),
                    record.timestamp_ms(),
                    record.key(),
                    record.value(),
                    record.headers().collect::<Vec<_>>(),
                )
            })
            .collect();
        let (k, v, one) = (Some(b"k".as_slice()), Some(b"v".as_slice()), Some(b"1".as_slice()));
        assert_eq!(
            told,
            [
                (5000, Some(17), k, v, vec![("a", one), ("b", None)]),
                (5002, None, None, None, vec![]),
                (5000, Some(17), k, v, vec![("c", Some(b"".as_slice()))]),
            ]
        );
        assert!(builder.is_empty());
    }

    #[test]
    fn what_a_schema_says_besides_is_kept_and_does_not_matter() {
        let mut builder = RecordsBuilder::default();
        builder.push(NewRecord { topic: "orders", offset: 7, ..NewRecord::default() }, []);
        let metadata = HashMap::from([("nats.stream".to_owned(), "orders".to_owned())]);
        let frame = builder.finish_frame_with(&metadata);
        crate::testing::block_on(async {
            assert_eq!(frame.arrow_schema().await.expect("a schema").metadata(), &metadata);
            let records = Records::read(&frame).await.expect("records");
            assert_eq!(records[0].get(0).offset(), 7);
        });
    }

    #[test]
    fn rows_become_records_whatever_else_they_have() {
        let texts = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let rows = [
            ("value", texts(vec![Some("a"), None])),
            ("topic", texts(vec![Some("own"), None])),
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter(rows).expect("a batch");
        let records = Records::of_rows(&batch, Some("all")).expect("records");
        let told: Vec<_> = records[0].iter().map(|one| (one.topic(), one.key(), one.value())).collect();
        assert_eq!(told, [("all", None, Some(b"a".as_slice())), ("all", None, None)]);
        let own = Records::of_rows(&batch.slice(0, 1), None).expect("records");
        assert_eq!(own[0].get(0).topic(), "own");
        let code = |batch: &RecordBatch, topic| Records::of_rows(batch, topic).expect_err("refused").code.clone();
        assert_eq!(code(&batch, None), "no-topic");
        assert_eq!(code(&batch.project(&[1, 2]).expect("two columns"), None), "no-column");
        let numbers = RecordBatch::try_from_iter([("value", batch.column(2).clone())]).expect("a batch");
        assert_eq!(code(&numbers, None), "wrong-type");
    }

    #[test]
    fn what_holds_no_records_is_refused() {
        let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8, false)])));
        assert_eq!(Records::try_from(&other).expect_err("refused").code, "no-records");
    }
}
