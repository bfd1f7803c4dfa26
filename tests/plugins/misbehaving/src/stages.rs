//! Stages that fail, in every way that a host must bear.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pype_plugin::prelude::*;

/// What it does to a run.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Trouble {
    /// How long it takes, in milliseconds.
    #[serde(default)]
    ms: u64,
    /// So many calls fail first.
    #[serde(default)]
    fails: u32,
    /// Whether what fails may be tried again.
    #[serde(default)]
    retryable: bool,
    /// Whether it panics, instead.
    #[serde(default)]
    panics: bool,
    /// Whether it goes on; otherwise it ends the chain.
    #[serde(default = "yes")]
    goes_on: bool,
}

fn yes() -> bool {
    true
}

pub(crate) struct TroubleStage {
    config: Trouble,
    calls: AtomicU32,
}

impl Execute for TroubleStage {
    const NAME: &str = "trouble";
    const DESCRIPTION: &str = "Fails as it is told";
    type Config = Trouble;

    async fn open(config: Trouble, _: &Context) -> Result<Self> {
        Ok(Self { config, calls: AtomicU32::new(0) })
    }

    async fn execute(&self, mut ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_millis(self.config.ms)).await;
        assert!(!self.config.panics, "told to panic");
        if call <= self.config.fails {
            let message = format!("call {call} of {}", self.config.fails);
            return Err(Error::new(ErrorKind::Unavailable, "trouble", message).retryable(self.config.retryable));
        }
        ctx.set("calls", call)?;
        if self.config.goes_on { next.run(ctx).await } else { Ok("ended here".into()) }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

/// Fails if two runs use it at a time.
pub(crate) struct OneAtATime(AtomicBool);

impl Execute for OneAtATime {
    const NAME: &str = "one_at_a_time";
    const EXCLUSIVE: bool = true;
    type Config = Nothing;

    async fn open(_: Nothing, _: &Context) -> Result<Self> {
        Ok(Self(AtomicBool::new(false)))
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        assert!(!self.0.swap(true, Ordering::Relaxed), "somebody else uses it");
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.0.store(false, Ordering::Relaxed);
        next.run(ctx).await
    }
}
