//! Upkeep: the clock, the format, and hints that were lost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use pype_plugin::prelude::*;

use super::keys::job_key;
use super::{AT_ONCE, JetStream};
use crate::record::Record;

/// The format of what is kept.
const FORMAT: &[u8] = b"1";
/// How often lost hints are looked for, by all workers together.
const SWEEPS_EVERY_MS: u64 = 60_000;
/// A sweep that takes long is done more rarely still: the share of the time that sweeps may take is one of this.
const SWEEPS_AT_MOST_ONE_OF: u32 = 20;

impl JetStream {
    pub(super) async fn check_format(&self) -> Result<()> {
        if self.bucket.create("format", bytes::Bytes::from_static(FORMAT)).await?.is_some() {
            return Ok(());
        }
        match self.bucket.get("format").await? {
            Some(entry) if entry.value != FORMAT => {
                let format = String::from_utf8_lossy(&entry.value);
                let message = format!("the jobs are of format {format}, and this pype knows 1");
                Err(Error::new(ErrorKind::Unsupported, "newer-store", message).hint("use a newer pype"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks at the clock of the server. Leases run by it, so that a worker whose own is wrong takes no job too early; that
    /// no two change the same job is seen to by the revisions alone.
    pub(super) async fn set_clock(&self) -> Result<()> {
        let before = self.machine_ms();
        self.bucket.put("clock", bytes::Bytes::new()).await?;
        let between = before.midpoint(self.machine_ms());
        let Some(entry) = self.bucket.get("clock").await? else { return Ok(()) };
        let ahead = i64::try_from(entry.written_ms).unwrap_or(i64::MAX).saturating_sub_unsigned(between);
        self.ahead_ms.store(ahead, Ordering::Relaxed);
        Ok(())
    }

    /// As this machine's clock was when the queue was opened, and has gone on since: it may be set meanwhile.
    fn machine_ms(&self) -> u64 {
        let (opened_ms, opened) = self.opened;
        opened_ms.saturating_add(u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Now, by the clock of the server, in milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        self.machine_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Sweeps, if no worker has for a while.
    pub(super) async fn sweep_if_due(&self) -> Result<()> {
        if self.now() < self.next_sweep_ms.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.set_clock().await?;
        let now = self.now();
        let last = self.bucket.get("sweep").await?;
        let next: u64 = last.as_ref().map_or(Ok(0), |entry| serde_json::from_slice(&entry.value))?;
        if next > now {
            self.next_sweep_ms.store(next, Ordering::Relaxed);
            return Ok(());
        }
        let revision = last.map_or(0, |entry| entry.revision);
        let mine = self.bucket.update("sweep", (now + SWEEPS_EVERY_MS).to_string().into(), revision).await?;
        self.next_sweep_ms.store(now + SWEEPS_EVERY_MS, Ordering::Relaxed);
        let Some(revision) = mine else { return Ok(()) };
        let start = Instant::now();
        self.sweep().await?;
        let pause = start.elapsed().saturating_mul(SWEEPS_AT_MOST_ONE_OF);
        if pause > Duration::from_millis(SWEEPS_EVERY_MS) {
            let next = now.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            self.bucket.update("sweep", next.to_string().into(), revision).await?;
        }
        Ok(())
    }

    /// Gives hints of jobs that have none, and forgets those that somebody has begun to forget.
    async fn sweep(&self) -> Result<()> {
        // In this order: a job that is written later has its hint by itself.
        let records = self.scan().await?;
        let hints = self.hints.all().await?;
        let mut mends = Vec::new();
        for (record, revision) in records {
            let subject = self.hints.subject(&record.job.pipeline, &record.job.id)?;
            if record.purged || (!record.is_over() && !hints.contains(&subject)) {
                mends.push(self.mend(record, revision));
            }
        }
        stream::iter(mends).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn mend(&self, record: Record, revision: u64) -> Result<()> {
        if record.purged {
            return self.forget(&record, revision).await;
        }
        // It may be over since, and its hint ended.
        match self.read(&job_key(&record.job.id)?).await? {
            Some((record, _)) => self.heal(&record).await,
            None => Ok(()),
        }
    }
}

/// By this machine's clock, in milliseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
