//! Children that handle records of streams: the host's side and theirs.
//!
//! A child is given records, and counts them from 0 on. It handles them one after the other, and says which it has begun and how many have
//! failed in one word of a file that it shares with the host, before it begins ([`At`]): what the host reads there is true however
//! the child ends. Failures it tells at once, success when it has nothing left to do or a while has passed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use pype_plugin::stream::records_schema;
use pype_plugin::{Error, Result};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::here::{Child, Working};
use super::keeper::{About, Around, Death, Keeper};
use super::peer::{Answer, Peer, Runtimes, Service};
use super::rows::{RowsIn, RowsOut};
use super::wire::{Ask, Begin, Note, Turn, What};

/// After so long success is told though there is more to do.
const TOLD_EVERY: Duration = Duration::from_millis(1);

/// What a child is at: how many records it has begun, and how many of those have failed. One word, so that it is never torn;
/// of the failures only the last 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    begun: u64,
    failed: u32,
}

const FAILED_BITS: u32 = 24;

impl At {
    fn to_bytes(self) -> [u8; 8] {
        (self.begun << FAILED_BITS | u64::from(self.failed)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let word = u64::from_le_bytes(bytes);
        let failed = u32::try_from(word & ((1 << FAILED_BITS) - 1)).expect("24 bits are fewer than 32");
        Self { begun: word >> FAILED_BITS, failed }
    }

    /// The record that is running, or was running last; those before it are over.
    pub(crate) fn record(self) -> Option<u64> {
        self.begun.checked_sub(1)
    }

    /// Whether whoever has heard of so many failures has heard of all: what is over and has not failed is done, then.
    pub(crate) fn has_told(self, failures: u64) -> bool {
        u64::from(self.failed) == failures & ((1 << FAILED_BITS) - 1)
    }
}

/// What a child says.
#[derive(Debug)]
pub(crate) enum Said {
    /// This record has failed. Those before it are over.
    Failed { record: u64, error: Error },
    /// All before this one are over.
    Handled { before: u64 },
    /// It is gone.
    Lost(Death),
}

/// Who hears it. Called in the order in which it is said.
pub(crate) type Hear = Box<dyn Fn(Said) + Send + Sync>;

/// The host's side of a child that handles records.
pub(crate) struct Connection {
    desk: Arc<Desk>,
    peer: Arc<Peer>,
    rows: Option<RowsOut>,
    progress: File,
}

impl Connection {
    /// Starts a child, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or says why it cannot work.
    pub(crate) async fn start(around: Around, about: About, what: What, hear: Hear) -> Result<Self> {
        let progress = tempfile::tempfile()?;
        let begin = Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            filter: around.log.filter().clone(),
            threads: around.threads,
            what,
        };
        let (keeper, socket) = Keeper::start(around, about, Some(progress.try_clone()?))?;
        let connection = Self::over(keeper, socket, progress, hear)?;
        connection.peer.ask(Ask::Begin(Box::new(begin)), Vec::new()).await?;
        connection.begun()
    }

    fn over(keeper: Keeper, socket: UnixStream, progress: File, hear: Hear) -> Result<Self> {
        let desk = Arc::new(Desk { keeper: Arc::new(keeper), hear, stage: Mutex::new(Stage::Starting) });
        let runtimes = Runtimes { io: Handle::current(), work: Handle::current() };
        let peer = Peer::start(socket, runtimes, desk.clone())?;
        Ok(Self { desk, peer, rows: None, progress })
    }

    /// From now on it can be given records.
    fn begun(mut self) -> Result<Self> {
        let (rows, first) = RowsOut::begin(&records_schema())?;
        self.peer.note(Note::Handle { turns: Vec::new() }, first);
        self.rows = Some(rows);
        self.desk.begun()?;
        Ok(self)
    }

    /// Gives it records, each with its turn.
    ///
    /// # Errors
    /// They are no records.
    pub(crate) fn give(&mut self, records: &RecordBatch, turns: Vec<Turn>) -> Result<()> {
        let rows = self.rows.as_mut().expect("it has begun").push(records)?;
        self.peer.note(Note::Handle { turns }, rows);
        Ok(())
    }

    /// What it is at.
    pub(crate) fn at(&self) -> At {
        let mut word = [0; 8];
        // It is empty until the first record has begun.
        self.progress.read_exact_at(&mut word, 0).map_or(At::default(), |()| At::from_bytes(word))
    }

    /// Why it is gone: a post-mortem says more, and these facts with it.
    pub(crate) fn explain(&self, death: Death, facts: Map<String, Value>) -> Error {
        self.desk.keeper.explain(death, facts)
    }

    /// Ends it at once, as if it had crashed.
    pub(crate) async fn kill(&self) {
        self.desk.keeper.kill().await;
    }

    /// Has it break off what it is at, and close its pipeline. From now on its end is no surprise.
    pub(crate) fn let_end(&self) {
        self.desk.keeper.let_end();
        self.peer.note(Note::End, Vec::new());
    }

    /// The same, and waits for that; it is killed if it takes longer.
    pub(crate) async fn end(self, patience: Duration) {
        self.let_end();
        self.desk.keeper.end(patience).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.desk.keeper.clone().let_go(self.peer.clone());
    }
}

/// What hears a child.
struct Desk {
    keeper: Arc<Keeper>,
    hear: Hear,
    // Locked for one change: either who starts it hears of its end, or whoever is to hear what it says.
    stage: Mutex<Stage>,
}

enum Stage {
    Starting,
    Begun,
    Gone(Error),
}

impl Desk {
    fn begun(&self) -> Result<()> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stage {
            Stage::Gone(why) => Err(why.clone()),
            Stage::Starting | Stage::Begun => {
                *stage = Stage::Begun;
                Ok(())
            }
        }
    }
}

impl Service for Desk {
    async fn answer(self: Arc<Self>, _: Arc<Peer>, _: Ask, _: Vec<u8>) -> Result<Answer> {
        Err(super::not_asked())
    }

    fn note(&self, _: &Arc<Peer>, note: Note, body: Vec<u8>) {
        match note {
            Note::Log => self.keeper.log(&body),
            Note::Failed { record, error } => (self.hear)(Said::Failed { record, error }),
            Note::Handled { before } => (self.hear)(Said::Handled { before }),
            // Of the other side, or of modules.
            Note::Abandon { .. }
            | Note::Forget { .. }
            | Note::Cancel
            | Note::End
            | Note::Progress { .. }
            | Note::Handle { .. } => {}
        }
    }

    async fn lost(&self) -> Error {
        let death = self.keeper.death().await;
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stage {
            Stage::Begun => {
                drop(stage);
                let gone = super::gone(&death);
                (self.hear)(Said::Lost(death));
                gone
            }
            Stage::Starting | Stage::Gone(_) => {
                let why = self.keeper.explain(death, Map::new());
                *stage = Stage::Gone(why.clone());
                why
            }
        }
    }
}

/// Records that a child was given.
pub(crate) struct Given {
    /// The records.
    pub(crate) records: RecordBatch,
    /// How each is handled.
    pub(crate) turns: Vec<Turn>,
}

/// The same as it came, the records as bytes.
type Unread = (Vec<Turn>, Vec<u8>);

/// The child's side.
pub(crate) struct Handling {
    peer: Arc<Peer>,
    given: mpsc::UnboundedReceiver<Unread>,
    rows: Option<RowsIn>,
    progress: File,
    at: At,
    told_at: Instant,
    told: u64,
}

/// What hears the host: records go to the task that handles them.
pub(crate) struct Listening {
    // What waits there is bounded by the host.
    give: mpsc::UnboundedSender<Unread>,
    stop: CancellationToken,
    /// In a test the process goes on without its host.
    exits: bool,
}

impl Listening {
    /// Something that hears the host, where what it gives comes out, and what fires when the host says that it is all.
    fn new(exits: bool) -> (Arc<Self>, mpsc::UnboundedReceiver<Unread>, CancellationToken) {
        let (give, given) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        (Arc::new(Self { give, stop: stop.clone(), exits }), given, stop)
    }
}

impl Service for Listening {
    async fn answer(self: Arc<Self>, _: Arc<Peer>, _: Ask, _: Vec<u8>) -> Result<Answer> {
        Err(super::not_asked())
    }

    fn note(&self, _: &Arc<Peer>, note: Note, body: Vec<u8>) {
        match note {
            // Once nobody takes them, this child is ending.
            Note::Handle { turns } => drop(self.give.send((turns, body))),
            Note::End => self.stop.cancel(),
            // Of the other side, or of modules.
            Note::Abandon { .. }
            | Note::Forget { .. }
            | Note::Cancel
            | Note::Log
            | Note::Progress { .. }
            | Note::Failed { .. }
            | Note::Handled { .. } => {}
        }
    }

    /// Without its host a child is of no use to anybody.
    async fn lost(&self) -> Error {
        if self.exits {
            crate::child::leave();
        }
        self.stop.cancel();
        Error::cancelled()
    }
}

/// Starts what a child of this kind has: what it works with, what the host gives, and what fires when that is all.
///
/// # Errors
/// This process cannot work.
pub(crate) fn start(child: Child) -> io::Result<(Working, What, Handling, CancellationToken)> {
    let (listening, given, stop) = Listening::new(true);
    let (working, what) = child.start(listening)?;
    let handling = Handling::new(working.peer.clone(), given, working.progress.try_clone()?);
    Ok((working, what, handling, stop))
}

impl Handling {
    fn new(peer: Arc<Peer>, given: mpsc::UnboundedReceiver<Unread>, progress: File) -> Self {
        Self { peer, given, rows: None, progress, at: At::default(), told_at: Instant::now(), told: 0 }
    }

    /// The next records; none once the host is gone.
    ///
    /// # Errors
    /// What came is no records.
    pub(crate) async fn next(&mut self) -> Result<Option<Given>> {
        loop {
            if self.given.is_empty() {
                self.tell();
            }
            let Some((turns, piece)) = self.given.recv().await else { return Ok(None) };
            match &mut self.rows {
                None => self.rows = Some(RowsIn::begin(piece)?),
                Some(rows) => return Ok(Some(Given { records: rows.take(piece)?, turns })),
            }
        }
    }

    /// The next record begins.
    ///
    /// # Errors
    /// The host could not be told.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if self.told_at.elapsed() >= TOLD_EVERY {
            self.tell();
        }
        self.at.begun += 1;
        self.progress.write_all_at(&self.at.to_bytes(), 0)
    }

    /// The next record is not begun: it follows one that has failed, and the host knows.
    pub(crate) fn pass(&mut self) {
        self.at.begun += 1;
    }

    /// The record that was begun last has failed.
    pub(crate) fn failed(&mut self, error: Error) {
        let record = self.at.begun - 1;
        self.at.failed = (self.at.failed + 1) & ((1 << FAILED_BITS) - 1);
        self.peer.note(Note::Failed { record, error }, Vec::new());
    }

    /// The record that was begun last is not done, nor has it failed: the host has stopped it.
    ///
    /// # Errors
    /// The host could not be told.
    pub(crate) fn broken_off(&mut self) -> io::Result<()> {
        self.at.begun -= 1;
        self.progress.write_all_at(&self.at.to_bytes(), 0)
    }

    /// Tells what is over.
    pub(crate) fn tell(&mut self) {
        let before = self.at.begun;
        if before > self.told {
            self.peer.note(Note::Handled { before }, Vec::new());
        }
        (self.told, self.told_at) = (before, Instant::now());
    }
}

/// A child that is a thread of this process, for tests. What panics there has crashed.
#[cfg(test)]
pub(crate) fn in_thread(
    folder: &std::path::Path,
    hear: Hear,
    work: impl FnOnce(&tokio::runtime::Runtime, Handling, CancellationToken) + Send + 'static,
) -> Result<Connection> {
    use super::process::Process;

    let (ours, theirs) = UnixStream::pair()?;
    let progress = tempfile::tempfile()?;
    let (log, _) = crate::observe::log::start(crate::observe::log::Filter::default(), Default::default(), |_| {});
    let (redactor, post_mortems) = (Default::default(), folder.to_owned());
    let around = Around { log, threads: 1, redactor, post_mortems };
    let about = About { stem: "child".to_owned(), subject: "the child".to_owned(), ..About::default() };
    let their_progress = progress.try_clone()?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads");
        let (listening, given, stop) = Listening::new(false);
        let runtimes = Runtimes { io: runtime.handle().clone(), work: runtime.handle().clone() };
        let peer = Peer::start(theirs, runtimes, listening).expect("a socket");
        work(&runtime, Handling::new(peer.clone(), given, their_progress), stop);
        while peer.queued() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    Connection::over(Keeper::of(around, about, Process::none()), ours, progress, hear)?.begun()
}
