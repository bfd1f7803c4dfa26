//! One side of a connection between the host and a child: asks and answers, takes note, and lends frames.
//!
//! Two tasks own the socket, one for each direction. What waits to be written is bounded by who waits for it: each question has
//! somebody who waits for its answer, each batch was asked for, and the log of a child waits while others do ([`Peer::queued`]).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use pype_plugin::{Error, ErrorKind, Frame, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::frames::Lent;
use super::wire::{self, Ask, Head, Message, Note, Outgoing};

/// What a side does for the other.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers.
    ///
    /// # Errors
    /// What the other side is to hear.
    fn answer(self: Arc<Self>, peer: Arc<Peer>, ask: Ask, body: Vec<u8>)
    -> impl Future<Output = Result<Answer>> + Send;

    /// Takes note. Called in the order that notes come in; must not block for long.
    fn note(&self, peer: &Arc<Peer>, note: Note, body: Vec<u8>);

    /// The connection has ended. Why is what all hear that wait for an answer.
    fn lost(&self) -> impl Future<Output = Error> + Send;
}

/// An answer: a value, and bytes.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// What is plain data.
    pub(super) fn of(value: &impl serde::Serialize) -> Self {
        Self { value: serde_json::to_value(value).expect("answers are plain data"), body: Vec::new() }
    }

    /// The value, as it was before.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_value(self.value)?)
    }
}

type Waiting = Box<dyn FnOnce(Result<Answer>) + Send>;

/// This side.
pub(super) struct Peer {
    outgoing: mpsc::UnboundedSender<Message>,
    queued: AtomicUsize,
    calls: AtomicU64,
    // Each is locked for one look or one change.
    waiting: Mutex<HashMap<u64, Waiting>>,
    answering: Mutex<HashMap<u64, AbortHandle>>,
    lent: Mutex<HashMap<u64, Arc<Lent>>>,
    lost: OnceLock<Error>,
}

/// Where the tasks of a connection run.
pub(super) struct Runtimes {
    /// Those that read and write.
    pub(super) io: Handle,
    /// Those that answer.
    pub(super) work: Handle,
}

impl Peer {
    /// Begins to read and write.
    ///
    /// # Errors
    /// The operating system does not watch the socket.
    pub(super) fn start(
        stream: std::os::unix::net::UnixStream,
        runtimes: Runtimes,
        service: Arc<impl Service>,
    ) -> std::io::Result<Arc<Self>> {
        let Runtimes { io, work } = runtimes;
        stream.set_nonblocking(true)?;
        let stream = {
            let _inside = io.enter();
            UnixStream::from_std(stream)?
        };
        let (reading, writing) = stream.into_split();
        let (outgoing, messages) = mpsc::unbounded_channel();
        let peer = Arc::new(Self {
            outgoing,
            queued: AtomicUsize::new(0),
            calls: AtomicU64::new(1),
            waiting: Mutex::default(),
            answering: Mutex::default(),
            lent: Mutex::default(),
            lost: OnceLock::new(),
        });
        io.spawn(write_all(writing, messages, Arc::downgrade(&peer)));
        io.spawn(read_all(reading, Arc::downgrade(&peer), work, service));
        Ok(peer)
    }

    /// Whether the other side is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// How many messages are not written yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Tells the other side.
    pub(super) fn note(&self, note: Note, body: Vec<u8>) {
        self.send(Message { head: Head::Note(note), body });
    }

    /// Answers a question that was asked otherwise.
    pub(super) fn answer(&self, call: u64, result: Result<Answer>) {
        let (result, body) = match result {
            Ok(Answer { value, body }) => (Ok(value), body),
            Err(error) => (Err(error), Vec::new()),
        };
        self.send(Message { head: Head::Answer { call, result }, body });
    }

    /// Asks the other side. Whoever drops this does not want the answer, and the other side hears of it.
    ///
    /// # Errors
    /// What it answers, or why it is gone.
    pub(super) fn ask(
        self: &Arc<Self>,
        ask: Ask,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<Answer>> + Send + use<> {
        let (answered, answer) = oneshot::channel();
        // Nobody may wait any more.
        let call = self.begin(ask, body, Box::new(move |result| drop(answered.send(result))));
        let asked = Asked { peer: self.clone(), call };
        async move {
            let answer = answer.await.unwrap_or_else(|_| Err(asked.peer.why_lost()));
            drop(asked);
            answer
        }
    }

    /// The same on a thread that may wait.
    ///
    /// # Errors
    /// What it answers, or why it is gone.
    pub(super) fn ask_and_wait(&self, ask: Ask, body: Vec<u8>) -> Result<Answer> {
        let (answered, answer) = std::sync::mpsc::sync_channel(1);
        self.begin(ask, body, Box::new(move |result| drop(answered.send(result))));
        answer.recv().unwrap_or_else(|_| Err(self.why_lost()))
    }

    fn begin(&self, ask: Ask, body: Vec<u8>, waiting: Waiting) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        held(&self.waiting).insert(call, waiting);
        // In this order: either the end of the connection finds who waits, or who waits finds the end.
        match self.lost.get() {
            Some(_) => drop(held(&self.waiting).remove(&call)),
            None => self.send(Message { head: Head::Ask { call, ask }, body }),
        }
        call
    }

    fn send(&self, message: Message) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        // Who has nobody to write it hears of that otherwise.
        drop(self.outgoing.send(message));
    }

    fn why_lost(&self) -> Error {
        let unknown = || Error::new(ErrorKind::Internal, "lost", "the other process is gone");
        self.lost.get().cloned().unwrap_or_else(unknown)
    }

    /// Lends a frame to the other side, until that forgets it. By this number it knows it.
    pub(super) fn lend(&self, frame: Frame) -> u64 {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        held(&self.lent).insert(number, Arc::new(Lent::new(frame)));
        number
    }

    fn lent(&self, number: u64) -> Result<Arc<Lent>> {
        held(&self.lent).get(&number).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "unknown-frame", format!("there is no frame {number} on this side"))
        })
    }

    /// Takes what comes.
    fn take(self: &Arc<Self>, message: Message, work: &Handle, service: &Arc<impl Service>) {
        let Message { head, body } = message;
        match head {
            Head::Ask { call, ask } => {
                let (peer, service) = (self.clone(), service.clone());
                // The task must be known before it ends.
                let mut answering = held(&self.answering);
                let task = work.spawn(async move {
                    let result = match ask {
                        Ask::Schema { frame } => async { peer.lent(frame)?.schema().await }.await,
                        Ask::Next { frame } => async { peer.lent(frame)?.next().await }.await,
                        ask => service.answer(peer.clone(), ask, body).await,
                    };
                    held(&peer.answering).remove(&call);
                    peer.answer(call, result);
                });
                answering.insert(call, task.abort_handle());
            }
            Head::Answer { call, result } => {
                let waiting = held(&self.waiting).remove(&call);
                if let Some(waiting) = waiting {
                    waiting(result.map(|value| Answer { value, body }));
                }
            }
            Head::Note(Note::Abandon { call }) => {
                let task = held(&self.answering).remove(&call);
                task.iter().for_each(AbortHandle::abort);
            }
            Head::Note(Note::Forget { frame }) => {
                let frame = held(&self.lent).remove(&frame);
                drop(frame);
            }
            Head::Note(note) => service.note(self, note, body),
        }
    }

    fn end(&self, why: Error) {
        self.lost.get_or_init(|| why);
        let waiting = std::mem::take(&mut *held(&self.waiting));
        waiting.into_values().for_each(|waiting| waiting(Err(self.why_lost())));
        let answering = std::mem::take(&mut *held(&self.answering));
        answering.values().for_each(AbortHandle::abort);
        let lent = std::mem::take(&mut *held(&self.lent));
        drop(lent);
    }
}

/// Somebody who waits for an answer.
struct Asked {
    peer: Arc<Peer>,
    call: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let waits = held(&self.peer.waiting).remove(&self.call).is_some();
        if waits {
            self.peer.note(Note::Abandon { call: self.call }, Vec::new());
        }
    }
}

async fn write_all(mut writing: OwnedWriteHalf, mut messages: mpsc::UnboundedReceiver<Message>, peer: Weak<Peer>) {
    let mut outgoing = Outgoing::default();
    while let Some(first) = messages.recv().await {
        let (mut next, mut count) = (Some(first), 0);
        while let Some(message) = next {
            count += 1;
            if outgoing.push(&mut writing, &message).await.is_err() {
                // The other side is gone, which the reader finds too.
                return;
            }
            next = messages.try_recv().ok();
        }
        if outgoing.flush(&mut writing).await.is_err() {
            return;
        }
        if let Some(peer) = peer.upgrade() {
            peer.queued.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

async fn read_all(mut reading: OwnedReadHalf, peer: Weak<Peer>, work: Handle, service: Arc<impl Service>) {
    loop {
        let read = wire::read(&mut reading).await;
        // With nobody who asks, and nobody to tell.
        let Some(peer) = peer.upgrade() else { return };
        match read {
            Ok(Some(message)) => peer.take(message, &work, &service),
            Ok(None) => return peer.end(service.lost().await),
            Err(cause) => return peer.end(service.lost().await.caused_by(cause)),
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
