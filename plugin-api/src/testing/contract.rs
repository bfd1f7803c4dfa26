//! The contract of queues, as tests: [`queue_contract!`](crate::queue_contract) has an author's queue pass them.
//!
//! Each is given a way to open the queue under a name: the same name is the same jobs, and a name that was not there before
//! is an empty queue. They run on a real store, and wait for it as a worker would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::task::JoinSet;

use super::{Chaos, block_on, job};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Instance;
use crate::pipeline::queue::{Job, JobAction, JobFilter, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};

/// A test for each promise that [`pype_plugin::queue`](crate::queue) makes, of the queue that `open` opens.
///
/// ```ignore
/// async fn open(name: &str) -> Result<Instance> {
///     testing::queue::<MyQueue>(json!({ "url": "…", "name": name })).await
/// }
///
/// pype_plugin::queue_contract!(open);
/// ```
///
/// `queue_contract!(open, when there)` does nothing unless the function `there` says that the store is there.
#[macro_export]
macro_rules! queue_contract {
    ($open:path $(, when $there:path)?) => {
        $crate::queue_contract! { @tests $open, [$(&& $there())?]:
            a_job_goes_from_queued_to_running_to_succeeded,
            a_lease_that_runs_out_goes_to_another_and_the_first_is_refused,
            a_job_whose_workers_never_come_back_is_lent_once_more_and_then_dead,
            retries_wait_count_and_end_dead_or_failed,
            what_is_released_counts_no_attempt,
            the_same_key_is_one_job_per_pipeline_and_so_is_the_same_id,
            who_waits_for_one_job_gets_no_other,
            delayed_jobs_wait_and_workers_wait_for_jobs,
            ordered_jobs_of_a_shard_run_one_after_the_other,
            a_cancelled_job_is_taken_from_its_worker_and_may_be_retried,
            jobs_are_listed_and_forgotten_by_state_and_pipeline,
            what_was_accepted_is_there_when_the_queue_is_opened_again,
            payloads_and_names_come_back_as_they_were,
            many_workers_lose_nothing_and_share_nothing,
            a_cluster_with_a_bad_network_loses_nothing_and_takes_no_stale_completion,
        }
    };
    (@tests $open:path, $there:tt: $($promise:ident),* $(,)?) => {
        mod queue_contract {
            use super::*;

            $(
                #[test]
                fn $promise() {
                    if $crate::queue_contract!(@all $there) {
                        $crate::testing::contract::$promise($open);
                    }
                }
            )*
        }
    };
    (@all [$($there:tt)*]) => {
        true $($there)*
    };
}

/// How long something that must come is waited for.
const PATIENCE_MS: u64 = 10_000;
/// A visibility time-out that does not run out within a test.
const LONG_MS: u64 = 60_000;
/// A visibility time-out that runs out at once.
const SHORT_MS: u64 = 20;

fn ask(count: u32, visibility_ms: u64) -> LeaseRequest {
    let pipelines = vec!["upload".to_owned()];
    LeaseRequest { worker: "worker-1".to_owned(), pipelines, count, visibility_ms, wait_ms: 0, job: None }
}

fn ids(leased: &[LeasedJob]) -> Vec<&str> {
    leased.iter().map(|job| job.lease.job.as_str()).collect()
}

fn succeeded() -> Verdict {
    Verdict::Succeeded { result: json!({"ok": true}) }
}

fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, "away", "the store is away").retryable(true)
}

/// A queue at test.
struct Tested(Instance);

impl Tested {
    async fn enqueue(&self, job: NewJob) -> String {
        let accepted = self.0.enqueue(job).await.expect("accepted");
        assert!(!accepted.duplicate, "nothing like it was there");
        accepted.id
    }

    /// One that must come.
    async fn lease_for(&self, visibility_ms: u64) -> LeasedJob {
        let patient = LeaseRequest { wait_ms: PATIENCE_MS, ..ask(1, visibility_ms) };
        self.0.lease(patient).await.expect("leased").pop().expect("one is there")
    }

    async fn lease(&self) -> LeasedJob {
        self.lease_for(LONG_MS).await
    }

    /// So many that must come, the oldest first.
    async fn lease_all(&self, count: usize) -> Vec<LeasedJob> {
        let mut leased = Vec::new();
        while leased.len() < count {
            leased.push(self.lease().await);
        }
        leased.sort_by(|one, other| one.lease.job.cmp(&other.lease.job));
        leased
    }

    async fn none_now(&self) {
        assert_eq!(ids(&self.0.lease(ask(10, LONG_MS)).await.expect("leased")), Vec::<&str>::new());
    }

    async fn conclude(&self, lease: &Lease, verdict: Verdict) {
        self.0.conclude(lease.clone(), verdict).await.expect("taken");
    }

    async fn job(&self, id: &str) -> Job {
        self.0.job(id).await.expect("asked").expect("there")
    }

    async fn state(&self, id: &str) -> JobState {
        self.job(id).await.state
    }

    async fn ids(&self, filter: JobFilter) -> Vec<String> {
        self.0.jobs(filter).await.expect("listed").into_iter().map(|job| job.id).collect()
    }
}

/// A name that no queue had before.
fn new_name() -> String {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("contract-{}-{now:x}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Runs a test on an empty queue.
fn on_a_queue(open: impl AsyncFn(&str) -> Result<Instance>, test: impl AsyncFn(&Tested)) {
    block_on(async {
        let queue = Tested(open(&new_name()).await.expect("opened"));
        test(&queue).await;
        queue.0.close().await.expect("closed");
    });
}

#[allow(missing_docs)]
pub fn a_job_goes_from_queued_to_running_to_succeeded(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        assert_eq!(queue.enqueue(job("a")).await, "a");
        let before = queue.job("a").await;
        assert_eq!((before.state, before.attempt, before.max_attempts), (JobState::Queued, 0, 3));
        let leased = queue.lease().await;
        assert_eq!((leased.attempt, leased.max_attempts, &*leased.payload), (1, 3, [1, 2, 3].as_slice()));
        let running = queue.job("a").await;
        assert_eq!((running.state, running.worker.as_deref()), (JobState::Running, Some("worker-1")));
        queue.none_now().await;
        queue.conclude(&leased.lease, succeeded()).await;
        let done = queue.job("a").await;
        assert_eq!((done.state, done.result, done.error), (JobState::Succeeded, Some(json!({"ok": true})), None));
        assert!(done.created_ms > 1_500_000_000_000 && done.created_ms <= done.updated_ms);
        let late = queue.0.conclude(leased.lease, succeeded()).await.expect_err("it is over");
        assert_eq!(late.code, "stale-lease");
        assert_eq!(queue.0.job("nobody").await.expect("asked"), None);
    });
}

#[allow(missing_docs)]
pub fn a_lease_that_runs_out_goes_to_another_and_the_first_is_refused(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        queue.enqueue(job("a")).await;
        let first = queue.lease_for(SHORT_MS).await;
        let second = queue.lease().await;
        assert_eq!(second.attempt, 2);
        assert!(second.lease.token > first.lease.token);
        let stale = || first.lease.clone();
        for refused in [
            queue.0.extend(stale(), 1000).await,
            queue.0.conclude(stale(), succeeded()).await,
            queue.0.conclude(stale(), Verdict::Retry { error: failure(), delay_ms: 0 }).await,
            queue.0.conclude(stale(), Verdict::Release { delay_ms: 0 }).await,
        ] {
            assert_eq!(refused.expect_err("stale").code, "stale-lease");
        }
        queue.0.extend(second.lease.clone(), LONG_MS).await.expect("it is the last");
        queue.conclude(&second.lease, Verdict::Succeeded { result: json!(2) }).await;
        assert_eq!(queue.job("a").await.result, Some(json!(2)));
    });
}

#[allow(missing_docs)]
pub fn a_job_whose_workers_never_come_back_is_lent_once_more_and_then_dead(
    open: impl AsyncFn(&str) -> Result<Instance>,
) {
    on_a_queue(open, async |queue| {
        queue.enqueue(job("a")).await;
        for attempt in 1..=4 {
            assert_eq!(queue.lease_for(SHORT_MS).await.attempt, attempt);
        }
        let died = async {
            while queue.state("a").await != JobState::Dead {
                queue.none_now().await;
                tokio::time::sleep(Duration::from_millis(SHORT_MS)).await;
            }
        };
        tokio::time::timeout(Duration::from_millis(PATIENCE_MS), died).await.expect("it dies");
        assert_eq!(queue.job("a").await.error.map(|error| error.code.clone()).as_deref(), Some("lease-ran-out"));
        queue.none_now().await;
    });
}

#[allow(missing_docs)]
pub fn retries_wait_count_and_end_dead_or_failed(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        queue.enqueue(job("a")).await;
        let leased = queue.lease().await;
        queue.conclude(&leased.lease, Verdict::Retry { error: failure(), delay_ms: 500 }).await;
        queue.none_now().await;
        let waiting = queue.job("a").await;
        assert_eq!((waiting.state, waiting.error), (JobState::Queued, Some(failure())));
        assert!(waiting.not_before_ms >= waiting.updated_ms + 500);
        let leased = queue.lease().await;
        assert_eq!(leased.attempt, 2);
        queue.conclude(&leased.lease, Verdict::Dead { error: failure() }).await;
        assert_eq!(queue.state("a").await, JobState::Dead);
        queue.0.act("a", JobAction::Retry).await.expect("it may be");
        let leased = queue.lease().await;
        assert_eq!(leased.attempt, 1, "it has all its attempts again");
        queue.conclude(&leased.lease, Verdict::Failed { error: failure() }).await;
        assert_eq!(queue.state("a").await, JobState::Failed);
        queue.none_now().await;
    });
}

#[allow(missing_docs)]
pub fn what_is_released_counts_no_attempt(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        queue.enqueue(job("a")).await;
        for _ in 0..5 {
            let leased = queue.lease().await;
            assert_eq!(leased.attempt, 1);
            queue.conclude(&leased.lease, Verdict::Release { delay_ms: 0 }).await;
        }
        assert_eq!(queue.state("a").await, JobState::Queued);
    });
}

#[allow(missing_docs)]
pub fn the_same_key_is_one_job_per_pipeline_and_so_is_the_same_id(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        let keyed = |id: &str, pipeline: &str| NewJob {
            idempotency_key: Some("order 1/*>.\u{fc}".to_owned()),
            asked: Some("this".to_owned()),
            pipeline: pipeline.to_owned(),
            ..job(id)
        };
        let accepted = async |job: NewJob| {
            let accepted = queue.0.enqueue(job).await.expect("accepted");
            (accepted.id, accepted.duplicate)
        };
        assert_eq!(accepted(keyed("a", "upload")).await, ("a".to_owned(), false));
        assert_eq!(accepted(keyed("b", "upload")).await, ("a".to_owned(), true));
        assert_eq!(accepted(keyed("c", "other")).await, ("c".to_owned(), false));
        assert_eq!(accepted(keyed("c", "other")).await, ("c".to_owned(), true));
        // Who got no answer asks again with the same id.
        assert_eq!(accepted(job("plain")).await, ("plain".to_owned(), false));
        assert_eq!(accepted(job("plain")).await, ("plain".to_owned(), true));
        for leased in queue.lease_all(2).await {
            queue.conclude(&leased.lease, succeeded()).await;
        }
        let other = NewJob { asked: Some("that".to_owned()), ..keyed("e", "upload") };
        assert_eq!(queue.0.enqueue(other).await.expect_err("refused").code, "key-reused");
        // Also when it is over; and once it is forgotten, its key is free.
        assert_eq!(accepted(keyed("d", "upload")).await, ("a".to_owned(), true));
        assert_eq!(queue.0.purge(JobFilter::default()).await.expect("purged"), 2);
        assert_eq!(accepted(keyed("d", "upload")).await, ("d".to_owned(), false));
    });
}

#[allow(missing_docs)]
pub fn who_waits_for_one_job_gets_no_other(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        for id in ["a", "b"] {
            queue.enqueue(job(id)).await;
        }
        let asked = |wait_ms| LeaseRequest { job: Some("b".to_owned()), wait_ms, ..ask(10, LONG_MS) };
        let leased = queue.0.lease(asked(PATIENCE_MS)).await.expect("leased");
        assert_eq!(ids(&leased), ["b"]);
        assert_eq!(queue.0.lease(asked(0)).await.expect("leased"), []);
        assert_eq!(queue.lease().await.lease.job, "a");
        queue.none_now().await;
    });
}

#[allow(missing_docs)]
pub fn delayed_jobs_wait_and_workers_wait_for_jobs(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        let before = tokio::time::Instant::now();
        queue.enqueue(NewJob { delay_ms: 700, ..job("a") }).await;
        queue.none_now().await;
        assert_eq!(queue.lease().await.lease.job, "a");
        assert!(before.elapsed() >= Duration::from_millis(690), "{:?}", before.elapsed());
    });
}

#[allow(missing_docs)]
pub fn ordered_jobs_of_a_shard_run_one_after_the_other(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        let ordered = |id: &str, shard| NewJob { ordered: true, shard: Some(shard), ..job(id) };
        for (id, shard) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)] {
            queue.enqueue(ordered(id, shard)).await;
        }
        let first = queue.lease_all(2).await;
        assert_eq!(ids(&first), ["a1", "b1"]);
        queue.none_now().await;
        // One that waits for another attempt holds up those behind it.
        let retry = Verdict::Retry { error: failure(), delay_ms: 500 };
        queue.conclude(&first[0].lease, retry).await;
        queue.none_now().await;
        let again = queue.lease().await;
        assert_eq!(again.lease.job, "a1");
        queue.none_now().await;
        queue.conclude(&again.lease, succeeded()).await;
        let second = queue.lease().await;
        assert_eq!(second.lease.job, "a2");
        // One that is called off does not, and when it comes back it does not run beside another.
        queue.0.act("a2", JobAction::Cancel).await.expect("it may be");
        assert_eq!(queue.lease_for(SHORT_MS).await.lease.job, "a3");
        let third = queue.lease().await;
        assert_eq!(third.lease.job, "a3");
        queue.0.act("a2", JobAction::Retry).await.expect("it may be");
        queue.none_now().await;
        queue.conclude(&third.lease, succeeded()).await;
        assert_eq!(queue.lease().await.lease.job, "a2");
    });
}

#[allow(missing_docs)]
pub fn a_cancelled_job_is_taken_from_its_worker_and_may_be_retried(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        queue.enqueue(job("a")).await;
        let leased = queue.lease().await;
        queue.0.act("a", JobAction::Cancel).await.expect("it may be");
        assert_eq!(queue.0.extend(leased.lease.clone(), 1000).await.expect_err("stale").code, "stale-lease");
        assert_eq!(queue.0.conclude(leased.lease.clone(), succeeded()).await.expect_err("stale").code, "stale-lease");
        assert_eq!(queue.state("a").await, JobState::Cancelled);
        queue.none_now().await;
        let refused = queue.0.act("a", JobAction::Cancel).await.expect_err("it is over");
        assert_eq!((refused.code.as_str(), refused.message.contains("is cancelled")), ("wrong-state", true));
        queue.0.act("a", JobAction::Retry).await.expect("it may be");
        assert_eq!(queue.state("a").await, JobState::Queued);
        let again = queue.lease().await;
        assert!(again.lease.token > leased.lease.token);
        assert_eq!(queue.0.act("nobody", JobAction::Retry).await.expect_err("none").code, "no-such-job");
    });
}

#[allow(missing_docs)]
pub fn jobs_are_listed_and_forgotten_by_state_and_pipeline(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        for id in ["a", "b", "c"] {
            queue.enqueue(job(id)).await;
            // The latest first: by the clock of the store, in milliseconds.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let leased = queue.lease().await;
        assert_eq!(leased.lease.job, "a", "the oldest first");
        queue.conclude(&leased.lease, succeeded()).await;
        let all = JobFilter::default;
        assert_eq!(queue.ids(all()).await, ["c", "b", "a"]);
        assert_eq!(queue.ids(JobFilter { limit: 1, ..all() }).await, ["c"]);
        let queued = || JobFilter { states: vec![JobState::Queued], ..all() };
        assert_eq!(queue.ids(queued()).await, ["c", "b"]);
        assert_eq!(queue.ids(JobFilter { limit: 1, ..queued() }).await, ["c"]);
        let other = JobFilter { pipeline: Some("other".to_owned()), ..all() };
        assert_eq!(queue.ids(other.clone()).await, Vec::<String>::new());
        assert_eq!(queue.0.purge(other).await.expect("purged"), 0);
        let long_ago = JobFilter { unchanged_since_ms: Some(1_000_000_000_000), ..all() };
        assert_eq!(queue.0.purge(long_ago).await.expect("purged"), 0);
        // What is not over is not forgotten.
        assert_eq!(queue.0.purge(all()).await.expect("purged"), 1);
        assert_eq!(queue.ids(all()).await, ["c", "b"]);
        assert_eq!(queue.0.job("a").await.expect("asked"), None);
    });
}

#[allow(missing_docs)]
pub fn what_was_accepted_is_there_when_the_queue_is_opened_again(open: impl AsyncFn(&str) -> Result<Instance>) {
    block_on(async {
        let name = new_name();
        let first = Tested(open(&name).await.expect("opened"));
        first.enqueue(job("a")).await;
        // Another process, which need not wait until the first has closed it.
        let second = Tested(open(&name).await.expect("opened"));
        let leased = second.lease().await;
        assert_eq!(first.state("a").await, JobState::Running);
        let stale = Lease { token: 0, ..leased.lease.clone() };
        assert_eq!(first.0.extend(stale, 1000).await.expect_err("stale").code, "stale-lease");
        first.0.extend(leased.lease, 1000).await.expect("a lease is valid wherever it is shown");
        for queue in [first, second] {
            queue.0.close().await.expect("closed");
        }
        let third = Tested(open(&name).await.expect("opened"));
        assert_eq!(third.state("a").await, JobState::Running);
        let elsewhere = Tested(open(&new_name()).await.expect("opened"));
        assert_eq!(elsewhere.0.job("a").await.expect("asked"), None);
        elsewhere.none_now().await;
    });
}

#[allow(missing_docs)]
pub fn payloads_and_names_come_back_as_they_were(open: impl AsyncFn(&str) -> Result<Instance>) {
    on_a_queue(open, async |queue| {
        let payload: Vec<u8> = (0..300_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let odd = NewJob { payload: payload.clone().into(), shard: Some(7), ..job("0198c5a2-\u{e9} *.>") };
        queue.enqueue(odd.clone()).await;
        queue.enqueue(NewJob { payload: Vec::new().into(), ..job("empty") }).await;
        let mut leased = queue.lease_all(2).await;
        let empty = leased.pop().expect("two");
        assert_eq!((empty.lease.job.as_str(), empty.payload.len()), ("empty", 0));
        assert!(leased[0].payload[..] == payload[..], "the bytes differ");
        assert_eq!((leased[0].version.as_str(), queue.job(&odd.id).await.shard), ("1.0.0", Some(7)));
        let result = json!({"text": "\u{1f600} \"quoted\" \u{0}", "number": 1.5, "none": null, "list": []});
        queue.conclude(&leased[0].lease, Verdict::Succeeded { result: result.clone() }).await;
        assert_eq!(queue.job(&odd.id).await.result, Some(result));
    });
}

#[allow(missing_docs)]
pub fn many_workers_lose_nothing_and_share_nothing(open: impl AsyncFn(&str) -> Result<Instance>) {
    const JOBS: usize = 200;
    block_on(async {
        let name = new_name();
        let producer = Tested(open(&name).await.expect("opened"));
        for number in 0..JOBS {
            producer.enqueue(job(&format!("job-{number}"))).await;
        }
        let mut workers = JoinSet::new();
        let done: Arc<Mutex<Vec<String>>> = Arc::default();
        for _ in 0..4 {
            let (queue, done) = (Tested(open(&name).await.expect("opened")), done.clone());
            workers.spawn(async move {
                let taken = || done.lock().unwrap_or_else(PoisonError::into_inner).len();
                while taken() < JOBS {
                    let some = LeaseRequest { wait_ms: 50, ..ask(3, LONG_MS) };
                    for job in queue.0.lease(some).await.expect("leased") {
                        queue.conclude(&job.lease, succeeded()).await;
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(job.lease.job);
                    }
                }
            });
        }
        tokio::time::timeout(Duration::from_secs(60), workers.join_all()).await.expect("no job is lost");
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        done.sort();
        done.dedup();
        assert_eq!(done.len(), JOBS);
        let succeeded = JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
        let succeeded = producer.0.jobs(succeeded).await.expect("listed");
        assert_eq!((succeeded.len(), succeeded.iter().all(|job| job.attempt == 1)), (JOBS, true));
    });
}

#[allow(missing_docs)]
pub fn a_cluster_with_a_bad_network_loses_nothing_and_takes_no_stale_completion(
    open: impl AsyncFn(&str) -> Result<Instance>,
) {
    for seed in 1..=3 {
        block_on(cluster(&open, seed));
    }
}

/// What jobs do to the world: who comes with an older token than the last is refused.
#[derive(Default)]
struct World {
    effects: Mutex<BTreeMap<String, u64>>,
}

impl World {
    fn act(&self, lease: &Lease) -> bool {
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let last = effects.entry(lease.job.clone()).or_default();
        let is_last = lease.token >= *last;
        *last = lease.token.max(*last);
        is_last
    }
}

/// Workers that the network fails, whose answers it loses, and that it cuts off for a while.
async fn cluster(open: &impl AsyncFn(&str) -> Result<Instance>, seed: u64) {
    const JOBS: usize = 20;
    let name = new_name();
    let producer = Tested(open(&name).await.expect("opened"));
    let network = Chaos::seeded(seed).losing_answers(0.3).failing(0.2);
    for number in 0..JOBS {
        let id = format!("job-{number}");
        // Who gets no answer asks again; that is one job all the same.
        while network.around(producer.0.enqueue(NewJob { max_attempts: 1000, ..job(&id) })).await.is_err() {}
    }
    let (world, over) = (Arc::new(World::default()), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for number in 0..3 {
        let (queue, world, over) = (Tested(open(&name).await.expect("opened")), world.clone(), over.clone());
        let network = Chaos::seeded(seed * 31 + number).failing(0.1).losing_answers(0.2).slow(Duration::from_millis(4));
        workers.spawn(async move {
            for turn in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                network.partition((turn + number) % 7 == 0);
                let Ok(leased) = network.around(queue.0.lease(ask(2, SHORT_MS))).await else { continue };
                for job in leased {
                    let last = world.act(&job.lease);
                    let done = Verdict::Succeeded { result: json!(job.lease.token) };
                    let taken = queue.0.conclude(job.lease.clone(), done).await;
                    assert!(last || taken.is_err(), "a stale completion of {} was taken", job.lease.job);
                }
            }
        });
    }
    let all_done = async {
        let succeeded = || JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
        while producer.0.jobs(succeeded()).await.expect("listed").len() < JOBS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_done).await.expect("no job is lost");
    over.store(true, Ordering::Relaxed);
    workers.join_all().await;
    assert_eq!(producer.ids(JobFilter::default()).await.len(), JOBS);
}

/// A producer and workers go on while `restart` ends the store as a power cut would, and brings it back: what it has
/// accepted is done, and none of it is said to be done twice. For queues whose store is a server.
///
/// # Panics
/// The queue does not keep to that.
pub fn a_store_that_is_killed_and_comes_back_loses_nothing(
    open: impl AsyncFn(&str) -> Result<Instance>,
    mut restart: impl FnMut() + Send + 'static,
) {
    const JOBS: usize = 150;
    const VISIBILITY_MS: u64 = 2_000;
    let name = new_name();
    block_on(async {
        let producer = Tested(open(&name).await.expect("opened"));
        let taken: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let count = |taken: &Mutex<BTreeMap<String, u32>>| taken.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut workers = JoinSet::new();
        for _ in 0..3 {
            let (queue, taken) = (Tested(open(&name).await.expect("opened")), taken.clone());
            workers.spawn(async move {
                while count(&taken) < JOBS {
                    let some = LeaseRequest { wait_ms: 100, ..ask(2, VISIBILITY_MS) };
                    for job in again_while_away(|| queue.0.lease(some.clone())).await.expect("leased") {
                        match again_while_away(|| queue.0.conclude(job.lease.clone(), succeeded())).await {
                            Ok(()) => {
                                let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                                *taken.entry(job.lease.job).or_default() += 1;
                            }
                            // The answer to the first try was lost, or the lease ran out while the store was away.
                            Err(error) => assert_eq!(error.code, "stale-lease"),
                        }
                    }
                    let succeeded = JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
                    let succeeded = again_while_away(|| queue.0.jobs(succeeded.clone())).await.expect("listed");
                    if succeeded.len() == JOBS {
                        return;
                    }
                }
            });
        }
        let (tell, mut told) = tokio::sync::mpsc::channel::<()>(1);
        let restarts = tokio::task::spawn_blocking(move || {
            while told.blocking_recv().is_some() {
                restart();
            }
        });
        for number in 0..JOBS {
            if number % 40 == 20 {
                tell.send(()).await.expect("somebody restarts it");
            }
            let one = job(&format!("job-{number}"));
            again_while_away(|| producer.0.enqueue(one.clone())).await.expect("accepted");
        }
        drop(tell);
        restarts.await.expect("restarted");
        tokio::time::timeout(Duration::from_secs(60), workers.join_all()).await.expect("no job is lost");
        let done = producer.ids(JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() }).await;
        assert_eq!(done.len(), JOBS);
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(taken.values().filter(|times| **times > 1).count(), 0, "a job was done twice: {taken:?}");
    });
}

/// Asks again while the store is away, as a worker does; for half a minute at most.
async fn again_while_away<T, Call: Future<Output = Result<T>>>(mut call: impl FnMut() -> Call) -> Result<T> {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match call().await {
            Err(error) if error.retryable && tokio::time::Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            told => return told,
        }
    }
}
