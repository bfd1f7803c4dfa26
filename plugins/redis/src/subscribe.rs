//! `redis_subscribe`: listens to channels for a while.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::{BinaryArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use futures_util::StreamExt;
use pype_plugin::prelude::*;
use redis::Msg;

use crate::connection::{self, Server};

pub(crate) struct RedisSubscribe {
    server: Server,
    config: Config,
}

/// Which channels, and until when.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` with TLS.
    #[serde(default = "connection::local")]
    url: String,
    /// The channels. `*`, `?` and `[…]` stand for others, as in `orders.*`.
    channels: Vec<String>,
    /// Ends after so many messages.
    #[serde(default = "many")]
    messages: u64,
    /// Ends after so many seconds, with what has come until then.
    #[serde(default = "minute")]
    for_s: f64,
}

fn many() -> u64 {
    1000
}

fn minute() -> f64 {
    60.0
}

impl Source for RedisSubscribe {
    const NAME: &'static str = "redis_subscribe";
    const DESCRIPTION: &'static str = "Listens to channels of Redis, for so many messages or so long";
    const CATEGORY: &'static str = "Messages";
    const PACKAGES: &'static [&'static str] = &["redis"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        if Duration::try_from_secs_f64(config.for_s).is_err() {
            let message = format!("`for_s`: {} is no number of seconds", config.for_s);
            return Err(Error::new(ErrorKind::Config, "bad-duration", message));
        }
        Ok(Self { server: Server::connect(&config.url).await?, config })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let failed = |cause| self.server.failed(cause);
        let mut messages = Vec::new();
        let heard = async {
            let mut subscription = self.server.client.get_async_pubsub().await.map_err(failed)?;
            subscription.psubscribe(&self.config.channels).await.map_err(failed)?;
            let mut stream = subscription.on_message();
            while (messages.len() as u64) < self.config.messages {
                let message = stream.next().await.ok_or_else(|| connection_lost(messages.len()))?;
                messages.push((message, now_ms()));
                ctx.progress(messages.len() as u64);
            }
            Ok::<(), Error>(())
        };
        tokio::select! {
            heard = heard => heard?,
            () = tokio::time::sleep(Duration::from_secs_f64(self.config.for_s)) => {}
            () = ctx.cancelled() => return Err(Error::new(ErrorKind::Cancelled, "cancelled", "it was to end early")),
        }
        let batch = batch(&messages)?;
        Ok(Outputs::one("data", Frame::from_record_batches(batch.schema(), [batch])))
    }
}

fn batch(messages: &[(Msg, i64)]) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("channel", DataType::Utf8, false),
        Field::new("value", DataType::Binary, false),
        Field::new("received", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
    ]);
    let channels = messages.iter().map(|(message, _)| message.get_channel_name());
    let values = messages.iter().map(|(message, _)| message.get_payload_bytes());
    let received = TimestampMillisecondArray::from_iter_values(messages.iter().map(|(_, at)| *at));
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(channels)),
        Arc::new(BinaryArray::from_iter_values(values)),
        Arc::new(received.with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schema.into(), columns)?)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn connection_lost(after: usize) -> Error {
    let message = format!("Redis ended the subscription after {after} messages");
    Error::new(ErrorKind::Unavailable, "redis-unavailable", message).retryable(true)
}
