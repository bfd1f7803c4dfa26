//! The host's side of modules that run in processes of their own.
//!
//! An [`Apart`] stands for a library. Each module that is opened of it has a child for itself: to the rest of the host its instance
//! is one like any other. A child whose module was closed well is used for the next; one that failed to, or that crashed, is not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pype_plugin::host::{HostServices, Instance, NodeFacts, StandIn};
use pype_plugin::{Commit, Error, ErrorKind, Frame, Resources, Result};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::frames::Borrowed;
use super::keeper::{About, Around, Keeper};
use super::peer::{Answer, Peer, Runtimes, Service};
use super::wire::{Ask, Begin, Note, Port, What};
use crate::loader::{Admitted, Digest, LoadError, admit};
use crate::prepare::LibraryFile;

/// So many children of a library wait for their next module.
const IDLE: usize = 8;

/// A library whose modules run in processes of their own. Nothing of it runs in this one.
pub struct Apart<S> {
    around: Around,
    path: PathBuf,
    admitted: Admitted,
    // Locked for one look or one change.
    idle: Mutex<Vec<Worker<S>>>,
}

/// Which module is to be opened, and for whom.
pub(crate) struct ToOpenApart<'a> {
    /// The module's name.
    pub(crate) module: &'a str,
    /// What it is told.
    pub(crate) configs: &'a Value,
    /// The same, as the document has it: with templates for secrets.
    pub(crate) written: &'a Value,
    /// What it hears of its node.
    pub(crate) facts: &'a NodeFacts,
    /// Where it belongs, for the log and a post-mortem.
    pub(crate) tags: Map<String, Value>,
}

impl<S: HostServices> Apart<S> {
    /// The library at `file`, whose bytes must be those that were registered.
    ///
    /// # Errors
    /// It is not there, or has changed.
    pub fn new(file: &LibraryFile, around: Around) -> Result<Self, LoadError> {
        let admitted = admit(&file.path, file.sha256.as_ref())?;
        Ok(Self { around, path: file.path.clone(), admitted, idle: Mutex::default() })
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.admitted.digest
    }

    /// What a module reads and writes outside the flow with these configs.
    ///
    /// # Errors
    /// What the module says, or that its process crashed.
    pub async fn resources(self: &Arc<Self>, module: &str, config: &Value) -> Result<Resources> {
        let worker = self.worker(self.about_library()).await?;
        let ask = Ask::Resources { module: module.to_owned(), config: config.clone() };
        let told = worker.peer.ask(ask, Vec::new()).await?.read();
        self.keep(worker);
        told
    }

    /// Opens a module.
    ///
    /// # Errors
    /// What the module says, or that its process crashed.
    pub(crate) async fn open(self: &Arc<Self>, open: ToOpenApart<'_>, services: Arc<S>) -> Result<Instance> {
        let worker = self.worker(self.about(&open)).await?;
        *held(&worker.desk.services) = Some(services.clone());
        let ToOpenApart { module, configs, facts, .. } = open;
        let ask = Ask::Open { module: module.to_owned(), config: configs.clone(), facts: Box::new(facts.clone()) };
        worker.peer.ask(ask, Vec::new()).await?;
        let closed = CancellationToken::new();
        let (peer, over, cancelled) = (Arc::downgrade(&worker.peer), closed.clone(), services.until_cancelled());
        tokio::spawn(async move {
            tokio::select! {
                () = cancelled => if let Some(peer) = peer.upgrade() {
                    peer.note(Note::Cancel, Vec::new());
                },
                () = over.cancelled() => {}
            }
        });
        let opened = Opened {
            library: self.clone(),
            worker: Mutex::new(Some(worker)),
            closed,
            told: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        };
        Ok(Instance::standing_in(opened))
    }

    async fn worker(&self, about: About) -> Result<Worker<S>> {
        match self.idle() {
            Some(worker) => {
                worker.desk.keeper.turn_to(about);
                Ok(worker)
            }
            None => self.start(about).await,
        }
    }

    /// A child that has nothing to do, and is alive.
    fn idle(&self) -> Option<Worker<S>> {
        loop {
            let idle = held(&self.idle).pop()?;
            if !idle.peer.is_lost() {
                return Some(idle);
            }
        }
    }

    async fn start(&self, about: About) -> Result<Worker<S>> {
        let (keeper, socket) = Keeper::start(self.around.clone(), about, None).map_err(cannot_start)?;
        let desk = Arc::new(Desk { keeper: Arc::new(keeper), services: Mutex::new(None) });
        let runtimes = Runtimes { io: Handle::current(), work: Handle::current() };
        let peer = Peer::start(socket, runtimes, desk.clone()).map_err(cannot_start)?;
        let begin = Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            filter: self.around.log.filter().clone(),
            threads: self.around.threads,
            what: What::Modules { library: self.path.clone(), admitted: self.admitted.clone() },
        };
        let worker = Worker { desk, peer };
        worker.peer.ask(Ask::Begin(Box::new(begin)), Vec::new()).await?;
        Ok(worker)
    }

    /// Keeps a child that has nothing to do.
    fn keep(&self, worker: Worker<S>) {
        *held(&worker.desk.services) = None;
        let mut idle = held(&self.idle);
        if idle.len() < IDLE {
            idle.push(worker);
        }
    }

    fn about_library(&self) -> About {
        let path = self.path.display().to_string();
        About {
            stem: "library".to_owned(),
            subject: format!("the process of the library `{path}`"),
            tags: Map::new(),
            facts: Map::from_iter([
                ("library".to_owned(), path.into()),
                ("sha256".to_owned(), self.admitted.digest.to_string().into()),
            ]),
            configs: Value::Null,
        }
    }

    fn about(&self, open: &ToOpenApart<'_>) -> About {
        let node = &open.facts.node_id;
        let mut about = About {
            stem: node.clone(),
            subject: format!("the process of `{node}`"),
            tags: open.tags.clone(),
            configs: open.written.clone(),
            ..self.about_library()
        };
        about.facts.extend(open.tags.clone());
        about.facts.insert("node".to_owned(), json!(node));
        about.facts.insert("module".to_owned(), json!(open.module));
        about
    }
}

fn cannot_start(cause: std::io::Error) -> Error {
    let error = Error::new(ErrorKind::Io, "no-process", "a process for the module cannot be started");
    error.caused_by(cause).retryable(true)
}

/// A child, and the connection to it.
struct Worker<S> {
    desk: Arc<Desk<S>>,
    peer: Arc<Peer>,
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.desk.keeper.clone().let_go(self.peer.clone());
    }
}

/// Where a child's questions go.
struct Desk<S> {
    keeper: Arc<Keeper>,
    // Locked for one look or one change. None while nothing is open.
    services: Mutex<Option<Arc<S>>>,
}

impl<S: HostServices> Desk<S> {
    fn services(&self) -> Result<Arc<S>> {
        let services = held(&self.services).clone();
        services.ok_or_else(|| Error::new(ErrorKind::Unsupported, "no-node", "it is asked only while a node runs"))
    }
}

impl<S: HostServices> Service for Desk<S> {
    async fn answer(self: Arc<Self>, peer: Arc<Peer>, ask: Ask, body: Vec<u8>) -> Result<Answer> {
        let services = self.services()?;
        match ask {
            Ask::SetGlobal { name, value } => services.set_global(&name, value).map(|()| Answer::default()),
            Ask::SetList { name } => {
                services.set_list(&name, serde_json::from_slice(&body)?).map(|()| Answer::default())
            }
            Ask::Global { name } => Ok(Answer::of(&services.global(&name))),
            Ask::Keep { frame } => {
                let artifact = services.register_artifact(Borrowed::frame(&peer, frame)).await?;
                Ok(Answer::of(&artifact))
            }
            _ => Err(super::not_asked()),
        }
    }

    fn note(&self, _: &Arc<Peer>, note: Note, body: Vec<u8>) {
        match note {
            Note::Log => self.keeper.log(&body),
            Note::Progress { rows, bytes } => {
                if let Ok(services) = self.services() {
                    services.progress(rows, bytes);
                }
            }
            // Of the other side, or of records.
            Note::Abandon { .. }
            | Note::Forget { .. }
            | Note::Cancel
            | Note::End
            | Note::Handle { .. }
            | Note::Failed { .. }
            | Note::Handled { .. } => {}
        }
    }

    async fn lost(&self) -> Error {
        let death = self.keeper.death().await;
        self.keeper.explain(death, Map::new())
    }
}

/// A module that is open in a child.
struct Opened<S> {
    library: Arc<Apart<S>>,
    // Taken out when it is closed.
    worker: Mutex<Option<Worker<S>>>,
    closed: CancellationToken,
    /// Whether it has said that its process is gone.
    told: AtomicBool,
    /// Whether somebody no longer waits for what it was asked. Its child may still hold frames of that.
    abandoned: AtomicBool,
}

impl<S: HostServices> Opened<S> {
    fn peer(&self) -> Result<Arc<Peer>> {
        let worker = held(&self.worker);
        let worker = worker.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "gone", "it was closed before"))?;
        Ok(worker.peer.clone())
    }

    async fn ask(&self, peer: &Arc<Peer>, ask: Ask) -> Result<Answer> {
        let answer = peer.ask(ask, Vec::new()).await;
        self.told.fetch_or(answer.is_err() && peer.is_lost(), Ordering::Relaxed);
        answer
    }
}

impl<S: HostServices> StandIn for Opened<S> {
    async fn run(&self, inputs: Vec<(String, Frame)>) -> Result<Vec<(String, Frame)>> {
        let peer = self.peer()?;
        let inputs = inputs.into_iter().map(|(port, frame)| Port { port, frame: peer.lend(frame) }).collect();
        self.abandoned.store(true, Ordering::Relaxed);
        let answer = self.ask(&peer, Ask::Run { inputs }).await;
        self.abandoned.store(false, Ordering::Relaxed);
        let outputs: Vec<Port> = answer?.read()?;
        Ok(outputs.into_iter().map(|Port { port, frame }| (port, Borrowed::frame(&peer, frame))).collect())
    }

    async fn commit(&self) -> Result<Vec<Commit>> {
        self.ask(&self.peer()?, Ask::Commit).await?.read()
    }

    async fn close(&self) -> Result<()> {
        let worker = held(&self.worker).take();
        let Some(worker) = worker else { return Ok(()) };
        self.closed.cancel();
        if worker.desk.services().is_ok_and(|services| services.cancelled()) {
            // It may be told already; a module that is closed must know it.
            worker.peer.note(Note::Cancel, Vec::new());
        }
        match worker.peer.ask(Ask::Close, Vec::new()).await {
            Ok(_) if self.abandoned.load(Ordering::Relaxed) => {}
            Ok(_) => self.library.keep(worker),
            // There is nothing to close, and that is known.
            Err(_) if self.told.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<S> Drop for Opened<S> {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
