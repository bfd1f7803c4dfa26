//! Accepting jobs: in which order they are written, and what is done when half of one is there.

use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, Job, NewJob, key_reused};

use super::JetStream;
use super::keys::{Claim, claim_key, job_key, payload_key};
use crate::record::Record;

/// What was there when a job was to be written.
enum Written {
    /// Nothing: it was written.
    New,
    /// The same job, accepted before.
    There(Box<Record>),
    /// One of its name that somebody has been forgetting.
    Purged,
}

impl JetStream {
    pub(super) async fn accept(&self, job: NewJob) -> Result<Accepted> {
        loop {
            let (id, claimed) = self.claim(&job).await?;
            let record = match self.write(&id, &job).await? {
                Written::New => return Ok(Accepted { id, duplicate: false }),
                Written::There(record) => record,
                Written::Purged => continue,
            };
            if let Some(claim) = claimed
                && record.job.idempotency_key != job.idempotency_key
            {
                // The id was accepted before, without this key.
                self.bucket.remove(claim).await?;
            }
            if record.asked != job.asked {
                return Err(key_reused(&job));
            }
            self.heal(&record).await?;
            return Ok(Accepted { id, duplicate: true });
        }
    }

    /// The id that a job is accepted under, and the revision of its idempotency key if that is new.
    async fn claim(&self, job: &NewJob) -> Result<(String, Option<u64>)> {
        let Some(key) = &job.idempotency_key else { return Ok((job.id.clone(), None)) };
        let key = claim_key(&job.pipeline, key)?;
        let claim = serde_json::to_vec(&Claim { job: job.id.clone(), asked: job.asked.clone() })?;
        loop {
            if let Some(revision) = self.bucket.create(&key, claim.clone().into()).await? {
                return Ok((job.id.clone(), Some(revision)));
            }
            // It may have been forgotten meanwhile.
            let Some(entry) = self.bucket.get(&key).await? else { continue };
            let earlier: Claim = serde_json::from_slice(&entry.value)?;
            return if earlier.asked == job.asked { Ok((earlier.job, None)) } else { Err(key_reused(job)) };
        }
    }

    /// Writes a job and its hint, unless it is there. Under the id of an earlier one of the same key, of which no more than
    /// the claim was written, it has its own payload all the same.
    async fn write(&self, id: &str, job: &NewJob) -> Result<Written> {
        let (key, payload_key) = (job_key(id)?, payload_key(&job.id)?);
        let payload = bytes::Bytes::from_owner(job.payload.clone());
        let payload = match self.bucket.create(&payload_key, payload).await? {
            Some(revision) => revision,
            None => match self.there(&key).await? {
                Some(written) => return Ok(written),
                // Whoever wrote it did not get further.
                None => match self.bucket.get(&payload_key).await? {
                    Some(entry) => entry.revision,
                    None => return Ok(Written::Purged),
                },
            },
        };
        let record = Record::new(id, job, payload, self.now());
        if self.bucket.create(&key, serde_json::to_vec(&record)?.into()).await?.is_none() {
            if id != job.id {
                self.bucket.remove(payload).await?;
            }
            return Ok(self.there(&key).await?.unwrap_or(Written::Purged));
        }
        self.queue_up(&record).await?;
        self.hints.give(&job.pipeline, id, record.job.not_before_ms).await?;
        Ok(Written::New)
    }

    /// What is there under a job's key.
    async fn there(&self, key: &str) -> Result<Option<Written>> {
        let Some((record, revision)) = self.read(key).await? else { return Ok(None) };
        if record.purged {
            self.forget(&record, revision).await?;
            return Ok(Some(Written::Purged));
        }
        Ok(Some(Written::There(Box::new(record))))
    }

    /// Writes what is missing of a job that is there.
    pub(super) async fn heal(&self, record: &Record) -> Result<()> {
        let Job { pipeline, id, not_before_ms, .. } = &record.job;
        if record.is_over() || self.hints.is_there(pipeline, id).await? {
            return Ok(());
        }
        self.queue_up(record).await?;
        self.hints.give(pipeline, id, *not_before_ms).await
    }
}
