//! What plugins ask of the host while a flow runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pype_core::flow::plan::PlannedNode;
use pype_core::name::NodeId;
use pype_core::run::event::RunEvent;
use pype_plugin::host::HostServices;
use pype_plugin::{Artifact, Error, ErrorKind, Frame, Result};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::engine::Job;
use super::turn::Turn;
use crate::artifact::{Kept, Policy};
use crate::clock::ms;
use crate::observe::log::{Level, Log, Record};
use crate::runs::Journal;
use crate::secret::Secrets;

/// A global is at most this large, as JSON.
const GLOBAL_BYTES: usize = 64 * 1024;
/// Progress is passed on at most this often.
const PROGRESS_EVERY_MS: u64 = 100;

/// Lets progress pass, if it has not just done so.
pub(crate) struct Gate {
    began: Instant,
    last_ms: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Gate {
    pub(crate) fn opens(&self) -> bool {
        let now = ms(self.began.elapsed());
        let last = self.last_ms.load(Ordering::Relaxed);
        // Of two at a time one passes.
        let ours = || self.last_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        now >= last + PROGRESS_EVERY_MS && ours()
    }
}

/// Who hears of what happens in a run. Called from many threads; must not block for long.
pub type Observer = Arc<dyn Fn(RunEvent) + Send + Sync>;

/// Where a run keeps what it must not lose, and what does not fit into memory.
pub struct Store {
    /// Where events are written to.
    pub journal: Journal,
    /// When rows leave memory.
    pub policy: Policy,
    /// Where to.
    pub spill_folder: PathBuf,
}

/// What the nodes of one run share.
pub struct Shared {
    /// The log.
    pub log: Log,
    /// Who hears of events.
    pub observer: Observer,
    /// What `{{secret.…}}` stands for. No event holds one.
    pub secrets: Secrets,
    store: Store,
    // By URI; what modules registered is kept until the run ends.
    artifacts: Mutex<BTreeMap<String, Kept>>,
    /// Whether a failure within a loop was handled.
    handled: AtomicBool,
}

impl Shared {
    /// Nothing has happened yet. From now on the log masks `secrets`.
    pub fn new(log: Log, observer: Observer, secrets: Secrets, store: Store) -> Self {
        log.hide(secrets.redactor());
        Self { log, observer, secrets, store, artifacts: Mutex::default(), handled: AtomicBool::new(false) }
    }

    /// The rows that a module registered under `uri`, as often as they are asked for.
    pub fn artifact(&self, uri: &str) -> Option<Frame> {
        let artifacts = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
        artifacts.get(uri).map(Kept::frame)
    }

    /// Reads a frame to its end, into memory or a file.
    pub(super) async fn hold(&self, frame: Frame) -> Result<Kept> {
        self.store.policy.keep(frame, &self.store.spill_folder).await
    }

    /// Keeps `rows` as the next artifact of `node`.
    fn keep(&self, node: &str, rows: Kept) -> Artifact {
        let mut artifacts = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
        let artifact = Artifact { n_rows: rows.rows(), uri: format!("memory:{node}/{}", artifacts.len()) };
        artifacts.insert(artifact.uri.clone(), rows);
        artifact
    }

    /// Tells the observer, and the log of the run unless it is mere progress; with secrets masked.
    pub fn tell(&self, mut event: RunEvent) {
        self.secrets.redactor().event(&mut event);
        if !matches!(event, RunEvent::NodeProgress { .. }) {
            self.store.journal.write(&event);
        }
        (self.observer)(event);
    }

    /// Where events are written to.
    pub fn journal(&self) -> &Journal {
        &self.store.journal
    }

    pub(super) fn note_handled(&self) {
        self.handled.store(true, Ordering::Relaxed);
    }

    /// Whether a failure within a loop was handled.
    pub fn handled_within_a_loop(&self) -> bool {
        self.handled.load(Ordering::Relaxed)
    }
}

/// The services of one node.
pub(crate) struct NodeServices {
    pub(super) job: Arc<Job>,
    pub(super) turn: Arc<Turn>,
    pub(super) node: NodeId,
    pub(super) cancel: CancellationToken,
    pub(super) progress: Gate,
}

impl NodeServices {
    /// What each of its records says besides.
    fn ours(&self) -> [(&'static str, Option<String>); 3] {
        let item = (!self.turn.path.is_outside()).then(|| self.turn.path.to_string());
        let (module, node) = (self.planned().module.to_string(), self.node.to_string());
        [("module", Some(module)), ("node", Some(node)), ("item", item)]
    }

    /// The same for records that its module's own process writes.
    pub(super) fn tags(&self) -> impl Iterator<Item = (String, Value)> {
        self.ours().into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())))
    }

    fn planned(&self) -> &PlannedNode {
        self.job.plan.node(&self.node)
    }

    fn declared(&self, name: &str) -> Result<&str> {
        let found = self.planned().entry.globals.iter().find(|declared| declared.eq_ignore_ascii_case(name));
        found.map(String::as_str).ok_or_else(|| {
            let message = format!("the module `{}` does not declare the global `{name}`", self.planned().module);
            Error::new(ErrorKind::Internal, "undeclared-global", message).hint("this is a fault in the plugin")
        })
    }
}

impl HostServices for NodeServices {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        self.job.shared.log.keeps(Level::from_number(level), target)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &[u8]) {
        let fields = fields_with(self.ours(), fields);
        self.job.shared.log.write(Record::now(Level::from_number(level), target, message, fields));
    }

    fn set_global(&self, name: &str, value: Value) -> Result<()> {
        let declared = self.declared(name)?;
        let bytes = value.to_string().len();
        if bytes > GLOBAL_BYTES {
            let message = format!("the global `{name}` has {bytes} bytes; {GLOBAL_BYTES} are allowed");
            return Err(Error::new(ErrorKind::Data, "global-too-large", message));
        }
        self.turn
            .set_global(&self.node, declared, value.clone())
            .map_err(|twice| Error::new(ErrorKind::Internal, "global-set-twice", twice.to_string()))?;
        let (node, item) = (self.node.clone(), self.turn.path.clone());
        self.job.shared.tell(RunEvent::Global { node, item, name: declared.to_owned(), value, masked: false });
        Ok(())
    }

    fn global(&self, name: &str) -> Option<Value> {
        let (node, name) = name.split_once("__")?;
        self.turn.globals().get(node, name).cloned()
    }

    fn set_list(&self, name: &str, items: Vec<Value>) -> Result<()> {
        if !self.planned().entry.lists.iter().any(|declared| declared == name) {
            let message = format!("the module `{}` does not declare the list `{name}`", self.planned().module);
            let error = Error::new(ErrorKind::Internal, "undeclared-list", message);
            return Err(error.hint("this is a fault in the plugin"));
        }
        match self.turn.set_list(&self.node, name, items) {
            None => Ok(()),
            Some(_) => {
                let message = format!("the list `{name}` was set before and cannot change");
                Err(Error::new(ErrorKind::Internal, "list-set-twice", message))
            }
        }
    }

    fn progress(&self, rows: u64, bytes: u64) {
        if self.progress.opens() {
            let (node, item) = (self.node.clone(), self.turn.path.clone());
            self.job.shared.tell(RunEvent::NodeProgress { node, item, rows, bytes });
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
        let (shared, node) = (self.job.shared.clone(), self.turn.path.name(self.node.as_str()));
        async move { Ok(shared.keep(&node, shared.hold(frame).await?)) }
    }
}

/// The services of a library, for what belongs to no node.
pub struct LibraryServices {
    log: Log,
}

impl LibraryServices {
    /// Records go to `log`.
    pub fn new(log: Log) -> Self {
        Self { log }
    }
}

impl HostServices for LibraryServices {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        self.log.keeps(Level::from_number(level), target)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &[u8]) {
        self.log.write(Record::now(Level::from_number(level), target, message, fields_of(fields)));
    }

    fn set_global(&self, name: &str, _: Value) -> Result<()> {
        let message = format!("the global `{name}` can be set only while a node runs");
        Err(Error::new(ErrorKind::Internal, "no-node", message))
    }

    fn global(&self, _: &str) -> Option<Value> {
        None
    }

    fn progress(&self, _: u64, _: u64) {}

    fn metric(&self, _: &str, _: f64) {}

    fn cancelled(&self) -> bool {
        false
    }

    fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    fn register_artifact(&self, _: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static {
        let error = Error::new(ErrorKind::Internal, "no-node", "artifacts are registered while a node runs");
        std::future::ready(Err(error))
    }
}

/// The fields of a record, with ours. Whose it is, is for the host to say: a name of ours is never the plugin's, also where
/// we have nothing under it.
pub(crate) fn fields_with<const N: usize>(ours: [(&str, Option<String>); N], json: &[u8]) -> Map<String, Value> {
    let names = ours.each_ref().map(|(name, _)| *name);
    let ours = ours.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
    let theirs = fields_of(json).into_iter().filter(|(name, _)| !names.contains(&name.as_str()));
    ours.chain(theirs).collect()
}

/// A measurement of a module, as a record.
pub(crate) fn log_metric(services: &impl HostServices, name: &str, value: f64) {
    let fields = serde_json::json!({ "metric": name, "value": value }).to_string();
    services.log(Level::Debug as u8, "pype::metric", name, fields.as_bytes());
}

fn fields_of(json: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
