//! What is kept of a job, and what becomes of it: every decision, at a given time, without I/O.

use pype_plugin::prelude::*;
use pype_plugin::queue::{Job, JobAction, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};

/// What is kept of a job, besides its payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) job: Job,
    /// Whether jobs of its shard run one after the other.
    #[serde(default)]
    pub(crate) ordered: bool,
    /// A hash of what was asked.
    #[serde(default)]
    pub(crate) asked: Option<String>,
    /// Of the last lease.
    #[serde(default)]
    pub(crate) token: u64,
    /// While it runs: whose lease it is may be doubted from here on.
    #[serde(default)]
    pub(crate) lease_until_ms: u64,
    /// The revision of its payload. That of a job that was accepted later is larger.
    pub(crate) payload: u64,
    /// The revision of its place in the line of its shard, since it was first lent.
    #[serde(default)]
    pub(crate) place: Option<u64>,
    /// Where to say what becomes of its hint, since that has come to a worker.
    #[serde(default)]
    pub(crate) hint: Option<String>,
    /// Somebody is forgetting it: for everybody else it is not there any more.
    #[serde(default)]
    pub(crate) purged: bool,
}

/// What a hint of a job leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The job is over.
    Forget,
    /// There is nothing to do before so many milliseconds are over.
    Wait(u64),
    /// The job may be lent, as it is now.
    Lend(Box<Record>),
    /// The last worker did not come back: the job is dead.
    Bury(Box<Record>),
}

/// Where a hint has led a worker.
pub(crate) struct Offer {
    /// Where to say what becomes of the hint, if there was one.
    pub(crate) hint: Option<String>,
    /// The revision of the job's place in its line.
    pub(crate) place: Option<u64>,
}

impl Record {
    /// A job that was just accepted.
    pub(crate) fn new(id: &str, job: &NewJob, payload: u64, now: u64) -> Self {
        // It may have the id of an earlier one of the same key.
        let kept = Job { id: id.to_owned(), ..job.queued_at(now) };
        Self {
            job: kept,
            ordered: job.ordered,
            asked: job.asked.clone(),
            token: 0,
            lease_until_ms: 0,
            payload,
            place: None,
            hint: None,
            purged: false,
        }
    }

    /// Whether nothing happens to it any more by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.purged || self.job.state.is_over()
    }

    /// What a hint of it leads to.
    pub(crate) fn step(&self, now: u64) -> Step {
        if self.is_over() {
            return Step::Forget;
        }
        let seen = self.clone().at(now);
        match seen.job.state {
            JobState::Queued if seen.job.not_before_ms > now => Step::Wait(seen.job.not_before_ms - now),
            JobState::Queued => Step::Lend(Box::new(seen)),
            JobState::Running => Step::Wait(seen.lease_until_ms - now),
            JobState::Succeeded | JobState::Failed | JobState::Dead | JobState::Cancelled => Step::Bury(Box::new(seen)),
        }
    }

    /// As it is at this time: taken back, if its worker has had it for too long. When its attempts are used up it is lent once
    /// more, to be buried, and after that to nobody.
    pub(crate) fn at(mut self, now: u64) -> Self {
        if self.job.state != JobState::Running || self.lease_until_ms > now {
            return self;
        }
        let job = &mut self.job;
        let worker = job.worker.as_deref().unwrap_or("?");
        let message = format!("the worker `{worker}` did not come back from attempt {}", job.attempt);
        job.error = Some(Error::new(ErrorKind::TimedOut, "lease-ran-out", message).retryable(true));
        job.state = if job.attempt <= job.max_attempts { JobState::Queued } else { JobState::Dead };
        job.not_before_ms = now;
        job.updated_ms = now;
        self
    }

    /// Lent to a worker.
    pub(crate) fn lent(mut self, offer: Offer, request: &LeaseRequest, now: u64) -> Self {
        self.job.state = JobState::Running;
        self.job.attempt += 1;
        self.job.worker = Some(request.worker.clone());
        self.job.updated_ms = now;
        self.token += 1;
        self.lease_until_ms = now.saturating_add(request.visibility_ms);
        self.place = offer.place;
        self.hint = offer.hint.or(self.hint);
        self
    }

    /// As its worker gets it.
    pub(crate) fn leased(&self, payload: Bytes) -> LeasedJob {
        LeasedJob {
            lease: Lease { job: self.job.id.clone(), token: self.token },
            pipeline: self.job.pipeline.clone(),
            version: self.job.version.clone(),
            attempt: self.job.attempt,
            max_attempts: self.job.max_attempts,
            payload,
        }
    }

    /// Lent for longer; `None` if it is another's, or nobody's.
    pub(crate) fn extended(mut self, lease: &Lease, visibility_ms: u64, now: u64) -> Option<Self> {
        if !self.is_held_with(lease) || self.lease_until_ms <= now {
            return None;
        }
        self.lease_until_ms = now.saturating_add(visibility_ms);
        self.job.updated_ms = now;
        Some(self)
    }

    /// With a verdict; `None` if it is another's, or nobody's.
    pub(crate) fn concluded(mut self, lease: &Lease, verdict: &Verdict, now: u64) -> Option<Self> {
        if !self.is_held_with(lease) {
            return None;
        }
        let job = &mut self.job;
        job.state = verdict.state();
        job.attempt -= u32::from(!verdict.counts());
        job.not_before_ms = now.saturating_add(verdict.delay_ms());
        job.updated_ms = now;
        job.result = verdict.result().cloned();
        job.error = verdict.error().cloned().or_else(|| job.error.take());
        Some(self)
    }

    /// After somebody did this to it by hand. A worker that has it holds a token that is not the last any more.
    pub(crate) fn acted_on(mut self, action: JobAction, now: u64) -> Self {
        match action {
            JobAction::Retry => {
                self.job.state = JobState::Queued;
                self.job.attempt = 0;
                self.job.not_before_ms = now;
                self.hint = None;
            }
            JobAction::Cancel => {
                self.job.state = JobState::Cancelled;
                self.token += 1;
            }
        }
        self.job.updated_ms = now;
        self
    }

    fn is_held_with(&self, lease: &Lease) -> bool {
        !self.purged && self.job.state == JobState::Running && self.token == lease.token
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn queued() -> Record {
        let job = NewJob {
            id: "a".to_owned(),
            pipeline: "upload".to_owned(),
            version: "1.0.0".to_owned(),
            shard: None,
            ordered: false,
            idempotency_key: None,
            asked: None,
            delay_ms: 100,
            max_attempts: 1,
            payload: Bytes::default(),
        };
        Record::new("a", &job, 7, NOW)
    }

    fn lent(record: Record, now: u64) -> Record {
        let request = LeaseRequest {
            worker: "w".to_owned(),
            pipelines: Vec::new(),
            count: 1,
            visibility_ms: 50,
            wait_ms: 0,
            job: None,
        };
        record.lent(Offer { hint: Some("reply".to_owned()), place: None }, &request, now)
    }

    #[test]
    fn a_job_is_lent_when_it_is_due_and_taken_back_when_its_lease_runs_out() {
        let job = queued();
        assert_eq!(job.step(NOW), Step::Wait(100));
        assert_eq!(job.step(NOW + 100), Step::Lend(Box::new(job.clone())));
        let first = lent(job, NOW + 100);
        assert_eq!((first.token, first.job.attempt, first.step(NOW + 149)), (1, 1, Step::Wait(1)));
        // Its attempts are used up, and it is lent once more all the same.
        let Step::Lend(back) = first.step(NOW + 150) else { panic!("its worker did not come back") };
        let error = back.job.error.clone().expect("why");
        assert_eq!((error.code.as_str(), error.kind, error.retryable), ("lease-ran-out", ErrorKind::TimedOut, true));
        assert_eq!(error.message, "the worker `w` did not come back from attempt 1");
        let last = lent(*back, NOW + 150);
        assert_eq!((last.token, last.job.attempt), (2, 2));
        let Step::Bury(dead) = last.step(NOW + 200) else { panic!("nobody comes back") };
        assert_eq!((dead.job.state, dead.step(NOW + 200)), (JobState::Dead, Step::Forget));
    }

    #[test]
    fn only_the_last_lease_says_what_becomes_of_a_job() {
        let running = lent(queued(), NOW);
        let (held, stale) = (Lease { job: "a".to_owned(), token: 1 }, Lease { job: "a".to_owned(), token: 0 });
        let succeeded = Verdict::Succeeded { result: json!(1) };
        assert_eq!(running.clone().extended(&held, 100, NOW + 49).map(|job| job.lease_until_ms), Some(NOW + 149));
        assert_eq!(running.clone().extended(&held, 100, NOW + 50), None, "it has run out");
        assert_eq!(running.clone().extended(&stale, 100, NOW), None);
        assert_eq!(running.clone().concluded(&stale, &succeeded, NOW), None);
        let done = running.clone().concluded(&held, &succeeded, NOW + 60).expect("nobody else had it since");
        assert_eq!((done.job.state, done.clone().concluded(&held, &succeeded, NOW + 61)), (JobState::Succeeded, None));
        let cancelled = running.acted_on(JobAction::Cancel, NOW);
        assert_eq!((cancelled.token, cancelled.concluded(&held, &succeeded, NOW)), (2, None));
    }

    #[test]
    fn a_record_of_the_first_format_is_read() {
        let old = r#"{"id":"a","pipeline":"upload","version":"1.0.0","state":"running","attempt":1,"max_attempts":1,
            "created_ms":1000000,"updated_ms":1000100,"not_before_ms":1000100,"worker":"w","shard":null,
            "idempotency_key":null,"result":null,"error":null,"ordered":false,"asked":null,"token":1,
            "lease_until_ms":1000150,"payload":7,"place":null,"hint":"reply","purged":false}"#;
        assert_eq!(serde_json::from_str::<Record>(old).expect("readable"), lent(queued(), NOW + 100));
    }
}
