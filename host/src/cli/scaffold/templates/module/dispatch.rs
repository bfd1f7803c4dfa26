//! The queue `__name__`, a plugin for pype.
//!
//! It keeps its jobs in memory: replace `Jobs` by the store that you have. The tests hold it to the contract of queues, which
//! the documentation of `pype_plugin::queue` tells.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pype_plugin::prelude::*;
use pype_plugin::queue::{
    Accepted, Job, JobAction, JobFilter, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict, cannot,
    key_reused, no_such_job, stale_lease, wait_for_jobs,
};
use tokio::sync::Notify;

/// What a pipeline says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Pipelines that name the same queue share it.
    name: String,
}

/// The queues of this process, by name.
static QUEUES: Mutex<BTreeMap<String, Arc<Mutex<Jobs>>>> = Mutex::new(BTreeMap::new());

struct __Name__ {
    jobs: Arc<Mutex<Jobs>>,
    accepted: Notify,
}

/// All jobs, in the order in which they were accepted.
#[derive(Default)]
struct Jobs(Vec<Held>);

struct Held {
    given: NewJob,
    shown: Job,
    /// Of the last lease. It never falls.
    token: u64,
    lease_until_ms: u64,
}

impl Dispatch for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Keeps jobs in memory";
    type Config = Config;

    async fn open(config: Config, _node: &Context) -> Result<Self> {
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { jobs: queues.entry(config.name).or_default().clone(), accepted: Notify::new() })
    }

    async fn enqueue(&self, job: NewJob, _node: &Context) -> Result<Accepted> {
        let accepted = self.step(|jobs, now| jobs.accept(job, now))?;
        self.accepted.notify_waiters();
        Ok(accepted)
    }

    async fn lease(&self, request: LeaseRequest, _node: &Context) -> Result<Vec<LeasedJob>> {
        wait_for_jobs(&request, &self.accepted, async || Ok(self.step(|jobs, now| jobs.lend(&request, now)))).await
    }

    async fn extend(&self, lease: Lease, visibility_ms: u64, _node: &Context) -> Result<()> {
        self.step(|jobs, now| {
            let held = jobs.leased(&lease).filter(|held| held.lease_until_ms > now);
            held.ok_or_else(|| stale_lease(&lease))?.lease_until_ms = now + visibility_ms;
            Ok(())
        })
    }

    async fn conclude(&self, lease: Lease, verdict: Verdict, _node: &Context) -> Result<()> {
        self.step(|jobs, now| {
            let job = &mut jobs.leased(&lease).ok_or_else(|| stale_lease(&lease))?.shown;
            job.attempt -= u32::from(!verdict.counts());
            job.not_before_ms = now + verdict.delay_ms();
            job.result = verdict.result().cloned();
            job.error = verdict.error().cloned().or(job.error.take());
            (job.state, job.updated_ms) = (verdict.state(), now);
            Ok(())
        })
    }

    async fn job(&self, id: &str, _node: &Context) -> Result<Option<Job>> {
        Ok(self.step(|jobs, _| jobs.find(id).map(|held| held.shown.clone())))
    }

    async fn jobs(&self, filter: JobFilter, _node: &Context) -> Result<Vec<Job>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
        let of = |jobs: &mut Jobs, _| {
            let chosen = jobs.0.iter().rev().map(|held| &held.shown).filter(|job| filter.takes(job));
            chosen.take(limit).cloned().collect()
        };
        Ok(self.step(of))
    }

    async fn act(&self, id: &str, action: JobAction, _node: &Context) -> Result<()> {
        self.step(|jobs, now| {
            let held = jobs.find(id).ok_or_else(|| no_such_job(id))?;
            if !held.shown.state.takes(action) {
                return Err(cannot(action, &held.shown));
            }
            match action {
                JobAction::Retry => {
                    (held.shown.state, held.shown.attempt, held.shown.not_before_ms) = (JobState::Queued, 0, now);
                }
                JobAction::Cancel => {
                    held.shown.state = JobState::Cancelled;
                    held.token += 1;
                }
            }
            held.shown.updated_ms = now;
            Ok(())
        })?;
        self.accepted.notify_waiters();
        Ok(())
    }

    async fn purge(&self, filter: JobFilter, _node: &Context) -> Result<u64> {
        Ok(self.step(|jobs, _| {
            let before = jobs.0.len();
            jobs.0.retain(|held| !held.shown.state.is_over() || !filter.takes(&held.shown));
            (before - jobs.0.len()) as u64
        }))
    }
}

impl __Name__ {
    /// One step, at one time, with what ran out taken back before.
    fn step<T>(&self, step: impl FnOnce(&mut Jobs, u64) -> T) -> T {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.take_back(now);
        step(&mut jobs, now)
    }
}

impl Jobs {
    fn find(&mut self, id: &str) -> Option<&mut Held> {
        self.0.iter_mut().find(|held| held.shown.id == id)
    }

    fn leased(&mut self, lease: &Lease) -> Option<&mut Held> {
        let held = self.find(&lease.job)?;
        (held.shown.state == JobState::Running && held.token == lease.token).then_some(held)
    }

    fn accept(&mut self, job: NewJob, now: u64) -> Result<Accepted> {
        let key = job.idempotency_key.as_ref();
        let same = self.0.iter().find(|held| {
            let same_key = key.is_some() && held.given.idempotency_key.as_ref() == key;
            held.given.id == job.id || (same_key && held.given.pipeline == job.pipeline)
        });
        if let Some(same) = same {
            return match same.given.asked == job.asked {
                true => Ok(Accepted { id: same.given.id.clone(), duplicate: true }),
                false => Err(key_reused(&job)),
            };
        }
        let (accepted, shown) = (Accepted { id: job.id.clone(), duplicate: false }, job.queued_at(now));
        self.0.push(Held { given: job, shown, token: 0, lease_until_ms: 0 });
        Ok(accepted)
    }

    /// A job whose last worker did not come back is lent once more, to be buried, and then to nobody.
    fn take_back(&mut self, now: u64) {
        for held in &mut self.0 {
            let job = &mut held.shown;
            if job.state == JobState::Running && held.lease_until_ms <= now {
                let message = format!("a worker did not come back from attempt {}", job.attempt);
                job.error = Some(Error::new(ErrorKind::TimedOut, "lease-ran-out", message).retryable(true));
                job.state = if job.attempt <= job.max_attempts { JobState::Queued } else { JobState::Dead };
                (job.not_before_ms, job.updated_ms) = (now, now);
            }
        }
    }

    fn lend(&mut self, request: &LeaseRequest, now: u64) -> Vec<LeasedJob> {
        let mut leased = Vec::new();
        for at in 0..self.0.len() {
            if leased.len() < request.count as usize && self.may_be_lent(at, request, now) {
                leased.push(self.0[at].lend(request, now));
            }
        }
        leased
    }

    fn may_be_lent(&self, at: usize, request: &LeaseRequest, now: u64) -> bool {
        let Held { given, shown, .. } = &self.0[at];
        let in_line = |(other_at, other): (usize, &Held)| {
            let same_line = other.given.ordered && (&other.given.pipeline, other.given.shard) == (&given.pipeline, given.shard);
            let is_before = other_at < at || other.shown.state == JobState::Running;
            same_line && is_before && !other.shown.state.is_over()
        };
        shown.state == JobState::Queued
            && shown.not_before_ms <= now
            && request.pipelines.contains(&given.pipeline)
            && request.job.as_ref().is_none_or(|only| *only == given.id)
            && !(given.ordered && self.0.iter().enumerate().any(in_line))
    }
}

impl Held {
    fn lend(&mut self, request: &LeaseRequest, now: u64) -> LeasedJob {
        self.token += 1;
        self.lease_until_ms = now + request.visibility_ms;
        let job = &mut self.shown;
        (job.state, job.worker, job.updated_ms) = (JobState::Running, Some(request.worker.clone()), now);
        job.attempt += 1;
        LeasedJob {
            lease: Lease { job: job.id.clone(), token: self.token },
            pipeline: job.pipeline.clone(),
            version: job.version.clone(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            payload: self.given.payload.clone(),
        }
    }
}

export_plugin! { dispatches: [__Name__] }

#[cfg(test)]
mod tests {
    use pype_plugin::host::Instance;
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    async fn open(name: &str) -> Result<Instance> {
        testing::queue::<__Name__>(json!({ "name": name })).await
    }

    pype_plugin::queue_contract!(open);
}
