//! `jetstream_source`: a stream of JetStream, read through a durable consumer.
//!
//! [`durable`] is the consumer: what it is to be, and making it. [`reader`] asks for messages and tells what happens;
//! [`requests`] is what it has asked for, [`fetched`] what has come. [`acks`] says what became of them, and waits until the server has heard it. [`delivery`] reads what a message says of
//! itself.
//!
//! The server keeps count of what is not acknowledged, and sends it again when nothing was heard of it for `ack_wait`. So
//! nothing is lost whatever ends this process: what was never given to the host is said to be so when the source is closed, and
//! comes again at once; the rest comes after that time.

mod acks;
mod delivery;
mod durable;
mod fetched;
mod reader;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::AckKind;
use pype_plugin::prelude::*;
use pype_plugin::stream::{Acknowledge, Acknowledged, Acknowledgement, Partition, Records, StreamEvent};
use tokio::sync::Notify;

use self::acks::Acks;
use self::delivery::KeyFrom;
use self::durable::{Deliver, Durable};
use self::fetched::Limits;
use self::reader::Reader;
use crate::connection::{Connection, Servers};
use crate::send::Message;

/// What a subscription holds that is not read at once; what goes beyond is dropped.
const LARGEST_BATCH: usize = 16_384;

/// Configs of `jetstream_source`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(flatten)]
    servers: Servers,
    /// The stream.
    stream: String,
    /// The durable consumer, which remembers what was acknowledged. Sources that name the same one share its messages.
    durable: String,
    /// Only messages of these subjects, with wildcards if you like. More than one needs a server of version 2.10.
    #[serde(default)]
    filter_subjects: Vec<String>,
    /// Where a durable begins that is not there yet.
    #[serde(default)]
    deliver_policy: Deliver,
    /// A message of which nothing is heard for so long comes again; 30000 if a durable is made.
    #[serde(default)]
    ack_wait_ms: Option<NonZeroU64>,
    /// No more messages come while so many are not acknowledged; 65536 if a durable is made. More than twice as many as are
    /// worked on at a time, or batches never fill.
    #[serde(default)]
    max_ack_pending: Option<NonZeroU64>,
    /// A message comes so many times at most; -1, which is for ever, if a durable is made.
    #[serde(default)]
    max_deliver: Option<i64>,
    /// So many messages are asked for at a time.
    #[serde(default = "default_batch")]
    batch: NonZeroUsize,
    /// Or so many bytes.
    #[serde(default = "default_bytes")]
    max_bytes: NonZeroUsize,
    /// What records have as their key: `subject`, `token:N` (a part of the subject, the first is 1) or `header:NAME`. Without
    /// it they have none.
    #[serde(default)]
    key: Option<String>,
    /// Whether the durable is made if it is not there, and changed if `ack_wait_ms`, `max_ack_pending` or `max_deliver` say
    /// something else than it does.
    #[serde(default = "yes")]
    create: bool,
}

fn default_batch() -> NonZeroUsize {
    NonZeroUsize::new(1000).expect("not zero")
}

fn default_bytes() -> NonZeroUsize {
    NonZeroUsize::new(8 << 20).expect("not zero")
}

fn yes() -> bool {
    true
}

/// A reader of a stream.
pub(crate) struct JetStreamSource {
    connection: Arc<Connection>,
    // Polled by one caller at a time, which holds it while it waits.
    reader: tokio::sync::Mutex<Reader>,
    acks: Acks,
    desk: Arc<Desk>,
    partition: Partition,
}

/// What the reader and those who acknowledge have in common.
#[derive(Default)]
struct Desk {
    /// Where to say what became of a record, by its sequence: of the delivery that came last. The server bounds it by
    /// `max_ack_pending`.
    replies: Mutex<HashMap<u64, Subject>>,
    held: AtomicBool,
    /// Tells the reader that it is not held any more.
    changed: Notify,
}

impl Desk {
    fn replies(&self) -> MutexGuard<'_, HashMap<u64, Subject>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamSource for JetStreamSource {
    const NAME: &str = "jetstream_source";
    const DESCRIPTION: &str = "Reads a stream of JetStream through a durable consumer";
    const CATEGORY: &str = "NATS";
    const PACKAGES: &[&str] = &["async-nats"];
    const ACKNOWLEDGE: Acknowledge = Acknowledge::EachRecord;
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let limits = Limits::of(&config)?;
        let connection = Connection::open(&config.servers).await?;
        let partition = Partition { topic: config.stream.clone(), partition: 0 };
        let durable = Durable::of(&config, connection.clone())?;
        let acks = Acks::open(connection.clone()).await?;
        let desk = Arc::new(Desk::default());
        let reader = Reader::open(durable, limits, desk.clone()).await?;
        Ok(Self { connection, reader: tokio::sync::Mutex::new(reader), acks, desk, partition })
    }

    async fn poll(&self, wait: Duration, _: &Context) -> Result<Option<StreamEvent>> {
        self.reader.lock().await.next(wait).await
    }

    async fn acknowledge(&self, verdicts: Vec<Acknowledgement>, _: &Context) -> Result<()> {
        let (mut sequences, mut said) = (Vec::with_capacity(verdicts.len()), Vec::with_capacity(verdicts.len()));
        {
            let replies = self.desk.replies();
            for Acknowledgement { partition, offset, verdict } in verdicts {
                let sequence = u64::try_from(offset).ok().filter(|_| partition == self.partition);
                // What is not known was acknowledged before, or is the lost consumer's: then it comes again.
                let Some((sequence, reply)) = sequence.and_then(|of| Some((of, replies.get(&of)?))) else { continue };
                sequences.push((sequence, verdict));
                said.push((reply.clone(), kind(verdict).into()));
            }
        }
        let heard = self.acks.say(&said).await;
        let mut replies = self.desk.replies();
        for (((sequence, verdict), (reply, _)), heard) in sequences.iter().zip(&said).zip(&heard.confirmed) {
            // Meanwhile it may have come again, and then it is that delivery's answer that the host still owes.
            if *heard && *verdict != Acknowledged::Working && replies.get(sequence) == Some(reply) {
                replies.remove(sequence);
            }
        }
        heard.outcome(&self.partition.topic)
    }

    async fn hold(&self, partitions: Vec<Partition>, held: bool, _: &Context) -> Result<()> {
        if partitions.contains(&self.partition) {
            self.desk.held.store(held, Ordering::Release);
            self.desk.changed.notify_one();
        }
        Ok(())
    }

    async fn publish(&self, records: Frame, _: &Context) -> Result<()> {
        self.connection.store_all(messages(&records).await?).await.map(drop)
    }

    async fn announce(&self, records: Frame, _: &Context) -> Result<()> {
        // What is published without a connection would be kept, and sent as often as it was tried.
        if !self.connection.is_connected() {
            return Err(self.connection.unreachable("publish an alert"));
        }
        self.connection.publish_all(messages(&records).await?).await.map(drop)
    }

    async fn close(&mut self, _: &Context) -> Result<()> {
        let unread = self.reader.get_mut().stop().await;
        let again: Vec<_> = unread.into_iter().map(|reply| (reply, AckKind::Nak(None).into())).collect();
        if let Err(error) = self.acks.say(&again).await.outcome(&self.partition.topic) {
            tracing::warn!("{} records that were not looked at come again later only: {error}", again.len());
        }
        Ok(())
    }
}

async fn messages(records: &Frame) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for records in Records::read(records).await? {
        for record in records.iter() {
            messages.push(Message::of_record(record)?);
        }
    }
    Ok(messages)
}

fn kind(verdict: Acknowledged) -> AckKind {
    match verdict {
        Acknowledged::Done => AckKind::Ack,
        Acknowledged::Working => AckKind::Progress,
        Acknowledged::Again => AckKind::Nak(None),
        Acknowledged::Terminated => AckKind::Term,
    }
}

impl Limits {
    fn of(config: &Config) -> Result<Self> {
        let batch = config.batch.get();
        if batch > LARGEST_BATCH {
            let message = format!("`batch`: {batch} are more than {LARGEST_BATCH}");
            return Err(Error::new(ErrorKind::Config, "large-batch", message));
        }
        let key = config.key.as_deref().map(KeyFrom::parse).transpose()?;
        Ok(Self { batch, bytes: config.max_bytes.get(), key })
    }
}
