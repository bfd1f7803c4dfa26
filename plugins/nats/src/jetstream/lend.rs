//! Lending jobs: from a hint, or from a name, to a lease.

use std::sync::atomic::Ordering;

use futures_util::future::{join, join_all};
use pype_plugin::prelude::*;
use pype_plugin::queue::{LeaseRequest, LeasedJob};

use super::JetStream;
use super::keys::job_key;
use super::line::Place;
use crate::hints::Hint;
use crate::record::{Offer, Record, Step};

/// So often one call asks for more hints, when those that came led to nothing.
const ROUNDS: usize = 16;
/// How soon a hint comes back whose job has others of its shard before it, and how late at most. The job before it wakes
/// it when it is over.
const BEHIND_MS: (u64, u64) = (20, 5_000);

impl JetStream {
    /// The jobs that may be lent at the moment.
    pub(super) async fn look(&self, request: &LeaseRequest) -> Result<Vec<LeasedJob>> {
        if let Some(id) = &request.job {
            return Ok(self.lend_one(id, request).await?.into_iter().collect());
        }
        let pipelines = &request.pipelines;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut lent = Vec::new();
        for pipeline in pipelines.iter().cycle().skip(turn % pipelines.len().max(1)).take(pipelines.len()) {
            match self.lend_of(pipeline, request.count as usize - lent.len(), request).await {
                Ok(more) => lent.extend(more),
                Err(error) => return lent_or(lent, error),
            }
        }
        Ok(lent)
    }

    async fn lend_of(&self, pipeline: &str, count: usize, request: &LeaseRequest) -> Result<Vec<LeasedJob>> {
        let mut lent = Vec::new();
        for _ in 0..ROUNDS {
            if lent.len() >= count {
                break;
            }
            let hints = match self.hints.take(pipeline, count - lent.len()).await {
                Ok(hints) => hints,
                Err(error) => return lent_or(lent, error),
            };
            if hints.is_empty() {
                break;
            }
            let mut failure = None;
            for offered in join_all(hints.into_iter().map(|hint| self.follow(hint, request))).await {
                match offered {
                    Ok(leased) => lent.extend(leased),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return lent_or(lent, error);
            }
        }
        Ok(lent)
    }

    /// Lends the job of a hint, or says what becomes of the hint.
    async fn follow(&self, hint: Hint, request: &LeaseRequest) -> Result<Option<LeasedJob>> {
        let now = self.now();
        if hint.not_before_ms > now {
            self.hints.postpone(&hint.reply, hint.not_before_ms - now).await?;
            return Ok(None);
        }
        loop {
            let Some((record, revision)) = self.read(&job_key(&hint.job)?).await? else {
                self.hints.end(&hint.reply).await?;
                return Ok(None);
            };
            match record.step(self.now()) {
                Step::Forget => self.hints.end(&hint.reply).await?,
                Step::Wait(by_ms) => self.hints.postpone(&hint.reply, by_ms).await?,
                Step::Bury(dead) => {
                    let dead = Record { hint: Some(hint.reply.clone()), ..*dead };
                    if self.replace(&dead, revision).await?.is_none() {
                        continue;
                    }
                    self.follow_up(&dead).await;
                }
                Step::Lend(record) => {
                    let Place::Head(place) = self.place(&record).await? else {
                        self.hints.postpone(&hint.reply, behind_ms(hint.deliveries)).await?;
                        return Ok(None);
                    };
                    let offer = Offer { hint: Some(hint.reply.clone()), place };
                    let Some(leased) = self.lend(*record, revision, offer, request).await? else { continue };
                    if let Err(error) = self.hints.postpone(&hint.reply, request.visibility_ms).await {
                        // It comes back too early, then.
                        tracing::warn!("{error}");
                    }
                    return Ok(Some(leased));
                }
            }
            return Ok(None);
        }
    }

    /// Lends one job, if it may be lent. Its hint comes to somebody by and by.
    async fn lend_one(&self, id: &str, request: &LeaseRequest) -> Result<Option<LeasedJob>> {
        while let Some((record, revision)) = self.settled(id).await? {
            let Step::Lend(record) = record.step(self.now()) else { return Ok(None) };
            if !request.pipelines.contains(&record.job.pipeline) {
                return Ok(None);
            }
            let Place::Head(place) = self.place(&record).await? else { return Ok(None) };
            let offer = Offer { hint: None, place };
            if let Some(leased) = self.lend(*record, revision, offer, request).await? {
                return Ok(Some(leased));
            }
        }
        Ok(None)
    }

    /// Lends a job that still has this revision.
    async fn lend(
        &self,
        record: Record,
        revision: u64,
        offer: Offer,
        request: &LeaseRequest,
    ) -> Result<Option<LeasedJob>> {
        let lent = record.lent(offer, request, self.now());
        let (replaced, payload) = join(self.replace(&lent, revision), self.bucket.at(lent.payload)).await;
        if replaced?.is_none() {
            return Ok(None);
        }
        let payload = payload?.ok_or_else(|| {
            let message = format!("the payload of the job `{}` is not there any more", lent.job.id);
            Error::new(ErrorKind::Data, "payload-lost", message).hint("was something removed from the bucket by hand?")
        })?;
        Ok(Some(lent.leased(Bytes::from_owner(payload.value))))
    }
}

/// What was lent must reach the worker, whatever came after it. A hint that failed comes again.
fn lent_or(lent: Vec<LeasedJob>, error: Error) -> Result<Vec<LeasedJob>> {
    if lent.is_empty() {
        return Err(error);
    }
    tracing::warn!("{error}");
    Ok(lent)
}

/// How long to wait for the jobs before, when a hint has come so often.
fn behind_ms(deliveries: u64) -> u64 {
    let (first, longest) = BEHIND_MS;
    let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (first << doublings).min(longest)
}
