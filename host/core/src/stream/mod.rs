//! Streams: records without end, handled in parallel, acknowledged only when they are done.
//!
//! This room is the control plane. It knows neither a broker nor an engine: a source tells it which partitions come and go
//! and which records were read, an engine asks it what to run and tells how that ended, and what it answers is what is
//! committed. One [`control::Control`] owns all of it, and one task calls that; time and random numbers are passed in.
//!
//! # What is delivered
//!
//! *At least once.* A record is complete when its handler has said so, or when its dead letter is published and confirmed.
//! Each partition has a [`ledger::Ledger`] of what was delivered in the present epoch and is not complete, and the position
//! that is committed is that of the first of these. So below a committed position there are only records that are
//! complete, and offsets that hold no record; whoever reads on from there misses nothing. It does not matter *why* an
//! offset holds none (it was compacted away, it ends a transaction, the log begins behind it), for what never comes is never
//! waited for.
//!
//! *Rarely twice.* Beyond the position records complete in any order. Which they are goes into the [`metadata`] of the
//! commit, made of the same borrow of the ledger as the position, so that the two cannot disagree. After a crash
//! or a rebalance these records are counted as complete when they come again, and not run. What does run again is what
//! was completed since the last commit that succeeded, and the little that metadata of 4096 bytes cannot hold. Metadata that
//! is not beyond doubt marks nothing: twice is better than never.
//!
//! *In order, per key.* Records of one partition with the same key are in one [lane](lanes::Ordering), and only the first of
//! a lane runs. It stays the first until it is complete: through its retries, and until its dead letter is confirmed.
//! Whoever runs it may have those behind it in hand too, to go on with when it is done; when it is not, they are taken back.
//!
//! *Not by two at once.* Every assignment has an epoch of its own, higher than any before. What was started in an epoch that
//! is over is stale: its end completes nothing, for the partition may be another consumer's. If the partition is this
//! consumer's again, the lanes of what still runs wait for its end, so that a key never runs twice at once.
//!
//! # What is bounded
//!
//! How many records run ([`admission::Limits::running`]). How many a partition has under way, how many of it wait for
//! retries, how far its position may be behind: at each of these bounds its source is asked to pause, and to go on
//! at 0.7 of it. What the source had read already is taken all the same.
//!
//! # The document
//!
//! [`load_and_plan`] reads what is declared under `stream:` and turns it into a [`plan::Plan`], with all that is wrong at
//! once.

pub mod admission;
pub mod control;
mod form;
pub mod lanes;
pub mod ledger;
mod load;
pub mod metadata;
pub mod plan;
pub mod quantity;
mod ready;
mod schema;
mod works;

use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::Source;
use crate::template::Context;

pub use schema::{schema, schema_with};
pub use works::{Step, WorkId};

/// The id of the node that stands for the records in the flow of a batch.
pub const SOURCE: &str = "source";

/// The port that they come out of.
pub const RECORDS: &str = "records";

/// The port that a module has for records that it cannot read: they become dead letters, unless somebody reads the port.
pub const ERRORS: &str = "errors";

/// From a document to a plan, with all that is wrong at once. The pipeline that it names is not read.
///
/// # Errors
/// All findings, warnings too. With a plan come warnings only.
pub fn load_and_plan(
    source: &Source,
    catalog: &Catalog,
    context: &Context,
) -> Result<(plan::Plan, Diagnostics), Diagnostics> {
    load::load_and_plan(source, catalog, context)
}
