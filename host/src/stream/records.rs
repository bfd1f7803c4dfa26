//! Records as contexts of a pipeline, and as dead letters.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use pype_core::name::FieldName;
use pype_core::pipeline::context::{Context, ContextSpec, FieldType};
use pype_core::stream::plan::RecordPart;
use pype_plugin::stream::{NewRecord, Record, Records, RecordsBuilder};
use pype_plugin::{Error, ErrorKind, Result};
use serde_json::{Map, Number, Value};
use tokio::sync::OnceCell;

use super::decode::{Decoded, Decoders, Row};

/// Records that came together.
pub(super) struct Batch {
    records: Records,
    came: Instant,
    /// What decoders have made of them, once somebody needs it.
    decoded: OnceCell<Decoded>,
    /// Whether somebody has tried to decode them together. If that was in vain, each is decoded alone: one of them may be poison.
    tried: AtomicBool,
}

impl Batch {
    /// They have come now.
    pub(super) fn new(records: Records) -> Arc<Self> {
        Arc::new(Self { records, came: Instant::now(), decoded: OnceCell::new(), tried: AtomicBool::new(false) })
    }

    /// The records.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// What decoders make of them together; `None` if that was in vain before.
    ///
    /// # Errors
    /// A decoder fails.
    pub(super) async fn decoded(&self, decoders: &Decoders) -> Option<Result<&Decoded>> {
        let decode = || async {
            match self.tried.swap(true, Ordering::Relaxed) {
                true => Err(None),
                false => decoders.decode(&self.records).await.map_err(Some),
            }
        };
        self.decoded.get_or_try_init(decode).await.map_or_else(|why| why.map(Err), |decoded| Some(Ok(decoded)))
    }
}

/// A record, where it is. Cheap to clone.
#[derive(Clone)]
pub(super) struct Place {
    batch: Arc<Batch>,
    row: u32,
}

impl Place {
    /// The record in that row of a batch.
    #[must_use]
    pub(super) fn new(batch: Arc<Batch>, row: u32) -> Self {
        Self { batch, row }
    }

    /// The record.
    #[must_use]
    pub(super) fn record(&self) -> Record<'_> {
        self.batch.records.get(self.row as usize)
    }

    /// The batch that it is in, and its row there.
    pub(super) fn parts(&self) -> (&Arc<Batch>, usize) {
        (&self.batch, self.row as usize)
    }

    /// How long it has been here.
    pub(super) fn age(&self) -> Duration {
        self.batch.came.elapsed()
    }

    /// What decoders make of it. All records of a batch are decoded at once, or, if that fails, each for itself.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub(super) async fn decoded(&self, decoders: &Decoders) -> Result<Cow<'_, Row>> {
        let row = self.row as usize;
        match self.batch.decoded(decoders).await {
            Some(Ok(decoded)) => decoded.row(row).map(Cow::Borrowed),
            Some(Err(error)) if self.batch.records.len() == 1 => Err(error),
            Some(Err(_)) | None => {
                let alone = Records::try_from(&self.batch.records.batch().slice(row, 1))?;
                decoders.decode(&alone).await?.row(0).cloned().map(Cow::Owned)
            }
        }
    }

    /// `topic/partition/offset`: the same record has the same name whenever it comes.
    #[must_use]
    pub(super) fn name(&self) -> String {
        let record = self.record();
        format!("{}/{}/{}", record.topic(), record.partition(), record.offset())
    }
}

/// How contexts are made of records.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    fields: Vec<(String, FieldType, Fill)>,
    needs_members: bool,
}

/// What a field of the context holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fill {
    Part(RecordPart),
    /// A member of the value, which is a JSON object; or if it has no such member, the part that is called so.
    Member(Option<RecordPart>),
}

impl Mapping {
    /// Every declared field, filled as `given` says. A field that it does not name is a member of the value; or, if the value of
    /// a record has no such member, the part of the record that it is called after. If some field is filled with the whole
    /// value, values need not be JSON, and the others are parts of the record too. Of `decoded` records the members are what
    /// decoders made of them.
    #[must_use]
    pub(super) fn new(spec: &ContextSpec, given: &IndexMap<FieldName, RecordPart>, decoded: bool) -> Self {
        let whole = !decoded && given.values().any(|part| *part == RecordPart::Value);
        let fields = spec.fields.iter().map(|(name, declared)| {
            let called = RecordPart::from_str(name.as_str()).ok();
            let fill = match (given.get(name), called) {
                (Some(part), _) => Fill::Part(part.clone()),
                (None, Some(part)) if whole => Fill::Part(part),
                (None, called) => Fill::Member(called),
            };
            (name.to_string(), declared.kind, fill)
        });
        let fields: Vec<_> = fields.collect();
        let needs_members = !whole && !decoded && fields.iter().any(|(_, _, fill)| matches!(fill, Fill::Member(_)));
        Self { fields, needs_members }
    }

    /// The context of a record, of which decoders have made `row`, if there are any.
    ///
    /// # Errors
    /// The record is not what the pipeline works on.
    pub(super) fn context(&self, spec: &ContextSpec, place: &Place, row: Option<&Row>) -> Result<Context> {
        let mut members = match row {
            Some(row) => row.members.clone(),
            None if self.needs_members => members(place.record())?,
            None => Map::new(),
        };
        let (mut json, mut bytes) = (Map::new(), BTreeMap::new());
        for (name, kind, fill) in &self.fields {
            if let (Fill::Member(_), Some(of_row)) = (fill, row.and_then(|row| row.bytes.get(name))) {
                match kind {
                    FieldType::Bytes => drop(bytes.insert(name.clone(), of_row.clone())),
                    _ => drop(json.insert(name.clone(), String::from_utf8_lossy(of_row).into_owned().into())),
                }
                continue;
            }
            let part = match fill {
                Fill::Part(part) => part,
                Fill::Member(called) => match (members.shift_remove(name), called) {
                    (Some(value), _) => {
                        json.insert(name.clone(), value);
                        continue;
                    }
                    (None, Some(part)) => part,
                    (None, None) => continue,
                },
            };
            match (part, kind) {
                (RecordPart::Key | RecordPart::Value | RecordPart::Header(_), FieldType::Bytes) => {
                    let shared = Shared { place: place.clone(), part: part.clone() };
                    if shared.part_of_record().is_some() {
                        bytes.insert(name.clone(), Bytes::from_owner(shared));
                    }
                }
                (RecordPart::Value, kind) if *kind != FieldType::Str => {
                    json.insert(name.clone(), parsed(place.record())?);
                }
                _ => {
                    json.insert(name.clone(), as_json(place.record(), part));
                }
            }
        }
        Context::from_parts(spec, json, bytes).map_err(|unfit| {
            let message = format!("the record `{}` does not fit: {unfit}", place.name());
            Error::new(ErrorKind::Data, "unfit-record", message)
        })
    }
}

/// Bytes of a record, which stay in their batch and keep it.
struct Shared {
    place: Place,
    part: RecordPart,
}

impl Shared {
    fn part_of_record(&self) -> Option<&[u8]> {
        raw(self.place.record(), &self.part)
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.part_of_record().unwrap_or_default()
    }
}

fn raw<'a>(record: Record<'a>, part: &RecordPart) -> Option<&'a [u8]> {
    match part {
        RecordPart::Key => record.key(),
        RecordPart::Value => record.value(),
        // Of two with one name the later counts.
        RecordPart::Header(wanted) => record.headers().filter(|(key, _)| key == wanted).last().and_then(|(_, of)| of),
        RecordPart::Topic
        | RecordPart::Partition
        | RecordPart::Offset
        | RecordPart::Timestamp
        | RecordPart::Headers => None,
    }
}

fn as_json(record: Record<'_>, part: &RecordPart) -> Value {
    let text = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
    match part {
        RecordPart::Topic => record.topic().into(),
        RecordPart::Partition => record.partition().into(),
        RecordPart::Offset => record.offset().into(),
        RecordPart::Timestamp => record.timestamp_ms().map_or(Value::Null, |at| Number::from(at).into()),
        RecordPart::Headers => {
            let headers = record.headers().map(|(key, value)| (key.to_owned(), value.map_or(Value::Null, text)));
            Value::Object(headers.collect())
        }
        RecordPart::Key | RecordPart::Value | RecordPart::Header(_) => raw(record, part).map_or(Value::Null, text),
    }
}

fn parsed(record: Record<'_>) -> Result<Value> {
    let value = record.value().unwrap_or(b"null");
    let unreadable = |cause| Error::new(ErrorKind::Data, "undecodable", "the value is not JSON").caused_by(cause);
    serde_json::from_slice(value).map_err(unreadable)
}

fn members(record: Record<'_>) -> Result<Map<String, Value>> {
    match parsed(record)? {
        Value::Object(members) => Ok(members),
        _ => Err(Error::new(ErrorKind::Data, "undecodable", "the value is not a JSON object")
            .hint("fill a field with the whole value: `map: {FIELD: value}`")),
    }
}

/// What a dead letter is made of.
pub(super) struct Letter<'a> {
    pub(super) place: &'a Place,
    pub(super) error: &'a Error,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
}

/// Makes dead letters of records, for the topic `to`. With `whole`, they have the keys and values of their records; else nothing but
/// what says which record it was, and why.
pub(super) fn letters<'a>(to: &str, whole: bool, letters: impl IntoIterator<Item = Letter<'a>>) -> RecordsBuilder {
    let mut batch = RecordsBuilder::default();
    for Letter { place, error, attempt, epoch } in letters {
        let record = place.record();
        let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
        let (reason, attempt, epoch) = (error.to_string(), attempt.to_string(), epoch.to_string());
        let ours = [
            ("x-error-reason", reason.as_str()),
            ("x-error-code", error.code.as_str()),
            ("x-retry-attempt", &attempt),
            ("source-topic", record.topic()),
            ("partition", &partition),
            ("offset", &offset),
            ("epoch", &epoch),
        ];
        let ours = ours.into_iter().map(|(key, value)| (key, Some(value.as_bytes())));
        let letter = NewRecord {
            topic: to,
            key: record.key().filter(|_| whole),
            value: record.value().filter(|_| whole),
            ..NewRecord::default()
        };
        batch.push(letter, record.headers().chain(ours));
    }
    batch
}
