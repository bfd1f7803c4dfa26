//! Jobs in a SQLite database: what both queues are made of.
//!
//! Each step is one transaction that takes the write lock first, so that of several processes none acts on what another
//! has changed meanwhile. A lease that has run out is noticed by whoever asks for work next, or looks.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pype_plugin::prelude::*;
use pype_plugin::queue::{
    Accepted, Job, JobAction, JobFilter, JobState, Lease, LeaseRequest, LeasedJob, NewJob, Verdict, cannot, key_reused,
    no_such_job, stale_lease,
};
use rusqlite::types::{ToSql, Value as Sql};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params, params_from_iter,
};

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i64 = 1;
/// How long a step waits for another process.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Store {
    connection: Connection,
}

impl Store {
    /// The store in the file at `path`, made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(PATIENCE)?;
            // Readers do not wait for writers. What is committed is on the disk.
            write_ahead(&connection)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(connection)
        };
        // Jobs hold what callers have sent: for their owner alone.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|cause| Error::from(cause).message_of(path))?;
        let connection = open().map_err(|cause| failed(cause).message_of(path))?;
        Self::of(connection).map_err(|error| error.message_of(path))
    }

    /// A store that is gone with the process.
    pub(crate) fn in_memory() -> Result<Self> {
        Self::of(Connection::open_in_memory().map_err(failed)?)
    }

    fn of(mut connection: Connection) -> Result<Self> {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let version: i64 = step.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        match version {
            0 => {
                step.execute_batch(SCHEMA).map_err(failed)?;
                step.pragma_update(None, "user_version", VERSION).map_err(failed)?;
            }
            VERSION => {}
            newer => {
                let message = format!("its jobs are of format {newer}, and this pype knows {VERSION}");
                return Err(Error::new(ErrorKind::Unsupported, "newer-store", message).hint("use a newer pype"));
            }
        }
        step.commit().map_err(failed)?;
        Ok(Self { connection })
    }

    pub(crate) fn enqueue(&mut self, job: &NewJob) -> Result<Accepted> {
        let accepted = self.step(|step, now| {
            if let Some((id, asked)) = same(step, job)? {
                return Ok((asked == job.asked).then_some(Accepted { id, duplicate: true }));
            }
            let insert = "INSERT INTO jobs (id, pipeline, version, state, max_attempts, not_before_ms, shard, ordered,
                idempotency_key, asked, created_ms, updated_ms, payload)
                VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            step.prepare_cached(insert)?.execute(params![
                job.id,
                job.pipeline,
                job.version,
                job.max_attempts,
                now + milliseconds(job.delay_ms),
                job.shard,
                job.ordered,
                job.idempotency_key,
                job.asked,
                now,
                now,
                &*job.payload,
            ])?;
            Ok(Some(Accepted { id: job.id.clone(), duplicate: false }))
        })?;
        accepted.ok_or_else(|| key_reused(job))
    }

    pub(crate) fn lease(&mut self, request: &LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.step(|step, now| {
            take_back(step, now)?;
            let due = due(step, request, now)?;
            due.into_iter().map(|number| lend(step, number, request, now)).collect()
        })
    }

    pub(crate) fn extend(&mut self, lease: &Lease, visibility_ms: u64) -> Result<()> {
        let extended = self.step(|step, now| {
            let update = "UPDATE jobs SET lease_until_ms = ?, updated_ms = ?
                WHERE id = ? AND token = ? AND state = 'running' AND lease_until_ms > ?";
            let until = now + milliseconds(visibility_ms);
            step.prepare_cached(update)?.execute(params![until, now, lease.job, token(lease), now])
        })?;
        if extended == 1 { Ok(()) } else { Err(stale_lease(lease)) }
    }

    pub(crate) fn conclude(&mut self, lease: &Lease, verdict: &Verdict) -> Result<()> {
        let concluded = self.step(|step, now| {
            let Told { state, wait_ms, attempts, result, error } = Told::of(verdict)?;
            let update = "UPDATE jobs SET state = ?, not_before_ms = ?, attempt = attempt + ?, result = ?,
                error = coalesce(?, error), lease_until_ms = NULL, updated_ms = ?
                WHERE id = ? AND token = ? AND state = 'running'";
            let not_before = now + milliseconds(wait_ms);
            step.prepare_cached(update)?.execute(params![
                state.as_str(),
                not_before,
                attempts,
                result,
                error,
                now,
                lease.job,
                token(lease)
            ])
        })?;
        if concluded == 1 { Ok(()) } else { Err(stale_lease(lease)) }
    }

    pub(crate) fn job(&mut self, id: &str) -> Result<Option<Job>> {
        self.look(|step| job(step, id))
    }

    pub(crate) fn jobs(&mut self, filter: &JobFilter) -> Result<Vec<Job>> {
        self.look(|step| {
            let (condition, values) = condition(filter);
            let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
            let query = format!("SELECT {COLUMNS} FROM jobs WHERE {condition} ORDER BY number DESC LIMIT {limit}");
            let mut query = step.prepare_cached(&query)?;
            query.query_map(params_from_iter(values), read_job)?.collect()
        })
    }

    pub(crate) fn act(&mut self, id: &str, action: JobAction) -> Result<()> {
        let refused = self.step(|step, now| {
            take_back(step, now)?;
            let Some(job) = job(step, id)? else { return Ok(Some(no_such_job(id))) };
            if !job.state.takes(action) {
                return Ok(Some(cannot(action, &job)));
            }
            // A worker that has it holds a token that is not the last any more.
            let update = match action {
                JobAction::Retry => {
                    "UPDATE jobs SET state = 'queued', attempt = 0, not_before_ms = ?1, updated_ms = ?1 WHERE id = ?2"
                }
                JobAction::Cancel => {
                    "UPDATE jobs SET state = 'cancelled', token = token + 1, lease_until_ms = NULL, updated_ms = ?1
                     WHERE id = ?2"
                }
            };
            step.prepare_cached(update)?.execute(params![now, id])?;
            Ok(None)
        })?;
        refused.map_or(Ok(()), Err)
    }

    pub(crate) fn purge(&mut self, filter: &JobFilter) -> Result<u64> {
        self.step(|step, _| {
            let (condition, values) = condition(filter);
            let over = "state IN ('succeeded', 'failed', 'dead', 'cancelled')";
            let purged =
                step.execute(&format!("DELETE FROM jobs WHERE {over} AND {condition}"), params_from_iter(values))?;
            Ok(purged as u64)
        })
    }

    /// A look at what is there. It waits for nobody who writes, unless there is something to be taken back.
    fn look<T>(&mut self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let late = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until_ms <= ?)";
        let asked = self.connection.prepare_cached(late).and_then(|mut late| late.query_row([now()], |row| row.get(0)));
        if asked.map_err(failed)? {
            self.step(take_back)?;
        }
        look(&self.connection).map_err(failed)
    }

    /// One transaction, at one time.
    fn step<T>(&mut self, work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T>) -> Result<T> {
        let step = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let done = work(&step, now()).map_err(failed)?;
        step.commit().map_err(failed)?;
        Ok(done)
    }
}

/// Changing a file to this mode does not wait as all else does, so it is tried again while others do the same.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            changed => return changed,
        }
    }
}

/// The job that was accepted with the same key, or under the same id (an answer that was lost on its way), and what it asked.
fn same(step: &Transaction<'_>, job: &NewJob) -> rusqlite::Result<Option<(String, Option<String>)>> {
    let query = "SELECT id, asked FROM jobs WHERE id = ?1 OR (pipeline = ?2 AND idempotency_key = ?3)";
    step.prepare_cached(query)?
        .query_row(params![job.id, job.pipeline, job.idempotency_key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Takes back what workers have had for too long. When its attempts are used up it is lent once more, to be buried, and
/// after that to nobody.
fn take_back(step: &Transaction<'_>, now: i64) -> rusqlite::Result<()> {
    let update = "UPDATE jobs SET
            state = CASE WHEN attempt <= max_attempts THEN 'queued' ELSE 'dead' END,
            error = json_object('kind', 'timed_out', 'code', 'lease-ran-out', 'retryable', json('true'), 'message',
                'the worker `' || coalesce(worker, '?') || '` did not come back from attempt ' || attempt),
            not_before_ms = ?1, lease_until_ms = NULL, updated_ms = ?1
        WHERE state = 'running' AND lease_until_ms <= ?1";
    step.prepare_cached(update)?.execute([now]).map(drop)
}

/// The numbers of the jobs that may be lent.
fn due(step: &Transaction<'_>, request: &LeaseRequest, now: i64) -> rusqlite::Result<Vec<i64>> {
    // An ordered job waits for all before it in its shard, also for those that wait for another attempt.
    let query = "SELECT number FROM jobs AS job
        WHERE state = 'queued' AND not_before_ms <= ?1 AND pipeline IN (SELECT value FROM json_each(?2))
        AND (?4 IS NULL OR id = ?4)
        AND NOT (ordered = 1 AND EXISTS (
            SELECT 1 FROM jobs AS earlier WHERE earlier.ordered = 1 AND earlier.state IN ('queued', 'running')
            AND earlier.pipeline = job.pipeline AND earlier.shard IS job.shard AND earlier.number < job.number))
        ORDER BY number LIMIT ?3";
    let pipelines = serde_json::Value::from(request.pipelines.clone()).to_string();
    step.prepare_cached(query)?
        .query_map(params![now, pipelines, request.count, request.job], |row| row.get(0))?
        .collect()
}

fn lend(step: &Transaction<'_>, number: i64, request: &LeaseRequest, now: i64) -> rusqlite::Result<LeasedJob> {
    let update = "UPDATE jobs SET state = 'running', attempt = attempt + 1, token = token + 1, worker = ?,
            lease_until_ms = ?, updated_ms = ?
        WHERE number = ? RETURNING id, token, pipeline, version, attempt, max_attempts, payload";
    let until = now + milliseconds(request.visibility_ms);
    step.prepare_cached(update)?.query_row(params![request.worker, until, now, number], |row| {
        Ok(LeasedJob {
            lease: Lease { job: row.get(0)?, token: row.get::<_, i64>(1)?.unsigned_abs() },
            pipeline: row.get(2)?,
            version: row.get(3)?,
            attempt: row.get(4)?,
            max_attempts: row.get(5)?,
            payload: row.get::<_, Vec<u8>>(6)?.into(),
        })
    })
}

/// What a verdict changes.
struct Told {
    state: JobState,
    wait_ms: u64,
    /// How many attempts more it counts.
    attempts: i32,
    result: Option<String>,
    error: Option<String>,
}

impl Told {
    fn of(verdict: &Verdict) -> rusqlite::Result<Self> {
        let told = |state| Self { state, wait_ms: 0, attempts: 0, result: None, error: None };
        Ok(match verdict {
            Verdict::Succeeded { result } => Self { result: Some(result.to_string()), ..told(JobState::Succeeded) },
            Verdict::Retry { error, delay_ms } => {
                Self { wait_ms: *delay_ms, error: Some(json(error)?), ..told(JobState::Queued) }
            }
            Verdict::Failed { error } => Self { error: Some(json(error)?), ..told(JobState::Failed) },
            Verdict::Dead { error } => Self { error: Some(json(error)?), ..told(JobState::Dead) },
            Verdict::Release { delay_ms } => Self { wait_ms: *delay_ms, attempts: -1, ..told(JobState::Queued) },
        })
    }
}

const COLUMNS: &str =
    "id, pipeline, version, state, attempt, max_attempts, created_ms, updated_ms, not_before_ms, worker,
    shard, idempotency_key, result, error";

fn job(step: &Connection, id: &str) -> rusqlite::Result<Option<Job>> {
    step.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?"))?.query_row([id], read_job).optional()
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let number = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(Job {
        id: row.get(0)?,
        pipeline: row.get(1)?,
        version: row.get(2)?,
        state: row.get::<_, String>(3)?.parse().map_err(|error| unreadable(3, error))?,
        attempt: row.get(4)?,
        max_attempts: row.get(5)?,
        created_ms: number(6)?,
        updated_ms: number(7)?,
        not_before_ms: number(8)?,
        worker: row.get(9)?,
        shard: row.get(10)?,
        idempotency_key: row.get(11)?,
        result: from_json(row, 12)?,
        error: from_json(row, 13)?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(at)?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| unreadable(at, error))
}

fn unreadable(at: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error))
}

fn json(error: &Error) -> rusqlite::Result<String> {
    serde_json::to_string(error).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// What a filter asks of a row.
fn condition(filter: &JobFilter) -> (String, Vec<Sql>) {
    let mut condition = "1".to_owned();
    let mut values = Vec::new();
    if let Some(pipeline) = &filter.pipeline {
        condition += " AND pipeline = ?";
        values.push(Sql::from(pipeline.clone()));
    }
    if !filter.states.is_empty() {
        let places = vec!["?"; filter.states.len()].join(", ");
        condition += &format!(" AND state IN ({places})");
        values.extend(filter.states.iter().map(|state| Sql::from(state.as_str().to_owned())));
    }
    if let Some(since) = filter.unchanged_since_ms {
        condition += " AND updated_ms < ?";
        values.push(Sql::from(milliseconds(since)));
    }
    (condition, values)
}

fn token(lease: &Lease) -> impl ToSql {
    milliseconds(lease.token)
}

/// As SQLite has integers.
fn milliseconds(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX / 4)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failed(cause: rusqlite::Error) -> Error {
    let (kind, code, retryable) = match cause.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (ErrorKind::Unavailable, "queue-busy", true),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => (ErrorKind::Io, "queue-io", true),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            (ErrorKind::Io, "queue-unusable", false)
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (ErrorKind::Data, "queue-damaged", false),
        _ => (ErrorKind::Internal, "queue", false),
    };
    Error::new(kind, code, format!("the store of jobs failed: {cause}")).retryable(retryable)
}

/// Says which file it is about.
trait MessageOf {
    fn message_of(self, path: &Path) -> Self;
}

impl MessageOf for Error {
    fn message_of(mut self, path: &Path) -> Self {
        self.message = format!("`{}`: {}", path.display(), self.message);
        self
    }
}
