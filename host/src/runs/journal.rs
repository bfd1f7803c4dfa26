//! Writes a run's events to its `run.json`.
//!
//! The promise: an event that [`Journal::settled`] was awaited after is on the disk, and every other one at most 100 ms
//! after it was told. One thread writes, so the lines are in the order of the telling. Who tells an event wakes nobody:
//! the thread looks for itself, often enough, so that ten thousand events do not cost ten thousand wake-ups.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pype_core::run::event::RunEvent;
use pype_core::run::log;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;

/// How often the thread looks for events.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// How long an event may be on its way to the disk.
const SYNCS_EVERY: Duration = Duration::from_millis(80);
/// So many bytes may wait for the thread. Who tells more waits with them.
const WAITING: usize = 4 << 20;

/// Where a run's events go. Clones write to the same file.
#[derive(Clone)]
pub struct Journal {
    desk: Arc<Desk>,
    lost: Lost,
}

/// The thread that writes; waits for it when it is finished.
pub struct JournalWriter {
    journal: Journal,
    thread: JoinHandle<()>,
}

/// Whether the file can no longer be written, and why.
#[derive(Clone, Default)]
struct Lost {
    token: CancellationToken,
    // The first failure; all later ones follow from it.
    cause: Arc<OnceLock<String>>,
}

/// What lies between those who tell and the thread that writes.
#[derive(Default)]
struct Desk {
    // Locked for as long as it takes to put a line down, or to take all.
    papers: Mutex<Papers>,
    /// For the thread: somebody waits for it.
    hurry: Condvar,
    /// For who tells: there is room again.
    room: Condvar,
}

#[derive(Default)]
struct Papers {
    lines: Vec<u8>,
    settle: Vec<oneshot::Sender<()>>,
    /// Nothing more will come; or nothing more is written.
    ended: bool,
}

impl Journal {
    /// Writes to the end of `file`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(file: File) -> io::Result<(Journal, JournalWriter)> {
        let journal = Journal { desk: Arc::default(), lost: Lost::default() };
        let writer = Writer { file, journal: journal.clone(), unsynced_since: None };
        let thread = std::thread::Builder::new().name("pype-journal".to_owned()).spawn(move || writer.run())?;
        Ok((journal.clone(), JournalWriter { journal, thread }))
    }

    /// Writes an event.
    pub fn write(&self, event: &RunEvent) {
        let line = log::record(now_ms(), event);
        let mut papers = self.desk.papers();
        while papers.lines.len() > WAITING && !papers.ended {
            self.desk.hurry.notify_one();
            papers = self.desk.room.wait(papers).unwrap_or_else(PoisonError::into_inner);
        }
        // A thread that has ended has said why.
        if !papers.ended {
            papers.lines.extend_from_slice(line.as_bytes());
        }
    }

    /// Waits until all that was told before is on the disk.
    ///
    /// # Errors
    /// It cannot be written: why, in words.
    pub async fn settled(&self) -> Result<(), String> {
        let (done, settled) = oneshot::channel();
        {
            let mut papers = self.desk.papers();
            // Without the thread the sender is dropped here, which is the answer.
            if !papers.ended {
                papers.settle.push(done);
            }
        }
        self.desk.hurry.notify_one();
        settled.await.map_err(|_| self.failure().unwrap_or("the thread that writes it has ended").to_owned())
    }

    /// Resolves when the file can no longer be written.
    pub async fn lost(&self) {
        self.lost.token.cancelled().await;
    }

    /// Why the file can no longer be written.
    pub fn failure(&self) -> Option<&str> {
        self.lost.cause.get().map(String::as_str)
    }
}

impl JournalWriter {
    /// Writes what is left.
    ///
    /// # Errors
    /// Something could not be written: why, in words.
    pub fn finish(self) -> Result<(), String> {
        self.journal.desk.papers().ended = true;
        self.journal.desk.hurry.notify_one();
        let joined = self.thread.join();
        match (joined, self.journal.failure()) {
            (Ok(()), None) => Ok(()),
            (_, Some(cause)) => Err(cause.to_owned()),
            (Err(_), None) => Err("the thread that writes it has panicked".to_owned()),
        }
    }
}

impl Desk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that lies there, after a while or when somebody is in a hurry. What is given instead is used on.
    fn take(&self, mut emptied: Vec<u8>) -> Papers {
        let calm = |papers: &mut Papers| papers.settle.is_empty() && papers.lines.len() <= WAITING && !papers.ended;
        let waited = self.hurry.wait_timeout_while(self.papers(), LOOKS_EVERY, calm);
        let (mut papers, _) = waited.unwrap_or_else(PoisonError::into_inner);
        emptied.clear();
        let (ended, lines) = (papers.ended, std::mem::replace(&mut papers.lines, emptied));
        let taken = Papers { lines, settle: std::mem::take(&mut papers.settle), ended };
        self.room.notify_all();
        taken
    }

    /// Nothing is written any more: who waits need not.
    fn close(&self) {
        let mut papers = self.papers();
        papers.ended = true;
        papers.settle.clear();
        self.room.notify_all();
    }
}

struct Writer {
    file: File,
    journal: Journal,
    unsynced_since: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut written = Vec::new();
        loop {
            let Papers { lines, settle, ended } = self.journal.desk.take(written);
            if let Err(error) = self.put_down(&lines, ended || !settle.is_empty()) {
                // The cause is there before those who wait learn that there is one.
                self.journal.lost.cause.get_or_init(|| error.to_string());
                self.journal.desk.close();
                self.journal.lost.token.cancel();
                return;
            }
            // Who does not wait any more need not know.
            settle.into_iter().for_each(|done| done.send(()).unwrap_or(()));
            if ended {
                return;
            }
            written = lines;
        }
    }

    fn put_down(&mut self, lines: &[u8], at_once: bool) -> io::Result<()> {
        if !lines.is_empty() {
            self.file.write_all(lines)?;
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        let due = self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNCS_EVERY);
        if self.unsynced_since.is_some() && (due || at_once) {
            self.file.sync_data()?;
            self.unsynced_since = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pype_core::run::scheduler::Verdict;

    use super::*;

    fn event() -> RunEvent {
        RunEvent::RunFinished { verdict: Verdict::Succeeded, seconds: 1.0 }
    }

    #[tokio::test]
    async fn what_is_settled_is_in_the_file() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let (journal, writer) = Journal::start(File::create(&path).expect("writable")).expect("a thread");
        for _ in 0..1000 {
            journal.write(&event());
        }
        journal.settled().await.expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), 1000);
        journal.write(&event());
        writer.finish().expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), 1001);
    }

    #[tokio::test]
    async fn a_disk_that_is_full_is_said() {
        let Ok(full) = File::options().write(true).open("/dev/full") else { return };
        let (journal, writer) = Journal::start(full).expect("a thread");
        journal.write(&event());
        let settled = journal.settled().await.expect_err("nothing fits there");
        assert!(settled.contains("No space left"), "{settled}");
        journal.lost().await;
        assert!(writer.finish().is_err());
    }
}
