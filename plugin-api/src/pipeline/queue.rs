//! Jobs, and what a queue does with them.
//!
//! The contract, which one suite of tests holds every queue to:
//!
//! - *Accepted means durable*: once [`Dispatch::enqueue`](super::Dispatch::enqueue) has returned, the job survives the end
//!   of every process that was there.
//! - A job is leased to one worker at a time, until its visibility time-out. Each lease has a larger token than any before of
//!   the same job; whoever comes with an older one is refused with `stale-lease` and changes nothing.
//! - A lease counts as an attempt when it is given, so that a job whose worker is killed does not come back for ever. One that
//!   is [released](Verdict::Release) does not count. When the last attempt's worker did not come back, the job is leased once
//!   more, for the host to bury it; and if that worker does not come back either, it is dead.
//! - Two jobs of a pipeline with the same idempotency key are one: the second is accepted as the first, unless it asks for
//!   something else ([`key_reused`]).
//! - *Ordered* jobs of one pipeline and shard are leased one at a time, the oldest first.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Bytes;
use crate::error::{Error, ErrorKind};

/// A job to be accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its id, unlike any other.
    pub id: String,
    /// The pipeline it is of.
    pub pipeline: String,
    /// The version of the pipeline.
    pub version: String,
    /// Which part of all keys it belongs to.
    #[serde(default)]
    pub shard: Option<u32>,
    /// Whether jobs of its shard run one after the other.
    #[serde(default)]
    pub ordered: bool,
    /// What is asked for twice with the same key is done once.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// A hash of what was asked: the same key with another is a mistake of the caller's.
    #[serde(default)]
    pub asked: Option<String>,
    /// How long it waits at least.
    #[serde(default)]
    pub delay_ms: u64,
    /// How often it is run at most, the first time included.
    pub max_attempts: u32,
    /// The rest of the chain, as the host has packed it. Opaque to a queue.
    #[serde(skip)]
    pub payload: Bytes,
}

impl NewJob {
    /// As it is when it has been accepted at a time, in milliseconds since 1970.
    #[must_use]
    pub fn queued_at(&self, now_ms: u64) -> Job {
        Job {
            id: self.id.clone(),
            pipeline: self.pipeline.clone(),
            version: self.version.clone(),
            state: JobState::Queued,
            attempt: 0,
            max_attempts: self.max_attempts,
            created_ms: now_ms,
            updated_ms: now_ms,
            not_before_ms: now_ms.saturating_add(self.delay_ms),
            worker: None,
            shard: self.shard,
            idempotency_key: self.idempotency_key.clone(),
            result: None,
            error: None,
        }
    }
}

/// A job was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its id; that of the earlier one, if there was one with its idempotency key.
    pub id: String,
    /// Whether it was accepted before.
    pub duplicate: bool,
}

/// What a worker wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Who asks.
    pub worker: String,
    /// Of these pipelines.
    pub pipelines: Vec<String>,
    /// So many at most.
    pub count: u32,
    /// For so long; then they are given to somebody else.
    pub visibility_ms: u64,
    /// If there is none now, one that comes within this time is as good.
    #[serde(default)]
    pub wait_ms: u64,
    /// Only this one.
    #[serde(default)]
    pub job: Option<String>,
}

/// A job lent to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which.
    pub job: String,
    /// The fencing token.
    pub token: u64,
}

/// A job lent to a worker, with all it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeasedJob {
    /// To extend or end it with.
    pub lease: Lease,
    /// The pipeline it is of.
    pub pipeline: String,
    /// The version of the pipeline.
    pub version: String,
    /// 1 at first.
    pub attempt: u32,
    /// How often it is run at most.
    pub max_attempts: u32,
    /// What the host packed.
    #[serde(skip)]
    pub payload: Bytes,
}

/// What a worker says of a job in the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It succeeded.
    Succeeded {
        /// With this result.
        result: Value,
    },
    /// It is to be run again.
    Retry {
        /// Why.
        error: Error,
        /// After so long.
        delay_ms: u64,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: Error,
    },
    /// It failed, and its attempts are used up.
    Dead {
        /// Why, the last time.
        error: Error,
    },
    /// This worker cannot run it; another may. It does not count as an attempt.
    Release {
        /// After so long.
        delay_ms: u64,
    },
}

/// The states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits: for a worker, or for another attempt.
    Queued,
    /// A worker has it.
    Running,
    /// It has a result.
    Succeeded,
    /// It ended with an error that another attempt would not mend.
    Failed,
    /// Its attempts are used up.
    Dead,
    /// Somebody called it off.
    Cancelled,
}

/// A job as it is at the moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The pipeline it is of.
    pub pipeline: String,
    /// The version of the pipeline.
    pub version: String,
    /// Its state.
    pub state: JobState,
    /// How often it was leased.
    pub attempt: u32,
    /// How often it is run at most.
    pub max_attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it last changed.
    pub updated_ms: u64,
    /// Before this it is not run.
    #[serde(default)]
    pub not_before_ms: u64,
    /// Who has it, or had it last.
    #[serde(default)]
    pub worker: Option<String>,
    /// Which part of all keys it belongs to.
    #[serde(default)]
    pub shard: Option<u32>,
    /// What is asked for twice with the same key is done once.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// What came out of it.
    #[serde(default)]
    pub result: Option<Value>,
    /// Why it failed, the last time it did.
    #[serde(default)]
    pub error: Option<Error>,
}

/// Which jobs are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFilter {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// In one of these states; of none, in any.
    pub states: Vec<JobState>,
    /// That have not changed since, in milliseconds since 1970.
    pub unchanged_since_ms: Option<u64>,
    /// So many at most, the latest first; 0 for all.
    pub limit: u32,
}

impl JobFilter {
    /// Whether it leaves a job, its limit aside.
    #[must_use]
    pub fn takes(&self, job: &Job) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| *pipeline == job.pipeline)
            && (self.states.is_empty() || self.states.contains(&job.state))
            && self.unchanged_since_ms.is_none_or(|since| job.updated_ms < since)
    }
}

/// What somebody does to a job by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobAction {
    /// Queue a job that is failed, dead or cancelled once more, with all its attempts.
    Retry,
    /// Call off a job that is not over. A worker that has it learns of it when it extends its lease.
    Cancel,
}

/// What the host asks of a queue. Crosses as JSON, so it may grow; the payload crosses beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub(crate) enum QueueRequest {
    Enqueue { job: NewJob },
    Lease { request: LeaseRequest },
    Extend { lease: Lease, visibility_ms: u64 },
    Conclude { lease: Lease, verdict: Verdict },
    Job { id: String },
    Jobs { filter: JobFilter },
    Act { id: String, action: JobAction },
    Purge { filter: JobFilter },
}

/// How often a worker looks for jobs that another process accepted, or that have become due.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Looks for jobs to lend until there are some, or the worker has waited long enough. Who accepts a job in the same process
/// wakes it through `accepted`.
///
/// # Errors
/// A look fails.
pub async fn wait_for_jobs<Look: Future<Output = Result<Vec<LeasedJob>, Error>>>(
    request: &LeaseRequest,
    accepted: &Notify,
    mut look: impl FnMut() -> Look,
) -> Result<Vec<LeasedJob>, Error> {
    let end = Instant::now() + Duration::from_millis(request.wait_ms);
    loop {
        let told = accepted.notified();
        let leased = look().await?;
        if !leased.is_empty() || Instant::now() >= end {
            return Ok(leased);
        }
        let next_look = end.min(Instant::now() + LOOKS_EVERY);
        // Either way it looks again.
        tokio::time::timeout_at(next_look, told).await.unwrap_or(());
    }
}

/// The lease was given to somebody else since, or the job is over.
#[must_use]
pub fn stale_lease(lease: &Lease) -> Error {
    let message = format!("the lease {} of the job `{}` is over", lease.token, lease.job);
    Error::new(ErrorKind::Cancelled, "stale-lease", message)
}

/// The idempotency key came with another request before.
#[must_use]
pub fn key_reused(job: &NewJob) -> Error {
    let key = job.idempotency_key.as_deref().unwrap_or_default();
    let message = format!("the idempotency key `{key}` came with another request before");
    Error::new(ErrorKind::Data, "key-reused", message).hint("use a new key for each request")
}

/// There is no such job.
#[must_use]
pub fn no_such_job(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, "no-such-job", format!("there is no job `{id}`"))
        .hint("`pype jobs PIPELINE list` shows those that there are")
}

/// The job is in a state in which this cannot be done to it.
#[must_use]
pub fn cannot(action: JobAction, job: &Job) -> Error {
    let word = match action {
        JobAction::Retry => "retried",
        JobAction::Cancel => "cancelled",
    };
    let message = format!("the job `{}` is {}, so it cannot be {word}", job.id, job.state);
    Error::new(ErrorKind::Data, "wrong-state", message)
}

impl Verdict {
    /// The state that it brings a job to.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self {
            Verdict::Succeeded { .. } => JobState::Succeeded,
            Verdict::Retry { .. } | Verdict::Release { .. } => JobState::Queued,
            Verdict::Failed { .. } => JobState::Failed,
            Verdict::Dead { .. } => JobState::Dead,
        }
    }

    /// How long the job is to wait, if it is run again.
    #[must_use]
    pub fn delay_ms(&self) -> u64 {
        match self {
            Verdict::Retry { delay_ms, .. } | Verdict::Release { delay_ms } => *delay_ms,
            Verdict::Succeeded { .. } | Verdict::Failed { .. } | Verdict::Dead { .. } => 0,
        }
    }

    /// Whether the attempt counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(self, Verdict::Release { .. })
    }

    /// What came out of it, if it succeeded.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        match self {
            Verdict::Succeeded { result } => Some(result),
            Verdict::Retry { .. } | Verdict::Failed { .. } | Verdict::Dead { .. } | Verdict::Release { .. } => None,
        }
    }

    /// Why it failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Verdict::Retry { error, .. } | Verdict::Failed { error } | Verdict::Dead { error } => Some(error),
            Verdict::Succeeded { .. } | Verdict::Release { .. } => None,
        }
    }
}

impl JobState {
    /// All that there are.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Dead, Self::Cancelled];

    /// Its name, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Dead => "dead",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens to it any more by itself.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            JobState::Queued | JobState::Running => false,
            JobState::Succeeded | JobState::Failed | JobState::Dead | JobState::Cancelled => true,
        }
    }

    /// Whether this can be done to a job in it.
    #[must_use]
    pub fn takes(self, action: JobAction) -> bool {
        match action {
            JobAction::Retry => matches!(self, JobState::Failed | JobState::Dead | JobState::Cancelled),
            JobAction::Cancel => !self.is_over(),
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for JobState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        JobState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names = JobState::ALL.map(JobState::as_str).join(", ");
            Error::new(ErrorKind::Data, "unknown-state", format!("`{text}` is no state of a job: they are {names}"))
        })
    }
}
