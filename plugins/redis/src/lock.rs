//! `redis_lock`: one run at a time, by a key in Redis that its owner keeps alive.

use std::time::Duration;

use pype_plugin::lock::{self, Lock};
use pype_plugin::prelude::*;
use redis::Script;
use tokio::time::Instant;

use crate::connection::{self, Server};

/// How often somebody who waits asks again.
const ASKS_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct RedisLock {
    server: Server,
    config: Config,
    /// Of `KEYS[1]`, the lock, whose value is its owner's token, and `KEYS[2]`, the last token.
    acquire: Script,
    extend: Script,
    release: Script,
}

/// Which lock, and for how long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` with TLS.
    #[serde(default = "connection::local")]
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

impl Execute for RedisLock {
    const NAME: &'static str = "redis_lock";
    const DESCRIPTION: &'static str = "Runs the rest under a lock in Redis, with a fencing token";
    const CATEGORY: &'static str = "Locks";
    const PACKAGES: &'static [&'static str] = &["redis"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        if config.ttl_ms < 100 {
            let message = format!("`ttl_ms`: {} ms are too short to show signs of life in", config.ttl_ms);
            return Err(Error::new(ErrorKind::Config, "bad-duration", message).hint("100 or more"));
        }
        // By the server's clock in microseconds, so that tokens rise even after it has forgotten the last.
        let acquire = Script::new(
            "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
             local time, last = redis.call('TIME'), tonumber(redis.call('GET', KEYS[2]) or 0)
             local token = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
             redis.call('SET', KEYS[2], token)
             redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
             return token",
        );
        let extend = Script::new(
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
        );
        let release = Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0");
        Ok(Self { server: Server::connect(&config.url).await?, config, acquire, extend, release })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let name = lock::name_for(&ctx, &self.config.name, self.config.by.as_deref())?;
        lock::run_under(self, &name, &self.config.token, ctx, next).await
    }
}

impl Lock for RedisLock {
    /// The token, and when it was asked for.
    type Owner = (u64, Instant);

    async fn acquire(&self, name: &str) -> Result<(Self::Owner, u64)> {
        let end = Instant::now() + Duration::from_millis(self.config.wait_ms);
        let mut step = self.acquire.key(key(name));
        step.key(format!("{{{name}}}:token")).arg(self.config.ttl_ms);
        loop {
            let asked = Instant::now();
            match self.server.run(&step).await? {
                0 if Instant::now() < end => tokio::time::sleep(ASKS_EVERY).await,
                0 => return Err(lock::held(name, self.config.wait_ms)),
                token => return Ok(((token, asked), token)),
            }
        }
    }

    async fn until_lost(&self, name: &str, &(token, asked): &Self::Owner) -> Error {
        let ttl = Duration::from_millis(self.config.ttl_ms);
        let mut step = self.extend.key(key(name));
        step.arg(token).arg(self.config.ttl_ms);
        let mut held_since = asked;
        loop {
            tokio::time::sleep(ttl / 3).await;
            let asked = Instant::now();
            match tokio::time::timeout_at(held_since + ttl, self.server.run(&step)).await {
                Ok(Ok(true)) => held_since = asked,
                Ok(Ok(false)) | Err(_) => return lock::lost(name),
                // It may be reached again before the time is over.
                Ok(Err(error)) => tracing::warn!(name, "the lock was not extended: {error}"),
            }
        }
    }

    async fn release(&self, name: &str, (token, _): Self::Owner) -> Result<()> {
        let mut step = self.release.key(key(name));
        if self.server.run(step.arg(token)).await? { Ok(()) } else { Err(lock::lost(name)) }
    }
}

/// Where a lock is. In braces, so that a cluster has it and its last token in one place.
fn key(name: &str) -> String {
    format!("{{{name}}}:lock")
}
