//! `postgres_lock`: one run at a time, by an advisory lock of a PostgreSQL session.
//!
//! The lock is the session's: it ends with it. The server ends a session that has been silent for `ttl_ms`, so a paused owner
//! loses its lock. Fencing tokens are counted in the table `pype_locks`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pype_plugin::lock::{self, Lock};
use pype_plugin::prelude::*;
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config as Server, NoTls};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often somebody who waits asks again.
const ASKS_EVERY: Duration = Duration::from_millis(50);
/// Sessions that wait to be used again.
const IDLE: usize = 16;

/// Two sessions that make the same table at once fail, so they do it one after the other.
const TABLE: &str = "BEGIN;
    SELECT pg_advisory_xact_lock(hashtextextended('pype_locks', 1));
    CREATE TABLE IF NOT EXISTS pype_locks (name TEXT PRIMARY KEY, token BIGINT NOT NULL);
    COMMIT";
/// The lock of a name is that of its hash: names that share one exclude each other.
const TRY: &str = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
const RELEASE: &str = "SELECT pg_advisory_unlock(hashtextextended($1, 0))";
const NEXT_TOKEN: &str = "INSERT INTO pype_locks (name, token) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET token = pype_locks.token + 1 RETURNING token";

pub(crate) struct PostgresLock {
    server: Server,
    config: Config,
    // Taken out for one run, and put back when its lock is released.
    idle: Mutex<Vec<Client>>,
}

/// Which lock, and for how long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: `postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE`.
    url: String,
    /// The lock.
    name: String,
    /// A field of the context: there is one lock for each of its values.
    #[serde(default)]
    by: Option<String>,
    /// The lock is free again so long after its owner's last sign of life.
    #[serde(default = "half_a_minute")]
    ttl_ms: u64,
    /// A run that has not got it after so long fails, and may be tried again.
    #[serde(default = "half_a_minute")]
    wait_ms: u64,
    /// The field that gets the fencing token.
    #[serde(default = "fencing_token")]
    token: String,
}

fn half_a_minute() -> u64 {
    30_000
}

fn fencing_token() -> String {
    "fencing_token".to_owned()
}

impl Execute for PostgresLock {
    const NAME: &'static str = "postgres_lock";
    const DESCRIPTION: &'static str = "Runs the rest under an advisory lock of PostgreSQL, with a fencing token";
    const CATEGORY: &'static str = "Locks";
    const PACKAGES: &'static [&'static str] = &["tokio-postgres"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Self::of(config).await
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let name = lock::name_for(&ctx, &self.config.name, self.config.by.as_deref())?;
        lock::run_under(self, &name, &self.config.token, ctx, next).await
    }
}

impl PostgresLock {
    pub(crate) async fn of(config: Config) -> Result<Self> {
        if config.ttl_ms < 100 {
            let message = format!("`ttl_ms`: {} ms are too short to show signs of life in", config.ttl_ms);
            return Err(Error::new(ErrorKind::Config, "bad-duration", message).hint("100 or more"));
        }
        let mut server: Server = config.url.parse().map_err(|error| {
            let message = format!("`url` is no URL of a PostgreSQL server: {error}");
            Error::new(ErrorKind::Config, "bad-url", message).hint("it looks like `postgres://me@127.0.0.1/jobs`")
        })?;
        server.connect_timeout(PATIENCE).application_name("pype");
        if server.get_ssl_mode() == SslMode::Require {
            let message = "`url` asks for TLS, which this stage does not speak";
            return Err(Error::new(ErrorKind::Config, "no-tls", message).hint("use `sslmode=prefer`, and a tunnel"));
        }
        // The server ends a session that shows no sign of life for so long.
        let given = server.get_options().unwrap_or_default().to_owned();
        server.options(format!("{given} -c idle_session_timeout={}", config.ttl_ms));
        server.tcp_user_timeout(PATIENCE);
        let lock = Self { server, config, idle: Mutex::default() };
        let session = lock.session().await?;
        session.batch_execute(TABLE).await.map_err(failed)?;
        lock.put_back(session);
        Ok(lock)
    }

    /// A session that nobody uses.
    async fn session(&self) -> Result<Client> {
        while let Some(idle) = self.take_idle() {
            // The server may have ended it since.
            if patiently(idle.batch_execute("")).await.is_ok() {
                return Ok(idle);
            }
        }
        let (client, connection) = patiently(self.server.connect(NoTls)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a session of PostgreSQL ended: {error}");
            }
        });
        Ok(client)
    }

    fn take_idle(&self) -> Option<Client> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, session: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(session);
        }
    }
}

impl Lock for PostgresLock {
    type Owner = Client;

    async fn acquire(&self, name: &str) -> Result<(Client, u64)> {
        let end = Instant::now() + Duration::from_millis(self.config.wait_ms);
        loop {
            let session = self.session().await?;
            if patiently(session.query_one(TRY, &[&name])).await?.get(0) {
                let token: i64 = patiently(session.query_one(NEXT_TOKEN, &[&name])).await?.get(0);
                return Ok((session, token.unsigned_abs()));
            }
            // Those who wait need few sessions.
            self.put_back(session);
            if Instant::now() >= end {
                return Err(lock::held(name, self.config.wait_ms));
            }
            tokio::time::sleep(ASKS_EVERY).await;
        }
    }

    async fn until_lost(&self, name: &str, owner: &Client) -> Error {
        let ttl = Duration::from_millis(self.config.ttl_ms);
        loop {
            tokio::time::sleep(ttl / 3).await;
            match tokio::time::timeout(ttl / 2, owner.batch_execute("")).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return lock::lost(name).caused_by(failed(error)),
                Err(_) => return lock::lost(name),
            }
        }
    }

    async fn release(&self, name: &str, owner: Client) -> Result<()> {
        patiently(owner.query_one(RELEASE, &[&name])).await?;
        self.put_back(owner);
        Ok(())
    }
}

/// A step that the server must have done in time. Its session ends with the client that is dropped, and with that its lock.
async fn patiently<T>(step: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, step).await.map_or_else(|_| Err(silent()), |done| done.map_err(failed))
}

fn silent() -> Error {
    let message = format!("PostgreSQL did not answer within {} s", PATIENCE.as_secs());
    Error::new(ErrorKind::Unavailable, "postgres-unavailable", message).retryable(true)
}

fn failed(cause: tokio_postgres::Error) -> Error {
    let denied = [&SqlState::INVALID_PASSWORD, &SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    let (kind, code, retryable) = match cause.code() {
        Some(state) if denied.contains(&state) || *state == SqlState::INSUFFICIENT_PRIVILEGE => {
            (ErrorKind::Config, "postgres-denied", false)
        }
        Some(state) if *state == SqlState::UNDEFINED_DATABASE || *state == SqlState::UNDEFINED_OBJECT => {
            (ErrorKind::Config, "postgres-unfit", false)
        }
        // Classes 08, 40, 53, 57: connections, serialisation, resources, and an operator who ends it.
        Some(state) if !["08", "40", "53", "57"].contains(&&state.code()[..2]) => {
            (ErrorKind::Internal, "postgres", false)
        }
        _ => (ErrorKind::Unavailable, "postgres-unavailable", true),
    };
    Error::new(kind, code, "PostgreSQL refused or did not answer").retryable(retryable).caused_by(cause)
}
