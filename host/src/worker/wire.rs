//! What crosses between the host and a child process, and how it stands on the socket between them.
//!
//! A message is a head, in JSON, and a body of bytes: rows in the form of Arrow IPC, a line of the log. On the socket the two
//! lengths come first, as 32 and 64 bits, the lowest byte first. Both sides are the same binary: `Begin` says which version
//! of it the host is, and nothing else of the form is promised.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

use indexmap::IndexMap;
use pype_core::name::{FieldName, NodeId};
use pype_core::stream::plan::RecordPart;
use pype_core::template::Context;
use pype_plugin::host::NodeFacts;
use pype_plugin::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::loader::Admitted;
use crate::observe::log::Filter;
use crate::prepare::LibraryFile;
use crate::stream::Decoder;

/// No head is longer: lists of globals are bounded far below.
const HEAD_BYTES: u32 = 512 * 1024 * 1024;
/// So much room is made for a body before it comes.
const RESERVED: usize = 64 * 1024 * 1024;
/// Bodies up to this are copied behind their head, so that both go out at once.
const SMALL: usize = 64 * 1024;

/// A message on its way.
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// What a message is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Head {
    /// The other side is to answer.
    Ask { call: u64, ask: Ask },
    /// What it answers.
    Answer { call: u64, result: Result<Value> },
    /// Nobody answers.
    Note(Note),
}

/// What one side asks of the other.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Of the child, first of all: what it is there for.
    Begin(Box<Begin>),
    /// Of either: the schema of a frame that it has. The answer's body is that, as an IPC stream without batches.
    Schema { frame: u64 },
    /// Of either: the next batch of a frame. The answer's body continues that stream; it is empty at the end.
    Next { frame: u64 },
    /// Of the child: what a module reads and writes with these configs.
    Resources { module: String, config: Value },
    /// Of the child: to open a module.
    Open { module: String, config: Value, facts: Box<NodeFacts> },
    /// Of the child: to run what is open, with these frames of the host.
    Run { inputs: Vec<Port> },
    /// Of the child: to commit.
    Commit,
    /// Of the child: to close what is open.
    Close,
    /// Of the host: to set a global.
    SetGlobal { name: String, value: Value },
    /// Of the host: to take a list, which is in the body.
    SetList { name: String },
    /// Of the host: a global.
    Global { name: String },
    /// Of the host: to keep a frame of the child.
    Keep { frame: u64 },
}

/// A frame at a port.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Port {
    pub(super) port: String,
    pub(super) frame: u64,
}

/// What one side tells the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Note {
    /// Nobody waits for this answer any more.
    Abandon { call: u64 },
    /// Nobody reads this frame any more.
    Forget { frame: u64 },
    /// To the child: the run was cancelled.
    Cancel,
    /// To the child: that is all.
    End,
    /// To the host: records of the log, as lines of JSON in the body.
    Log,
    /// To the host: rows and bytes done so far.
    Progress { rows: u64, bytes: u64 },
    /// To the child: records to be handled, in the body, and of each whether and how.
    Handle { turns: Vec<Turn> },
    /// To the host: this record, counted from the first that this child was given, has failed.
    Failed { record: u64, error: Error },
    /// To the host: all records before this one have been handled.
    Handled { before: u64 },
}

/// How a record is handled.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// From 1 on.
    pub(crate) attempt: u32,
    /// Only if the one before it is done.
    pub(crate) follows: bool,
}

/// What a child is told first.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    /// The version of the host.
    pub(super) version: String,
    /// Which records of the log are kept.
    pub(super) filter: Filter,
    /// How many threads blocking work may use.
    pub(super) threads: usize,
    pub(super) what: What,
}

/// What a child is there for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Modules of a library, one after the other.
    Modules {
        /// Where the user has it.
        library: PathBuf,
        /// What may be loaded.
        admitted: Admitted,
    },
    /// A pipeline, once a record.
    Pipeline(Box<PipelineToOpen>),
}

/// All that opening a pipeline takes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PipelineToOpen {
    /// Where its document is, and what it says.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The modules that it names, as a registry file has them.
    pub(crate) catalog: String,
    pub(crate) context: Context,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    pub(crate) libraries: BTreeMap<NodeId, LibraryFile>,
    /// The name of the stream.
    pub(crate) stream: String,
    /// What its records go through first.
    pub(crate) decoders: Vec<Decoder>,
    /// Which part of a record each field is, as the stream says.
    pub(crate) map: IndexMap<FieldName, RecordPart>,
    /// The bound of one attempt.
    pub(crate) timeout_ms: u64,
}

/// The lengths that a message begins with.
const LENGTHS: usize = 12;

fn lengths(bytes: [u8; LENGTHS]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, rest @ ..] = bytes;
    let (head, body) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(rest));
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the other side sends no messages");
    if head > HEAD_BYTES {
        return Err(malformed());
    }
    Ok((head as usize, usize::try_from(body).map_err(|_| malformed())?))
}

fn read_head(bytes: &[u8]) -> io::Result<Head> {
    serde_json::from_slice(bytes).map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))
}

/// The next message; none if the other side has closed the connection, or is gone.
pub(super) async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Message>> {
    let mut bytes = [0; LENGTHS];
    match stream.read_exact(&mut bytes).await {
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let (head, body) = lengths(bytes)?;
    let head = exactly(stream, head).await?;
    let body = exactly(stream, body).await?;
    Ok(Some(Message { head: read_head(&head)?, body }))
}

/// So many bytes. The room grows with what comes: a length alone takes no memory.
async fn exactly(stream: &mut (impl AsyncReadExt + Unpin), count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count.min(RESERVED));
    let read = stream.take(count as u64).read_to_end(&mut bytes).await?;
    if read < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// The same for a thread that may block, and for the first message only.
pub(super) fn read_first(mut stream: impl Read) -> io::Result<Message> {
    let mut bytes = [0; LENGTHS];
    stream.read_exact(&mut bytes)?;
    let (head, body) = lengths(bytes)?;
    let mut of_head = vec![0; head];
    stream.read_exact(&mut of_head)?;
    let mut of_body = vec![0; body];
    stream.read_exact(&mut of_body)?;
    Ok(Message { head: read_head(&of_head)?, body: of_body })
}

/// Puts messages on the socket.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
}

impl Outgoing {
    /// A message more. It may wait for [`Outgoing::flush`].
    pub(super) async fn push(
        &mut self,
        stream: &mut (impl AsyncWriteExt + Unpin),
        message: &Message,
    ) -> io::Result<()> {
        let Message { head, body } = message;
        let start = self.bytes.len();
        self.bytes.extend([0; LENGTHS]);
        serde_json::to_writer(&mut self.bytes, head)?;
        let head = u32::try_from(self.bytes.len() - start - LENGTHS).map_err(io::Error::other)?;
        self.bytes[start..start + 4].copy_from_slice(&head.to_le_bytes());
        self.bytes[start + 4..start + LENGTHS].copy_from_slice(&(body.len() as u64).to_le_bytes());
        if body.len() <= SMALL {
            self.bytes.extend_from_slice(body);
            return if self.bytes.len() > SMALL { self.flush(stream).await } else { Ok(()) };
        }
        self.flush(stream).await?;
        stream.write_all(body).await
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self, stream: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
        stream.write_all(&self.bytes).await?;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    fn message(rows: u64, body: usize) -> Message {
        Message { head: Head::Note(Note::Progress { rows, bytes: 0 }), body: vec![7; body] }
    }

    #[test]
    fn messages_of_all_sizes_come_in_their_order() {
        let sizes = [0, 1, 100, SMALL, SMALL + 1, 3 * SMALL, 5];
        let mut wire = Vec::new();
        run(async {
            let mut outgoing = Outgoing::default();
            for (rows, size) in sizes.into_iter().enumerate() {
                outgoing.push(&mut wire, &message(rows as u64, size)).await.expect("memory takes all");
            }
            outgoing.flush(&mut wire).await.expect("memory takes all");
            let mut wire = wire.as_slice();
            for (rows, size) in sizes.into_iter().enumerate() {
                let come = read(&mut wire).await.expect("whole").expect("one more");
                assert!(matches!(come.head, Head::Note(Note::Progress { rows: come, .. }) if come == rows as u64));
                assert_eq!(come.body, vec![7; size]);
            }
            assert!(read(&mut wire).await.expect("the end").is_none());
        });
        assert!(matches!(read_first(wire.as_slice()).expect("whole").head, Head::Note(Note::Progress { rows: 0, .. })));
    }

    #[test]
    fn what_is_torn_or_no_message_is_an_error() {
        let mut wire = Vec::new();
        run(async {
            let mut outgoing = Outgoing::default();
            outgoing.push(&mut wire, &message(1, 10)).await.expect("memory takes all");
            outgoing.flush(&mut wire).await.expect("memory takes all");
            for end in LENGTHS..wire.len() {
                let torn = read(&mut &wire[..end]).await.err().map(|error| error.kind());
                assert_eq!(torn, Some(io::ErrorKind::UnexpectedEof), "{end}");
            }
            let noise = read(&mut [255_u8; 100].as_slice()).await.err().map(|error| error.kind());
            assert_eq!(noise, Some(io::ErrorKind::InvalidData));
        });
    }
}
