//! Asks the durable for messages, and tells the host what happens.
//!
//! Two requests overlap, so that the server always knows of somebody who wants more. A request that the server has forgotten,
//! with a connection or a leader, is one whose time is over: silence is no sign that the consumer is gone. That it is gone
//! the server says itself, or is seen when the durable is looked at, which is done every second.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use pype_plugin::stream::{Assignment, NewRecord, Partition, Progressed, RecordsBuilder, StreamEvent};
use pype_plugin::{Error, ErrorKind, Result};
use serde_json::json;
use tokio::time::Instant;

use super::Desk;
use super::delivery::{Delivery, KeyFrom};
use super::durable::{Durable, Opened};
use super::fetched::{Fetched, Limits};
use super::requests::{Request, Requests};

/// How long a request stays open at the server.
const EXPIRES: Duration = Duration::from_secs(5);
/// So much later it is taken for forgotten.
const GRACE: Duration = Duration::from_secs(2);
/// How often the durable is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is seen to what no message announces.
const TICK: Duration = Duration::from_millis(100);
/// How long the server is left alone after it has refused a request.
const REST: Duration = Duration::from_millis(250);
/// How long what is on its way may take to arrive when the source is closed.
const DRAIN: Duration = Duration::from_secs(2);

pub(super) struct Reader {
    durable: Arc<Durable>,
    limits: Limits,
    desk: Arc<Desk>,
    partition: Partition,
    epoch: u64,
    opened: Opened,
    /// Goes with each frame.
    metadata: HashMap<String, String>,
    inbox: String,
    answers: Subscriber,
    requests: Requests,
    /// What the host has not been given yet.
    fetched: Fetched,
    outbox: VecDeque<StreamEvent>,
    looking: Option<Looking>,
    next_look: Instant,
    /// Nothing is asked for before.
    rest_until: Instant,
    /// How often there was a connection, when it was last looked.
    connects: u64,
    consumer: Consumer,
    /// The next message does not fit into a request of so many bytes.
    oversized: bool,
    complaint: Option<Error>,
    /// The host knows that something is wrong.
    told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Consumer {
    There,
    /// The host is to be told.
    Gone,
    /// The host was told.
    Lost,
}

type Looking = Pin<Box<dyn Future<Output = Result<Option<Opened>>> + Send>>;

enum Woken {
    Answer(Option<Box<Message>>),
    Looked(Result<Option<Opened>>),
    Time,
}

impl Reader {
    pub(super) async fn open(durable: Durable, limits: Limits, desk: Arc<Desk>) -> Result<Self> {
        let opened = durable.open(None).await?;
        let client = durable.connection.client();
        let inbox = client.new_inbox();
        let answers = durable.connection.step("listen for messages", client.subscribe(format!("{inbox}.*"))).await?;
        let now = Instant::now();
        let mut reader = Self {
            partition: Partition { topic: durable.stream.clone(), partition: 0 },
            connects: durable.connection.connects(),
            durable: Arc::new(durable),
            limits,
            desk,
            epoch: 0,
            metadata: HashMap::new(),
            opened: opened.clone(),
            inbox,
            answers,
            requests: Requests::default(),
            fetched: Fetched::new(now),
            outbox: VecDeque::new(),
            looking: None,
            next_look: now + LOOK,
            rest_until: now,
            consumer: Consumer::There,
            oversized: false,
            complaint: None,
            told: false,
        };
        reader.assign(opened);
        Ok(reader)
    }

    /// What happened next; `None` if nothing did for so long. May be dropped at any time: what has come stays here.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<Option<StreamEvent>> {
        let until = Instant::now() + wait;
        let mut is_last = false;
        loop {
            self.take_arrived();
            self.take_looked()?;
            if let Some(event) = self.outbox.pop_front() {
                return Ok(Some(event));
            }
            if let Some(error) = self.complaint.take() {
                self.tell(error)?;
            }
            let now = Instant::now();
            let held = self.desk.held.load(Ordering::Acquire);
            let is_due = !held && self.fetched.is_due(now, &self.limits, now >= until);
            if self.sees_server(now)? {
                if self.consumer != Consumer::There {
                    self.rebuild(now).await?;
                    if !self.outbox.is_empty() {
                        continue;
                    }
                } else {
                    self.keep(now).await?;
                    self.look(now);
                    if !held {
                        self.ask(now, is_due).await?;
                    }
                }
            }
            if is_due && let Some(records) = self.give_out() {
                return Ok(Some(records));
            }
            if is_last {
                return Ok(None);
            }
            is_last = now >= until;
            self.wait(until, held).await?;
        }
    }

    /// Stops asking; where to say that they come again, of the messages that nobody was given.
    ///
    /// An old server (2.9) that has a message for a request whose reader has gone loses it until `ack_wait` is over, and gives the
    /// stream's last one twice. Whoever looks at a consumer has it forget such requests first.
    pub(super) async fn stop(&mut self) -> Vec<Subject> {
        self.looking = None;
        if !self.durable.connection.is_connected() {
            return Vec::new();
        }
        let drained = async {
            if self.answers.drain().await.is_ok() {
                while let Some(message) = self.answers.next().await {
                    self.fetched.take(message, Instant::now());
                }
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("`{}`: what is on its way comes again later only", self.partition.topic);
        }
        if !self.fetched.messages.is_empty()
            && let Err(error) = self.durable.look().await
        {
            tracing::debug!("`{}` may not know that nobody reads any more: {error}", self.partition.topic);
        }
        self.fetched.messages.drain(..).filter_map(|(message, _)| message.reply).collect()
    }

    /// An error is told once, until something has gone well again; then it is as if nothing had happened for a while.
    fn tell(&mut self, error: Error) -> Result<()> {
        if error.retryable && std::mem::replace(&mut self.told, true) {
            tracing::debug!("still: {error}");
            return Ok(());
        }
        Err(error)
    }

    fn sees_server(&mut self, now: Instant) -> Result<bool> {
        let connection = self.durable.connection.clone();
        let connects = connection.connects();
        if connects != self.connects {
            // What was asked for went with the connection.
            self.connects = connects;
            self.requests.forget();
            self.next_look = now;
        }
        if !connection.is_connected() {
            self.tell(connection.unreachable(&self.doing()))?;
            return Ok(false);
        }
        Ok(true)
    }

    fn doing(&self) -> String {
        format!("read from `{}`", self.partition.topic)
    }

    /// Asks for more, if there is room; `gives` whether a batch is about to leave.
    async fn ask(&mut self, now: Instant, gives: bool) -> Result<()> {
        self.requests.forget_late(now);
        let leaving = if gives { self.fetched.next_batch(&self.limits) } else { (0, 0) };
        let (count, bytes) = (self.fetched.messages.len() - leaving.0, self.fetched.bytes - leaving.1);
        let batch = self.limits.batch;
        if now < self.rest_until || self.requests.left() + count > batch || bytes > self.limits.bytes {
            return Ok(());
        }
        // A message that is too large for a request comes alone.
        let single = self.oversized;
        let count = if single { 1 } else { batch };
        let expires = u64::try_from(EXPIRES.as_nanos()).expect("some seconds");
        let mut request = json!({ "batch": count, "expires": expires });
        if !single {
            request["max_bytes"] = self.limits.bytes.into();
        }
        self.oversized = false;
        let number = self.requests.add(count, now + EXPIRES + GRACE);
        let Durable { connection, stream, name, .. } = &*self.durable;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let reply = format!("{}.{number}", self.inbox);
        let asked = connection.client().publish_with_reply(subject, reply, request.to_string().into());
        let doing = self.doing();
        match connection.step(&doing, asked).await {
            Ok(()) => Ok(()),
            Err(error) => self.tell(error),
        }
    }

    /// Says of what waits here that it is being worked on, before it would come again.
    async fn keep(&mut self, now: Instant) -> Result<()> {
        if self.fetched.messages.is_empty() || now < self.fetched.kept + self.opened.ack_wait / 3 {
            return Ok(());
        }
        self.fetched.kept = now;
        let client = self.durable.connection.client();
        let replies = self.fetched.messages.iter().filter_map(|(message, _)| message.reply.clone());
        let kept = async {
            for reply in replies {
                client.publish(reply, AckKind::Progress.into()).await?;
            }
            Ok::<_, async_nats::PublishError>(())
        };
        let doing = self.doing();
        match self.durable.connection.step(&doing, kept).await {
            Ok(()) => Ok(()),
            Err(error) => self.tell(error),
        }
    }

    /// Looks at the durable when it is time to.
    fn look(&mut self, now: Instant) {
        if self.looking.is_none() && now >= self.next_look {
            self.next_look = now + LOOK;
            let durable = self.durable.clone();
            self.looking = Some(Box::pin(async move { durable.look().await }));
        }
    }

    /// What was seen of it, if that has come.
    fn take_looked(&mut self) -> Result<()> {
        match self.looking.as_mut().and_then(FutureExt::now_or_never) {
            Some(looked) => self.looked(looked),
            None => Ok(()),
        }
    }

    fn looked(&mut self, looked: Result<Option<Opened>>) -> Result<()> {
        self.looking = None;
        let found = match looked {
            Ok(found) => found,
            Err(error) => return self.tell(error),
        };
        self.told = false;
        if self.consumer != Consumer::There {
            return Ok(());
        }
        match found {
            Some(found) if found.created == self.opened.created => {
                self.opened = found;
                self.outbox.push_back(self.progress());
            }
            // Another one has its name by now.
            Some(_) | None => self.consumer = Consumer::Gone,
        }
        Ok(())
    }

    fn progress(&self) -> StreamEvent {
        // What is not done comes again, or may.
        let position = if self.opened.left == 0 { self.opened.end } else { self.opened.floor + 1 };
        StreamEvent::Progress(vec![Progressed {
            partition: self.partition.clone(),
            epoch: self.epoch,
            position: Some(offset(position)),
            end: Some(offset(self.opened.end)),
        }])
    }

    /// Makes the durable anew that is gone.
    async fn rebuild(&mut self, now: Instant) -> Result<()> {
        if self.consumer == Consumer::Gone {
            tracing::warn!("the durable `{}` of `{}` is gone", self.durable.name, self.durable.stream);
            self.requests.forget();
            self.fetched = Fetched::new(now);
            self.desk.replies().clear();
            self.consumer = Consumer::Lost;
            self.outbox.push_back(StreamEvent::Lost(vec![self.partition.clone()]));
            return Ok(());
        }
        if now < self.rest_until {
            return Ok(());
        }
        self.rest_until = now + REST;
        match self.durable.open(Some((&self.opened.stream_created, self.opened.floor))).await {
            Ok(opened) => {
                self.told = false;
                self.consumer = Consumer::There;
                self.assign(opened);
                Ok(())
            }
            Err(error) => self.tell(error),
        }
    }

    fn assign(&mut self, opened: Opened) {
        self.epoch += 1;
        self.metadata = HashMap::from([
            ("nats.stream".to_owned(), self.durable.stream.clone()),
            ("nats.created".to_owned(), opened.stream_created.clone()),
        ]);
        self.outbox.push_back(StreamEvent::Assigned(vec![Assignment {
            partition: self.partition.clone(),
            epoch: self.epoch,
            position: None,
            metadata: None,
            end: Some(offset(opened.end)),
        }]));
        self.opened = opened;
    }

    async fn wait(&mut self, until: Instant, held: bool) -> Result<()> {
        let tick = Instant::now() + TICK;
        let due = Some(self.fetched.quiet_from()).filter(|_| !held && !self.fetched.messages.is_empty());
        let nap = due.into_iter().fold(until.min(tick), Instant::min);
        let Self { answers, looking, desk, .. } = self;
        let looked = async {
            match looking {
                Some(looking) => looking.await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            looked = looked => Woken::Looked(looked),
            answer = answers.next() => Woken::Answer(answer.map(Box::new)),
            () = desk.changed.notified() => Woken::Time,
            () = tokio::time::sleep_until(nap) => Woken::Time,
        };
        match woken {
            Woken::Answer(Some(answer)) => self.take(*answer),
            Woken::Answer(None) => return Err(self.durable.connection.unreachable(&self.doing())),
            Woken::Looked(looked) => return self.looked(looked),
            Woken::Time => {}
        }
        Ok(())
    }

    /// Takes what has come, without waiting.
    fn take_arrived(&mut self) {
        // Tokio would have it look as if nothing had come after a hundred messages or so.
        while let Some(Some(answer)) = tokio::task::unconstrained(self.answers.next()).now_or_never() {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Message) {
        match answer.status {
            None | Some(StatusCode::OK) => {
                self.told = false;
                self.requests.delivered();
                if self.consumer == Consumer::There {
                    self.fetched.take(answer, Instant::now());
                }
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {}
            Some(status) => {
                let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
                let request = number.and_then(|number| self.requests.end(number));
                self.ended(status, answer.description.as_deref().unwrap_or_default(), request);
            }
        }
    }

    /// A request has ended before all messages came that it was for.
    fn ended(&mut self, status: StatusCode, why: &str, request: Option<Request>) {
        let now = Instant::now();
        match (status, why.to_ascii_lowercase()) {
            (StatusCode::TIMEOUT | StatusCode::NOT_FOUND, _) => {}
            (StatusCode::REQUEST_TERMINATED, why) if why.contains("consumer deleted") => self.gone(),
            (StatusCode::REQUEST_TERMINATED, why) if why.contains("exceeds maxbytes") => {
                self.oversized |= request.is_some_and(|request| !request.has_some);
            }
            (StatusCode::REQUEST_TERMINATED, why) if why.contains("batch completed") => {}
            // Nobody listens; or the server ends, or another takes over.
            (StatusCode::NO_RESPONDERS, _) => (self.rest_until, self.next_look) = (now + REST, now),
            (_, why) if why.contains("leadership") || why.contains("shutdown") => self.rest_until = now + REST,
            (status, why) => {
                self.rest_until = now + LOOK;
                let message = format!("cannot {}: the server says `{status} {why}`", self.doing());
                // The durable has limits of its own, which do not change by themselves.
                self.complaint = Some(match why.contains("maxrequest") {
                    true => Error::new(ErrorKind::Config, "pull-refused", message)
                        .hint("lower `batch` or `max_bytes`, or raise the limits of the durable: `nats consumer edit`"),
                    false => Error::new(ErrorKind::Unavailable, "pull-refused", message).retryable(true),
                });
            }
        }
    }

    fn gone(&mut self) {
        if self.consumer == Consumer::There {
            self.consumer = Consumer::Gone;
        }
    }

    fn give_out(&mut self) -> Option<StreamEvent> {
        let (count, bytes) = self.fetched.next_batch(&self.limits);
        let mut batch = RecordsBuilder::default();
        let mut replies = self.desk.replies();
        for (message, delivery) in self.fetched.messages.drain(..count) {
            push(&mut batch, &self.partition.topic, &message, delivery, self.limits.key.as_ref());
            if let Some(reply) = message.reply {
                replies.insert(delivery.sequence, reply);
            }
        }
        self.fetched.bytes -= bytes;
        (!batch.is_empty()).then(|| StreamEvent::Records(batch.finish_frame_with(&self.metadata)))
    }
}

fn push(batch: &mut RecordsBuilder, stream: &str, message: &Message, delivery: Delivery, key: Option<&KeyFrom>) {
    let record = NewRecord {
        topic: stream,
        partition: 0,
        offset: offset(delivery.sequence),
        timestamp_ms: Some(delivery.stored_ms),
        key: key.and_then(|key| key.of(message)),
        value: Some(&message.payload),
    };
    let again = (delivery.deliveries > 1).then(|| delivery.deliveries.to_string());
    let ours = [("Nats-Subject", Some(message.subject.as_str())), ("Nats-Num-Delivered", again.as_deref())];
    let theirs = message.headers.iter().flat_map(|headers| headers.iter()).flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| (name, value.as_str()))
    });
    let theirs = theirs.filter(|(name, _)| ours.iter().all(|(ours, _)| ours != name));
    let ours = ours.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    batch.push(record, theirs.chain(ours).map(|(name, value)| (name, Some(value.as_bytes()))));
}

fn offset(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
