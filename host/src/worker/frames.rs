//! Frames that are on the other side: batch by batch, each when it is asked for.

use std::sync::Arc;

use pype_plugin::{ArrowArray, ArrowSchema, Error, ErrorKind, Frame, Producer, Result};
use tokio::sync::Mutex;

use super::peer::{Answer, Peer};
use super::rows::{RowsIn, RowsOut};
use super::wire::{Ask, Note};

/// A frame of this side, lent to the other.
pub(super) struct Lent {
    frame: Frame,
    // Held while a batch is made: who reads a frame reads it batch after batch.
    begun: Mutex<Option<(arrow_schema::SchemaRef, RowsOut)>>,
}

impl Lent {
    pub(super) fn new(frame: Frame) -> Self {
        Self { frame, begun: Mutex::new(None) }
    }

    /// The beginning of its rows.
    pub(super) async fn schema(&self) -> Result<Answer> {
        let mut begun = self.begun.lock().await;
        let schema = self.frame.arrow_schema().await?;
        let (rows, body) = RowsOut::begin(&schema)?;
        *begun = Some((schema, rows));
        Ok(Answer { body, ..Answer::default() })
    }

    /// The next batch; no bytes at the end.
    pub(super) async fn next(&self) -> Result<Answer> {
        let mut begun = self.begun.lock().await;
        let (schema, rows) = begun.as_mut().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "no-schema", "a batch was asked for before the schema of its frame")
        })?;
        let Some(batch) = self.frame.next_record_batch(schema).await? else { return Ok(Answer::default()) };
        Ok(Answer { body: rows.push(&batch)?, ..Answer::default() })
    }
}

/// A frame of the other side.
pub(super) struct Borrowed {
    peer: Arc<Peer>,
    number: u64,
    rows: Option<RowsIn>,
}

impl Borrowed {
    /// The frame that the other side knows by that number.
    pub(super) fn frame(peer: &Arc<Peer>, number: u64) -> Frame {
        Frame::new(Self { peer: peer.clone(), number, rows: None })
    }

    async fn rows(&mut self) -> Result<&mut RowsIn> {
        if self.rows.is_none() {
            let Answer { body, .. } = self.peer.ask(Ask::Schema { frame: self.number }, Vec::new()).await?;
            self.rows = Some(RowsIn::begin(body)?);
        }
        Ok(self.rows.as_mut().expect("it was put there"))
    }
}

impl Producer for Borrowed {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        self.rows().await?.schema().as_ref().try_into()
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        let (peer, frame) = (self.peer.clone(), self.number);
        let rows = self.rows().await?;
        let Answer { body, .. } = peer.ask(Ask::Next { frame }, Vec::new()).await?;
        if body.is_empty() { Ok(None) } else { rows.take(body).map(|batch| Some(batch.into())) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.peer.note(Note::Forget { frame: self.number }, Vec::new());
    }
}
