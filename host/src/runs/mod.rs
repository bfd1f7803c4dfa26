//! Run folders: what is kept of each run, and what a resume starts from.
//!
//! `runs/<id>/` holds `run.json`, the log of events that everything else is made from; checkpoints; and the report. Who runs
//! it holds a lock, so that nobody resumes or removes a run that lives.

mod journal;
mod plan;
mod scratch;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pype_core::flow::dag::ArtifactError;
use pype_core::flow::plan::Plan;
use pype_core::name::FlowName;
use pype_core::report;
use pype_core::run::history::History;
use pype_core::run::log::{self, LogError, Record};
use serde_json::{Map, Value};

pub use self::journal::{Journal, JournalWriter};
pub use self::plan::read as plan_of;
pub use self::scratch::Scratch;

const EVENTS: &str = "run.json";
const LOCK: &str = ".lock";
/// Beside all runs, where they keep what nobody needs afterwards.
const SCRATCH: &str = ".scratch";
const LOG: &str = "log.jsonl";
const REPORT: &str = "report.html";
/// Where a run keeps rows.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// A file or folder cannot be read or written.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no run of that id.
    #[error("there is no run `{id}` in `{}`", folder.display())]
    NotThere {
        /// What was asked for.
        id: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// There is no run of that flow.
    #[error("there is no run of `{flow}` in `{}`", folder.display())]
    NoneOf {
        /// The flow's name.
        flow: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Its process lives.
    #[error("the run `{id}` is still running")]
    Alive {
        /// Which.
        id: String,
    },
    /// The plan that it keeps cannot be read.
    #[error("`{}`: {problem}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: ArtifactError,
    },
    /// Its log cannot be read.
    #[error("`{}`: {problem}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: LogError,
    },
}

/// Which run of a flow is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The last.
    Last,
    /// The one of this id.
    Id(String),
}

impl Which {
    fn id(&self, runs: &Path, flow: &str) -> Result<String, RunsError> {
        match self {
            Which::Last => last_of(runs, flow),
            Which::Id(id) => Ok(id.clone()),
        }
    }
}

/// As in commands: an id, or nothing for the last.
impl From<&str> for Which {
    fn from(text: &str) -> Self {
        if text.is_empty() { Which::Last } else { Which::Id(text.to_owned()) }
    }
}

/// A run's folder, held by this process.
pub struct RunFolder {
    /// The run's id, and the folder's name.
    pub id: String,
    path: PathBuf,
    // Closing it frees the lock.
    _lock: File,
}

/// A run's folder, read.
pub struct PastRun {
    /// The run's id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// What happened in it.
    pub records: Vec<Record>,
    /// Whether its process lives.
    pub alive: bool,
}

impl RunFolder {
    /// A new folder in `runs`, with an empty log.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(runs: &Path, flow: &str) -> Result<Self, RunsError> {
        fs::create_dir_all(runs).map_err(doing("make", runs))?;
        let now = jiff::Zoned::now().strftime("%Y%m%dT%H%M%S").to_string();
        let (id, path) = (0_u32..)
            .find_map(|again| {
                let id = if again == 0 { format!("{flow}-{now}") } else { format!("{flow}-{now}-{again}") };
                let path = runs.join(&id);
                match fs::create_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    made => Some(made.map(|()| (id, path.clone())).map_err(doing("make", &path))),
                }
            })
            .expect("one of all numbers is free")?;
        let lock = lock(&path, &id)?;
        let events = path.join(EVENTS);
        File::create_new(&events)
            .and_then(|mut file| file.write_all(log::header().as_bytes()))
            .map_err(doing("write", &events))?;
        Ok(Self { id, path, _lock: lock })
    }

    /// The folder of a run of `flow`, and what happened in it. A torn last line is cut off.
    ///
    /// # Errors
    /// There is none, its process lives, or its log is damaged.
    pub fn resume(runs: &Path, which: &Which, flow: &str) -> Result<(Self, Vec<Record>), RunsError> {
        let id = which.id(runs, flow)?;
        let path = runs.join(&id);
        if !path.join(EVENTS).is_file() {
            return Err(RunsError::NotThere { id, folder: runs.to_owned() });
        }
        let lock = lock(&path, &id)?;
        let (records, whole) = read(&path)?;
        let events = path.join(EVENTS);
        let mend = |file: &mut File| {
            file.set_len(whole)?;
            if whole == 0 { file.write_all(log::header().as_bytes()) } else { Ok(()) }
        };
        File::options()
            .write(true)
            .open(&events)
            .and_then(|mut file| mend(&mut file))
            .map_err(doing("mend", &events))?;
        sweep(&path.join(CHECKPOINTS));
        Ok((Self { id, path, _lock: lock }, records))
    }

    /// Removes it if no event was ever written.
    pub fn discard_unless_begun(self) {
        if !has_begun(&self.path) {
            // What is left of it nobody takes for a run.
            drop(fs::remove_dir_all(&self.path));
        }
    }

    /// Keeps the plan of the run.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_plan(&self, plan: &Plan) -> Result<(), RunsError> {
        plan::write(&self.path, plan)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells its records from those of other runs.
    pub fn tags(&self, flow: &FlowName) -> Map<String, Value> {
        [("flow", flow.as_str()), ("run", self.id.as_str())]
            .map(|(key, text)| (key.to_owned(), text.into()))
            .into_iter()
            .collect()
    }

    /// The file for its log, to be written on.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn log(&self) -> Result<File, RunsError> {
        let path = self.path.join(LOG);
        let open = || {
            let mut file = File::options().create(true).read(true).append(true).open(&path)?;
            let mut last = [b'\n'];
            if file.metadata()?.len() > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            // The next record is on a line of its own.
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
            Ok(file)
        };
        open().map_err(doing("write", &path))
    }

    /// Makes the folder where its rows are kept.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_checkpoints(&self) -> Result<(), RunsError> {
        let folder = self.path.join(CHECKPOINTS);
        fs::create_dir_all(&folder).map_err(doing("make", &folder))
    }

    /// A new folder beside all runs for files that nobody needs afterwards; what killed runs have left there goes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> io::Result<Scratch> {
        let beside = self.path.parent().unwrap_or(&self.path).join(SCRATCH);
        fs::create_dir_all(&beside)?;
        Scratch::create(&beside)
    }

    /// Begins to write events to the end of its log.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn journal(&self) -> Result<(Journal, JournalWriter), RunsError> {
        let events = self.path.join(EVENTS);
        let file = File::options().append(true).open(&events);
        file.and_then(Journal::start).map_err(doing("write", &events))
    }
}

/// One run.
///
/// # Errors
/// There is none of that id, or its log cannot be read.
pub fn open(runs: &Path, id: &str) -> Result<PastRun, RunsError> {
    let path = runs.join(id);
    if !path.join(EVENTS).is_file() {
        return Err(RunsError::NotThere { id: id.to_owned(), folder: runs.to_owned() });
    }
    let (records, _) = read(&path)?;
    Ok(PastRun { id: id.to_owned(), alive: is_alive(&path), path, records })
}

/// A run of `flow`.
///
/// # Errors
/// There is none, or its log cannot be read.
pub fn past(runs: &Path, which: &Which, flow: &str) -> Result<PastRun, RunsError> {
    open(runs, &which.id(runs, flow)?)
}

/// The ids of all runs, the oldest first.
///
/// # Errors
/// The folder cannot be read; that there is none is no error.
pub fn ids(runs: &Path) -> Result<Vec<String>, RunsError> {
    let entries = match fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(doing("read", runs)(source)),
    };
    let mut found: Vec<(std::time::SystemTime, String)> = entries
        .flatten()
        .filter(|entry| entry.path().join(EVENTS).is_file())
        .filter_map(|entry| {
            let begun = fs::metadata(entry.path().join(LOCK)).and_then(|lock| lock.modified());
            Some((begun.unwrap_or(std::time::UNIX_EPOCH), entry.file_name().into_string().ok()?))
        })
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// Makes the report of the run in `folder` from its log, and gives its path.
///
/// # Errors
/// The log cannot be read, or the report not be written.
pub fn write_report(folder: &Path, plan: &Plan) -> Result<PathBuf, RunsError> {
    let (records, _) = read(folder)?;
    let path = folder.join(REPORT);
    fs::write(&path, report::html(plan, &History::of(&records))).map_err(doing("write", &path))?;
    Ok(path)
}

/// How long ago the log of a run was last written.
#[must_use]
pub fn age(runs: &Path, id: &str) -> Duration {
    let changed = fs::metadata(runs.join(id).join(EVENTS)).and_then(|events| events.modified());
    changed.ok().and_then(|changed| changed.elapsed().ok()).unwrap_or_default()
}

/// Removes a run's folder.
///
/// # Errors
/// Its process lives, or it cannot be removed.
pub fn remove(runs: &Path, id: &str) -> Result<(), RunsError> {
    let path = runs.join(id);
    let _lock = lock(&path, id)?;
    fs::remove_dir_all(&path).map_err(doing("remove", &path))
}

/// Where the runs of what is at `document` are: in the project, the nearest folder upward with a registry; else beside it.
#[must_use]
pub fn folder_for(document: &Path) -> PathBuf {
    let document = std::path::absolute(document).unwrap_or_else(|_| document.to_owned());
    let beside = if document.is_dir() { document.as_path() } else { document.parent().unwrap_or(Path::new("/")) };
    let project = beside.ancestors().find(|folder| folder.join("registry").join("modules.json").is_file());
    project.unwrap_or(beside).join("runs")
}

fn last_of(runs: &Path, flow: &str) -> Result<String, RunsError> {
    let mut of_flow = ids(runs)?;
    of_flow.retain(|id| id.strip_prefix(flow).is_some_and(is_stamp));
    // One that was killed before it told anything hides none that did.
    let begun = of_flow.iter().rfind(|id| has_begun(&runs.join(id)));
    let last = begun.or(of_flow.last()).cloned();
    last.ok_or_else(|| RunsError::NoneOf { flow: flow.to_owned(), folder: runs.to_owned() })
}

/// Whether its log holds more than its header.
fn has_begun(path: &Path) -> bool {
    let header = log::header().len() as u64;
    fs::metadata(path.join(EVENTS)).is_ok_and(|events| events.len() > header)
}

/// What [`RunFolder::create`] puts behind the flow's name: `load` is not `load-daily`.
fn is_stamp(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|stamp| {
        stamp.len() >= 15 && stamp.starts_with(|first: char| first.is_ascii_digit()) && stamp.as_bytes()[8] == b'T'
    })
}

fn read(path: &Path) -> Result<(Vec<Record>, u64), RunsError> {
    let events = path.join(EVENTS);
    let bytes = fs::read(&events).map_err(doing("read", &events))?;
    // What a crash has torn may end within a letter.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let read = log::read(&text).map_err(|problem| RunsError::Log { path: events, problem })?;
    Ok((read.records, whole as u64))
}

fn lock(path: &Path, id: &str) -> Result<File, RunsError> {
    let at = path.join(LOCK);
    match scratch::take(&at) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(RunsError::Alive { id: id.to_owned() }),
        Err(source) => Err(doing("lock", &at)(source)),
    }
}

/// Removes what a killed session was writing.
fn sweep(checkpoints: &Path) {
    for entry in fs::read_dir(checkpoints).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with('.')) {
            // It is in nobody's way.
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn is_alive(path: &Path) -> bool {
    File::open(path.join(LOCK)).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn doing(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunsError {
    let path = path.to_owned();
    move |source| RunsError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use pype_core::run::event::RunEvent;
    use pype_core::run::scheduler::Verdict;

    use super::*;

    #[test]
    fn a_run_that_lives_is_neither_resumed_nor_removed() {
        let runs = tempfile::tempdir().expect("a folder");
        let first = RunFolder::create(runs.path(), "load").expect("made");
        let second = RunFolder::create(runs.path(), "load").expect("made");
        assert_ne!(first.id, second.id);
        assert!(matches!(remove(runs.path(), &first.id), Err(RunsError::Alive { .. })));
        assert!(open(runs.path(), &first.id).expect("readable").alive);
        let id = first.id.clone();
        drop(first);
        assert!(!open(runs.path(), &id).expect("readable").alive);
        RunFolder::resume(runs.path(), &Which::Id(id.clone()), "load").expect("free");
        remove(runs.path(), &id).expect("free");
        assert_eq!(ids(runs.path()).expect("readable"), [second.id]);
    }

    #[test]
    fn a_flow_is_not_taken_for_another_whose_name_begins_alike() {
        let runs = tempfile::tempdir().expect("a folder");
        let daily = RunFolder::create(runs.path(), "load-daily").expect("made");
        let ended = RunEvent::RunFinished { verdict: Verdict::Cancelled, seconds: 0.0 };
        let mut events = File::options().append(true).open(daily.path().join(EVENTS)).expect("there");
        events.write_all(log::record(1, &ended).as_bytes()).expect("written");
        assert!(matches!(RunFolder::resume(runs.path(), &Which::Last, "load"), Err(RunsError::NoneOf { .. })));
        drop(daily);
        assert!(RunFolder::resume(runs.path(), &Which::Last, "load-daily").is_ok());
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let runs = tempfile::tempdir().expect("a folder");
        let run = RunFolder::create(runs.path(), "load").expect("made");
        let events = run.path().join(EVENTS);
        let whole = fs::read_to_string(&events).expect("readable");
        fs::write(&events, whole.clone() + "{\"at_ms\":1,\"ev").expect("writable");
        let id = run.id.clone();
        drop(run);
        RunFolder::resume(runs.path(), &Which::Id(id), "load").expect("a torn line is no damage");
        assert_eq!(fs::read_to_string(&events).expect("readable"), whole);
    }
}
