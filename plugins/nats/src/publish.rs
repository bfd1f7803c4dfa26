//! `nats_publish`: says what a run is about to whoever listens, or to a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use pype_plugin::RetryPolicy;
use pype_plugin::prelude::*;

use crate::connection::{Connection, Servers};
use crate::subject;

pub(crate) struct NatsPublish {
    connection: Arc<Connection>,
    headers: HeaderMap,
    config: Config,
}

/// What to publish, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(flatten)]
    servers: Servers,
    /// The subject: `orders.new`.
    subject: String,
    /// The fields that are published, as one JSON object; all that are no bytes, if none is named.
    #[serde(default)]
    fields: Vec<String>,
    /// The field that is published as it is instead: text or bytes.
    #[serde(default)]
    body: Option<String>,
    /// Headers of the message.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Whether a stream of JetStream must take the message. A run with an idempotency key is published there once, within
    /// the stream's window for duplicates.
    #[serde(default)]
    jetstream: bool,
}

impl Execute for NatsPublish {
    const NAME: &'static str = "nats_publish";
    const DESCRIPTION: &'static str = "Publishes fields of the context to a subject of NATS";
    const CATEGORY: &'static str = "Messages";
    const PACKAGES: &'static [&'static str] = &["async-nats"];
    type Config = Config;
    const RETRY: Option<RetryPolicy> = Some(RetryPolicy::attempts(3));

    async fn open(config: Config, _: &Context) -> Result<Self> {
        subject::check_target(&config.subject)?;
        if !config.fields.is_empty() && config.body.is_some() {
            let message = "`fields` and `body` both say what is published";
            return Err(Error::new(ErrorKind::Config, "fields-and-body", message).hint("leave one of them out"));
        }
        let headers = headers(&config.headers)?;
        Ok(Self { connection: Connection::open(&config.servers).await?, headers, config })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let body = bytes::Bytes::from(ctx.message(self.config.body.as_deref(), &self.config.fields)?);
        match self.config.jetstream {
            true => self.store(body, &ctx).await?,
            false => self.connection.publish(&self.config.subject, self.headers.clone(), body).await?,
        }
        next.run(ctx).await
    }
}

impl NatsPublish {
    async fn store(&self, body: bytes::Bytes, ctx: &PipelineContext) -> Result<()> {
        let subject = &self.config.subject;
        let mut headers = self.headers.clone();
        if let Some(key) = ctx.facts().idempotency_key
            && headers.get(NATS_MESSAGE_ID).is_none()
        {
            // Another stage of the same run may publish to another subject of the stream.
            headers.insert(NATS_MESSAGE_ID, one_line(&format!("{key} {subject}")));
        }
        let size = body.len();
        let message = PublishMessage::build().payload(body).headers(headers);
        let stored = self.connection.store(&format!("publish to `{subject}`"), subject.clone(), message, size).await?;
        stored.map(drop).ok_or_else(|| {
            let message = format!("the stream of `{subject}` does not have what the headers expect of it");
            Error::new(ErrorKind::Data, "wrong-sequence", message)
        })
    }
}

/// A header ends with its line.
fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}

fn headers(config: &BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in config {
        let refused = || Error::new(ErrorKind::Config, "bad-header", format!("`headers`: `{name}` is none of NATS"));
        if name.is_empty() {
            return Err(refused());
        }
        let header: HeaderName = name.parse().map_err(|cause| refused().caused_by(cause))?;
        let value: HeaderValue = value.parse().map_err(|cause| refused().caused_by(cause))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stay_on_their_lines() {
        for (name, value) in [("A b", "c"), ("A", "b\r\nC: d"), ("A:", "b"), ("", "b")] {
            let config = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(headers(&config).expect_err(name).code, "bad-header");
        }
    }
}
