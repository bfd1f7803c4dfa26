//! What authors implement for pipelines: stages, and the queues that dispatch a pipeline's rest.

mod bytes;
mod context;
pub mod lock;
mod next;
pub mod queue;
mod returned;

use std::future::Future;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};
use crate::context::Context;
use crate::descriptor::RetryPolicy;
use crate::error::Result;

pub use self::bytes::Bytes;
pub use self::context::{ContextStore, Field, PipelineContext, RunFacts};
pub use self::next::{Next, Rerun};
pub use self::returned::Returned;

pub(crate) use self::queue::QueueRequest;
pub(crate) use self::returned::returned;

macro_rules! stage_items {
    () => {
        /// The module's name in documents: letters, digits and `_`.
        const NAME: &'static str;
        /// What it does, in one line.
        const DESCRIPTION: &'static str = "";
        /// For grouping in lists.
        const CATEGORY: &'static str = "Other";
        /// Its own version, if it is not the library's.
        const VERSION: Option<&'static str> = None;
        /// Notable packages it is built on.
        const PACKAGES: &'static [&'static str] = &[];
        /// Its configs. A field without a serde default is required; doc comments become descriptions, and
        /// `#[schemars(extend("format" = "path"))]` has the host make a path absolute against the document's folder.
        type Config: DeserializeOwned + JsonSchema + Send;

        /// Called once, before anything else: connect here.
        ///
        /// # Errors
        /// The configs ask for something impossible, or what it needs is not there.
        fn open(config: Self::Config, node: &Context) -> impl Future<Output = Result<Self>> + Send;

        /// Called last, when no call is under way any more.
        ///
        /// # Errors
        /// Something could not be released.
        fn close(&mut self, node: &Context) -> impl Future<Output = Result<()>> + Send {
            let _ = node;
            async { Ok(()) }
        }
    };
}

pub(crate) use stage_items;

/// A stage of a pipeline: looks at the context, changes it, runs the rest or does not, and looks at the result.
///
/// ```
/// use pype_plugin::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// The longest name that is allowed.
///     longest: usize,
/// }
///
/// struct NameLength(Config);
///
/// #[derive(Deserialize)]
/// struct Named {
///     name: String,
/// }
///
/// impl Execute for NameLength {
///     const NAME: &str = "name_length";
///     type Config = Config;
///
///     async fn open(config: Config, _: &Context) -> Result<Self> {
///         Ok(Self(config))
///     }
///
///     async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
///         let Named { name } = ctx.bind()?;
///         if name.len() > self.0.longest {
///             return Err(Error::new(ErrorKind::Data, "long-name", format!("`{name}` is too long")));
///         }
///         next.run(ctx).await
///     }
/// }
/// ```
pub trait Execute: Sized + Send + Sync + 'static {
    stage_items!();
    /// Whether it is used by one run at a time. The host then opens as many as it needs.
    const EXCLUSIVE: bool = false;
    /// When it is tried again, if the pipeline says nothing of it: not at all, or as this policy has it.
    const RETRY: Option<RetryPolicy> = None;

    /// Handles one run. What it returns is the result of the chain from here on.
    ///
    /// # Errors
    /// The run fails with it, unless a stage before takes it.
    fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> impl Future<Output = Result<Value>> + Send;
}

/// A queue: keeps jobs until a worker has done them. [`queue`] says what it promises.
pub trait Dispatch: Sized + Send + Sync + 'static {
    stage_items!();

    /// Accepts a job. When it returns, the job is durable.
    ///
    /// # Errors
    /// It is not accepted.
    fn enqueue(&self, job: NewJob, node: &Context) -> impl Future<Output = Result<Accepted>> + Send;

    /// Lends jobs to a worker: none, if there is none within the time that it waits.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn lease(&self, request: LeaseRequest, node: &Context) -> impl Future<Output = Result<Vec<LeasedJob>>> + Send;

    /// Lends a job for longer: `visibility_ms` from now.
    ///
    /// # Errors
    /// [`stale_lease`](queue::stale_lease), or the store cannot be reached.
    fn extend(&self, lease: Lease, visibility_ms: u64, node: &Context) -> impl Future<Output = Result<()>> + Send;

    /// Takes a job back, with what has become of it.
    ///
    /// # Errors
    /// [`stale_lease`](queue::stale_lease), or the store cannot be reached.
    fn conclude(&self, lease: Lease, verdict: Verdict, node: &Context) -> impl Future<Output = Result<()>> + Send;

    /// A job as it is.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn job(&self, id: &str, node: &Context) -> impl Future<Output = Result<Option<Job>>> + Send;

    /// The jobs that a filter leaves, the latest first.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn jobs(&self, filter: JobFilter, node: &Context) -> impl Future<Output = Result<Vec<Job>>> + Send;

    /// Does something to a job by hand.
    ///
    /// # Errors
    /// There is no such job ([`no_such_job`](queue::no_such_job)), or it is in no state for that
    /// ([`cannot`](queue::cannot)).
    fn act(&self, id: &str, action: JobAction, node: &Context) -> impl Future<Output = Result<()>> + Send;

    /// Forgets the jobs that a filter leaves and that are over; how many.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn purge(&self, filter: JobFilter, node: &Context) -> impl Future<Output = Result<u64>> + Send;
}
