//! Runs streams: a source without an end, whose records are handled in parallel and acknowledged when they are done.
//!
//! What is decided is decided by [`pype_core::stream::control::Control`]. Here are its surroundings: [`owner`] is the loop that owns
//! it, tells it what the source and the engine say, and does what it answers; [`engine`] runs handlers, [`process`] has child processes run them,
//! [`batch`] collects batches for modules; [`alerts`] tells operators; [`decode`] has mods decode what a pipeline handles; [`records`] makes contexts of
//! records, and dead letters of those that could not be handled.

mod alerts;
mod batch;
mod decode;
mod engine;
mod metrics;
mod open;
mod owner;
mod partitions;
mod pipeline;
mod process;
mod records;
#[cfg(test)]
mod tests;

pub use self::metrics::{Shown, Watched, blocking};
pub use self::open::{HandledBy, OpenedStream, StreamOpenError};
pub use self::owner::StreamError;

pub(crate) use self::decode::Decoder;
pub(crate) use self::process::serve as serve_records;
