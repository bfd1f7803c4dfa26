//! Jobs in a SQLite database: what both queues are made of.
//!
//! Steps are done in groups. Each group is one transaction that takes the write lock first, so that of several processes none
//! acts on what another has changed meanwhile. A lease that has run out is noticed by whoever asks for work next, or looks.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pype_plugin::prelude::*;
use pype_plugin::queue::{
    Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict, cannot, key_reused,
    no_such_job, stale_lease,
};
use rusqlite::types::{ToSql, Value as Sql};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row, TransactionBehavior, params, params_from_iter};

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i64 = 1;
/// How long a group waits for another process.
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
        // Jobs hold what callers have sent: for their owner alone. A file that is there must not be opened here: closing it
        // again would take SQLite's locks from it, which POSIX has by process, and another process would take the log away
        // that this one still writes.
        match OpenOptions::new().create_new(true).append(true).mode(0o600).open(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::from(cause).message_of(path));
            }
            Ok(_) | Err(_) => {}
        }
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

    /// Runs each step, and commits them together. A step that fails harms no other.
    ///
    /// # Errors
    /// None of them is done.
    pub(crate) fn commit(&mut self, steps: impl Iterator<Item: FnOnce(&Turn<'_>) -> Result<()>>) -> Result<()> {
        let group = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        for step in steps {
            let done = step(&Turn { group: &group, now: now() });
            // A full disk, for one, has SQLite undo all that is not committed yet.
            if let Err(error) = done
                && group.is_autocommit()
            {
                return Err(error);
            }
        }
        group.commit().map_err(failed)
    }

    /// Whether there is something to be taken back.
    pub(crate) fn is_late(&self) -> Result<bool> {
        let late = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until_ms <= ?)";
        let late = self.connection.prepare_cached(late).and_then(|mut late| late.query_row([now()], |row| row.get(0)));
        late.map_err(failed)
    }

    pub(crate) fn job(&self, id: &str) -> Result<Option<Job>> {
        job(&self.connection, id).map_err(failed)
    }

    pub(crate) fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>> {
        let (condition, values) = condition(filter);
        let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE {condition} ORDER BY number DESC LIMIT {limit}");
        let mut query = self.connection.prepare_cached(&query).map_err(failed)?;
        query.query_map(params_from_iter(values), read_job).and_then(Iterator::collect).map_err(failed)
    }
}

/// One step of a group, and what it may do: take back what is late, and one statement that changes what it is about. SQLite
/// does a statement wholly or not at all, so a step that fails did nothing of its own; a savepoint around each would have a
/// group take half as long again.
pub(crate) struct Turn<'group> {
    group: &'group Connection,
    now: i64,
}

impl Turn<'_> {
    pub(crate) fn enqueue(&self, job: &NewJob) -> Result<Accepted> {
        if self.insert(job).map_err(failed)? {
            return Ok(Accepted { id: job.id.clone(), duplicate: false });
        }
        let (id, asked) = self.same(job).map_err(failed)?;
        if asked == job.asked { Ok(Accepted { id, duplicate: true }) } else { Err(key_reused(job)) }
    }

    pub(crate) fn lease(&self, request: &LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.take_back()?;
        let due = self.due(request).map_err(failed)?;
        if due.is_empty() { Ok(Vec::new()) } else { self.lend(due, request).map_err(failed) }
    }

    pub(crate) fn extend(&self, lease: &Lease, visibility_ms: u64) -> Result<()> {
        let update = "UPDATE jobs SET lease_until_ms = ?, updated_ms = ?
            WHERE id = ? AND token = ? AND state = 'running' AND lease_until_ms > ?";
        let until = self.now + milliseconds(visibility_ms);
        let extended = self.execute(update, params![until, self.now, lease.job, token(lease), self.now]);
        if extended.map_err(failed)? == 1 { Ok(()) } else { Err(stale_lease(lease)) }
    }

    pub(crate) fn conclude(&self, lease: &Lease, verdict: &Verdict) -> Result<()> {
        let error = verdict.error().map(serde_json::to_string).transpose()?;
        let attempts = if verdict.counts() { 0 } else { -1 };
        let update = "UPDATE jobs SET state = ?, not_before_ms = ?, attempt = attempt + ?, result = ?,
            error = coalesce(?, error), lease_until_ms = NULL, updated_ms = ?
            WHERE id = ? AND token = ? AND state = 'running'";
        let values = params![
            verdict.state().as_str(),
            self.now + milliseconds(verdict.delay_ms()),
            attempts,
            verdict.result().map(Value::to_string),
            error,
            self.now,
            lease.job,
            token(lease)
        ];
        if self.execute(update, values).map_err(failed)? == 1 { Ok(()) } else { Err(stale_lease(lease)) }
    }

    pub(crate) fn act(&self, id: &str, action: JobAction) -> Result<()> {
        self.take_back()?;
        let job = job(self.group, id).map_err(failed)?.ok_or_else(|| no_such_job(id))?;
        if !job.state.takes(action) {
            return Err(cannot(action, &job));
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
        self.execute(update, params![self.now, id]).map(drop).map_err(failed)
    }

    pub(crate) fn purge(&self, filter: &JobFilter) -> Result<u64> {
        let (condition, values) = condition(filter);
        let over = "state IN ('succeeded', 'failed', 'dead', 'cancelled')";
        let delete = format!("DELETE FROM jobs WHERE {over} AND {condition}");
        self.execute(&delete, params_from_iter(values)).map(|purged| purged as u64).map_err(failed)
    }

    /// Takes back what workers have had for too long. When its attempts are used up it is lent once more, to be buried, and
    /// after that to nobody.
    pub(crate) fn take_back(&self) -> Result<()> {
        let update = "UPDATE jobs SET
                state = CASE WHEN attempt <= max_attempts THEN 'queued' ELSE 'dead' END,
                error = json_object('kind', 'timed_out', 'code', 'lease-ran-out', 'retryable', json('true'), 'message',
                    'the worker `' || coalesce(worker, '?') || '` did not come back from attempt ' || attempt),
                not_before_ms = ?1, lease_until_ms = NULL, updated_ms = ?1
            WHERE state = 'running' AND lease_until_ms <= ?1";
        self.execute(update, [self.now]).map(drop).map_err(failed)
    }

    /// Whether it was not there.
    fn insert(&self, job: &NewJob) -> rusqlite::Result<bool> {
        let insert = "INSERT INTO jobs (id, pipeline, version, state, max_attempts, not_before_ms, shard, ordered,
            idempotency_key, asked, created_ms, updated_ms, payload)
            VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let values = params![
            job.id,
            job.pipeline,
            job.version,
            job.max_attempts,
            self.now + milliseconds(job.delay_ms),
            job.shard,
            job.ordered,
            job.idempotency_key,
            job.asked,
            self.now,
            self.now,
            &*job.payload,
        ];
        self.execute(insert, values).map(|inserted| inserted == 1)
    }

    /// The job that was accepted with the same key, or under the same id (an answer that was lost on its way), and what it
    /// asked.
    fn same(&self, job: &NewJob) -> rusqlite::Result<(String, Option<String>)> {
        let query = "SELECT id, asked FROM jobs WHERE id = ?1 OR (pipeline = ?2 AND idempotency_key = ?3)";
        let key = params![job.id, job.pipeline, job.idempotency_key];
        self.group.prepare_cached(query)?.query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// The numbers of the jobs that may be lent, those first that have been due for longest. Each pipeline is asked for alone:
    /// its index has them in this order, so that it does not matter how many more there are.
    fn due(&self, request: &LeaseRequest) -> rusqlite::Result<Vec<i64>> {
        // An ordered job waits for all before it in its shard, also for those that wait for another attempt; and for one that
        // had its turn while it was over.
        let query = "SELECT not_before_ms, number FROM jobs AS job
            WHERE state = 'queued' AND pipeline = ?1 AND not_before_ms <= ?2
            AND (?4 IS NULL OR id = ?4)
            AND NOT (ordered = 1 AND EXISTS (
                SELECT 1 FROM jobs AS earlier WHERE earlier.ordered = 1 AND earlier.state IN ('queued', 'running')
                AND earlier.pipeline = job.pipeline AND earlier.shard IS job.shard
                AND (earlier.number < job.number OR earlier.state = 'running')))
            ORDER BY not_before_ms, number LIMIT ?3";
        let mut query = self.group.prepare_cached(query)?;
        let mut due = Vec::new();
        for pipeline in &request.pipelines {
            let asked = params![pipeline, self.now, request.count, request.job];
            for one in query.query_map(asked, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))? {
                due.push(one?);
            }
        }
        due.sort_unstable();
        Ok(due.into_iter().map(|(_, number)| number).take(request.count as usize).collect())
    }

    /// Lends jobs, in one statement; the oldest comes first.
    fn lend(&self, numbers: Vec<i64>, request: &LeaseRequest) -> rusqlite::Result<Vec<LeasedJob>> {
        let update = "UPDATE jobs SET state = 'running', attempt = attempt + 1, token = token + 1, worker = ?,
                lease_until_ms = ?, updated_ms = ?
            WHERE number IN (SELECT value FROM json_each(?))
            RETURNING number, id, token, pipeline, version, attempt, max_attempts, payload";
        let until = self.now + milliseconds(request.visibility_ms);
        let numbers = Value::from(numbers).to_string();
        let mut update = self.group.prepare_cached(update)?;
        let lent = update.query_map(params![request.worker, until, self.now, numbers], |row| {
            let job = LeasedJob {
                lease: Lease { job: row.get(1)?, token: row.get::<_, i64>(2)?.unsigned_abs() },
                pipeline: row.get(3)?,
                version: row.get(4)?,
                attempt: row.get(5)?,
                max_attempts: row.get(6)?,
                payload: row.get::<_, Vec<u8>>(7)?.into(),
            };
            Ok((row.get::<_, i64>(0)?, job))
        })?;
        // They come in no order that is promised.
        let lent: BTreeMap<i64, LeasedJob> = lent.collect::<rusqlite::Result<_>>()?;
        Ok(lent.into_values().collect())
    }

    fn execute(&self, statement: &str, values: impl Params) -> rusqlite::Result<usize> {
        self.group.prepare_cached(statement)?.execute(values)
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

#[cfg(test)]
mod tests {
    use pype_plugin::testing;

    use super::*;

    type Step = Box<dyn FnOnce(&Turn<'_>) -> Result<()>>;

    fn enqueues(id: &'static str) -> Step {
        Box::new(move |turn| turn.enqueue(&testing::job(id)).map(drop))
    }

    /// What is there after a group of these steps, and whether the group was committed.
    fn check(store: &mut Store, steps: Vec<Step>, committed: bool, expect: &[&str]) {
        assert_eq!(store.commit(steps.into_iter()).is_ok(), committed);
        let jobs = store.jobs(&JobFilter::default()).expect("listed");
        assert_eq!(jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_step_that_fails_does_nothing_and_harms_no_other() {
        let mut store = Store::in_memory().expect("opened");
        let refused: Step = Box::new(|turn| turn.act("nobody", JobAction::Retry));
        // It can change the first, and not the second.
        let breaks: Step = Box::new(|turn| turn.execute("UPDATE jobs SET id = 'same'", []).map(drop).map_err(failed));
        let steps = vec![enqueues("a"), refused, enqueues("b"), breaks, enqueues("c")];
        check(&mut store, steps, true, &["c", "b", "a"]);
    }

    #[test]
    fn a_group_that_is_not_committed_did_nothing_and_the_next_one_is_none_the_worse() {
        let mut store = Store::in_memory().expect("opened");
        let tables = "PRAGMA foreign_keys = ON; CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (parent REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);";
        store.connection.execute_batch(tables).expect("made");
        // Noticed at the commit.
        let orphan: Step =
            Box::new(|turn| turn.execute("INSERT INTO children VALUES (1)", []).map(drop).map_err(failed));
        check(&mut store, vec![enqueues("a"), orphan, enqueues("b")], false, &[]);
        let undoes_all: Step = Box::new(|turn| {
            turn.group.execute_batch("ROLLBACK").map_err(failed)?;
            turn.act("nobody", JobAction::Retry)
        });
        check(&mut store, vec![enqueues("a"), undoes_all, enqueues("b")], false, &[]);
        check(&mut store, vec![enqueues("c")], true, &["c"]);
    }
}
