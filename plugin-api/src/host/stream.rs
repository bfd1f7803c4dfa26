//! The host's side of streams: an opened source without an end.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::pipeline::too_old;
use super::{Instance, json};
use crate::context::done;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::stream::{Acknowledgement, Committed, EventFacts, Partition, Position, SourceRequest, StreamEvent};

impl Instance {
    /// Source without an end: what happened next; `None` if nothing did for so long.
    ///
    /// # Errors
    /// What the source says, or that it is none.
    pub async fn poll(&self, wait: Duration) -> Result<Option<StreamEvent>> {
        let poll = self.vtable.poll().ok_or_else(too_old)?;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let event = done(poll(&self.handle, wait_ms)).await?;
        let records = event.records.into_option().map(Frame::from_raw);
        Ok(match serde_json::from_slice(&event.facts)? {
            EventFacts::Nothing => None,
            EventFacts::Assigned { partitions } => Some(StreamEvent::Assigned(partitions)),
            EventFacts::Revoked { partitions } => Some(StreamEvent::Revoked(partitions)),
            EventFacts::Lost { partitions } => Some(StreamEvent::Lost(partitions)),
            EventFacts::Records => Some(StreamEvent::Records(records.ok_or_else(no_records)?)),
            EventFacts::Progress { partitions } => Some(StreamEvent::Progress(partitions)),
        })
    }

    /// Source without an end: makes positions durable; one answer for each.
    ///
    /// # Errors
    /// What the source says, or that it is none.
    pub async fn commit_positions(&self, positions: Vec<Position>) -> Result<Vec<Committed>> {
        self.ask_source(SourceRequest::Commit { positions }, None).await
    }

    /// Source without an end: says what became of single records.
    ///
    /// # Errors
    /// What the source says, or that it is none.
    pub async fn acknowledge(&self, verdicts: Vec<Acknowledgement>) -> Result<()> {
        self.ask_source(SourceRequest::Acknowledge { verdicts }, None).await
    }

    /// Source without an end: holds partitions back, or lets them go on.
    ///
    /// # Errors
    /// What the source says, or that it is none.
    pub async fn hold(&self, partitions: Vec<Partition>, held: bool) -> Result<()> {
        self.ask_source(SourceRequest::Hold { partitions, held }, None).await
    }

    /// Source without an end: lets the rebalance go on that has revoked these.
    ///
    /// # Errors
    /// What the source says, or that it is none.
    pub async fn release(&self, partitions: Vec<Partition>) -> Result<()> {
        self.ask_source(SourceRequest::Release { partitions }, None).await
    }

    /// Source without an end: sends records to where its own come from.
    ///
    /// # Errors
    /// Not all of them are confirmed, or the source is none.
    pub async fn publish(&self, records: Frame) -> Result<()> {
        self.ask_source(SourceRequest::Publish, Some(records)).await
    }

    /// Source without an end: tells whoever listens where its records come from.
    ///
    /// # Errors
    /// They have not come to where they could be heard, or the source is none.
    pub async fn announce(&self, records: Frame) -> Result<()> {
        self.ask_source(SourceRequest::Announce, Some(records)).await
    }

    async fn ask_source<T: DeserializeOwned>(&self, request: SourceRequest, records: Option<Frame>) -> Result<T> {
        let source = self.vtable.source().ok_or_else(too_old)?;
        let answer = done(source(&self.handle, json(&request), records.map(Frame::into_raw).into())).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

fn no_records() -> Error {
    Error::new(ErrorKind::Internal, "no-records", "the source announces records and gives none")
}
