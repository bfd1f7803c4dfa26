//! A connection to NATS: one for all modules of the library that name the same servers.
//!
//! Every request ends within [`PATIENCE`], and as soon as the connection is lost that it went by. That comes back by itself;
//! what failed as `unavailable` may be tried again.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::IntoFuture;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_nats::client::{self, RequestError, RequestErrorKind};
use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::{ContextBuilder, CreateStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, ConsumerErrorKind, Stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr, jetstream};
use bytes::Bytes;
use pype_plugin::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;

/// How long an answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server that is away is left alone between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection is closed when the last module that uses it is.
static OPEN: Mutex<BTreeMap<Servers, Weak<Connection>>> = Mutex::new(BTreeMap::new());

/// Where servers are, and who asks them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub(crate) struct Servers {
    /// The servers, separated by commas: `nats://USER:PASSWORD@HOST:4222`, `nats://TOKEN@HOST:4222`, `tls://HOST:4222`.
    #[serde(default = "local")]
    url: String,
    /// The file of credentials (a JWT, and the seed of its key) that they let in. It goes before what the URL says.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    credentials: Option<String>,
}

pub(crate) struct Connection {
    client: Client,
    jetstream: jetstream::Context,
    /// Tells those who wait for an answer that it will not come.
    lost: Arc<Notify>,
    /// The servers, without passwords.
    shown: String,
}

impl Connection {
    /// The connection to these servers.
    pub(crate) async fn open(servers: &Servers) -> Result<Arc<Self>> {
        let there = OPEN.lock().unwrap_or_else(PoisonError::into_inner).get(servers).and_then(Weak::upgrade);
        if let Some(connection) = there {
            return Ok(connection);
        }
        let connection = Arc::new(Self::connect(servers).await?);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, connection| connection.strong_count() > 0);
        open.insert(servers.clone(), Arc::downgrade(&connection));
        Ok(connection)
    }

    async fn connect(Servers { url, credentials }: &Servers) -> Result<Self> {
        let (servers, shown) = servers(url)?;
        let lost = Arc::new(Notify::new());
        let options = match credentials {
            Some(path) => with_credentials(path).await?,
            None => let_in(&servers),
        };
        let options = options
            .name("pype")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(pause)
            .event_callback({
                let lost = lost.clone();
                move |event| tell(event, lost.clone())
            });
        let client = options.connect(servers).await.map_err(|cause| match cause.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                let message = format!("`{shown}` lets nobody in with these credentials");
                Error::new(ErrorKind::Config, "nats-denied", message)
                    .hint("put them into the URL (`nats://USER:PASSWORD@HOST:4222`, `nats://TOKEN@HOST:4222`), or name a file in `credentials`")
            }
            ConnectErrorKind::Tls => {
                Error::new(ErrorKind::Config, "nats-tls", format!("`{shown}` has no TLS that can be trusted"))
                    .caused_by(cause)
            }
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => unreachable(&shown, "connect").caused_by(cause),
        })?;
        let jetstream = ContextBuilder::new().timeout(PATIENCE).build(client.clone());
        Ok(Self { client, jetstream, lost, shown })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// What a request came to, if it came to anything in time. One that is made while the connection is away waits for it to
    /// come back.
    pub(crate) async fn within<T>(&self, doing: &str, request: impl IntoFuture<Output = T>) -> Result<T> {
        let lost = self.lost.notified();
        tokio::select! {
            biased;
            done = request.into_future() => Ok(done),
            () = lost => Err(self.unreachable(doing)),
            () = tokio::time::sleep(PATIENCE) => Err(self.unreachable(doing)),
        }
    }

    /// A request that may fail in no way that its caller would tell from others.
    pub(crate) async fn step<T, E: StdError + 'static>(
        &self,
        doing: &str,
        step: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<T> {
        self.within(doing, step).await?.map_err(|cause| self.failed(doing, &cause))
    }

    /// Publishes to a stream; `None` if the message came with a condition that does not hold. When it returns, the servers
    /// have written it to their files.
    pub(crate) async fn store(
        &self,
        doing: &str,
        subject: String,
        message: PublishMessage,
        size: usize,
    ) -> Result<Option<u64>> {
        let publish = async { self.jetstream.send_publish(subject.clone(), message).await?.await };
        match self.within(doing, publish).await? {
            Ok(stored) => Ok(Some(stored.sequence)),
            Err(cause) => self.not_stored(doing, &subject, &cause, size),
        }
    }

    /// The error for what was not stored; `None` as with [`Self::store`].
    pub(crate) fn not_stored(
        &self,
        doing: &str,
        subject: &str,
        cause: &PublishError,
        size: usize,
    ) -> Result<Option<u64>> {
        match cause.kind() {
            PublishErrorKind::WrongLastSequence => Ok(None),
            PublishErrorKind::MaxPayloadExceeded => Err(self.too_large(size)),
            PublishErrorKind::StreamNotFound => {
                let message = format!("cannot {doing}: no stream of `{}` takes `{subject}`", self.shown);
                Err(Error::new(ErrorKind::Unavailable, "no-stream", message)
                    .retryable(true)
                    .hint("unless the server has just started, make one: `nats stream add`"))
            }
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::Other => Err(self.failed(doing, cause)),
        }
    }

    /// The stream of this config, made if it is not there. One that is there stays as it is.
    pub(crate) async fn open_stream(&self, config: stream::Config) -> Result<Stream> {
        let doing = format!("open the stream `{}`", config.name);
        let opened = self.within(&doing, self.jetstream.get_or_create_stream(config)).await?;
        opened.map_err(|cause| match cause.kind() {
            CreateStreamErrorKind::JetStream(refusal) => self.refused(&doing, &refusal),
            _ if !self.client.server_info().jetstream => self.no_jetstream(),
            _ => self.failed(&doing, &cause),
        })
    }

    /// The consumer of this config, made if it is not there; its name.
    pub(crate) async fn open_consumer(&self, stream: &str, config: pull::Config) -> Result<String> {
        let doing = format!("open a consumer of `{stream}`");
        let opened = self.within(&doing, self.jetstream.create_consumer_on_stream(config, stream)).await?;
        let consumer = opened.map_err(|cause| match cause.kind() {
            ConsumerErrorKind::JetStream(refusal) => self.refused(&doing, &refusal),
            ConsumerErrorKind::TimedOut
            | ConsumerErrorKind::Request
            | ConsumerErrorKind::InvalidConsumerType
            | ConsumerErrorKind::InvalidName
            | ConsumerErrorKind::Other => self.failed(&doing, &cause),
        })?;
        Ok(consumer.cached_info().name.clone())
    }

    /// Publishes to whoever listens. When it returns, a server has the message.
    pub(crate) async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<()> {
        let doing = format!("publish to `{subject}`");
        let (size, connects) = (payload.len(), self.connects());
        let publish = self.client.publish_with_headers(subject.to_owned(), headers, payload);
        let published = async {
            publish.await?;
            Ok(self.round_trip().await?)
        };
        match self.within(&doing, published).await? {
            // What was sent before the connection was lost may not have come to the server that has answered.
            Ok(()) if self.connects() == connects => Ok(()),
            Ok(()) => Err(self.unreachable(&doing)),
            Err(NotPublished::Publish(cause)) => Err(self.not_published(&doing, &cause, size)),
            Err(NotPublished::RoundTrip(cause)) => Err(self.failed(&doing, &cause)),
        }
    }

    /// The error for what did not leave.
    pub(crate) fn not_published(&self, doing: &str, cause: &client::PublishError, size: usize) -> Error {
        match cause.kind() {
            client::PublishErrorKind::MaxPayloadExceeded => self.too_large(size),
            _ => self.failed(doing, cause),
        }
    }

    /// Waits until the server has read all that was sent before: that nobody listens to a new subject is something that it has
    /// to tell.
    pub(crate) async fn round_trip(&self) -> Result<(), RequestError> {
        match self.client.request(self.client.new_inbox(), Bytes::new()).await {
            Err(cause) if cause.kind() != RequestErrorKind::NoResponders => Err(cause),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// How often it was connected. What was asked of a server before it was the last time is not answered any more.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The error for what a call of the client came to.
    pub(crate) fn failed(&self, doing: &str, cause: &(dyn StdError + 'static)) -> Error {
        let mut next = Some(cause);
        while let Some(cause) = next {
            if let Some(refusal) = cause.downcast_ref::<jetstream::Error>() {
                return self.refused(doing, refusal);
            }
            next = cause.source();
        }
        self.unreachable(doing).caused_by(cause)
    }

    /// The error for what JetStream has refused.
    pub(crate) fn refused(&self, doing: &str, refusal: &jetstream::Error) -> Error {
        if matches!(
            refusal.error_code(),
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        ) {
            return self.no_jetstream();
        }
        let message = format!("cannot {doing}: `{}` refuses: {refusal}", self.shown);
        match refusal.code() {
            500.. => Error::new(ErrorKind::Unavailable, "nats-busy", message)
                .retryable(true)
                .hint("if it stays so, look whether the server has room: `nats account info`"),
            _ => Error::new(ErrorKind::Internal, "nats-refused", message),
        }
    }

    /// The error for servers without JetStream.
    pub(crate) fn no_jetstream(&self) -> Error {
        let message = format!("`{}` has no JetStream for this account", self.shown);
        Error::new(ErrorKind::Config, "no-jetstream", message).hint("start the server with it: `nats-server -js`")
    }

    /// The error for servers that do not answer.
    pub(crate) fn unreachable(&self, doing: &str) -> Error {
        unreachable(&self.shown, doing)
    }

    /// The error for what no server takes.
    pub(crate) fn too_large(&self, size: usize) -> Error {
        let largest = self.client.max_payload();
        let message = format!("{size} bytes are too many for `{}`, which takes {largest} in one message", self.shown);
        Error::new(ErrorKind::Data, "too-large", message)
            .hint("raise `max_payload` of the server, or keep the bytes in a store and pass on their name")
    }
}

/// Where a server is that was started without further ado.
fn local() -> String {
    "nats://127.0.0.1:4222".to_owned()
}

/// Why a message was not published.
enum NotPublished {
    Publish(client::PublishError),
    RoundTrip(RequestError),
}

impl From<client::PublishError> for NotPublished {
    fn from(cause: client::PublishError) -> Self {
        Self::Publish(cause)
    }
}

impl From<RequestError> for NotPublished {
    fn from(cause: RequestError) -> Self {
        Self::RoundTrip(cause)
    }
}

fn unreachable(shown: &str, doing: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "nats-unreachable", format!("cannot {doing}: `{shown}` does not answer"))
        .retryable(true)
        .hint("is a server running there? `nats-server -js` starts one")
}

/// The servers of a URL, and how they are shown.
fn servers(url: &str) -> Result<(Vec<ServerAddr>, String)> {
    let parts: Vec<&str> = url.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let shown: Vec<String> = parts.iter().map(|part| without_secrets(part)).collect();
    let shown = shown.join(",");
    let servers = parts.iter().map(|part| part.parse()).collect::<Result<Vec<ServerAddr>, _>>();
    match servers {
        Ok(servers) if !servers.is_empty() => Ok((servers, shown)),
        _ => {
            let message = format!("`url`: `{shown}` names no NATS server");
            Err(Error::new(ErrorKind::Config, "bad-url", message).hint("as in `nats://127.0.0.1:4222`"))
        }
    }
}

/// Options with who is let in, as the first URL says that does.
fn let_in(servers: &[ServerAddr]) -> ConnectOptions {
    match servers.iter().find_map(|server| Some((server.username()?, server.password()))) {
        Some((user, Some(password))) => ConnectOptions::with_user_and_password(decoded(user), decoded(password)),
        Some((token, None)) => ConnectOptions::with_token(decoded(token)),
        None => ConnectOptions::new(),
    }
}

/// Options with who is let in, as a file says.
async fn with_credentials(path: &str) -> Result<ConnectOptions> {
    ConnectOptions::with_credentials_file(path).await.map_err(|cause| {
        let message = format!("`credentials`: `{path}` is no file of credentials that can be read");
        Error::new(ErrorKind::Config, "bad-credentials", message)
            .caused_by(cause)
            .hint("`nsc generate creds` writes one")
    })
}

/// A part of a URL, with `%XX` as the bytes that they stand for (RFC 3986, 2.1).
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%');
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server's URL without who is let in.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// How long to wait before the next attempt to connect.
fn pause(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).min(6);
    (Duration::from_millis(25) * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

async fn tell(event: Event, lost: Arc<Notify>) {
    match event {
        Event::Connected | Event::Draining | Event::Closed => tracing::debug!("NATS: {event}"),
        Event::Disconnected => {
            tracing::warn!("NATS: {event}");
            lost.notify_waiters();
        }
        Event::LameDuckMode | Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
            tracing::warn!("NATS: {event}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_shown_without_their_passwords() {
        for (url, expect) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("a:1, tls://user:p@ss@b", "nats://a:1,tls://b"),
            ("nats://secret-token@a", "nats://a"),
        ] {
            assert_eq!(servers(url).map(|(_, shown)| shown), Ok(expect.to_owned()));
        }
        for url in ["", " , ", "http://a:secret@b"] {
            let error = servers(url).expect_err(url);
            assert_eq!((error.code.as_str(), error.message.contains("secret")), ("bad-url", false));
        }
    }

    #[test]
    fn passwords_are_read_as_urls_write_them() {
        for (part, expect) in [("plain", "plain"), ("p%40s%3As%C3%BC", "p@s:sü"), ("100%", "100%"), ("%zz%4", "%zz%4")]
        {
            assert_eq!(decoded(part), expect);
        }
    }

    #[test]
    fn attempts_to_connect_become_rare_but_not_too_rare() {
        let pauses: Vec<u128> = [0, 1, 2, 100, usize::MAX].map(pause).iter().map(Duration::as_millis).collect();
        assert_eq!(pauses, [25, 50, 100, 1000, 1000]);
    }
}
