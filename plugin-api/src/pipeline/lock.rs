//! Stages that run the rest under a lock.
//!
//! A lock has an owner and an end, which the owner moves on while its rest runs. An owner that was paused for longer does not
//! know that another has the lock, so the lock alone protects nothing: each owner gets a *fencing token* that is larger
//! than all before, and what is to be protected refuses a smaller one than it has seen (`storage_write` with `fence`). After
//! M. Kleppmann, "How to do distributed locking", 2016.

use std::future::Future;

use serde_json::Value;

use super::{Next, PipelineContext};
use crate::error::{Error, ErrorKind, Result};

/// Where locks are.
pub trait Lock: Sync {
    /// What tells the owner of a lock.
    type Owner: Send + Sync;

    /// Waits for the lock of a name: its owner, and the fencing token.
    ///
    /// # Errors
    /// [`held`], or the locks cannot be reached.
    fn acquire(&self, name: &str) -> impl Future<Output = Result<(Self::Owner, u64)>> + Send;

    /// Keeps the lock; resolves with [`lost`] when it is another's, or may be.
    fn until_lost(&self, name: &str, owner: &Self::Owner) -> impl Future<Output = Error> + Send;

    /// Lets others have it.
    ///
    /// # Errors
    /// They get it only when its time is over.
    fn release(&self, name: &str, owner: Self::Owner) -> impl Future<Output = Result<()>> + Send;
}

/// Runs the rest while the lock of a name is held. The field `token` gets the fencing token.
///
/// # Errors
/// The lock is not to be had, or was lost, and then what ran under it was stopped; or the rest failed.
pub async fn run_under(
    lock: &impl Lock,
    name: &str,
    token: &str,
    mut ctx: PipelineContext,
    next: Next,
) -> Result<Value> {
    let (owner, fencing_token) = lock.acquire(name).await?;
    let result = match ctx.set(token, fencing_token) {
        Err(unfit) => Err(unfit),
        Ok(()) => tokio::select! {
            result = next.run(ctx) => result,
            lost = lock.until_lost(name, &owner) => return Err(lost),
        },
    };
    if let Err(error) = lock.release(name, owner).await {
        tracing::warn!(lock = name, "the lock is free only when its time is over: {error}");
    }
    result
}

/// The name of the lock for a run: there is one for each value of the field `by`.
///
/// # Errors
/// The field is not there, or is bytes.
pub fn name_for(ctx: &PipelineContext, name: &str, by: Option<&str>) -> Result<String> {
    let Some(by) = by else { return Ok(name.to_owned()) };
    let value: Value = ctx.get(by)?;
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(format!("{name}:{value}"))
}

/// Somebody else had the lock for all the time that the run waited.
#[must_use]
pub fn held(name: &str, wait_ms: u64) -> Error {
    let message = format!("the lock `{name}` was another's for {wait_ms} ms");
    Error::new(ErrorKind::Unavailable, "lock-held", message).retryable(true)
}

/// The lock is another's, or may be.
#[must_use]
pub fn lost(name: &str) -> Error {
    let message = format!("the lock `{name}` may be another's: what ran under it was stopped");
    Error::new(ErrorKind::Unavailable, "lock-lost", message).retryable(true)
}
