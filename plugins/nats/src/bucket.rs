//! Keys and values on the servers, changed by compare-and-set: a stream with one message per key, laid out as a bucket of
//! NATS' key/value store, so that its tools can look into it (`nats kv ls NAME-jobs`).

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{
    Config, DeleteMessageErrorKind, DirectGetBuilder, DirectGetErrorKind, LastRawMessageErrorKind, RawMessageBuilder,
    StorageType, Stream,
};
use async_nats::jetstream::{ErrorCode, Message};
use bytes::Bytes;
use pype_plugin::Result;

use crate::connection::Connection;

const READ: &str = "read what is kept of a job";
const READ_ALL: &str = "look at all jobs";
const WRITE: &str = "write what is kept of a job";
const REMOVE: &str = "remove what is kept of a job";
/// What the server calls `JSStreamMsgDeleteFailedF`, and the client has no name for.
const MESSAGE_DELETE_FAILED: ErrorCode = ErrorCode(10057);
/// A consumer whose reader is gone is removed after so long.
const ABANDONED: Duration = Duration::from_secs(30);

pub(crate) struct Bucket {
    connection: Arc<Connection>,
    stream: Stream,
    prefix: String,
}

/// A value, as it is at the moment.
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    /// Larger than that of any earlier change of the bucket.
    pub(crate) revision: u64,
    /// When it was written, by the clock of the server, in milliseconds since 1970.
    pub(crate) written_ms: u64,
}

impl Bucket {
    pub(crate) async fn open(connection: Arc<Connection>, name: &str, replicas: usize) -> Result<Self> {
        let prefix = format!("$KV.{name}.");
        let config = Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("{prefix}>")],
            max_messages_per_subject: 1,
            storage: StorageType::File,
            num_replicas: replicas,
            allow_rollup: true,
            // A replica that lags behind does not know what was just written. Only the leader may answer then.
            allow_direct: replicas == 1,
            ..Config::default()
        };
        let stream = connection.open_stream(config).await?;
        Ok(Self { connection, stream, prefix })
    }

    /// Writes a value if there is none, and gives its revision.
    pub(crate) async fn create(&self, key: &str, value: Bytes) -> Result<Option<u64>> {
        self.update(key, value, 0).await
    }

    /// Writes a value if the last one still has this revision, and gives the new one.
    pub(crate) async fn update(&self, key: &str, value: Bytes, revision: u64) -> Result<Option<u64>> {
        let size = value.len();
        let message = PublishMessage::build().payload(value).expected_last_subject_sequence(revision);
        self.connection.store(WRITE, format!("{}{key}", self.prefix), message, size).await
    }

    /// Writes a value, whatever there was.
    pub(crate) async fn put(&self, key: &str, value: Bytes) -> Result<u64> {
        let size = value.len();
        let message = PublishMessage::build().payload(value);
        let stored = self.connection.store(WRITE, format!("{}{key}", self.prefix), message, size).await?;
        Ok(stored.expect("nothing was asked that may not hold"))
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let subject = format!("{}{key}", self.prefix);
        match self.is_direct() {
            true => self.direct(self.stream.direct_get_builder().last_by_subject(subject)).await,
            false => self.of_leader(self.stream.raw_message_builder().last_by_subject(subject)).await,
        }
    }

    /// The value that was written with this revision, if it is still the last of its key.
    pub(crate) async fn at(&self, revision: u64) -> Result<Option<Entry>> {
        match self.is_direct() {
            true => self.direct(self.stream.direct_get_builder().sequence(revision)).await,
            false => self.of_leader(self.stream.raw_message_builder().sequence(revision)).await,
        }
    }

    /// The entry that was written first, of those whose keys `filter` (with wildcards) covers.
    pub(crate) async fn first(&self, filter: &str) -> Result<Option<Entry>> {
        let subject = format!("{}{filter}", self.prefix);
        match self.is_direct() {
            true => self.direct(self.stream.direct_get_builder().sequence(1).next_by_subject(subject)).await,
            false => self.of_leader(self.stream.raw_message_builder().sequence(1).next_by_subject(subject)).await,
        }
    }

    /// Removes the value that was written with this revision, without a trace; whether it was still there.
    pub(crate) async fn remove(&self, revision: u64) -> Result<bool> {
        let removed = self.connection.within(REMOVE, self.stream.delete_message(revision)).await?;
        let Err(cause) = removed else { return Ok(true) };
        match cause.kind() {
            DeleteMessageErrorKind::JetStream(refusal) => match refusal.error_code() {
                ErrorCode::SEQUENCE_NOT_FOUND => Ok(false),
                // That is what is said of older ones.
                MESSAGE_DELETE_FAILED if self.at(revision).await?.is_none() => Ok(false),
                _ => Err(self.connection.refused(REMOVE, &refusal)),
            },
            DeleteMessageErrorKind::Request | DeleteMessageErrorKind::TimedOut => {
                Err(self.connection.failed(REMOVE, &cause))
            }
        }
    }

    /// All entries whose keys `filter` (with wildcards) covers, each as it was at some time since the call. What changes
    /// meanwhile may come twice, as it is later the second time.
    pub(crate) async fn scan(&self, filter: &str) -> Result<Vec<Entry>> {
        let config = pull::Config {
            filter_subject: format!("{}{filter}", self.prefix),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: ABANDONED,
            ..pull::Config::default()
        };
        let stream = &self.stream.cached_info().config.name;
        let consumer = self.connection.open_consumer(stream, config).await?;
        let messages = self.connection.pull_all(stream, &consumer).await?;
        self.connection.step(READ_ALL, self.stream.delete_consumer(&consumer)).await?;
        messages.into_iter().map(|message| self.delivered(message)).collect()
    }

    fn delivered(&self, message: Message) -> Result<Entry> {
        let info = message.info().map_err(|cause| self.connection.failed(READ_ALL, &*cause))?;
        let (revision, written_ms) = (info.stream_sequence, milliseconds(info.published.unix_timestamp_nanos()));
        Ok(Entry { value: message.message.payload, revision, written_ms })
    }

    /// Whether whoever answers first knows all that was written.
    fn is_direct(&self) -> bool {
        self.stream.cached_info().config.allow_direct
    }

    async fn direct(&self, get: DirectGetBuilder) -> Result<Option<Entry>> {
        match self.connection.within(READ, get.send()).await? {
            Ok(message) => Ok(Some(message.into())),
            Err(cause) if cause.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.connection.failed(READ, &cause)),
        }
    }

    async fn of_leader(&self, get: RawMessageBuilder) -> Result<Option<Entry>> {
        let cause = match self.connection.within(READ, get.send()).await? {
            Ok(message) => return Ok(Some(message.into())),
            Err(cause) => cause,
        };
        match cause.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(refusal) => Err(self.connection.refused(READ, &refusal)),
            LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
                Err(self.connection.failed(READ, &cause))
            }
        }
    }
}

impl From<StreamMessage> for Entry {
    fn from(message: StreamMessage) -> Self {
        let written_ms = milliseconds(message.time.unix_timestamp_nanos());
        Self { value: message.payload, revision: message.sequence, written_ms }
    }
}

fn milliseconds(nanoseconds: i128) -> u64 {
    u64::try_from(nanoseconds / 1_000_000).unwrap_or_default()
}
