//! Sends records, and waits until the brokers have confirmed them.

use std::time::Duration;

use pype_plugin::stream::{Record, Records};
use pype_plugin::{Error, ErrorKind, Result};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::config::{Connection, failed};
use crate::rebalance::log_line;

/// How long it waits when librdkafka's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// How long what has been sent may take to leave when it is closed.
const FLUSH: Duration = Duration::from_secs(5);

/// Hands delivery reports to those that wait for them.
struct Reports;

type Report = oneshot::Sender<Result<(), KafkaError>>;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!("{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, report: &DeliveryResult<'_>, waiting: Box<Report>) {
        let outcome = report.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // Whoever waited may be gone by now.
        drop(waiting.send(outcome));
    }
}

/// An idempotent producer.
pub(crate) struct Producer {
    inner: ThreadedProducer<Reports>,
}

impl Producer {
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        let mut client = connection.client()?;
        // In the order of sending, each once, and confirmed by all replicas.
        client.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        if !connection.properties.contains_key("delivery.timeout.ms") {
            client.set("delivery.timeout.ms", "30000");
        }
        let inner = ThreadedProducer::from_config_and_context(&client, Reports);
        Ok(Self { inner: inner.map_err(|cause| failed("make a producer", &cause))? })
    }

    /// Sends records to their topics, and returns when all of them are confirmed.
    pub(crate) async fn send(&self, batches: &[Records]) -> Result<()> {
        let mut waiting = Vec::with_capacity(batches.iter().map(Records::len).sum());
        for record in batches.iter().flat_map(Records::iter) {
            waiting.push((record.topic(), self.enqueue(record, record.topic()).await?));
        }
        for (topic, report) in waiting {
            let outcome = report.await.map_err(|_| {
                Error::new(ErrorKind::Internal, "no-report", "a delivery report got lost").retryable(true)
            })?;
            outcome.map_err(|cause| not_published(topic, &cause))?;
        }
        Ok(())
    }

    async fn enqueue(&self, record: Record<'_>, topic: &str) -> Result<oneshot::Receiver<Result<(), KafkaError>>> {
        let (report, reported) = oneshot::channel();
        let mut message = message(record, topic, Box::new(report));
        loop {
            match self.inner.send(message) {
                Ok(()) => return Ok(reported),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((cause, _)) => return Err(not_published(topic, &cause)),
            }
        }
    }

    /// Lets what is still on its way leave. Blocks.
    pub(crate) fn close(self) {
        if let Err(cause) = self.inner.flush(FLUSH) {
            tracing::warn!("what was to be published may not have left: {cause}");
        }
    }
}

fn not_published(topic: &str, cause: &KafkaError) -> Error {
    let error = failed(&format!("publish to `{topic}`"), cause);
    match error.kind {
        ErrorKind::NotFound => error.hint("create the topic, or correct its name"),
        _ => error,
    }
}

fn message<'a>(record: Record<'a>, topic: &'a str, report: Box<Report>) -> BaseRecord<'a, [u8], [u8], Box<Report>> {
    let mut message = BaseRecord::with_opaque_to(topic, report);
    if let Some(key) = record.key() {
        message = message.key(key);
    }
    if let Some(value) = record.value() {
        message = message.payload(value);
    }
    let headers = record.headers().fold(None, |headers: Option<OwnedHeaders>, (key, value)| {
        Some(headers.unwrap_or_default().insert(Header { key, value }))
    });
    match headers {
        Some(headers) => message.headers(headers),
        None => message,
    }
}
