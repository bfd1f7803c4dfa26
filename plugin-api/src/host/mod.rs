//! The host's side of the boundary: a root that was checked, the modules opened from it, and the services given.
//!
//! The loader in crate `pype` and the [`testing`](crate::testing) module both go through here, so an author's test
//! runs the same vtables as production. Host futures that plugins poll run in the runtime given to
//! [`adopt_runtime`].

mod pipeline;
mod stand_in;
mod stream;

use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi::{
    FfiFuture, FutureExt, Handle, HostVtable, HostVtableRef, InstanceVtableRef, Json, OpenRequest, PortFrame, ROption,
    RResult, RSlice, RStr, RawFrame, ResourcesRequest, RootRef, Services, Task, WithMetadata, staticref,
};
use crate::context::{Artifact, Iteration, answer, done};
use crate::descriptor::LibraryDescriptor;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::glue::{contain_service, crossing, task};
use crate::module::Commit;
use crate::resource::Resources;

pub use self::pipeline::{Chain, Going, Stored};
pub use self::stand_in::StandIn;
pub use crate::pipeline::Returned;

/// A list is at most this large, as JSON.
pub const LIST_BYTES: usize = 64 * 1024 * 1024;

/// What a library is told once, after loading. Crosses as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LibraryFacts {
    /// How many threads blocking work may use; 0 leaves it to the library.
    pub threads: usize,
}

/// What a module is told about its node. Crosses as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// The node's id in the flow.
    pub node_id: String,
    /// The item, inside an iteration.
    pub iteration: Option<Iteration>,
    /// `execution_mode: eager`.
    pub eager: bool,
    /// How many threads blocking work may use.
    pub threads: usize,
    /// A directory for files that nobody needs afterwards.
    pub temp_dir: PathBuf,
    /// Where relative paths start that stand inside other texts of the configs; absent from an older host.
    pub folder: PathBuf,
    /// Which of its globals somebody reads.
    pub wanted_globals: Vec<String>,
}

/// What the host does for a node, or for a library outside any node.
pub trait HostServices: Send + Sync + 'static {
    /// Whether a record of this level (1 error … 5 trace) and target would be kept.
    fn log_enabled(&self, level: u8, target: &str) -> bool;
    /// Takes a log record; `fields` is a JSON object.
    fn log(&self, level: u8, target: &str, message: &str, fields: &[u8]);
    /// Sets a global, once.
    ///
    /// # Errors
    /// It is not declared, set already, or too large.
    fn set_global(&self, name: &str, value: Value) -> Result<()>;
    /// Takes a list, once. What crossed is at most [`LIST_BYTES`] long.
    ///
    /// # Errors
    /// It is not declared, or announced already; by default, that there is nobody to take it.
    fn set_list(&self, name: &str, items: Vec<Value>) -> Result<()> {
        drop(items);
        let message = format!("the list `{name}` can be announced only while a node of a flow runs");
        Err(Error::new(ErrorKind::Unsupported, "no-lists", message))
    }
    /// The value of `node__Name`.
    fn global(&self, name: &str) -> Option<Value>;
    /// Takes rows and bytes done so far.
    fn progress(&self, rows: u64, bytes: u64);
    /// Takes a measurement.
    fn metric(&self, name: &str, value: f64);
    /// Whether the run was cancelled.
    fn cancelled(&self) -> bool;
    /// Resolves when the run is cancelled.
    fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static;
    /// Keeps a frame.
    ///
    /// # Errors
    /// The frame fails or cannot be kept.
    fn register_artifact(&self, frame: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static;
}

/// Gives the runtime that the host's own futures run in.
pub fn adopt_runtime(handle: tokio::runtime::Handle) {
    crate::runtime::adopt(handle);
}

/// A library whose root was checked.
#[derive(Clone, Copy)]
pub struct Library {
    root: RootRef,
}

impl Library {
    /// Takes a root. The loader, or an in-process export, vouches for its layout.
    pub fn new(root: RootRef) -> Self {
        Self { root }
    }

    /// What is in the library. Runs plugin code.
    ///
    /// # Errors
    /// The plugin panics, or describes itself in a way this host cannot read.
    pub fn describe(&self) -> Result<LibraryDescriptor> {
        let json = answer(self.root.describe()())?;
        serde_json::from_slice(&json).map_err(|cause| {
            Error::new(ErrorKind::Unsupported, "bad-descriptor", "the library's description is not readable")
                .caused_by(cause)
        })
    }

    /// Prepares the library: logs, threads. Called once.
    ///
    /// # Errors
    /// The plugin panics.
    pub fn init<S: HostServices>(&self, services: Arc<S>, facts: &LibraryFacts) -> Result<()> {
        answer(self.root.init()(services_of(services), json(facts)))
    }

    /// What `module` reads and writes outside the flow with these configs, without opening it. A library from before
    /// this could be asked does not say.
    ///
    /// # Errors
    /// The configs do not fit, or what the module says.
    pub async fn resources(&self, module: &str, config: &Value) -> Result<Resources> {
        let Some(resources) = self.root.resources() else { return Ok(Resources::default()) };
        resources_of(resources(ResourcesRequest { module: module.into(), config: json(config) })).await
    }

    /// Opens `module` for a node.
    ///
    /// # Errors
    /// What the module's `open` says.
    pub async fn open<S: HostServices>(
        &self,
        module: &str,
        config: &Value,
        facts: &NodeFacts,
        services: Arc<S>,
    ) -> Result<Instance> {
        let open = self.root.open();
        Instance::open_with(|request| open(OpenRequest { module: module.into(), ..request }), config, facts, services)
            .await
    }

    /// The method that a next minor version adds: its answer, if this library has it.
    #[cfg(feature = "__next-minor")]
    pub fn greet(&self) -> Option<String> {
        self.root.greet().map(|greet| greet().into())
    }
}

/// A module opened for a node.
pub struct Instance {
    handle: Handle,
    vtable: InstanceVtableRef,
}

impl Instance {
    pub(crate) async fn open_with<S: HostServices>(
        open: impl FnOnce(OpenRequest) -> Task<crate::abi::Instance>,
        config: &Value,
        facts: &NodeFacts,
        services: Arc<S>,
    ) -> Result<Self> {
        let (config, facts, services) = (json(config), json(facts), services_of(services));
        let raw = done(open(OpenRequest { module: "".into(), config, facts, services })).await?;
        Ok(Self { handle: raw.handle, vtable: raw.vtable })
    }

    /// Source, mod, solo: runs. Sink: writes.
    ///
    /// # Errors
    /// What the module says.
    pub async fn run(&self, inputs: Vec<(String, Frame)>) -> Result<Vec<(String, Frame)>> {
        let inputs = inputs.into_iter().map(|(port, frame)| PortFrame { port: port.into(), frame: frame.into_raw() });
        let outputs = done(self.vtable.run()(&self.handle, inputs.collect())).await?;
        Ok(outputs.into_iter().map(|output| (output.port.into(), Frame::from_raw(output.frame))).collect())
    }

    /// Sink: makes what was written durable and visible.
    ///
    /// # Errors
    /// What the module says.
    pub async fn commit(&self) -> Result<Vec<Commit>> {
        Ok(serde_json::from_slice(&done(self.vtable.commit()(&self.handle)).await?)?)
    }

    /// Ends it. Await it after success, failure and cancellation alike.
    ///
    /// # Errors
    /// What the module says.
    pub async fn close(&self) -> Result<()> {
        done(self.vtable.close()(&self.handle)).await
    }
}

pub(crate) async fn resources_of(asked: Task<Json>) -> Result<Resources> {
    Ok(serde_json::from_slice(&done(asked).await?)?)
}

pub(crate) fn json(value: &impl Serialize) -> Json {
    serde_json::to_vec(value).expect("facts and configs are plain data").into()
}

pub(crate) fn services_of<S: HostServices>(services: Arc<S>) -> Services {
    Services { handle: Handle::new(services), vtable: Vtable::<S>::VTABLE }
}

fn read_list(name: &str, json: &[u8]) -> Result<Vec<Value>> {
    if json.len() > LIST_BYTES {
        let message = format!("the list `{name}` has {} bytes; {LIST_BYTES} are allowed", json.len());
        return Err(Error::new(ErrorKind::Data, "list-too-large", message));
    }
    Ok(serde_json::from_slice(json)?)
}

struct Vtable<S>(PhantomData<S>);

impl<S: HostServices> Vtable<S> {
    staticref! {
        const METHODS: WithMetadata<HostVtable> = WithMetadata::new(HostVtable {
            log_enabled: Self::log_enabled,
            log: Self::log,
            set_global: Self::set_global,
            global: Self::global,
            progress: Self::progress,
            metric: Self::metric,
            cancelled: Self::cancelled,
            until_cancelled: Self::until_cancelled,
            register_artifact: Self::register_artifact,
            set_list: Self::set_list,
        });
    }
    const VTABLE: HostVtableRef = HostVtableRef(Self::METHODS.as_prefix());

    fn of(handle: &Handle) -> &Arc<S> {
        // SAFETY: only `services_of` pairs a handle with the vtable that calls this.
        unsafe { handle.get::<Arc<S>>() }
    }

    /// Asks the host; what it answers when it panics is `otherwise`.
    fn ask<R>(handle: &Handle, otherwise: R, question: impl FnOnce(&S) -> R) -> R {
        contain_service(|| question(Self::of(handle))).unwrap_or_else(|panic| {
            tracing::error!(target: "pype_plugin", "a service of the host failed: {panic}");
            otherwise
        })
    }

    extern "C" fn log_enabled(handle: &Handle, level: u8, target: RStr<'_>) -> bool {
        Self::ask(handle, true, |host| host.log_enabled(level, target.as_str()))
    }

    extern "C" fn log(handle: &Handle, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>) {
        // Without `ask`, which would log.
        drop(contain_service(|| Self::of(handle).log(level, target.as_str(), message.as_str(), fields.as_slice())));
    }

    extern "C" fn set_global(handle: &Handle, name: RStr<'_>, value: RSlice<'_, u8>) -> RResult<(), Json> {
        let set = contain_service(|| {
            let value = serde_json::from_slice(value.as_slice())?;
            Self::of(handle).set_global(name.as_str(), value)
        });
        crossing(set.flatten())
    }

    extern "C" fn global(handle: &Handle, name: RStr<'_>) -> ROption<Json> {
        Self::ask(handle, None, |host| host.global(name.as_str()).map(|value| json(&value))).into()
    }

    extern "C" fn progress(handle: &Handle, rows: u64, bytes: u64) {
        Self::ask(handle, (), |host| host.progress(rows, bytes));
    }

    extern "C" fn metric(handle: &Handle, name: RStr<'_>, value: f64) {
        Self::ask(handle, (), |host| host.metric(name.as_str(), value));
    }

    extern "C" fn cancelled(handle: &Handle) -> bool {
        Self::ask(handle, false, S::cancelled)
    }

    extern "C" fn until_cancelled(handle: &Handle) -> FfiFuture<()> {
        // A panic in the future reaches the plugin as one of its own, and is contained there.
        match contain_service(|| Self::of(handle).until_cancelled()) {
            Ok(cancelled) => cancelled.into_ffi(),
            Err(_) => std::future::pending().into_ffi(),
        }
    }

    extern "C" fn register_artifact(handle: &Handle, frame: RawFrame) -> Task<Json> {
        let artifact = contain_service(|| Self::of(handle).register_artifact(Frame::from_raw(frame)));
        task(async move { Ok(json(&artifact?.await?)) })
    }

    extern "C" fn set_list(handle: &Handle, name: RStr<'_>, items: RSlice<'_, u8>) -> RResult<(), Json> {
        let set = contain_service(|| {
            let items = read_list(name.as_str(), items.as_slice())?;
            Self::of(handle).set_list(name.as_str(), items)
        });
        crossing(set.flatten())
    }
}
