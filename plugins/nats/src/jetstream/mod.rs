//! `jetstream`: jobs on NATS servers, which many machines share.
//!
//! The truth is in a [bucket](crate::bucket), where every change is a compare-and-set on the job's record. Workers learn of
//! jobs by [hints](crate::hints). For each job there are, under the tokens of its names:
//!
//! | key | value |
//! |---|---|
//! | `job.ID` | its [record](crate::record) |
//! | `payload.ID` | its payload |
//! | `key.PIPELINE.KEY` | the job that was accepted with an idempotency key |
//! | `line.PIPELINE.SHARD.ID` | its place in the line of its shard, if it is ordered; the one that was written first is at the head |
//!
//! A job that is accepted is written in the order key, payload, record, place, hint. Whatever of it a crash leaves out is
//! written when the same is asked for again. A hint that is lost all the same, with a disk say, is given anew by a [sweep],
//! which workers do once in a while.
//!
//! A hint outlives its job's leases: it comes back when the lease runs out, so that somebody takes up what a worker that
//! was killed has left. Hints are ended when the job is over; one that is not is ended by whoever it comes to next.
//!
//! [sweep]: upkeep

mod accept;
mod kept;
mod keys;
mod lend;
mod line;
mod upkeep;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use pype_plugin::prelude::*;
use pype_plugin::queue::{
    Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict, cannot, no_such_job,
    stale_lease, wait_for_jobs,
};
use tokio::sync::Notify;

use crate::bucket::Bucket;
use crate::connection::{Connection, Servers};
use crate::hints::Hints;
use crate::record::Record;

/// How many requests of one call are under way at a time.
const AT_ONCE: usize = 64;

pub(crate) struct JetStream {
    bucket: Bucket,
    hints: Hints,
    /// What the clock of the server is ahead of ours by, in milliseconds.
    ahead_ms: AtomicI64,
    /// When it was opened, in milliseconds since 1970.
    opened: (u64, Instant),
    /// By the clock of the server.
    next_sweep_ms: AtomicU64,
    /// Which pipeline is asked for first next time.
    turn: AtomicUsize,
    accepted: Notify,
}

/// Which servers, and which queue of theirs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(flatten)]
    servers: Servers,
    /// Pipelines that name the same one share it. Letters, digits, `_` and `-`.
    #[serde(default = "pype")]
    name: String,
    /// How many servers of a cluster keep each job. It holds for a queue from when it is first used.
    #[serde(default = "one")]
    replicas: usize,
}

fn pype() -> String {
    "pype".to_owned()
}

fn one() -> usize {
    1
}

impl Dispatch for JetStream {
    const NAME: &'static str = "jetstream";
    const DESCRIPTION: &'static str = "Keeps jobs on NATS servers (JetStream), which many machines share";
    const CATEGORY: &'static str = "Queues";
    const PACKAGES: &'static [&'static str] = &["async-nats"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let Config { servers, name, replicas } = config;
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_legal) {
            let message = format!("`name`: `{name}` is not made of letters, digits, `_` and `-`");
            return Err(Error::new(ErrorKind::Config, "bad-name", message));
        }
        let connection = Connection::open(&servers).await?;
        let queue = Self {
            bucket: Bucket::open(connection.clone(), &format!("{name}-jobs"), replicas).await?,
            hints: Hints::open(connection, &name, replicas).await?,
            ahead_ms: AtomicI64::default(),
            opened: (upkeep::wall_clock(), Instant::now()),
            next_sweep_ms: AtomicU64::default(),
            turn: AtomicUsize::default(),
            accepted: Notify::new(),
        };
        queue.check_format().await?;
        queue.set_clock().await?;
        Ok(queue)
    }

    async fn enqueue(&self, job: NewJob, _: &Context) -> Result<Accepted> {
        let accepted = self.accept(job).await?;
        self.accepted.notify_waiters();
        Ok(accepted)
    }

    async fn lease(&self, request: LeaseRequest, _: &Context) -> Result<Vec<LeasedJob>> {
        match self.sweep_if_due().await {
            Err(error) if error.retryable => return Err(error),
            // Jobs can be lent all the same.
            Err(error) => tracing::warn!("the sweep failed: {error}"),
            Ok(()) => {}
        }
        wait_for_jobs(&request, &self.accepted, || self.look(&request)).await
    }

    async fn extend(&self, lease: Lease, visibility_ms: u64, _: &Context) -> Result<()> {
        let extend =
            |record: Record| record.extended(&lease, visibility_ms, self.now()).ok_or_else(|| stale_lease(&lease));
        self.change(&lease.job, || stale_lease(&lease), extend).await.map(drop)
    }

    async fn conclude(&self, lease: Lease, verdict: Verdict, _: &Context) -> Result<()> {
        let conclude =
            |record: Record| record.concluded(&lease, &verdict, self.now()).ok_or_else(|| stale_lease(&lease));
        let concluded = self.change(&lease.job, || stale_lease(&lease), conclude).await?;
        self.follow_up(&concluded).await;
        Ok(())
    }

    async fn job(&self, id: &str, _: &Context) -> Result<Option<Job>> {
        Ok(self.settled(id).await?.map(|(record, _)| record.job))
    }

    async fn jobs(&self, filter: JobFilter, _: &Context) -> Result<Vec<Job>> {
        let listed = self.list(&filter).await?;
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
        Ok(listed.into_iter().take(limit).map(|(record, _)| record.job).collect())
    }

    async fn act(&self, id: &str, action: JobAction, _: &Context) -> Result<()> {
        while let Some((record, revision)) = self.settled(id).await? {
            if !record.job.state.takes(action) {
                return Err(cannot(action, &record.job));
            }
            let place = match action {
                // Before the record says that it lives again, so that no other is at the head of the line then.
                JobAction::Retry => self.queue_up_again(&record).await?,
                JobAction::Cancel => self.place_of(&record).await?,
            };
            let acted_on = Record { place, ..record.acted_on(action, self.now()) };
            if self.replace(&acted_on, revision).await?.is_none() {
                continue;
            }
            match action {
                JobAction::Retry => self.hints.give(&acted_on.job.pipeline, id, 0).await?,
                JobAction::Cancel => self.follow_up(&acted_on).await,
            }
            self.accepted.notify_waiters();
            return Ok(());
        }
        Err(no_such_job(id))
    }

    async fn purge(&self, filter: JobFilter, _: &Context) -> Result<u64> {
        let over = self.list(&filter).await?.into_iter().filter(|(record, _)| record.is_over());
        let purges = over.map(|(record, revision)| self.purge_one(record, revision));
        let purged = stream::iter(purges).buffer_unordered(AT_ONCE);
        purged.try_fold(0, async |sum, is_purged| Ok(sum + u64::from(is_purged))).await
    }
}
