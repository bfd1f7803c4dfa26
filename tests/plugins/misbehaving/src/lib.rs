//! Modules that panic wherever a module can, or crash, one that tells secrets, and modules that need a working runtime.

mod crash;
mod leak;
mod stages;

use std::time::Duration;

use pype_plugin::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Panics {
    /// Where to panic: `open`, `run`, `close` or `drop`.
    at: String,
}

struct PanicSolo(String);

impl Solo for PanicSolo {
    const NAME: &str = "panic_solo";
    const DESCRIPTION: &str = "Panics where it is told to";
    type Config = Panics;

    async fn open(config: Panics, _: &Context) -> Result<Self> {
        let solo = Self(config.at);
        solo.reach("open");
        Ok(solo)
    }

    async fn run(&mut self, _: &Context) -> Result<()> {
        self.reach("run");
        Ok(())
    }

    async fn close(&mut self, _: &Context) -> Result<()> {
        self.reach("close");
        Ok(())
    }
}

impl Drop for PanicSolo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.reach("drop");
        }
    }
}

impl PanicSolo {
    fn reach(&self, place: &str) {
        assert!(self.0 != place, "told to panic in {place}");
    }
}

#[derive(Deserialize, JsonSchema)]
struct Sleep {
    /// How long, in milliseconds.
    ms: u64,
}

/// Sleeps on tokio's clock and speaks through `tracing` and `log`.
struct SleepSolo(u64);

impl Solo for SleepSolo {
    const NAME: &str = "sleep_solo";
    const DESCRIPTION: &str = "Sleeps, and says so";
    const GLOBALS: &[&str] = &["slept_ms"];
    type Config = Sleep;

    async fn open(config: Sleep, _: &Context) -> Result<Self> {
        Ok(Self(config.ms))
    }

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        tracing::info!(ms = self.0, "going to sleep");
        tokio::time::sleep(Duration::from_millis(self.0)).await;
        log::warn!("slept for {} ms", self.0);
        ctx.set_global("slept_ms", self.0)
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        tracing::info!(cancelled = ctx.is_cancelled(), "closed");
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
struct Chatter {
    /// How many lines to log.
    lines: u64,
}

/// Logs without a pause.
struct ChatterSolo(u64);

impl Solo for ChatterSolo {
    const NAME: &str = "chatter_solo";
    const DESCRIPTION: &str = "Logs so many lines without a pause";
    type Config = Chatter;

    async fn open(config: Chatter, _: &Context) -> Result<Self> {
        Ok(Self(config.lines))
    }

    async fn run(&mut self, _: &Context) -> Result<()> {
        for n in 0..self.0 {
            tracing::info!(n, "a line\nand its rest");
        }
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
struct Fetch {
    /// What to fetch.
    url: String,
}

/// An HTTP request with an async client.
struct FetchSolo(String);

impl Solo for FetchSolo {
    const NAME: &str = "fetch_solo";
    const DESCRIPTION: &str = "Fetches a page";
    const GLOBALS: &[&str] = &["status", "body"];
    type Config = Fetch;

    async fn open(config: Fetch, _: &Context) -> Result<Self> {
        Ok(Self(config.url))
    }

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        let failed = |cause: reqwest::Error| {
            Error::new(ErrorKind::Unavailable, "fetch", "the page cannot be fetched").retryable(true).caused_by(cause)
        };
        let response = reqwest::get(&self.0).await.map_err(failed)?;
        ctx.set_global("status", response.status().as_u16())?;
        ctx.set_global("body", response.text().await.map_err(failed)?)
    }
}

export_plugin! {
    mods: [crash::CrashMod],
    solos: [PanicSolo, SleepSolo, ChatterSolo, FetchSolo, leak::LeakSolo, crash::CrashSolo],
    executes: [stages::TroubleStage, stages::OneAtATime],
}
