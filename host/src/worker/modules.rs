//! The child's side of modules that run in processes of their own.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pype_plugin::host::{HostServices, Instance, Library};
use pype_plugin::{Artifact, Error, ErrorKind, Frame, Result};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::frames::Borrowed;
use super::here::{Child, Working};
use super::peer::{Answer, Peer, Service};
use super::wire::{Ask, Note, Port, What};
use crate::observe::log::{Level, Log, Record};
use crate::run::services::{Gate, fields_with, log_metric};

/// Opens and runs modules of one library, one after the other, until the host says that it is all.
///
/// # Errors
/// This process cannot work.
pub(crate) fn serve(child: Child) -> io::Result<()> {
    let (ended, end) = channel();
    let modules = Arc::new(Modules { ready: OnceLock::new(), open: Mutex::new(None), ended });
    let (working, what) = child.start(modules.clone())?;
    let What::Modules { library, admitted } = what else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not what modules are served for"));
    };
    let loaded = working.loader.load_admitted(&library, admitted);
    working.begun(match loaded {
        Ok(loaded) => {
            let ready = Ready { library: loaded.library, log: working.log.clone() };
            assert!(modules.ready.set(ready).is_ok(), "a child begins once");
            Ok(())
        }
        Err(error) => Err(Error::new(ErrorKind::Unsupported, "library", error.to_string()).hint(error.hint())),
    });
    // Its sender is in the service, which lives as long as the connection.
    end.recv().unwrap_or(());
    Working::end(working)
}

/// What answers the host.
struct Modules {
    ready: OnceLock<Ready>,
    // Locked for one look or one change.
    open: Mutex<Option<Open>>,
    ended: Sender<()>,
}

struct Ready {
    library: Library,
    log: Log,
}

#[derive(Clone)]
struct Open {
    instance: Arc<Instance>,
    cancel: CancellationToken,
    // Held by one call at a time, for as long as it takes: one that nobody waits for any more ends before the next begins.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Modules {
    fn ready(&self) -> &Ready {
        self.ready.get().expect("the host asks nothing before it was told that this child has begun")
    }

    fn open(&self) -> Result<Open> {
        let nothing = || Error::new(ErrorKind::Internal, "nothing-open", "no module is open in this process");
        held(&self.open).clone().ok_or_else(nothing)
    }
}

impl Service for Modules {
    async fn answer(self: Arc<Self>, peer: Arc<Peer>, ask: Ask, _: Vec<u8>) -> Result<Answer> {
        match ask {
            Ask::Resources { module, config } => {
                self.ready().library.resources(&module, &config).await.map(|told| Answer::of(&told))
            }
            Ask::Open { module, config, facts } => {
                let Ready { library, log } = self.ready();
                let cancel = CancellationToken::new();
                let services =
                    Arc::new(Services { peer, log: log.clone(), cancel: cancel.clone(), progress: Gate::default() });
                let instance = Arc::new(library.open(&module, &config, &facts, services).await?);
                *held(&self.open) = Some(Open { instance, cancel, turn: Arc::default() });
                Ok(Answer::default())
            }
            Ask::Run { inputs } => {
                let inputs = inputs.into_iter().map(|Port { port, frame }| (port, Borrowed::frame(&peer, frame)));
                let open = self.open()?;
                let _turn = open.turn.lock().await;
                let outputs = open.instance.run(inputs.collect()).await?;
                let outputs = outputs.into_iter().map(|(port, frame)| Port { port, frame: peer.lend(frame) });
                Ok(Answer::of(&outputs.collect::<Vec<_>>()))
            }
            Ask::Commit => {
                let open = self.open()?;
                let _turn = open.turn.lock().await;
                open.instance.commit().await.map(|commits| Answer::of(&commits))
            }
            Ask::Close => {
                let open = held(&self.open).take();
                let Some(open) = open else { return Ok(Answer::default()) };
                let _turn = open.turn.lock().await;
                let closed = open.instance.close().await;
                // What it has said belongs to it, and not to the module after it.
                let log = self.ready().log.clone();
                let flushed = tokio::task::spawn_blocking(move || log.flush()).await;
                flushed.map_err(|lost| Error::cancelled().caused_by(lost))?;
                closed.map(|()| Answer::default())
            }
            _ => Err(super::not_asked()),
        }
    }

    fn note(&self, _: &Arc<Peer>, note: Note, _: Vec<u8>) {
        match note {
            Note::Cancel => {
                if let Ok(open) = self.open() {
                    open.cancel.cancel();
                }
            }
            // Who does not wait for it any more is ending, too.
            Note::End => drop(self.ended.send(())),
            // Of the other side, or of records.
            Note::Abandon { .. }
            | Note::Forget { .. }
            | Note::Log
            | Note::Progress { .. }
            | Note::Handle { .. }
            | Note::Failed { .. }
            | Note::Handled { .. } => {}
        }
    }

    /// Without its host a child is of no use to anybody.
    async fn lost(&self) -> Error {
        crate::child::leave()
    }
}

/// What a module asks of the host that is another process.
struct Services {
    peer: Arc<Peer>,
    log: Log,
    cancel: CancellationToken,
    progress: Gate,
}

impl HostServices for Services {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        self.log.keeps(Level::from_number(level), target)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &[u8]) {
        let fields: Map<String, Value> = fields_with([], fields);
        self.log.write(Record::now(Level::from_number(level), target, message, fields));
    }

    fn set_global(&self, name: &str, value: Value) -> Result<()> {
        let ask = Ask::SetGlobal { name: name.to_owned(), value };
        self.peer.ask_and_wait(ask, Vec::new()).map(drop)
    }

    fn set_list(&self, name: &str, items: Vec<Value>) -> Result<()> {
        let items = serde_json::to_vec(&items).expect("JSON values are JSON");
        self.peer.ask_and_wait(Ask::SetList { name: name.to_owned() }, items).map(drop)
    }

    fn global(&self, name: &str) -> Option<Value> {
        self.peer.ask_and_wait(Ask::Global { name: name.to_owned() }, Vec::new()).ok()?.read().ok()?
    }

    fn progress(&self, rows: u64, bytes: u64) {
        if self.progress.opens() {
            self.peer.note(Note::Progress { rows, bytes }, Vec::new());
        }
    }

    fn metric(&self, name: &str, value: f64) {
        log_metric(self, name, value);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.cancel.clone().cancelled_owned()
    }

    fn register_artifact(&self, frame: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static {
        let frame = self.peer.lend(frame);
        let kept = self.peer.ask(Ask::Keep { frame }, Vec::new());
        async move { kept.await?.read() }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
