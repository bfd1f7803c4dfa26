//! Writes a run's events to its `run.json`.
//!
//! The promise: an event that [`Journal::settled`] was awaited after is on the disk, and every other one at most 100 ms
//! after it was told. One thread writes, so the lines are in the order of the telling.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pype_core::run::event::RunEvent;
use pype_core::run::log;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long an event may be on its way to the disk.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// How many events may wait for the thread. Who tells one more waits with them.
const WAITING: usize = 16_384;
/// So many bytes are written at once.
const CHUNK: usize = 1 << 16;

/// Where a run's events go. Clones write to the same file.
#[derive(Clone)]
pub struct Journal {
    sender: SyncSender<Entry>,
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

enum Entry {
    Line(String),
    Settle(oneshot::Sender<()>),
    End,
}

impl Journal {
    /// Writes to the end of `file`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(file: File) -> io::Result<(Journal, JournalWriter)> {
        let (sender, entries) = sync_channel(WAITING);
        let journal = Journal { sender, lost: Lost::default() };
        let lost = journal.lost.clone();
        let work = move || Writer { file, pending: Vec::new(), unsynced_since: None, lost }.run(&entries);
        let thread = std::thread::Builder::new().name("pype-journal".to_owned()).spawn(work)?;
        Ok((journal.clone(), JournalWriter { journal, thread }))
    }

    /// Writes an event.
    pub fn write(&self, event: &RunEvent) {
        let at = jiff::Timestamp::now().as_millisecond();
        let line = log::record(u64::try_from(at).unwrap_or(0), event);
        // A thread that has ended has said why.
        drop(self.sender.send(Entry::Line(line)));
    }

    /// Waits until all that was told before is on the disk.
    ///
    /// # Errors
    /// It cannot be written: why, in words.
    pub async fn settled(&self) -> Result<(), String> {
        let (done, settled) = oneshot::channel();
        let sender = self.sender.clone();
        // The queue may be full for a moment; the disk is what is waited for anyway.
        let sent = tokio::task::spawn_blocking(move || sender.send(Entry::Settle(done)).is_ok()).await;
        match (sent, settled.await) {
            (Ok(true), Ok(())) => Ok(()),
            _ => Err(self.failure().unwrap_or("the thread that writes it has ended").to_owned()),
        }
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
        drop(self.journal.sender.send(Entry::End));
        let joined = self.thread.join();
        match (joined, self.journal.failure()) {
            (Ok(()), None) => Ok(()),
            (_, Some(cause)) => Err(cause.to_owned()),
            (Err(_), None) => Err("the thread that writes it has panicked".to_owned()),
        }
    }
}

struct Writer {
    file: File,
    pending: Vec<u8>,
    unsynced_since: Option<Instant>,
    lost: Lost,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            let next = match entries.try_recv() {
                Ok(entry) => Ok(entry),
                // Nobody hurries: what came is written, and the next one waited for.
                Err(_) => self.write().and_then(|()| self.wait(entries)),
            };
            let went_on = match next {
                Ok(Entry::Line(line)) => self.take(&line),
                Ok(Entry::Settle(done)) => self.sync().map(|()| done.send(()).unwrap_or(())),
                Ok(Entry::End) => {
                    let last = self.sync();
                    self.lose(last);
                    return;
                }
                Err(error) => Err(error),
            };
            if went_on.is_err() {
                self.lose(went_on);
                return;
            }
        }
    }

    /// Waits for the next entry; syncs when it is time to.
    fn wait(&mut self, entries: &Receiver<Entry>) -> io::Result<Entry> {
        loop {
            let Some(since) = self.unsynced_since else {
                return Ok(entries.recv().unwrap_or(Entry::End));
            };
            match entries.recv_timeout(SYNC_EVERY.saturating_sub(since.elapsed())) {
                Ok(entry) => return Ok(entry),
                Err(RecvTimeoutError::Timeout) => self.sync()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(Entry::End),
            }
        }
    }

    fn take(&mut self, line: &str) -> io::Result<()> {
        self.pending.extend_from_slice(line.as_bytes());
        if self.pending.len() >= CHUNK {
            self.write()?;
        }
        match self.unsynced_since {
            Some(since) if since.elapsed() >= SYNC_EVERY => self.sync(),
            Some(_) | None => Ok(()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all(&self.pending)?;
            self.pending.clear();
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        if self.unsynced_since.take().is_some() {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn lose(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.lost.cause.get_or_init(|| error.to_string());
            self.lost.token.cancel();
        }
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
