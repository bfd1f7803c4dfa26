//! Reading from consumers by asking them, so that none gets more than it can take.
//!
//! A server that has one message for two readers tells only one of them, so silence is no sign of trouble: who hears nothing
//! makes sure that the server is there, and goes by what it says of the consumer.

use std::error::Error as StdError;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::{StatusCode, Subscriber, jetstream};
use futures_util::StreamExt;
use pype_plugin::Result;
use serde_json::json;
use tokio::time::Instant;

use crate::connection::{Connection, PATIENCE};

/// How long it takes to be silence.
const SILENCE: Duration = Duration::from_millis(250);
/// How many messages are asked for at a time, when all are.
const PAGE: usize = 256;

type BoxedError = Box<dyn StdError + Send + Sync>;

impl Connection {
    /// The messages that a consumer has at the moment, up to `count` of them. Those that do not arrive come again, if they are
    /// to be acknowledged.
    pub(crate) async fn pull(&self, stream: &str, consumer: &str, count: usize) -> Result<Vec<jetstream::Message>> {
        let doing = format!("read from `{stream}`");
        let pull = async {
            let mut pull = self.start_pull(stream, consumer).await?;
            pull.ask(count).await?;
            let mut messages = Vec::new();
            let mut was_silent = false;
            while messages.len() < count {
                match pull.next().await? {
                    Pulled::Message(message) => messages.push(*message),
                    Pulled::End => break,
                    Pulled::Silence if was_silent => break,
                    Pulled::Silence => {
                        self.round_trip().await?;
                        was_silent = true;
                    }
                }
            }
            Ok(messages)
        };
        self.step_boxed(&doing, pull).await
    }

    /// All messages that a consumer has, which are not to be acknowledged.
    pub(crate) async fn pull_all(&self, stream: &str, consumer: &str) -> Result<Vec<jetstream::Message>> {
        let doing = format!("read all of `{stream}`");
        let mut pull = self.step_boxed(&doing, self.start_pull(stream, consumer)).await?;
        let (mut messages, mut asked_for, mut quiet_since) = (Vec::new(), 0, Instant::now());
        while quiet_since.elapsed() < PATIENCE {
            if asked_for == 0 {
                asked_for = PAGE;
                self.step_boxed(&doing, pull.ask(PAGE)).await?;
            }
            match self.step_boxed(&doing, pull.next()).await? {
                Pulled::Message(message) => {
                    messages.push(*message);
                    asked_for -= 1;
                    quiet_since = Instant::now();
                    continue;
                }
                Pulled::End => asked_for = 0,
                Pulled::Silence => {}
            }
            // Some may be on their way.
            let info = self.jetstream().get_consumer_from_stream::<pull::Config, _, _>(consumer, stream);
            let info = self.step(&doing, info).await?;
            let info = info.cached_info();
            if info.num_pending == 0 && info.delivered.consumer_sequence == messages.len() as u64 {
                return Ok(messages);
            }
        }
        Err(self.unreachable(&doing))
    }

    async fn start_pull(&self, stream: &str, consumer: &str) -> Result<Pull, BoxedError> {
        let inbox = self.client().new_inbox();
        let answers = self.client().subscribe(inbox.clone()).await?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Pull { jetstream: self.jetstream().clone(), subject, inbox, answers })
    }

    async fn step_boxed<T>(&self, doing: &str, step: impl Future<Output = Result<T, BoxedError>>) -> Result<T> {
        self.within(doing, step).await?.map_err(|cause| self.failed(doing, &*cause))
    }
}

/// A reader of a consumer.
struct Pull {
    jetstream: jetstream::Context,
    subject: String,
    inbox: String,
    answers: Subscriber,
}

enum Pulled {
    Message(Box<jetstream::Message>),
    /// There are no more than have come, of those that were asked for.
    End,
    /// The server says nothing.
    Silence,
}

impl Pull {
    /// Asks for the messages that are there, up to `count`.
    async fn ask(&self, count: usize) -> Result<(), BoxedError> {
        let request = json!({ "batch": count, "no_wait": true }).to_string();
        let client = self.jetstream.client();
        Ok(client.publish_with_reply(self.subject.clone(), self.inbox.clone(), request.into()).await?)
    }

    async fn next(&mut self) -> Result<Pulled, BoxedError> {
        let Ok(answer) = tokio::time::timeout(SILENCE, self.answers.next()).await else {
            return Ok(Pulled::Silence);
        };
        let message = answer.ok_or("the connection was closed")?;
        match message.status {
            None | Some(StatusCode::OK) => {
                let context = self.jetstream.clone();
                Ok(Pulled::Message(Box::new(jetstream::Message { message, context })))
            }
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => Ok(Pulled::End),
            Some(status) => Err(format!("{status} {}", message.description.unwrap_or_default()).into()),
        }
    }
}
