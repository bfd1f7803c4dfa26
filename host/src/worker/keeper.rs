//! What the host keeps of a child: the process, its last records of the log, and what it is at.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pype_plugin::{Error, ErrorKind};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::peer::Peer;
use super::post_mortem::PostMortem;
use super::process::Process;
use super::wire::Note;
use crate::observe::log::{Level, Log, Record};
use crate::secret::Redactor;

/// How long a child that nobody has, or whose socket is closed, may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many records of a child are kept for its post-mortem.
const RECENT: usize = 200;
/// What a child prints is told line by line; one without an end is broken here.
const LINE: usize = 4096;

/// What all children of a host have around them.
#[derive(Clone)]
pub struct Around {
    /// Where their records go.
    pub log: Log,
    /// How many threads blocking work may use, in each.
    pub threads: usize,
    /// What masks secrets in what is kept of one that died.
    pub redactor: Redactor,
    /// Where that is kept.
    pub post_mortems: PathBuf,
}

/// What a child is at: for the log, and for its post-mortem.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// What its post-mortem is called after: a node's id, a stream's name.
    pub(crate) stem: String,
    /// As the subject of a sentence: "the process of the node `load`".
    pub(crate) subject: String,
    /// What its records of the log say besides.
    pub(crate) tags: Map<String, Value>,
    /// Modules and libraries.
    pub(crate) facts: Map<String, Value>,
    /// What the modules were told.
    pub(crate) configs: Value,
}

/// What is kept of one child.
pub(super) struct Keeper {
    around: Around,
    process: tokio::sync::Mutex<Process>,
    // Each is locked for one look or one change.
    about: Mutex<About>,
    recent: Mutex<VecDeque<String>>,
    ending: AtomicBool,
}

impl Keeper {
    /// Starts a child.
    pub(super) fn start(around: Around, about: About, progress: Option<File>) -> io::Result<(Self, UnixStream)> {
        let (log, tags) = (around.log.clone(), about.tags.clone());
        let mut lines = Lines::default();
        let heard = move |bytes: &[u8]| {
            lines.push(bytes, |line| log.write(Record::now(Level::Info, "pype::printed", line, tags.clone())));
        };
        let (process, socket) = Process::start(progress, heard)?;
        Ok((Self::of(around, about, process), socket))
    }

    pub(super) fn of(around: Around, about: About, process: Process) -> Self {
        Self {
            around,
            process: tokio::sync::Mutex::new(process),
            about: Mutex::new(about),
            recent: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// It is at something else now.
    pub(super) fn turn_to(&self, about: About) {
        *held(&self.about) = about;
    }

    /// Writes records of the child's into the log.
    pub(super) fn log(&self, lines: &[u8]) {
        for line in String::from_utf8_lossy(lines).lines() {
            if let Some(mut record) = Record::from_line(line) {
                for (name, value) in &held(&self.about).tags {
                    record.fields.insert(name.clone(), value.clone());
                }
                self.around.log.write(record);
            }
            let mut recent = held(&self.recent);
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(line.to_owned());
        }
    }

    /// From now on its end is no surprise.
    pub(super) fn let_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Nobody has the child any more: it ends at its leisure, for a while.
    pub(super) fn let_go(self: Arc<Self>, peer: Arc<Peer>) {
        self.let_end();
        peer.note(Note::End, Vec::new());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                self.end(PATIENCE).await;
                // Without the connection it would not end what it is at.
                drop(peer);
            });
        }
    }

    /// Waits until it has ended, for so long; then it is killed.
    pub(super) async fn end(&self, patience: Duration) {
        self.let_end();
        self.process.lock().await.end(patience).await;
    }

    /// Ends it at once.
    pub(super) async fn kill(&self) {
        self.process.lock().await.kill();
    }

    /// How it died, once its socket is closed.
    pub(super) async fn death(&self) -> Death {
        let mut process = self.process.lock().await;
        let id = process.id();
        let how = process.end(PATIENCE).await;
        let printed = if self.ending.load(Ordering::Relaxed) { String::new() } else { process.last_words().await };
        Death { id, how, printed }
    }

    /// Why it is gone, for those who wait for it. If that was not to be, what is known of it is written down, and these
    /// facts with it.
    pub(super) fn explain(&self, death: Death, facts: Map<String, Value>) -> Error {
        let mut about = held(&self.about).clone();
        let Death { id, how, printed } = death;
        let mut error = Error::new(ErrorKind::Internal, "crashed", format!("{} {how}", about.subject)).retryable(true);
        if self.ending.load(Ordering::Relaxed) {
            return error;
        }
        about.facts.extend(facts);
        error.causes.extend(last_words(&printed));
        match self.write_down(about, id, &how, printed) {
            Ok(folder) => error.hint(format!("what is known of it is in {}", folder.display())),
            Err(cause) => {
                tracing::warn!("there is no post-mortem in `{}`: {cause}", self.around.post_mortems.display());
                error
            }
        }
    }

    fn write_down(&self, about: About, id: u32, how: &str, printed: String) -> io::Result<PathBuf> {
        let About { stem, mut facts, configs, .. } = about;
        facts.insert("pid".to_owned(), id.into());
        facts.insert("how".to_owned(), how.into());
        facts.insert("pype".to_owned(), env!("CARGO_PKG_VERSION").into());
        let records = held(&self.recent).iter().cloned().collect();
        let post_mortem = PostMortem { stem: &stem, facts, configs, printed, records };
        post_mortem.write(&self.around.post_mortems, jiff::Timestamp::now(), &self.around.redactor)
    }
}

/// How a child died.
#[derive(Debug)]
pub(crate) struct Death {
    id: u32,
    how: String,
    printed: String,
}

impl Death {
    /// As the end of a sentence about it: `crashed with SIGSEGV`.
    pub(super) fn how(&self) -> &str {
        &self.how
    }

    /// What it printed last, as a cause.
    pub(super) fn last_words(&self) -> Option<String> {
        last_words(&self.printed)
    }
}

fn last_words(printed: &str) -> Option<String> {
    printed.trim_end().lines().last().map(|last| format!("it printed `{last}` last"))
}

/// Lines out of bytes as they come.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") || self.begun.len() >= LINE {
                let text = String::from_utf8_lossy(&self.begun).trim_end().to_owned();
                self.begun.clear();
                if !text.is_empty() {
                    line(&text);
                }
            }
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for part in ["one\ntw", "", "o\n", "\n\nthree", " more\r\nlast"] {
            lines.push(part.as_bytes(), |line| heard.push(line.to_owned()));
        }
        assert_eq!(heard, ["one", "two", "three more"]);
        lines.push(&[b'x'; LINE], |line| heard.push(line.len().to_string()));
        assert_eq!(heard[3], (LINE + 4).to_string());
    }
}
