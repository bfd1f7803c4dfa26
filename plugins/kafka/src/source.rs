//! `kafka_source`: a member of a consumer group.

use std::num::NonZeroU32;
use std::sync::{Arc, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pype_plugin::prelude::*;
use pype_plugin::stream::{Acknowledge, Committed, Partition, Position, Records, StreamEvent};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use tokio::sync::{Mutex, OnceCell, mpsc, oneshot};

use crate::config::{Connection, failed};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::rebalance::{Command, Consumer, Event, Watch};

/// So many batches wait for the host.
const BATCHES_AHEAD: usize = 2;
/// So many requests wait for the thread.
const REQUESTS: usize = 1024;
/// How long brokers may take to say which topics there are.
const METADATA: Duration = Duration::from_secs(15);
/// How long a consumer listens to what has happened.
const HEARING: Duration = Duration::from_millis(100);

/// Configs of `kafka_source`.
#[derive(Clone, Deserialize, JsonSchema)]
pub(crate) struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// The consumer group.
    group: String,
    /// The topics; one that begins with `^` is a pattern.
    topics: Vec<String>,
    /// Where to start in a partition of which the group has committed nothing.
    #[serde(default)]
    offset_reset: OffsetReset,
    /// How partitions are shared out.
    #[serde(default)]
    rebalance: Protocol,
    /// A name of this member that is the same after a restart, so that a short one causes no rebalance.
    #[serde(default)]
    instance_id: Option<String>,
    /// After so long without a sign of it, a member's partitions are given to others.
    #[serde(default = "default_session")]
    session_timeout_ms: NonZeroU32,
    /// A rebalance waits so long at most for what is under way.
    #[serde(default = "default_revoke")]
    revoke_timeout_ms: u32,
    /// So much is fetched ahead, in KiB.
    #[serde(default = "default_prefetch")]
    prefetch_kib: NonZeroU32,
    /// Whether records of transactions that were aborted, or are still open, are read too.
    #[serde(default)]
    read_uncommitted: bool,
}

fn default_session() -> NonZeroU32 {
    NonZeroU32::new(45_000).expect("not zero")
}

fn default_revoke() -> u32 {
    30_000
}

fn default_prefetch() -> NonZeroU32 {
    NonZeroU32::new(32 * 1024).expect("not zero")
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OffsetReset {
    /// At its first record.
    #[default]
    Earliest,
    /// At the next record that comes.
    Latest,
    /// Nowhere: it is an error.
    Error,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Protocol {
    /// Members keep what they have but for what others need.
    #[default]
    Cooperative,
    /// Members give up everything, and get their share anew.
    Eager,
    /// The broker decides (KIP-848, Kafka 4).
    Broker,
}

impl Config {
    fn client(&self) -> Result<ClientConfig> {
        let mut client = self.connection.client()?;
        let committed = if self.read_uncommitted { "read_uncommitted" } else { "read_committed" };
        let reset = match self.offset_reset {
            OffsetReset::Earliest => "earliest",
            OffsetReset::Latest => "latest",
            OffsetReset::Error => "error",
        };
        client
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", reset)
            .set("isolation.level", committed)
            .set("statistics.interval.ms", "500")
            .set("queued.max.messages.kbytes", self.prefetch_kib.to_string());
        if !self.connection.properties.contains_key("fetch.queue.backoff.ms") {
            // A full queue is looked at again so soon; a second, which is the default, is far too long.
            client.set("fetch.queue.backoff.ms", "20");
        }
        match self.rebalance {
            Protocol::Cooperative => client.set("partition.assignment.strategy", "cooperative-sticky"),
            Protocol::Eager => client.set("partition.assignment.strategy", "range,roundrobin"),
            Protocol::Broker => client.set("group.protocol", "consumer"),
        };
        if !matches!(self.rebalance, Protocol::Broker) {
            client.set("session.timeout.ms", self.session_timeout_ms.to_string());
        }
        if let Some(id) = &self.instance_id {
            client.set("group.instance.id", id);
        }
        Ok(client)
    }
}

/// A member of a consumer group.
pub(crate) struct KafkaSource {
    config: Config,
    // Polled by one caller at a time, which holds it while it waits.
    events: Mutex<mpsc::Receiver<Event>>,
    commands: blocking::SyncSender<Command>,
    reader: Option<JoinHandle<()>>,
    /// Made when the first record is published.
    producer: OnceCell<Producer>,
}

impl StreamSource for KafkaSource {
    const NAME: &str = "kafka_source";
    const DESCRIPTION: &str = "Reads topics as a member of a Kafka consumer group.";
    const CATEGORY: &str = "Kafka";
    const PACKAGES: &[&str] = &["rdkafka"];
    const ACKNOWLEDGE: Acknowledge = Acknowledge::Offsets;
    type Config = Config;

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        if config.topics.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no-topics", "`topics` names no topic"));
        }
        let (event, events) = mpsc::channel(BATCHES_AHEAD);
        let (commands, command) = blocking::sync_channel(REQUESTS);
        let patience = Duration::from_millis(config.revoke_timeout_ms.into());
        let watch = Watch::new(event, command, patience, !config.read_uncommitted);
        let of = config.clone();
        let consumer = ctx.run_blocking(move || subscribed(&of, watch)).await?;
        let reader = std::thread::Builder::new().name("kafka_source".to_owned());
        let reader = reader.spawn(move || Reader::new(consumer).run())?;
        let producer = OnceCell::new();
        Ok(Self { config, events: Mutex::new(events), commands, reader: Some(reader), producer })
    }

    async fn poll(&self, wait: Duration, _: &Context) -> Result<Option<StreamEvent>> {
        let mut events = self.events.lock().await;
        match tokio::time::timeout(wait, events.recv()).await {
            Ok(Some(event)) => {
                self.wake();
                event.map(Some)
            }
            Ok(None) => Err(gone()),
            Err(_) => Ok(None),
        }
    }

    async fn commit(&self, positions: Vec<Position>, _: &Context) -> Result<Vec<Committed>> {
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Commit { positions, answer })?;
        answered.await.map_err(|_| gone())
    }

    async fn hold(&self, partitions: Vec<Partition>, held: bool, _: &Context) -> Result<()> {
        self.ask(Command::Hold { partitions, held })
    }

    async fn release(&self, partitions: Vec<Partition>, _: &Context) -> Result<()> {
        self.ask(Command::Release { partitions })
    }

    async fn publish(&self, records: Frame, _: &Context) -> Result<()> {
        let records = Records::read(&records).await?;
        let producer = self.producer.get_or_try_init(async || Producer::new(&self.config.connection)).await?;
        producer.send(&records).await
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        // A thread that is gone needs not be told.
        drop(self.ask(Command::Close));
        let (reader, producer) = (self.reader.take(), self.producer.take());
        let end = move || {
            let ended = reader.map_or(Ok(()), JoinHandle::join);
            producer.into_iter().for_each(Producer::close);
            ended.map_err(|_| Error::new(ErrorKind::Panicked, "reader-panicked", "the thread that reads has panicked"))
        };
        ctx.run_blocking(end).await
    }
}

impl KafkaSource {
    fn ask(&self, command: Command) -> Result<()> {
        let asked = self.commands.try_send(command).map_err(|refused| match refused {
            blocking::TrySendError::Full(_) => {
                Error::new(ErrorKind::Unavailable, "busy", "too much is asked of the consumer at a time")
                    .retryable(true)
            }
            blocking::TrySendError::Disconnected(_) => gone(),
        });
        self.wake();
        asked
    }

    fn wake(&self) {
        if let Some(reader) = &self.reader {
            reader.thread().unpark();
        }
    }
}

/// Why no broker says which topics there are.
fn not_reached(consumer: &Consumer, brokers: &str, cause: &KafkaError) -> Error {
    // It hears only now what has happened meanwhile.
    let (locked_out, until) = (&consumer.context().locked_out, Instant::now() + HEARING);
    while locked_out.get().is_none() && Instant::now() < until {
        drop(consumer.poll(until.saturating_duration_since(Instant::now())));
    }
    let reach = format!("reach the brokers `{brokers}`");
    match locked_out.get() {
        Some((cause, reason)) => failed(&reach, cause)
            .message(format!("cannot {reach}: {reason}"))
            .hint("check `security`: they do not let this client in, or it does not trust them"),
        None => failed(&reach, cause).hint("check `brokers`, and that one of them runs"),
    }
}

/// A consumer that has subscribed to topics that are there.
fn subscribed(config: &Config, watch: Watch) -> Result<Arc<Consumer>> {
    let client = config.client()?;
    let mut consumer =
        Consumer::from_config_and_context(&client, watch).map_err(|cause| failed("make a consumer", &cause))?;
    for topic in config.topics.iter().filter(|topic| !topic.starts_with('^')) {
        let known = consumer.fetch_metadata(Some(topic), METADATA);
        let known = known.map_err(|cause| not_reached(&consumer, &config.connection.brokers, &cause))?;
        let error = known.topics().iter().find(|one| one.name() == topic).and_then(|one| one.error());
        if let Some(code) = error {
            let message =
                format!("the topic `{topic}` cannot be read: {}", rdkafka::types::RDKafkaErrorCode::from(code));
            return Err(Error::new(ErrorKind::NotFound, "unknown-topic", message)
                .hint("create it, or correct its name in `topics`"));
        }
    }
    let context = consumer.context().clone();
    consumer.set_nonempty_callback(move || {
        if let Some(thread) = context.thread.get() {
            thread.unpark();
        }
    });
    let consumer = Arc::new(consumer);
    let own = consumer.context().consumer.set(Arc::downgrade(&consumer));
    own.expect("a context has one consumer");
    let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|cause| failed("subscribe", &cause))?;
    Ok(consumer)
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "gone", "the thread that reads is gone")
}
