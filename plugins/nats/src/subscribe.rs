//! `nats_subscribe`: the messages of a subject, for as long or as many as a flow asks for.
//!
//! NATS keeps nothing for those who do not listen: what is published before the module runs, or while its connection is
//! lost, is not among its rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::RecordBatch;
use arrow_array::builder::{BinaryBuilder, StringBuilder, TimestampMillisecondBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::StreamExt;
use pype_plugin::prelude::*;
use tokio::time::Instant;

use crate::connection::{Connection, Servers};
use crate::subject;

/// A batch is full with so many rows, or with so many bytes.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 64 << 20;

pub(crate) struct NatsSubscribe {
    connection: Arc<Connection>,
    bounds: Bounds,
    config: Config,
}

/// What to listen to, and for how long. `messages` or `for_s` must be there. The rows are kept in memory until the last has
/// come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(flatten)]
    servers: Servers,
    /// The subject, with wildcards if you like: `orders.*`, `orders.>`.
    subject: String,
    /// Of those that listen with the same name, one gets each message.
    #[serde(default)]
    queue_group: Option<String>,
    /// After so many messages it is done.
    #[serde(default)]
    messages: Option<usize>,
    /// After so many seconds it is done.
    #[serde(default)]
    for_s: Option<f64>,
    /// When no message has come for so many seconds it is done.
    #[serde(default)]
    idle_s: Option<f64>,
}

/// When it is enough.
#[derive(Clone, Copy)]
struct Bounds {
    messages: Option<usize>,
    whole: Option<Duration>,
    idle: Option<Duration>,
}

impl Source for NatsSubscribe {
    const NAME: &'static str = "nats_subscribe";
    const DESCRIPTION: &'static str = "Listens to a subject of NATS for a while, and gives each message as a row";
    const CATEGORY: &'static str = "Messages";
    const PACKAGES: &'static [&'static str] = &["async-nats"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        subject::check(&config.subject)?;
        if config.queue_group.as_ref().is_some_and(|group| group.is_empty() || group.contains(char::is_whitespace)) {
            let message = "`queue_group` is empty or holds a space";
            return Err(Error::new(ErrorKind::Config, "bad-queue-group", message));
        }
        let bounds = Bounds::of(&config)?;
        Ok(Self { connection: Connection::open(&config.servers).await?, bounds, config })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let mut subscriber = self.subscribe().await?;
        let start = Instant::now();
        let mut rows = Rows::default();
        while self.bounds.messages.is_none_or(|messages| rows.count < messages) {
            let end = self.bounds.next_end(start, Instant::now());
            let Some(message) = next(&mut subscriber, end, ctx).await? else { break };
            rows.push(&message)?;
            ctx.progress(rows.count as u64);
        }
        Ok(Outputs::one("data", Frame::from_record_batches(schema(), rows.into_batches()?)))
    }
}

impl NatsSubscribe {
    async fn subscribe(&self) -> Result<Subscriber> {
        let Config { subject, queue_group, .. } = &self.config;
        let doing = format!("subscribe to `{subject}`");
        let client = self.connection.client();
        match queue_group {
            Some(group) => self.connection.step(&doing, client.queue_subscribe(subject.clone(), group.clone())).await,
            None => self.connection.step(&doing, client.subscribe(subject.clone())).await,
        }
    }
}

impl Bounds {
    fn of(config: &Config) -> Result<Self> {
        let duration = |name: &str, seconds: Option<f64>| {
            seconds.map(Duration::try_from_secs_f64).transpose().map_err(|cause| {
                Error::new(ErrorKind::Config, "bad-duration", format!("`{name}` is no time to wait")).caused_by(cause)
            })
        };
        if config.messages.is_none() && config.for_s.is_none() {
            let message = "without `messages` or `for_s` it would never end";
            return Err(Error::new(ErrorKind::Config, "unbounded", message).hint("say when it is enough"));
        }
        let (whole, idle) = (duration("for_s", config.for_s)?, duration("idle_s", config.idle_s)?);
        Ok(Self { messages: config.messages, whole, idle })
    }

    /// Until when the next message is waited for.
    fn next_end(self, start: Instant, now: Instant) -> Option<Instant> {
        // One so far off that clocks do not have it is none.
        let whole = self.whole.and_then(|whole| start.checked_add(whole));
        let idle = self.idle.and_then(|idle| now.checked_add(idle));
        whole.into_iter().chain(idle).min()
    }
}

/// The next message; `None` when it is enough.
async fn next(subscriber: &mut Subscriber, end: Option<Instant>, ctx: &Context) -> Result<Option<Message>> {
    let enough = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // In this order, so that a time that is short ends with what has come.
        biased;
        () = ctx.cancelled() => Err(Error::cancelled()),
        message = subscriber.next() => Ok(message),
        () = enough => Ok(None),
    }
}

/// Messages as they come.
#[derive(Default)]
struct Rows {
    count: usize,
    full: Vec<RecordBatch>,
    /// In the batch that is not full yet.
    rows: usize,
    bytes: usize,
    subjects: StringBuilder,
    values: BinaryBuilder,
    headers: StringBuilder,
    received: TimestampMillisecondBuilder,
}

impl Rows {
    fn push(&mut self, message: &Message) -> Result<()> {
        self.subjects.append_value(&message.subject);
        self.values.append_value(&message.payload);
        self.headers.append_option(message.headers.as_ref().map(json).transpose()?);
        self.received.append_value(now_ms());
        self.count += 1;
        self.rows += 1;
        self.bytes += message.length;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.end_batch() } else { Ok(()) }
    }

    fn end_batch(&mut self) -> Result<()> {
        (self.rows, self.bytes) = (0, 0);
        let batch = RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(self.subjects.finish()),
                Arc::new(self.values.finish()),
                Arc::new(self.headers.finish()),
                Arc::new(self.received.finish().with_timezone("UTC")),
            ],
        )?;
        self.full.push(batch);
        Ok(())
    }

    fn into_batches(mut self) -> Result<Vec<RecordBatch>> {
        if self.rows > 0 {
            self.end_batch()?;
        }
        Ok(self.full)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("subject", DataType::Utf8, false),
        Field::new("value", DataType::Binary, false),
        // A JSON object: to each name the list of its values.
        Field::new("headers", DataType::Utf8, true),
        // By the clock of this machine.
        Field::new("received", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
    ]))
}

fn json(headers: &HeaderMap) -> Result<String> {
    let names = headers.iter().map(|(name, values)| {
        let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
        let name: &str = name.as_ref();
        (name, values)
    });
    Ok(serde_json::to_string(&names.collect::<BTreeMap<_, _>>())?)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
