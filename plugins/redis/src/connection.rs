//! A connection that comes back by itself, and what goes wrong with it.

use std::time::Duration;

use pype_plugin::prelude::*;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, ErrorKind as Kind, FromRedisValue, IntoConnectionInfo, RedisError, ScriptInvocation, ServerErrorKind,
};

/// How long a call, or a connection, may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn local() -> String {
    "redis://127.0.0.1:6379".to_owned()
}

/// A server, and the connection to it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) client: Client,
    connection: ConnectionManager,
    /// For messages: without a password.
    address: String,
}

impl Server {
    /// Connects to `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` with TLS.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let refuse = |error: RedisError| {
            let message = format!("`url` is no URL of a Redis server: {error}");
            Error::new(ErrorKind::Config, "bad-url", message).hint("it looks like `redis://127.0.0.1:6379/0`")
        };
        let info = url.into_connection_info().map_err(refuse)?;
        let address = info.addr().to_string();
        let client = Client::open(info).map_err(refuse)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1);
        let connected = ConnectionManager::new_with_config(client.clone(), config).await;
        let connection = connected.map_err(|cause| failed(&address, cause))?;
        Ok(Self { client, connection, address })
    }

    /// Calls a command.
    pub(crate) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        command.query_async(&mut self.connection.clone()).await.map_err(|cause| self.failed(cause))
    }

    /// Runs a script.
    pub(crate) async fn run<T: FromRedisValue>(&self, step: &ScriptInvocation<'_>) -> Result<T> {
        step.invoke_async(&mut self.connection.clone()).await.map_err(|cause| self.failed(cause))
    }

    pub(crate) fn failed(&self, cause: RedisError) -> Error {
        failed(&self.address, cause)
    }
}

fn failed(address: &str, cause: RedisError) -> Error {
    let unavailable = (ErrorKind::Unavailable, "redis-unavailable", true);
    let (kind, code, retryable) = match cause.kind() {
        Kind::Io
        | Kind::MasterNameNotFoundBySentinel
        | Kind::NoValidReplicasFoundBySentinel
        | Kind::ClusterConnectionNotFound => unavailable,
        Kind::AuthenticationFailed => (ErrorKind::Config, "redis-denied", false),
        Kind::Server(ServerErrorKind::NoPerm) => (ErrorKind::Config, "redis-denied", false),
        Kind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly,
        ) => unavailable,
        _ if matches!(cause.code(), Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS")) => unavailable,
        _ if matches!(cause.code(), Some("NOAUTH" | "WRONGPASS")) => (ErrorKind::Config, "redis-denied", false),
        _ => (ErrorKind::Internal, "redis", false),
    };
    Error::new(kind, code, format!("Redis at `{address}`: {cause}")).retryable(retryable)
}
