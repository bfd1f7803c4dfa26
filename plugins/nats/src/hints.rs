//! Hints: each says that a job may be due. They are a queue of NATS' own, with one hint for each job that is not over.
//!
//! A hint is never the truth, so that one too many does no harm; a job without any would never be looked at. It stays until
//! it is acknowledged, and comes to some worker whenever the time that it was postponed by is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType, Stream};
use futures_util::TryStreamExt;
use pype_plugin::prelude::*;

use crate::connection::Connection;
use crate::name::token;

/// A worker that does not say what it does with a hint is gone. That is also how long a hint stays away that old servers (2.9)
/// lose when they would give it to a reader who has just left.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// Files are called as consumers are.
const LONGEST_PIPELINE: usize = 200;

pub(crate) struct Hints {
    connection: Arc<Connection>,
    stream: Stream,
    name: String,
    /// Pipelines whose consumers are known to be there.
    consumers: Mutex<BTreeSet<String>>,
}

/// That a job may be due.
pub(crate) struct Hint {
    pub(crate) job: String,
    /// Not before this, by the clock of the server.
    pub(crate) not_before_ms: u64,
    /// How often it has come, 1 at first.
    pub(crate) deliveries: u64,
    /// Where to say what becomes of it.
    pub(crate) reply: String,
}

/// As it is in the stream.
#[derive(Serialize, Deserialize)]
struct Said {
    job: String,
    not_before_ms: u64,
}

impl Hints {
    pub(crate) async fn open(connection: Arc<Connection>, name: &str, replicas: usize) -> Result<Self> {
        let config = Config {
            name: format!("{name}-work"),
            subjects: vec![format!("{name}.work.>")],
            retention: RetentionPolicy::WorkQueue,
            // A new hint takes the place of the last one, wherever that is.
            max_messages_per_subject: 1,
            storage: StorageType::File,
            num_replicas: replicas,
            ..Config::default()
        };
        let stream = connection.open_stream(config).await?;
        Ok(Self { connection, stream, name: name.to_owned(), consumers: Mutex::default() })
    }

    /// Gives a hint, in place of any other of this job. When it returns, the hint is durable.
    pub(crate) async fn give(&self, pipeline: &str, job: &str, not_before_ms: u64) -> Result<()> {
        let said = serde_json::to_vec(&Said { job: job.to_owned(), not_before_ms })?;
        let (subject, size) = (self.subject(pipeline, job)?, said.len());
        let message = PublishMessage::build().payload(said.into());
        self.connection.store("say that there is work", subject, message, size).await.map(drop)
    }

    /// The hints that have come for a pipeline, up to `count`.
    pub(crate) async fn take(&self, pipeline: &str, count: usize) -> Result<Vec<Hint>> {
        let consumer = self.consumer(pipeline).await?;
        let pulled = self.connection.pull(self.stream_name(), &consumer, count).await;
        let messages = pulled.inspect_err(|_| {
            // It may be gone: then it is made anew.
            self.known().remove(&consumer);
        })?;
        let mut hints = Vec::with_capacity(messages.len());
        for message in messages {
            let deliveries = message.info().map_or(1, |info| info.delivered.unsigned_abs());
            let reply = message.reply.as_deref().unwrap_or_default().to_owned();
            match serde_json::from_slice(&message.payload) {
                Ok(Said { job, not_before_ms }) => hints.push(Hint { job, not_before_ms, deliveries, reply }),
                Err(error) => {
                    tracing::warn!("`{}` holds what is no hint: {error}", message.subject);
                    self.end(&reply).await?;
                }
            }
        }
        Ok(hints)
    }

    /// Ends a hint. If the server does not hear of it, the hint comes again.
    pub(crate) async fn end(&self, reply: &str) -> Result<()> {
        self.say(reply, AckKind::Ack).await
    }

    /// Has a hint come again after a while, also if it was postponed otherwise before. If the server does not hear of it, it
    /// comes at another time.
    pub(crate) async fn postpone(&self, reply: &str, by_ms: u64) -> Result<()> {
        // Without a delay it would come before all others, again and again.
        self.say(reply, AckKind::Nak(Some(Duration::from_millis(by_ms.max(1))))).await
    }

    async fn say(&self, reply: &str, what: AckKind) -> Result<()> {
        let said = self.connection.client().publish(reply.to_owned(), what.into());
        self.connection.step("say what becomes of a hint", said).await
    }

    /// Whether there is a hint of a job.
    pub(crate) async fn is_there(&self, pipeline: &str, job: &str) -> Result<bool> {
        let subject = self.subject(pipeline, job)?;
        Ok(!self.subjects(&subject).await?.is_empty())
    }

    /// The [subjects](Self::subject) of all hints.
    pub(crate) async fn all(&self) -> Result<BTreeSet<String>> {
        self.subjects(&format!("{}.work.>", self.name)).await
    }

    async fn subjects(&self, filter: &str) -> Result<BTreeSet<String>> {
        let subjects = async {
            let subjects = self.stream.info_with_subjects(filter).await?;
            subjects.map_ok(|(subject, _)| subject).try_collect().await
        };
        self.connection.step("look for hints", subjects).await
    }

    pub(crate) fn subject(&self, pipeline: &str, job: &str) -> Result<String> {
        Ok(format!("{}.work.{}.{}", self.name, pipeline_token(pipeline)?, token(job)?))
    }

    /// The consumer of a pipeline, which all its workers share.
    async fn consumer(&self, pipeline: &str) -> Result<String> {
        let name = pipeline_token(pipeline)?;
        if self.known().contains(&name) {
            return Ok(name);
        }
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: format!("{}.work.{name}.*", self.name),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        self.connection.open_consumer(self.stream_name(), config).await?;
        self.known().insert(name.clone());
        Ok(name)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream_name(&self) -> &str {
        &self.stream.cached_info().config.name
    }
}

fn pipeline_token(pipeline: &str) -> Result<String> {
    let token = token(pipeline)?;
    if token.len() > LONGEST_PIPELINE {
        let message = format!("the name of the pipeline `{pipeline}` is too long for NATS");
        return Err(Error::new(ErrorKind::Config, "name-too-long", message)
            .hint(format!("{LONGEST_PIPELINE} letters and digits are allowed")));
    }
    Ok(token)
}
