//! Runs pipelines: a caller's part at once, the rest as a job that a worker does.
//!
//! [`Opened`] is a pipeline whose stages are open, once and for many runs. [`Opened::run`] runs the caller's part;
//! where the pipeline has a dispatch, it ends there, with the id of a job that its queue has made durable. [`Worker`] leases
//! such jobs, runs the rest of their pipelines, and tells the queue what became of them.
//!
//! What the host does for every stage, so that no plugin has to: it tries again as the document says, bounds the time, and
//! reports each failure to the [`Observer`]. Nothing is swallowed.

mod chain;
mod context;
mod embedded;
mod instances;
mod large;
mod metrics;
mod open;
mod serve;
mod spans;
mod stage;
mod worker;

pub use self::chain::{Answer, Asked};
pub use self::context::RunContext;
pub use self::embedded::{Chained, Rest};
pub use self::metrics::Metrics;
pub use self::open::{OpenError, Opened, Surroundings, forget_large, open_queue};
pub use self::serve::{ServeError, Server, ServerLimits};
pub use self::stage::{Failed, Observer, logged};
pub use self::worker::{Worker, WorkerLimits};

pub(crate) use self::instances::Opener;
pub(crate) use self::open::{Here, SettledModule, StageServices, ToOpen};
