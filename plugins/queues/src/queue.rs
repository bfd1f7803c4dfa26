//! A store as a queue: steps that share commits, looks on threads where they may block, and waiting for work.

use std::sync::{Arc, Mutex, PoisonError};

use pype_plugin::prelude::*;
use pype_plugin::queue::{LeaseRequest, LeasedJob, wait_for_jobs};
use tokio::sync::Notify;

use crate::store::{Store, Turn};
use crate::writer::Writer;

/// A queue that a module has open.
pub(crate) struct Queue {
    /// Until it is closed.
    ends: Option<Ends>,
    accepted: Arc<Notify>,
}

struct Ends {
    writer: Writer,
    // Held for one look, on a thread where it may block.
    looks: Arc<Mutex<Store>>,
}

impl Queue {
    /// Writes to one store and looks into the other, which may be the same, or the same file.
    pub(crate) fn open(writes: Arc<Mutex<Store>>, looks: Arc<Mutex<Store>>, accepted: Arc<Notify>) -> Result<Self> {
        Ok(Self { ends: Some(Ends { writer: Writer::start(writes)?, looks }), accepted })
    }

    /// One step of the store.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Turn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ends().writer.step(step).await
    }

    /// A look at what is there. It waits for nobody who writes, unless there is something to be taken back.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        node: &Context,
        look: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.read(node, Store::is_late).await? {
            self.step(|turn| turn.take_back()).await?;
        }
        self.read(node, look).await
    }

    async fn read<T: Send + 'static>(
        &self,
        node: &Context,
        look: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.ends().looks.clone();
        node.run_blocking(move || look(&store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Wakes those who wait for work.
    pub(crate) fn has_work(&self) {
        self.accepted.notify_waiters();
    }

    /// Lends jobs, or waits for one.
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        wait_for_jobs(&request, &self.accepted, || {
            let asked = request.clone();
            self.step(move |turn| turn.lease(&asked))
        })
        .await
    }

    /// Waits for the writer, and lets go of the stores.
    pub(crate) async fn close(&mut self, node: &Context) -> Result<()> {
        let Some(Ends { writer, looks }) = self.ends.take() else { return Ok(()) };
        node.run_blocking(move || {
            drop(looks);
            writer.end()
        })
        .await
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("calls are over before a module is closed")
    }
}

/// The calls of a queue, for a module that has one at `self.queue`.
macro_rules! calls {
    () => {
        async fn enqueue(&self, job: NewJob, _: &Context) -> Result<Accepted> {
            let accepted = self.queue.step(move |turn| turn.enqueue(&job)).await?;
            self.queue.has_work();
            Ok(accepted)
        }

        async fn lease(&self, request: LeaseRequest, _: &Context) -> Result<Vec<LeasedJob>> {
            self.queue.lease(request).await
        }

        async fn extend(&self, lease: Lease, visibility_ms: u64, _: &Context) -> Result<()> {
            self.queue.step(move |turn| turn.extend(&lease, visibility_ms)).await
        }

        async fn conclude(&self, lease: Lease, verdict: Verdict, _: &Context) -> Result<()> {
            self.queue.step(move |turn| turn.conclude(&lease, &verdict)).await
        }

        async fn job(&self, id: &str, node: &Context) -> Result<Option<Job>> {
            let id = id.to_owned();
            self.queue.look(node, move |store| store.job(&id)).await
        }

        async fn jobs(&self, filter: JobFilter, node: &Context) -> Result<Vec<Job>> {
            self.queue.look(node, move |store| store.jobs(&filter)).await
        }

        async fn act(&self, id: &str, action: JobAction, _: &Context) -> Result<()> {
            let id = id.to_owned();
            self.queue.step(move |turn| turn.act(&id, action)).await?;
            self.queue.has_work();
            Ok(())
        }

        async fn purge(&self, filter: JobFilter, _: &Context) -> Result<u64> {
            self.queue.step(move |turn| turn.purge(&filter)).await
        }

        async fn close(&mut self, node: &Context) -> Result<()> {
            self.queue.close(node).await
        }
    };
}

pub(crate) use calls;
