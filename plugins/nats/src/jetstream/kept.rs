//! Records: how they change, who follows, and how they are forgotten.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pype_plugin::prelude::*;
use pype_plugin::queue::{Job, JobFilter};

use super::JetStream;
use super::keys::{Claim, claim_key, job_key};
use crate::record::Record;

impl JetStream {
    /// Changes a record, as often as others change it meanwhile.
    pub(super) async fn change(
        &self,
        id: &str,
        missing: impl Fn() -> Error,
        change: impl Fn(Record) -> Result<Record>,
    ) -> Result<Record> {
        let key = job_key(id)?;
        loop {
            let (record, revision) = self.read(&key).await?.ok_or_else(&missing)?;
            let changed = change(record)?;
            if self.replace(&changed, revision).await?.is_some() {
                return Ok(changed);
            }
        }
    }

    /// The record of a job and its revision. If its worker has had it for too long, it is taken back.
    pub(super) async fn settled(&self, id: &str) -> Result<Option<(Record, u64)>> {
        let key = job_key(id)?;
        while let Some((record, revision)) = self.read(&key).await? {
            if record.purged {
                return Ok(None);
            }
            if let Some(settled) = self.settle(record, revision).await? {
                return Ok(Some(settled));
            }
        }
        Ok(None)
    }

    /// Takes a job back if its worker has had it for too long; `None` if somebody else has changed it.
    async fn settle(&self, record: Record, revision: u64) -> Result<Option<(Record, u64)>> {
        let settled = record.clone().at(self.now());
        if settled == record {
            return Ok(Some((record, revision)));
        }
        let Some(revision) = self.replace(&settled, revision).await? else { return Ok(None) };
        if settled.is_over() {
            self.follow_up(&settled).await;
        }
        Ok(Some((settled, revision)))
    }

    /// The records that a filter leaves, the latest first.
    pub(super) async fn list(&self, filter: &JobFilter) -> Result<Vec<(Record, u64)>> {
        let mut listed = Vec::new();
        for (record, revision) in self.scan().await? {
            let id = record.job.id.clone();
            let settled = match self.settle(record, revision).await? {
                Some(settled) => Some(settled),
                None => self.settled(&id).await?,
            };
            listed.extend(settled.filter(|(record, _)| !record.purged && filter.takes(&record.job)));
        }
        listed.sort_unstable_by_key(|(record, _)| Reverse(record.payload));
        Ok(listed)
    }

    /// All records, each once.
    pub(super) async fn scan(&self) -> Result<impl Iterator<Item = (Record, u64)>> {
        let mut latest = BTreeMap::new();
        for entry in self.bucket.scan("job.*").await? {
            let record: Record = serde_json::from_slice(&entry.value)?;
            latest.insert(record.job.id.clone(), (record, entry.revision));
        }
        Ok(latest.into_values())
    }

    pub(super) async fn read(&self, key: &str) -> Result<Option<(Record, u64)>> {
        let Some(entry) = self.bucket.get(key).await? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&entry.value)?, entry.revision)))
    }

    /// Writes a record in place of the one with this revision.
    pub(super) async fn replace(&self, record: &Record, revision: u64) -> Result<Option<u64>> {
        self.bucket.update(&job_key(&record.job.id)?, serde_json::to_vec(record)?.into(), revision).await
    }

    /// Has the hint and the line of a job follow what was written of it. That is done: if this fails, whoever comes across
    /// them does the same.
    pub(super) async fn follow_up(&self, record: &Record) {
        if let Err(error) = self.try_follow_up(record).await {
            tracing::warn!("the job `{}` is noticed later: {error}", record.job.id);
        }
    }

    async fn try_follow_up(&self, record: &Record) -> Result<()> {
        let Job { pipeline, id, not_before_ms, .. } = &record.job;
        match (&record.hint, record.is_over()) {
            (Some(hint), true) => self.hints.end(hint).await?,
            (Some(hint), false) => self.hints.postpone(hint, not_before_ms.saturating_sub(self.now())).await?,
            (None, true) => {}
            (None, false) => self.hints.give(pipeline, id, *not_before_ms).await?,
        }
        if record.ordered && record.is_over() { self.leave(record).await } else { Ok(()) }
    }

    /// Forgets a job that still has this revision; whether it had.
    pub(super) async fn purge_one(&self, record: Record, revision: u64) -> Result<bool> {
        let purged = Record { purged: true, ..record };
        let Some(revision) = self.replace(&purged, revision).await? else { return Ok(false) };
        self.forget(&purged, revision).await?;
        Ok(true)
    }

    /// Removes what there is of a job, its record last: whoever finds that does the rest.
    pub(super) async fn forget(&self, record: &Record, revision: u64) -> Result<()> {
        let Job { id, pipeline, idempotency_key, .. } = &record.job;
        if let Some(key) = idempotency_key
            && let Some(entry) = self.bucket.get(&claim_key(pipeline, key)?).await?
            && serde_json::from_slice::<Claim>(&entry.value)?.job == *id
        {
            self.bucket.remove(entry.revision).await?;
        }
        self.bucket.remove(record.payload).await?;
        self.bucket.remove(revision).await.map(drop)
    }
}
