//! What authors implement for streams: sources without an end.
//!
//! The contract between a source and the host:
//!
//! - *Events come in order.* [`StreamSource::poll`] is called by one caller at a time, over and over; everything else may be
//!   called while it waits. Records of a partition come after the [`Assigned`](StreamEvent::Assigned) that gives the partition
//!   its epoch, and before the [`Revoked`](StreamEvent::Revoked) or [`Lost`](StreamEvent::Lost) that takes it away.
//! - *Epochs rise.* Each assignment of a partition has a larger epoch than any that this source gave out before. A commit that
//!   names another epoch than the current one is refused, and changes nothing.
//! - *Offsets* ([`Acknowledge::Offsets`]): within an epoch the offsets of a partition rise, and may have holes. The host commits
//!   the offset before which everything is done, with metadata of its own, which comes back with the next assignment.
//! - *Each record* ([`Acknowledge::EachRecord`]): a record that is not acknowledged comes again. Its offset stays the same.
//! - *Revoking waits.* After `Revoked` the source keeps its part of the rebalance back until [`StreamSource::release`], so
//!   that what is under way can end and be committed; for no longer than the bound in its configs. After `Lost` there is
//!   nothing to commit any more.
//! - *Dead letters are confirmed.* When [`StreamSource::publish`] returns, the records are where they were sent to.

#[cfg(feature = "arrow")]
mod column;
#[cfg(feature = "arrow")]
mod records;

use std::future::Future;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::pipeline::stage_items;

#[cfg(feature = "arrow")]
pub use self::column::{BytesColumn, HeadersColumn};
#[cfg(feature = "arrow")]
pub use self::records::{NewRecord, Record, Records, RecordsBuilder, no_column, records_schema, wrong_type};

/// A source without an end.
pub trait StreamSource: Sized + Send + Sync + 'static {
    stage_items!();
    /// How it is told that records are done.
    const ACKNOWLEDGE: Acknowledge;

    /// What happened next; `None` if nothing did for so long.
    ///
    /// # Errors
    /// An error that is `retryable` is told to the user, and it is polled again; any other ends the stream.
    fn poll(&self, wait: Duration, ctx: &Context) -> impl Future<Output = Result<Option<StreamEvent>>> + Send;

    /// Makes positions durable. The answer has one result for each of them.
    ///
    /// # Errors
    /// None of them could be.
    fn commit(&self, positions: Vec<Position>, ctx: &Context) -> impl Future<Output = Result<Vec<Committed>>> + Send {
        let _ = (positions, ctx);
        async { Err(unsupported("this source takes no commits")) }
    }

    /// Says of single records what became of them. An answer that gets lost is not an error: the record comes again.
    ///
    /// # Errors
    /// None of it could be said.
    fn acknowledge(&self, verdicts: Vec<Acknowledgement>, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
        let _ = (verdicts, ctx);
        async { Err(unsupported("this source takes no acknowledgements of single records")) }
    }

    /// Holds partitions back, or lets them go on: what is held gives no more records. What has been fetched is kept.
    ///
    /// # Errors
    /// It could not.
    fn hold(&self, partitions: Vec<Partition>, held: bool, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
        let _ = (partitions, held, ctx);
        async { Ok(()) }
    }

    /// What was revoked is done with: its rebalance may go on.
    ///
    /// # Errors
    /// It could not.
    fn release(&self, partitions: Vec<Partition>, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
        let _ = (partitions, ctx);
        async { Ok(()) }
    }

    /// Sends records ([`records_schema`]) to the topics or subjects that they name, in the same place that this source's
    /// records come from. Only their topics, keys, values and headers count.
    ///
    /// # Errors
    /// Not all of them have been confirmed.
    fn publish(&self, records: Frame, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
        let _ = (records, ctx);
        async { Err(unsupported("this source publishes nothing, so it has no place for dead letters")) }
    }

    /// The same for alerts: whoever listens hears of them, and nobody has to. By default they are published.
    ///
    /// # Errors
    /// They have not come to where they could be heard.
    fn announce(&self, records: Frame, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
        self.publish(records, ctx)
    }
}

/// How a source is told that records are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledge {
    /// By the offset before which all are, as in Kafka.
    Offsets,
    /// One by one, as in JetStream.
    EachRecord,
}

/// Something that happened at a source.
#[derive(Debug)]
pub enum StreamEvent {
    /// Partitions are this source's from now on, besides those it has already.
    Assigned(Vec<Assignment>),
    /// Partitions are to be given away once they are [released](StreamSource::release).
    Revoked(Vec<Partition>),
    /// Partitions are somebody else's already.
    Lost(Vec<Partition>),
    /// Records, of the schema that `records_schema` gives; its metadata may say more of where they are from.
    Records(Frame),
    /// How far partitions have been read, and how far they go.
    Progress(Vec<Progressed>),
}

/// A part of a stream, in which records have an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// The topic, or the stream.
    pub topic: String,
    /// Its number.
    pub partition: i32,
}

/// A partition that was assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which.
    pub partition: Partition,
    /// The number of this assignment.
    pub epoch: u64,
    /// The offset that was committed last, if there is one.
    pub position: Option<i64>,
    /// What was committed with it.
    pub metadata: Option<String>,
    /// One more than the last offset there is, if that is known.
    pub end: Option<i64>,
}

/// How far a partition has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progressed {
    /// Which.
    pub partition: Partition,
    /// The assignment it is of.
    pub epoch: u64,
    /// The offset that is read next: no record before it will come any more. It may be past the last record, where a log ends with
    /// offsets that hold none.
    pub position: Option<i64>,
    /// One more than the last offset there is.
    pub end: Option<i64>,
}

/// A position to be made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of which partition.
    pub partition: Partition,
    /// In which assignment.
    pub epoch: u64,
    /// Everything before it is done.
    pub offset: i64,
    /// What is done beyond it, in the host's own words: 4096 bytes at most.
    pub metadata: String,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Of which partition.
    pub partition: Partition,
    /// Why it was not taken; the epoch is another by now, a rebalance is under way, or what the broker says.
    pub error: Option<Error>,
}

/// What became of a single record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Of which partition.
    pub partition: Partition,
    /// Which.
    pub offset: i64,
    /// What to do with it.
    pub verdict: Acknowledged,
}

/// What a source is to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledged {
    /// It is done: forget it.
    Done,
    /// It is being worked on: do not send it again yet.
    Working,
    /// Send it again.
    Again,
    /// Never send it again, though it is not done: it is among the dead letters.
    Terminated,
}

fn unsupported(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "unsupported", message)
}

/// What crosses besides the frame of [`StreamEvent::Records`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum EventFacts {
    Nothing,
    Assigned { partitions: Vec<Assignment> },
    Revoked { partitions: Vec<Partition> },
    Lost { partitions: Vec<Partition> },
    Records,
    Progress { partitions: Vec<Progressed> },
}

/// What is asked of a source besides [`StreamSource::poll`]. Crosses as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub(crate) enum SourceRequest {
    Commit {
        positions: Vec<Position>,
    },
    Acknowledge {
        verdicts: Vec<Acknowledgement>,
    },
    Hold {
        partitions: Vec<Partition>,
        held: bool,
    },
    Release {
        partitions: Vec<Partition>,
    },
    /// With a frame.
    Publish,
    /// With a frame.
    Announce,
}
