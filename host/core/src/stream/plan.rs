//! A stream that can be run.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use indexmap::IndexMap;
use serde::de::Error;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::admission::Limits;
use super::control::{Acknowledge, Options};
use super::lanes::Ordering;
use super::quantity::{ByteSize, Interval, Listen};
use crate::catalog::ModuleEntry;
use crate::document::{Source, SpanMap, Spanned};
use crate::flow;
pub use crate::form::meta::About;
use crate::name::{FieldName, ModuleName, NameError, NodeId, StreamName, TopicName, Version};
use crate::retry::Retry;

/// A stream that can be run. Only [`super::load_and_plan`] makes one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The name of the stream.
    pub name: StreamName,
    /// The version of the stream.
    pub version: Version,
    /// Who wrote it, what for.
    #[serde(flatten)]
    pub about: About,
    /// Where its records come from: a source without end.
    pub source: Module,
    /// What they go through first, in this order: each a mod with one input and one output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decode: Vec<Module>,
    /// When what failed is tried again.
    pub retry: Retry,
    /// Where records go that could not be handled. Without it the first of them stops the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Where it is told what somebody should look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<TopicName>,
    /// How often positions are committed.
    #[serde(rename = "commit_interval_s", serialize_with = "seconds")]
    pub commit_interval: Duration,
    /// Where metrics are served, if anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Listen>,
    /// What is done with the records.
    pub handle: Handle,
    /// How the stream ends.
    pub settings: Settings,
    /// The document that the spans belong to.
    #[serde(skip)]
    pub document: Source,
}

/// A module of a stream outside its batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its id in the stream: `source`, or that of a decoder.
    pub id: NodeId,
    /// The module it is an instance of.
    pub module: ModuleName,
    /// That module, as the catalog described it.
    pub entry: ModuleEntry,
    /// Its configs, `required` and `optional` in one object. Templates are not filled in.
    pub configs: Value,
    /// Where the values of `configs` stand in the document.
    pub spans: SpanMap,
}

/// What is done with the records.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Handle {
    /// A pipeline, once a record.
    Pipeline(PerRecord),
    /// Mods and sinks, once a batch.
    Batch(Box<PerBatch>),
}

/// How a pipeline handles records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerRecord {
    /// The document of the pipeline, as it is written: relative to the folder of this document.
    #[serde(serialize_with = "without_span")]
    pub path: Spanned<String>,
    /// Which part of a record each field of the context is. Empty: the value is a JSON object, whose members are the fields.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub map: IndexMap<FieldName, RecordPart>,
    /// How many at a time, and which not.
    pub parallel: Parallel,
}

/// How many records are handled at a time, and which not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parallel {
    /// Which records run one after the other.
    pub ordering: Ordering,
    /// How many are handled at a time, and how many of a partition are under way before it pauses.
    pub max_in_flight: NonZeroUsize,
    /// Where they are handled.
    pub engine: Engine,
    /// How many child processes there are; absent: as many as cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<NonZeroUsize>,
    /// After how many records a child process gives way to a new one; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycle_after: Option<NonZeroU64>,
    /// The bound of one attempt at a record.
    #[serde(rename = "timeout_s", serialize_with = "seconds")]
    pub timeout: Duration,
}

impl Default for Parallel {
    fn default() -> Self {
        Parallel {
            ordering: Ordering::Key,
            max_in_flight: NonZeroUsize::new(1000).expect("a thousand is not zero"),
            engine: Engine::Async,
            workers: None,
            recycle_after: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Where records are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In the host.
    Async,
    /// In child processes.
    Process,
}

/// A part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordPart {
    /// Its key.
    Key,
    /// Its value.
    Value,
    /// The topic it was read from.
    Topic,
    /// The partition it was read from.
    Partition,
    /// Its offset, or sequence number.
    Offset,
    /// When it was written.
    Timestamp,
    /// All its headers.
    Headers,
    /// The header of this name.
    Header(String),
}

impl RecordPart {
    pub(super) const PATTERN: &str = "^(key|value|topic|partition|offset|timestamp|headers([.][^\\s]+)?)$";
    const PLAIN: [(&str, RecordPart); 7] = [
        ("key", RecordPart::Key),
        ("value", RecordPart::Value),
        ("topic", RecordPart::Topic),
        ("partition", RecordPart::Partition),
        ("offset", RecordPart::Offset),
        ("timestamp", RecordPart::Timestamp),
        ("headers", RecordPart::Headers),
    ];
}

impl FromStr for RecordPart {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let header =
            text.strip_prefix("headers.").filter(|name| !name.is_empty() && !name.contains(char::is_whitespace));
        let plain = RecordPart::PLAIN.into_iter().find(|(name, _)| *name == text).map(|(_, part)| part);
        let rule = "`key`, `value`, `topic`, `partition`, `offset`, `timestamp`, `headers` or `headers.NAME`";
        let part = header.map(|name| RecordPart::Header(name.to_owned())).or(plain);
        part.ok_or_else(|| NameError { what: "part of a record", given: text.to_owned(), rule })
    }
}

impl Serialize for RecordPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let RecordPart::Header(name) = self {
            return serializer.collect_str(&format_args!("headers.{name}"));
        }
        let plain = RecordPart::PLAIN.iter().find(|(_, part)| part == self).map_or("", |(name, _)| name);
        serializer.serialize_str(plain)
    }
}

impl<'de> Deserialize<'de> for RecordPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How mods and sinks handle batches.
#[derive(Debug, Clone, PartialEq)]
pub struct PerBatch {
    /// A batch has no more records.
    pub rows: NonZeroU64,
    /// A batch has no more bytes, but for its last record.
    pub bytes: ByteSize,
    /// A batch is no older.
    pub interval: Interval,
    /// The modules, as one sub flow. Its node `source` stands for the records, which come out of its port `records`; all
    /// others are mods and sinks.
    pub flow: flow::plan::Plan,
}

/// Where records go that could not be handled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// A topic of Kafka, or a subject of JetStream.
    pub topic: TopicName,
    /// What is published.
    pub payload: Payload,
    /// How long its confirmation is waited for.
    #[serde(rename = "timeout_s", serialize_with = "seconds")]
    pub timeout: Duration,
}

/// What is published of a record that could not be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The record, and why it failed.
    Full,
    /// Where it stands, and why it failed.
    MetadataOnly,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// How long what runs of a partition may go on when it is given away.
    #[serde(rename = "revoke_grace_s", serialize_with = "seconds")]
    pub revoke_grace: Duration,
    /// How long what runs may go on when the stream is told to stop.
    #[serde(rename = "drain_s", serialize_with = "seconds")]
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { revoke_grace: Duration::from_millis(500), drain: Duration::from_secs(5) }
    }
}

/// How streams try again what failed, if they do not say it.
pub(super) fn usual_retry() -> Retry {
    Retry {
        attempts: NonZeroU32::new(3).expect("three is not zero"),
        backoff: 2.0,
        delay_ms: 1000,
        max_delay_ms: 30_000,
        jitter: 0.0,
        jitter_ms: 200,
        ..Retry::default()
    }
}

impl Plan {
    /// How its records are handled one by one; `None` if they are not. `seed` is a random number, see [`Options::seed`].
    #[must_use]
    pub fn options(&self, acknowledge: Acknowledge, seed: u64) -> Option<Options> {
        let Handle::Pipeline(PerRecord { parallel, .. }) = &self.handle else { return None };
        Some(Options {
            ordering: parallel.ordering,
            acknowledge,
            limits: Limits::of(parallel.max_in_flight),
            retry: self.retry,
            dead_letters: self.dead_letter.is_some(),
            seed,
        })
    }
}

/// What a person wants to know of it: neither the module's whole entry nor where its configs stand.
impl Serialize for Module {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut module = serializer.serialize_struct("Module", 3)?;
        module.serialize_field("id", &self.id)?;
        module.serialize_field("module", &self.module)?;
        module.serialize_field("configs", &self.configs)?;
        module.end()
    }
}

/// The same of its modules.
impl Serialize for PerBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut batch = serializer.serialize_struct("PerBatch", 5)?;
        batch.serialize_field("rows", &self.rows)?;
        batch.serialize_field("bytes", &self.bytes)?;
        batch.serialize_field("interval_s", &self.interval)?;
        let module = |node: &flow::plan::PlannedNode| serde_json::json!({"id": node.id, "module": node.module, "configs": node.configs});
        let modules = self.flow.nodes().iter().filter(|node| node.id.as_str() != super::SOURCE);
        batch.serialize_field("modules", &modules.map(module).collect::<Vec<_>>())?;
        let edge = |edge: &flow::plan::DataEdge| format!("{} - {}", edge.from, edge.to);
        batch.serialize_field("connections", &self.flow.data_edges().iter().map(edge).collect::<Vec<_>>())?;
        batch.end()
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    time.as_secs_f64().serialize(serializer)
}

fn without_span<S: Serializer>(path: &Spanned<String>, serializer: S) -> Result<S::Ok, S::Error> {
    path.value.serialize(serializer)
}
