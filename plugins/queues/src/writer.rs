//! Who writes to a store, for all: steps of callers that come at the same time share one commit, and with that one wait for
//! the disk.
//!
//! Callers put their steps into a bounded queue. A thread takes all that wait there, runs them, commits them together, and
//! then answers each. While it waits for the disk the next group gathers: nobody waits for company, so that a caller who is
//! alone is no slower for it. A caller who has gone before the turn of its step leaves nothing behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use pype_plugin::prelude::*;
use tokio::sync::{mpsc, oneshot};

use crate::store::{Store, Turn};

/// So many steps share a commit at most, and so many wait for the next one.
const GROUP: usize = 512;

pub(crate) struct Writer {
    steps: mpsc::Sender<Box<dyn Step>>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(store: Arc<Mutex<Store>>) -> Result<Self> {
        let (steps, waiting) = mpsc::channel(GROUP);
        let thread = thread::Builder::new().name("pype-queue".to_owned()).spawn(move || write(&store, waiting))?;
        Ok(Self { steps, thread })
    }

    /// One step. When this returns, what it did is on the disk; if it fails, it did nothing.
    pub(crate) async fn step<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Turn<'_>) -> Result<T> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let asked = Asked { work: Some(work), answer: None, caller };
        self.steps.send(Box::new(asked)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits until all steps are done. It blocks.
    pub(crate) fn end(self) -> Result<()> {
        let Self { steps, thread } = self;
        drop(steps);
        thread.join().map_err(|_| panicked())
    }
}

fn write(store: &Mutex<Store>, mut waiting: mpsc::Receiver<Box<dyn Step>>) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
        let commit = || {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            store.commit(group.iter_mut().map(|step| |turn: &Turn<'_>| step.run(turn)))
        };
        // A panic undoes the group; those who come after it are served all the same.
        let committed = catch_unwind(AssertUnwindSafe(commit)).unwrap_or_else(|_| Err(panicked()));
        group.drain(..).for_each(|step| step.answer(&committed));
    }
}

/// What a caller asks for.
trait Step: Send {
    /// Does it, and keeps the answer until it is on the disk.
    fn run(&mut self, turn: &Turn<'_>) -> Result<()>;
    /// Answers the caller, when its group was committed, or was not.
    fn answer(self: Box<Self>, committed: &Result<()>);
}

struct Asked<T, W> {
    work: Option<W>,
    answer: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

impl<T: Send, W: FnOnce(&Turn<'_>) -> Result<T> + Send> Step for Asked<T, W> {
    fn run(&mut self, turn: &Turn<'_>) -> Result<()> {
        // Jobs must not be lent to somebody who has gone.
        let Some(work) = self.work.take().filter(|_| !self.caller.is_closed()) else { return Ok(()) };
        let answer = self.answer.insert(work(turn));
        answer.as_ref().map(drop).map_err(Error::clone)
    }

    fn answer(self: Box<Self>, committed: &Result<()>) {
        let answer = match committed {
            Ok(()) => self.answer,
            Err(error) => Some(Err(error.clone())),
        };
        if let Some(answer) = answer {
            // Who has gone since learns of it when it asks again.
            drop(self.caller.send(answer));
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Cancelled, "queue-closed", "the queue is closed")
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "queue-panicked", "the writer of the queue panicked")
}
