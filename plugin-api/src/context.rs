//! What a module may ask of the host while it works for a node.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::abi::{RResult, Services, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::host::NodeFacts;
use crate::{glue, runtime};

/// The node that a module works for, and the host's services. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    facts: NodeFacts,
    services: Services,
    closing: AtomicBool,
}

/// The item that an iteration is at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// The item itself.
    pub item: Value,
    /// Its place, from 0.
    pub index: u64,
}

/// A frame that the host keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// How many rows it has.
    pub n_rows: u64,
    /// Where it is: `memory:…` or `file:…`.
    pub uri: String,
}

impl Context {
    pub(crate) fn new(facts: NodeFacts, services: Services) -> Self {
        Self { inner: Arc::new(Inner { facts, services, closing: AtomicBool::new(false) }) }
    }

    /// From here on the node's blocking work waits for nobody: it is the end of the module.
    pub(crate) fn begin_close(&self) {
        self.inner.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn services(&self) -> &Services {
        &self.inner.services
    }

    /// The node's id in the flow.
    pub fn node_id(&self) -> &str {
        &self.inner.facts.node_id
    }

    /// The item, when the node runs inside an iteration.
    pub fn iteration(&self) -> Option<&Iteration> {
        self.inner.facts.iteration.as_ref()
    }

    /// Whether every module materialises its output (`execution_mode: eager`).
    pub fn eager(&self) -> bool {
        self.inner.facts.eager
    }

    /// How many threads blocking work may use.
    pub fn threads(&self) -> usize {
        self.inner.facts.threads
    }

    /// A directory of this run for files that nobody needs afterwards. The host removes it.
    pub fn temp_dir(&self) -> &Path {
        &self.inner.facts.temp_dir
    }

    /// Where relative paths start that stand inside other texts of the configs, such as URLs: the folder of the document.
    /// What the schema calls a path is absolute already.
    pub fn folder(&self) -> &Path {
        &self.inner.facts.folder
    }

    /// Whether somebody reads this global, so that working it out is worth it.
    pub fn wants_global(&self, name: &str) -> bool {
        self.inner.facts.wanted_globals.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    }

    /// Sets a global that the module declares, once.
    ///
    /// # Errors
    /// The module does not declare it, it is set already, or it is larger than 64 KiB as JSON.
    pub fn set_global(&self, name: &str, value: impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(&value)?;
        let Services { handle, vtable } = self.services();
        answer(vtable.set_global()(handle, name.into(), json.as_slice().into()))
    }

    /// Announces a list that the module declares, once: what an iteration over it goes through.
    ///
    /// # Errors
    /// The module does not declare it, it is announced already, or it is larger than 64 MiB as JSON.
    pub fn set_list(&self, name: &str, items: impl IntoIterator<Item: Serialize>) -> Result<()> {
        let mut json = Vec::new();
        serde_json::Serializer::new(&mut json).collect_seq(items)?;
        let Services { handle, vtable } = self.services();
        match vtable.set_list() {
            Some(set_list) => answer(set_list(handle, name.into(), json.as_slice().into())),
            None => Err(Error::new(ErrorKind::Unsupported, "no-lists", "this pype takes no lists: a newer one does")),
        }
    }

    /// The value of `node__Name`, if it has been set.
    pub fn global(&self, name: &str) -> Option<Value> {
        let Services { handle, vtable } = self.services();
        let json = vtable.global()(handle, name.into()).into_option()?;
        serde_json::from_slice(&json).ok()
    }

    /// Rows done so far, for the progress display.
    pub fn progress(&self, rows: u64) {
        self.progress_handle().report(rows, 0);
    }

    /// A handle to report progress with from another thread.
    pub fn progress_handle(&self) -> Progress {
        Progress { context: self.clone() }
    }

    /// A measurement of this node.
    pub fn metric(&self, name: &str, value: f64) {
        let Services { handle, vtable } = self.services();
        vtable.metric()(handle, name.into(), value);
    }

    /// Whether the run was cancelled.
    pub fn is_cancelled(&self) -> bool {
        let Services { handle, vtable } = self.services();
        vtable.cancelled()(handle)
    }

    /// Resolves when the run is cancelled.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let Services { handle, vtable } = self.services();
        vtable.until_cancelled()(handle)
    }

    /// A token to ask with from another thread whether the run was cancelled.
    pub fn cancellation(&self) -> CancelToken {
        CancelToken { context: self.clone() }
    }

    /// Runs work that blocks (files, queries, long sums) on a thread where it may, and waits for it. As many run at a
    /// time as the thread budget has; in a module's `close` it waits for no other.
    ///
    /// # Errors
    /// What `work` returns, or that it panicked.
    pub async fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce() -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let permit = match self.inner.closing.load(Ordering::Relaxed) {
            true => None,
            false => runtime::blocking_permits().acquire().await.ok(),
        };
        let permitted = move || {
            // Held until the work ends, which may be after its caller was cancelled.
            let _permit = permit;
            work()
        };
        glue::blocking(Some(self.clone()), permitted).await
    }

    /// Gives a frame to the host to keep, in memory or in a file as its policy says.
    ///
    /// # Errors
    /// The frame could not be read, or the host could not keep it.
    pub async fn register_artifact(&self, frame: Frame) -> Result<Artifact> {
        let Services { handle, vtable } = self.services();
        let task = vtable.register_artifact()(handle, frame.into_raw());
        Ok(serde_json::from_slice(&done(task).await?)?)
    }
}

/// Asks whether the run was cancelled. Cheap to clone, may go to other threads.
#[derive(Clone)]
pub struct CancelToken {
    context: Context,
}

impl CancelToken {
    /// Whether the run was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.context.is_cancelled()
    }
}

/// Reports progress. Cheap to clone, may go to other threads.
#[derive(Clone)]
pub struct Progress {
    context: Context,
}

impl Progress {
    /// Rows and bytes done so far; 0 for what is not known.
    pub fn report(&self, rows: u64, bytes: u64) {
        let Services { handle, vtable } = self.context.services();
        vtable.progress()(handle, rows, bytes);
    }
}

/// Waits for a call on the other side.
pub(crate) fn done<T>(task: Task<T>) -> Call<T> {
    Call(Some(task))
}

/// A call on the other side. It is written out, since what is over at once should not be moved from future to future.
pub(crate) struct Call<T>(Option<Task<T>>);

impl<T> Unpin for Call<T> {}

impl<T> Future for Call<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<T>> {
        let result = match self.0.take().expect("a call that has answered is not polled again") {
            Task::Done(result) => result,
            Task::Later(mut call) => match Pin::new(&mut call).poll(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    self.0 = Some(Task::Later(call));
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(answer(result))
    }
}

/// Turns what the other side answered into ours.
pub(crate) fn answer<T>(result: RResult<T, crate::abi::ErrorBytes>) -> Result<T> {
    result.into_result().map_err(|bytes| Error::from_json(&bytes))
}
