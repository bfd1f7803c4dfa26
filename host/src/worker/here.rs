//! The child's side: what every child does first and last, whatever it is there for.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_plugin::Result;
use pype_plugin::host::{LibraryFacts, adopt_runtime};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;

use super::peer::{Answer, Peer, Runtimes, Service};
use super::wire::{Ask, Begin, Head, Message, Note, What, read_first};
use crate::child::{standard_input, standard_output};
use crate::loader::Loader;
use crate::observe::log::{self, Format, Log, Writer};
use crate::run::LibraryServices;

/// The hidden command that the child process runs.
pub(crate) const COMMAND: &str = "__work";

/// So many messages may wait to be written before the log waits too.
const QUEUED: usize = 64;
/// How long the last messages may take, once the child is to end.
const LAST_MESSAGES: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A child that has been told what it is there for.
pub(crate) struct Child {
    socket: UnixStream,
    progress: File,
    call: u64,
    begin: Begin,
}

/// A child that works.
pub(crate) struct Working {
    pub(super) peer: Arc<Peer>,
    pub(crate) log: Log,
    pub(crate) loader: Loader<LibraryServices>,
    /// Where what it says it is at goes.
    pub(super) progress: File,
    pub(crate) runtime: Runtime,
    /// How many threads blocking work may use.
    pub(crate) threads: usize,
    call: u64,
    writer: Writer,
    // Reads and writes on a thread of its own, whatever the others wait for.
    _io: Runtime,
}

impl Child {
    /// Hears what this process is there for. Called first of all, while there is one thread.
    ///
    /// # Errors
    /// No host has started this process.
    pub(crate) fn begin() -> io::Result<Self> {
        let (socket, progress) = (UnixStream::from(standard_input()?), File::from(standard_output()?));
        match read_first(&socket)? {
            Message { head: Head::Ask { call, ask: Ask::Begin(begin) }, .. } => {
                Ok(Self { socket, progress, call, begin: *begin })
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the host does not say what this process is for")),
        }
    }

    /// What it is there for.
    pub(crate) fn what(&self) -> &What {
        &self.begin.what
    }

    /// Starts what every child has. The host asks nothing of `service` before [`Working::begun`].
    ///
    /// # Errors
    /// The operating system gives no threads, or there is no place for libraries.
    pub(super) fn start(self, service: Arc<impl Service>) -> io::Result<(Working, What)> {
        let Self { socket, progress, call, begin: Begin { filter, threads, what, .. } } = self;
        let io = Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("pype-host").build()?;
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        adopt_runtime(runtime.handle().clone());
        ignore_signals(&io)?;
        let runtimes = Runtimes { io: io.handle().clone(), work: runtime.handle().clone() };
        let peer = Peer::start(socket, runtimes, service)?;
        let host = peer.clone();
        let (log, writer) = log::start(filter, Format::Json, move |lines| {
            while host.queued() > QUEUED {
                std::thread::sleep(LOOK_AGAIN);
            }
            host.note(Note::Log, lines.as_bytes().to_vec());
        });
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        let facts = LibraryFacts { threads };
        let loader = Loader::alone(Arc::new(LibraryServices::new(log.clone())), facts).map_err(io::Error::other)?;
        Ok((Working { peer, log, loader, progress, runtime, threads, call, writer, _io: io }, what))
    }
}

impl Working {
    /// Tells the host that it is ready, or why not.
    pub(crate) fn begun(&self, ready: Result<()>) {
        self.peer.answer(self.call, ready.map(|()| Answer::default()));
    }

    /// Ends this process, with all that it has to say said.
    pub(crate) fn end(self) -> ! {
        drop(self.writer);
        let until = Instant::now() + LAST_MESSAGES;
        while self.peer.queued() > 0 && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
        }
        // Threads of plugins are not asked.
        std::process::exit(0)
    }
}

/// Whoever stops a host with all its processes stops it alone: it has its children end what they are at.
fn ignore_signals(io: &Runtime) -> io::Result<()> {
    let _inside = io.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        // From now on nobody hears of it.
        drop(signal(kind)?);
    }
    Ok(())
}
