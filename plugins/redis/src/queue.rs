//! `redis`: jobs in Redis, which workers on many machines share.
//!
//! Each step is one Lua script, so nobody comes between. Time is the server's. Redis keeps jobs in its memory and writes them
//! to its append-only file before it answers, if `appendfsync` is `always`: then a job that was accepted outlives a power
//! cut. With `everysec`, Redis' default, a second or two of jobs may be lost, and opening the queue says so.

use pype_plugin::prelude::*;
use pype_plugin::queue::{
    Accepted, Job, JobAction, JobFilter, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict, cannot, key_reused,
    no_such_job, stale_lease, wait_for_jobs,
};
use redis::{FromRedisValue, Script, ScriptInvocation};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::connection::{self, Server};

pub(crate) struct Redis {
    server: Server,
    script: Script,
    /// What all keys start with. In braces, so that a cluster has them in one place.
    prefix: String,
    accepted: Notify,
}

/// Which server, and which jobs on it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` with TLS.
    #[serde(default = "connection::local")]
    url: String,
    /// The keys of these jobs start with it: `{NAME}:`. Pipelines that name the same one share it.
    #[serde(default = "jobs")]
    name: String,
    /// Whether a server will do that loses jobs when it ends, because it writes no append-only file.
    #[serde(default)]
    may_lose_jobs: bool,
}

fn jobs() -> String {
    "pype".to_owned()
}

impl Dispatch for Redis {
    const NAME: &'static str = "redis";
    const DESCRIPTION: &'static str = "Keeps jobs in Redis, for workers on many machines";
    const CATEGORY: &'static str = "Queues";
    const PACKAGES: &'static [&'static str] = &["redis"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let server = Server::connect(&config.url).await?;
        let told: String = server.call(&redis::cmd("INFO")).await?;
        // Some servers tell nobody.
        let synced: Vec<String> =
            server.call(redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await.unwrap_or_default();
        durable(&told, synced.last().map(String::as_str), config.may_lose_jobs)?;
        let script = Script::new(include_str!("jobs.lua"));
        Ok(Self { server, script, prefix: format!("{{{}}}:", config.name), accepted: Notify::new() })
    }

    async fn enqueue(&self, job: NewJob, _: &Context) -> Result<Accepted> {
        let mut step = self.step("enqueue");
        step.arg(&job.id).arg(&job.pipeline).arg(&job.version).arg(job.max_attempts).arg(job.delay_ms);
        step.arg(u8::from(job.ordered)).arg(&job.payload[..]).arg(text(job.shard));
        step.arg(text(job.idempotency_key.as_ref())).arg(text(job.asked.as_ref()));
        let (id, duplicate, asked): (String, bool, String) = self.server.run(&step).await?;
        if duplicate && asked != text(job.asked.as_ref()) {
            return Err(key_reused(&job));
        }
        self.accepted.notify_waiters();
        Ok(Accepted { id, duplicate })
    }

    async fn lease(&self, request: LeaseRequest, _: &Context) -> Result<Vec<LeasedJob>> {
        wait_for_jobs(&request, &self.accepted, || self.lease_now(&request)).await
    }

    async fn extend(&self, lease: Lease, visibility_ms: u64, _: &Context) -> Result<()> {
        let mut step = self.step("extend");
        step.arg(&lease.job).arg(lease.token).arg(visibility_ms);
        self.fenced(&step, &lease).await
    }

    async fn conclude(&self, lease: Lease, verdict: Verdict, _: &Context) -> Result<()> {
        let error = verdict.error().map(serde_json::to_string).transpose()?;
        let mut step = self.step("conclude");
        step.arg(&lease.job).arg(lease.token).arg(verdict.state().as_str());
        step.arg(if verdict.counts() { 0 } else { -1 }).arg(verdict.delay_ms());
        step.arg(text(verdict.result())).arg(text(error));
        self.fenced(&step, &lease).await?;
        self.accepted.notify_waiters();
        Ok(())
    }

    async fn job(&self, id: &str, _: &Context) -> Result<Option<Job>> {
        let mut step = self.step("job");
        step.arg(id);
        let found: Vec<Row> = self.server.run(&step).await?;
        found.into_iter().next().map(Job::try_from).transpose()
    }

    async fn jobs(&self, filter: JobFilter, _: &Context) -> Result<Vec<Job>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
        let mut jobs = Vec::new();
        let mut from = FIRST.to_owned();
        while !from.is_empty() && jobs.len() < limit {
            let (last, rows): (String, Vec<Row>) =
                self.server.run(&self.through("jobs", &from, &filter, &filter.states)).await?;
            jobs.extend(rows.into_iter().map(Job::try_from).collect::<Result<Vec<_>>>()?);
            from = last;
        }
        jobs.truncate(limit);
        Ok(jobs)
    }

    async fn act(&self, id: &str, action: JobAction, _: &Context) -> Result<()> {
        let word = match action {
            JobAction::Retry => "retry",
            JobAction::Cancel => "cancel",
        };
        let takes = JobState::ALL.into_iter().filter(|state| state.takes(action));
        let mut step = self.step("act");
        step.arg(id).arg(word).arg(words(takes));
        let (outcome, shown): (String, Option<Row>) =
            match self.server.run::<Vec<redis::Value>>(&step).await?.as_slice() {
                [outcome] => (self.read(outcome)?, None),
                [outcome, shown, ..] => (self.read(outcome)?, Some(self.read(shown)?)),
                [] => (String::new(), None),
            };
        match (outcome.as_str(), shown) {
            ("done", _) => {
                self.accepted.notify_waiters();
                Ok(())
            }
            (_, Some(shown)) => Err(cannot(action, &Job::try_from(shown)?)),
            (_, None) => Err(no_such_job(id)),
        }
    }

    async fn purge(&self, filter: JobFilter, _: &Context) -> Result<u64> {
        let over = |state: &JobState| state.is_over() && (filter.states.is_empty() || filter.states.contains(state));
        let states: Vec<JobState> = JobState::ALL.into_iter().filter(over).collect();
        let mut purged = 0;
        let mut from = if states.is_empty() { String::new() } else { FIRST.to_owned() };
        while !from.is_empty() {
            let (last, ids): (String, Vec<String>) =
                self.server.run(&self.through("purge", &from, &filter, &states)).await?;
            purged += ids.len() as u64;
            from = last;
        }
        Ok(purged)
    }
}

/// Above every number.
const FIRST: &str = "+inf";

impl Redis {
    fn step(&self, name: &str) -> ScriptInvocation<'_> {
        let mut step = self.script.key(&self.prefix);
        step.arg(name);
        step
    }

    /// A step through the jobs that a filter leaves, from a number downwards.
    fn through(&self, name: &str, from: &str, filter: &JobFilter, states: &[JobState]) -> ScriptInvocation<'_> {
        let mut step = self.step(name);
        step.arg(from).arg(text(filter.pipeline.as_ref())).arg(words(states.iter().copied()));
        step.arg(text(filter.unchanged_since_ms));
        step
    }

    fn read<T: FromRedisValue>(&self, value: &redis::Value) -> Result<T> {
        T::from_redis_value(value.clone()).map_err(|cause| self.server.failed(cause.into()))
    }

    /// A step that only the last lease may take.
    async fn fenced(&self, step: &ScriptInvocation<'_>, lease: &Lease) -> Result<()> {
        if self.server.run(step).await? { Ok(()) } else { Err(stale_lease(lease)) }
    }

    async fn lease_now(&self, request: &LeaseRequest) -> Result<Vec<LeasedJob>> {
        let mut step = self.step("lease");
        step.arg(&request.worker).arg(request.count).arg(request.visibility_ms).arg(text(request.job.as_ref()));
        for pipeline in &request.pipelines {
            step.arg(pipeline);
        }
        type Leased = (String, u64, String, String, u32, u32, Vec<u8>);
        let leased: Vec<Leased> = self.server.run(&step).await?;
        let leased = leased.into_iter().map(|(job, token, pipeline, version, attempt, max_attempts, payload)| {
            let (lease, payload) = (Lease { job, token }, payload.into());
            LeasedJob { lease, pipeline, version, attempt, max_attempts, payload }
        });
        Ok(leased.collect())
    }
}

/// Whether the server keeps what it has acknowledged, as it says itself.
fn durable(told: &str, synced: Option<&str>, may_lose_jobs: bool) -> Result<()> {
    let says = |line: &str| told.lines().any(|told| told.trim() == line);
    if says("aof_enabled:0") {
        let message = "this Redis has jobs in its memory only: when it ends, they are lost";
        if !may_lose_jobs {
            let error = Error::new(ErrorKind::Config, "redis-not-durable", message);
            return Err(
                error.hint("`redis-cli config set appendonly yes`, then `config rewrite`, on the server, or `may_lose_jobs: true` here")
            );
        }
        tracing::warn!("{message}");
    }
    if let Some(synced) = synced.filter(|synced| *synced != "always") {
        tracing::warn!("a power cut may cost the last jobs that this Redis accepted: its `appendfsync` is `{synced}`");
    }
    let evicts = told.lines().find_map(|line| line.trim().strip_prefix("maxmemory_policy:"));
    if let Some(policy) = evicts.filter(|policy| *policy != "noeviction") {
        tracing::warn!("this Redis may throw jobs away when its memory is full: its `maxmemory-policy` is `{policy}`");
    }
    Ok(())
}

/// What a script shows of a job, in the order that it says.
struct Row(Vec<Option<String>>);

impl FromRedisValue for Row {
    fn from_redis_value(value: redis::Value) -> std::result::Result<Self, redis::ParsingError> {
        Ok(Self(Vec::from_redis_value(value)?))
    }
}

impl TryFrom<Row> for Job {
    type Error = Error;

    fn try_from(Row(fields): Row) -> Result<Self> {
        let damaged = |what: String| Error::new(ErrorKind::Data, "queue-damaged", format!("a job in Redis {what}"));
        let all: [Option<String>; 14] = fields.try_into().map_err(|_| damaged("lacks fields".to_owned()))?;
        let [
            id,
            pipeline,
            version,
            state,
            attempt,
            max_attempts,
            created,
            updated,
            not_before,
            worker,
            shard,
            key,
            result,
            error,
        ] = all;
        let text = |field: Option<String>| field.ok_or_else(|| damaged("lacks a field".to_owned()));
        fn json<T: DeserializeOwned>(field: Option<String>) -> Result<Option<T>> {
            Ok(field.map(|text| serde_json::from_str(&text)).transpose()?)
        }
        fn number<T: std::str::FromStr<Err: std::fmt::Display>>(field: &str) -> Result<T> {
            field.parse().map_err(|error| {
                Error::new(ErrorKind::Data, "queue-damaged", format!("a job in Redis: `{field}` is no number: {error}"))
            })
        }
        Ok(Job {
            id: text(id)?,
            pipeline: text(pipeline)?,
            version: text(version)?,
            state: text(state)?.parse()?,
            attempt: number(&text(attempt)?)?,
            max_attempts: number(&text(max_attempts)?)?,
            created_ms: number(&text(created)?)?,
            updated_ms: number(&text(updated)?)?,
            not_before_ms: number(&text(not_before)?)?,
            worker,
            shard: shard.as_deref().map(number).transpose()?,
            idempotency_key: key,
            result: json(result)?,
            error: json(error)?,
        })
    }
}

/// As a script takes it: nothing is an empty text.
fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn words(states: impl Iterator<Item = JobState>) -> String {
    states.map(JobState::as_str).collect::<Vec<_>>().join(" ")
}
