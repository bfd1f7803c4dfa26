//! The durable consumer: what it is to be, whether the one that is there is that, and making it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::datetime;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use pype_plugin::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Config;
use crate::connection::Connection;
use crate::subject;

const ACK_WAIT: Duration = Duration::from_secs(30);
const MAX_ACK_PENDING: i64 = 65_536;

/// Where a durable begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deliver {
    /// At the first message that the stream has.
    #[default]
    All,
    /// At the next message that comes.
    New,
    /// At the last message there is.
    Last,
    /// At the last message of each subject.
    LastPerSubject,
    /// At the message with this sequence.
    ByStartSequence(u64),
    /// At the first message of this time (RFC 3339) or later.
    ByStartTime(String),
}

pub(crate) struct Durable {
    pub(crate) connection: Arc<Connection>,
    pub(crate) stream: String,
    pub(crate) name: String,
    filters: BTreeSet<String>,
    deliver: DeliverPolicy,
    ack_wait: Option<Duration>,
    max_ack_pending: Option<i64>,
    max_deliver: Option<i64>,
    create: bool,
}

/// A durable that is there, and its stream.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// When the stream was made (RFC 3339).
    pub(crate) stream_created: String,
    /// When the consumer was.
    pub(crate) created: String,
    /// One more than the stream's last sequence.
    pub(crate) end: u64,
    /// All messages up to this sequence are done with.
    pub(crate) floor: u64,
    /// Messages that it has not given out yet, or that are not acknowledged.
    pub(crate) left: u64,
    pub(crate) ack_wait: Duration,
}

#[derive(Deserialize)]
struct StreamFacts {
    created: String,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: u64,
}

#[derive(Deserialize)]
struct ConsumerFacts {
    created: String,
    config: consumer::Config,
    ack_floor: Floor,
    num_pending: u64,
    num_ack_pending: u64,
}

#[derive(Deserialize)]
struct Floor {
    stream_seq: u64,
}

impl Durable {
    pub(crate) fn of(config: &Config, connection: Arc<Connection>) -> Result<Self> {
        check_name("stream", &config.stream)?;
        check_name("durable", &config.durable)?;
        config.filter_subjects.iter().try_for_each(|filter| subject::check(filter))?;
        let filters: BTreeSet<String> = config.filter_subjects.iter().cloned().collect();
        if filters.len() > 1 && !connection.client().is_server_compatible(2, 10, 0) {
            let message = "`filter_subjects` names several, and the server is older than 2.10";
            return Err(Error::new(ErrorKind::Config, "old-server", message)
                .hint("name one with a wildcard, or read with a durable for each"));
        }
        Ok(Self {
            connection,
            stream: config.stream.clone(),
            name: config.durable.clone(),
            filters,
            deliver: config.deliver_policy.policy()?,
            ack_wait: config.ack_wait_ms.map(|ms| Duration::from_millis(ms.get())),
            max_ack_pending: config.max_ack_pending.map(|most| i64::try_from(most.get()).unwrap_or(i64::MAX)),
            max_deliver: config.max_deliver,
            create: config.create,
        })
    }

    /// The durable as it is, which is as it is to be; made if it was not there. `resume` is the creation time of the stream
    /// and what was done of it when a durable was last seen that is gone: then the new one begins after that.
    pub(crate) async fn open(&self, resume: Option<(&str, u64)>) -> Result<Opened> {
        let stream = self.stream_facts().await?;
        let consumer = match self.consumer_facts().await? {
            Some(found) => self.adjusted(found).await?,
            None if self.create => {
                let floor = resume.filter(|(created, _)| *created == stream.created).map(|(_, floor)| floor);
                self.make(self.wanted(floor)).await?
            }
            None => {
                let message = format!("the stream `{}` has no durable consumer `{}`", self.stream, self.name);
                return Err(Error::new(ErrorKind::NotFound, "unknown-durable", message)
                    .hint("make it with `nats consumer add`, or let `create` be true"));
            }
        };
        Ok(opened(stream, consumer))
    }

    /// How far the stream goes and the durable is; `None` if there is no such durable any more.
    pub(crate) async fn look(&self) -> Result<Option<Opened>> {
        // In this order: what the stream had is then all in what the consumer says.
        let stream = self.stream_facts().await?;
        Ok(self.consumer_facts().await?.map(|consumer| opened(stream, consumer)))
    }

    fn wanted(&self, floor: Option<u64>) -> consumer::Config {
        let mut filters: Vec<String> = self.filters.iter().cloned().collect();
        // Old servers know of one only.
        let filter_subject = if filters.len() == 1 { filters.remove(0) } else { String::new() };
        consumer::Config {
            durable_name: Some(self.name.clone()),
            deliver_policy: match floor {
                Some(floor) if floor > 0 => DeliverPolicy::ByStartSequence { start_sequence: floor + 1 },
                Some(_) | None => self.deliver,
            },
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait.unwrap_or(ACK_WAIT),
            max_ack_pending: self.max_ack_pending.unwrap_or(MAX_ACK_PENDING),
            max_deliver: self.max_deliver.unwrap_or(-1),
            filter_subject,
            filter_subjects: filters,
            ..consumer::Config::default()
        }
    }

    /// The durable that is there, with what may be changed as it was asked for.
    async fn adjusted(&self, found: ConsumerFacts) -> Result<ConsumerFacts> {
        let mut differences = self.fixed_differences(&found.config);
        let (changed, changes) = self.changed(&found.config);
        if !self.create {
            differences.extend(changes);
        } else if differences.is_empty() && !changes.is_empty() {
            tracing::info!("the durable `{}` of `{}` is changed: {}", self.name, self.stream, changes.join("; "));
            return self.make(changed).await;
        }
        if differences.is_empty() {
            return Ok(found);
        }
        let (name, stream) = (&self.name, &self.stream);
        let message =
            format!("the durable `{name}` of `{stream}` is another than asked for: {}", differences.join("; "));
        Err(Error::new(ErrorKind::Config, "durable-differs", message).hint(format!(
            "correct the configs, name another durable, or remove it: `nats consumer rm {stream} {name}`"
        )))
    }

    /// What would make it another consumer: it is not for us to change.
    fn fixed_differences(&self, found: &consumer::Config) -> Vec<String> {
        let mut differences = Vec::new();
        if found.deliver_subject.is_some() {
            differences.push("it pushes its messages, and is to be pulled from".to_owned());
        }
        if found.ack_policy != AckPolicy::Explicit {
            differences.push(format!("its acknowledgements are `{:?}`, and not `Explicit`", found.ack_policy));
        }
        if found.headers_only {
            differences.push("it gives headers only".to_owned());
        }
        let single = Some(&found.filter_subject).filter(|filter| !filter.is_empty());
        let filters: BTreeSet<String> = single.into_iter().chain(&found.filter_subjects).cloned().collect();
        if filters != self.filters {
            let (there, here) = (shown(&filters), shown(&self.filters));
            differences.push(format!("`filter_subjects` is {there} there, and {here} here"));
        }
        differences
    }

    fn changed(&self, found: &consumer::Config) -> (consumer::Config, Vec<String>) {
        let (mut changed, mut changes) = (found.clone(), Vec::new());
        let mut change = |name: &str, there: &mut i64, here: Option<i64>| {
            if let Some(here) = here.filter(|here| here != there) {
                changes.push(format!("`{name}` is {there} there, and {here} here"));
                *there = here;
            }
        };
        change("max_ack_pending", &mut changed.max_ack_pending, self.max_ack_pending);
        change("max_deliver", &mut changed.max_deliver, self.max_deliver);
        let mut ack_wait_ms = milliseconds(found.ack_wait);
        change("ack_wait_ms", &mut ack_wait_ms, self.ack_wait.map(milliseconds));
        changed.ack_wait = Duration::from_millis(ack_wait_ms.unsigned_abs());
        (changed, changes)
    }

    async fn make(&self, config: consumer::Config) -> Result<ConsumerFacts> {
        let doing = format!("make the durable `{}` of `{}`", self.name, self.stream);
        let filter = Some(&config.filter_subject).filter(|filter| !filter.is_empty());
        let filter = filter.map_or_else(String::new, |filter| format!(".{filter}"));
        let subject = format!("CONSUMER.CREATE.{}.{}{filter}", self.stream, self.name);
        let request = json!({ "stream_name": self.stream, "config": config });
        match self.ask(&doing, subject, &request).await? {
            Ok(made) => Ok(made),
            // Somebody else may have made it meanwhile.
            Err(refusal) => match self.consumer_facts().await? {
                Some(found) if self.fixed_differences(&found.config).is_empty() => Ok(found),
                Some(_) | None => Err(self.connection.refused(&doing, &refusal)),
            },
        }
    }

    async fn stream_facts(&self) -> Result<StreamFacts> {
        let doing = format!("look at the stream `{}`", self.stream);
        let found = self.ask(&doing, format!("STREAM.INFO.{}", self.stream), &json!({})).await?;
        found.map_err(|refusal| match refusal.error_code() {
            ErrorCode::STREAM_NOT_FOUND => {
                let message = format!("there is no stream `{}`", self.stream);
                Error::new(ErrorKind::NotFound, "unknown-stream", message)
                    .hint("make it with `nats stream add`, or correct its name in `stream`")
            }
            _ => self.connection.refused(&doing, &refusal),
        })
    }

    async fn consumer_facts(&self) -> Result<Option<ConsumerFacts>> {
        let doing = format!("look at the durable `{}` of `{}`", self.name, self.stream);
        match self.ask(&doing, format!("CONSUMER.INFO.{}.{}", self.stream, self.name), &json!({})).await? {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(None),
            Err(refusal) => Err(self.connection.refused(&doing, &refusal)),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        doing: &str,
        subject: String,
        request: &(impl Serialize + Sync),
    ) -> Result<Result<T, jetstream::Error>> {
        let asked = self.connection.within(doing, self.connection.jetstream().request(subject, request)).await?;
        match asked {
            Ok(Response::Ok(answer)) => Ok(Ok(answer)),
            Ok(Response::Err { error }) => Ok(Err(error)),
            Err(_) if !self.connection.client().server_info().jetstream => Err(self.connection.no_jetstream()),
            Err(cause) => Err(self.connection.failed(doing, &cause)),
        }
    }
}

impl Deliver {
    fn policy(&self) -> Result<DeliverPolicy> {
        Ok(match self {
            Self::All => DeliverPolicy::All,
            Self::New => DeliverPolicy::New,
            Self::Last => DeliverPolicy::Last,
            Self::LastPerSubject => DeliverPolicy::LastPerSubject,
            Self::ByStartSequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence: *start_sequence },
            Self::ByStartTime(text) => {
                let start_time = datetime::parse_rfc3339(text).map_err(|cause| {
                    let message = format!("`deliver_policy`: `{text}` is no time: {cause}");
                    Error::new(ErrorKind::Config, "bad-time", message).hint("as in `2026-01-31T12:00:00Z`")
                })?;
                DeliverPolicy::ByStartTime { start_time }
            }
        })
    }
}

fn opened(stream: StreamFacts, consumer: ConsumerFacts) -> Opened {
    let config = &consumer.config;
    Opened {
        stream_created: stream.created,
        created: consumer.created,
        end: stream.state.last_seq + 1,
        floor: consumer.ack_floor.stream_seq,
        left: consumer.num_pending + consumer.num_ack_pending,
        // With pauses of its own, the first of them counts.
        ack_wait: config.backoff.iter().copied().min().unwrap_or(config.ack_wait),
    }
}

/// Refuses what would be another subject of the server's.
fn check_name(what: &str, name: &str) -> Result<()> {
    let bad = |char: char| char.is_whitespace() || char.is_control() || ".*>/\\".contains(char);
    match name.is_empty() || name.contains(bad) {
        true => {
            let message = format!("`{what}`: `{}` is no name of NATS", name.escape_debug());
            Err(Error::new(ErrorKind::Config, "bad-name", message)
                .hint("one without spaces, `.`, `*`, `>`, `/` and `\\`"))
        }
        false => Ok(()),
    }
}

fn shown(filters: &BTreeSet<String>) -> String {
    let filters: Vec<String> = filters.iter().map(|filter| format!("`{filter}`")).collect();
    if filters.is_empty() { "empty".to_owned() } else { filters.join(", ") }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
