//! Runs an author's module in process, through the same vtables as the host.
//!
//! ```
//! # use pype_plugin::prelude::*;
//! # #[derive(Deserialize, JsonSchema)] struct Config {}
//! # struct Ping;
//! # impl Solo for Ping {
//! #     const NAME: &str = "ping";
//! #     type Config = Config;
//! #     async fn open(_: Config, _: &Context) -> Result<Self> { Ok(Self) }
//! #     async fn run(&mut self, ctx: &Context) -> Result<()> { ctx.set_global("answer", 42) }
//! # }
//! let done = pype_plugin::testing::solo::<Ping>(serde_json::json!({})).run();
//! assert_eq!(done.result, Ok(()));
//! assert_eq!(done.globals["answer"], 42);
//! ```

mod chaos;
#[doc(hidden)]
pub mod contract;
mod pipeline;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, Once, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use crate::abi::{self, Json, OpenRequest, Task};
use crate::context::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, SharedBatches};
use crate::glue::instance::{AnyModule, AsMod, AsSink, AsSolo, AsSource, open, resources};
use crate::host::{HostServices, Instance, NodeFacts, json, resources_of};
use crate::module::{Commit, Mod, Sink, Solo, Source};
use crate::resource::Resources;
use crate::{glue, logging, runtime};

pub use self::chaos::Chaos;
pub use self::pipeline::{Fields, StageDone, StageTest, job, queue, stage, stream};

/// A test of a source with these configs.
pub fn source<M: Source>(config: Value) -> Test {
    Test::new::<AsSource<M>>(M::LISTS, config)
}

/// A test of a mod with these configs.
pub fn module<M: Mod>(config: Value) -> Test {
    Test::new::<AsMod<M>>(M::LISTS, config)
}

/// A test of a sink with these configs; it is committed if its write succeeds.
pub fn sink<M: Sink>(config: Value) -> Test {
    Test { is_sink: true, ..Test::new::<AsSink<M>>(M::LISTS, config) }
}

/// A test of a solo with these configs.
pub fn solo<M: Solo>(config: Value) -> Test {
    Test::new::<AsSolo<M>>(M::LISTS, config)
}

/// Waits for a future outside a runtime: reading a frame in a plain `#[test]`.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime::runtime().block_on(future)
}

/// A module about to be run.
pub struct Test {
    open: fn(OpenRequest) -> Task<abi::Instance>,
    resources: fn(Json) -> Task<Json>,
    lists: &'static [&'static str],
    config: Value,
    facts: NodeFacts,
    inputs: Vec<(String, Frame)>,
    is_sink: bool,
    cancelled: bool,
}

/// What a module did.
#[derive(Debug)]
pub struct Done {
    /// Whether it succeeded, its `close` included.
    pub result: Result<()>,
    /// The frames at its output ports.
    pub outputs: Vec<(String, Frame)>,
    /// What a sink made visible.
    pub commits: Vec<Commit>,
    /// The globals it set.
    pub globals: BTreeMap<String, Value>,
    /// The lists it announced.
    pub lists: BTreeMap<String, Vec<Value>>,
    /// Its log: `WARN the message`.
    pub log: Vec<String>,
}

impl Done {
    /// Takes the frame at an output port.
    ///
    /// # Panics
    /// The module failed, or gave no frame there.
    #[track_caller]
    pub fn output(&mut self, port: &str) -> Frame {
        assert_eq!(self.result, Ok(()));
        let at = self.outputs.iter().position(|(name, _)| name == port);
        let at = at.unwrap_or_else(|| panic!("the module gave no frame at the port `{port}`"));
        self.outputs.remove(at).1
    }
}

impl Test {
    fn new<M: AnyModule>(lists: &'static [&'static str], config: Value) -> Self {
        let facts = NodeFacts {
            node_id: "test".to_owned(),
            threads: 2,
            temp_dir: std::env::temp_dir(),
            ..NodeFacts::default()
        };
        let (open, resources) = (open::<M>, resources::<M>);
        Self { open, resources, lists, config, facts, inputs: Vec::new(), is_sink: false, cancelled: false }
    }

    /// Connects a frame to an input port.
    #[must_use]
    pub fn input(mut self, port: &str, frame: impl Into<Frame>) -> Self {
        self.inputs.push((port.to_owned(), frame.into()));
        self
    }

    /// Changes what the module is told about its node.
    #[must_use]
    pub fn facts(mut self, change: impl FnOnce(&mut NodeFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// Runs it in a run that is already cancelled.
    #[must_use]
    pub fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// Asks what it reads and writes outside the flow; it is not opened.
    ///
    /// # Errors
    /// The configs do not fit, or what the module says.
    pub fn resources(self) -> Result<Resources> {
        install_panic_hook();
        block_on(resources_of((self.resources)(json(&self.config))))
    }

    /// Opens, runs, commits if it is a sink, and closes.
    pub fn run(self) -> Done {
        block_on(self.go())
    }

    async fn go(self) -> Done {
        install_panic_hook();
        let host = Arc::new(FakeHost::new(self.lists, self.cancelled));
        logging::install(crate::Context::new(NodeFacts::default(), crate::host::services_of(host.clone())));
        let mut outputs = Vec::new();
        let mut commits = Vec::new();
        let instance = Instance::open_with(self.open, &self.config, &self.facts, host.clone()).await;
        let result = match instance {
            Err(error) => Err(error),
            Ok(instance) => {
                let worked = async {
                    outputs = instance.run(self.inputs).await?;
                    if self.is_sink {
                        commits = instance.commit().await?;
                    }
                    Ok(())
                }
                .await;
                let closed = instance.close().await;
                worked.and(closed)
            }
        };
        Done { result, outputs, commits, globals: host.globals(), lists: host.lists(), log: host.log_lines() }
    }
}

/// As in production, but an assertion of the test itself is shown as ever.
fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let default = std::panic::take_hook();
        glue::guard::install_panic_hook(move |info| default(info));
    });
}

struct FakeHost {
    globals: Mutex<BTreeMap<String, Value>>,
    declared_lists: &'static [&'static str],
    lists: Mutex<BTreeMap<String, Vec<Value>>>,
    log: Mutex<Vec<String>>,
    cancelled: watch::Sender<bool>,
}

impl FakeHost {
    fn new(declared_lists: &'static [&'static str], cancelled: bool) -> Self {
        Self {
            globals: Mutex::default(),
            declared_lists,
            lists: Mutex::default(),
            log: Mutex::default(),
            cancelled: watch::Sender::new(cancelled),
        }
    }

    fn lists(&self) -> BTreeMap<String, Vec<Value>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn globals(&self) -> BTreeMap<String, Value> {
        self.globals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HostServices for FakeHost {
    fn log_enabled(&self, _level: u8, _target: &str) -> bool {
        true
    }

    fn log(&self, level: u8, _target: &str, message: &str, _fields: &[u8]) {
        let level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].get(usize::from(level) - 1).unwrap_or(&"?");
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{level} {message}"));
    }

    fn set_global(&self, name: &str, value: Value) -> Result<()> {
        let mut globals = self.globals.lock().unwrap_or_else(PoisonError::into_inner);
        if globals.contains_key(name) {
            let message = format!("the global `{name}` is set already");
            return Err(Error::new(ErrorKind::Internal, "global-set-twice", message));
        }
        globals.insert(name.to_owned(), value);
        Ok(())
    }

    fn set_list(&self, name: &str, items: Vec<Value>) -> Result<()> {
        if !self.declared_lists.contains(&name) {
            let message = format!("the module does not declare the list `{name}`");
            return Err(Error::new(ErrorKind::Internal, "undeclared-list", message));
        }
        match self.lists.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()) {
            Entry::Vacant(place) => drop(place.insert(items)),
            Entry::Occupied(_) => {
                let message = format!("the list `{name}` is announced already");
                return Err(Error::new(ErrorKind::Internal, "list-set-twice", message));
            }
        }
        Ok(())
    }

    fn global(&self, name: &str) -> Option<Value> {
        self.globals().get(name).cloned()
    }

    fn progress(&self, _rows: u64, _bytes: u64) {}

    fn metric(&self, _name: &str, _value: f64) {}

    fn cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cancelled = self.cancelled.subscribe();
        async move {
            if cancelled.wait_for(|&cancelled| cancelled).await.is_err() {
                std::future::pending().await
            }
        }
    }

    #[expect(clippy::manual_async_fn, reason = "the future must not borrow the host")]
    fn register_artifact(&self, frame: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static {
        async move {
            let batches = SharedBatches::read(&frame).await?;
            Ok(Artifact { n_rows: batches.rows(), uri: "memory:test".to_owned() })
        }
    }
}
