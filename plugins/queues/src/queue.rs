//! A store as a queue: its steps on threads where they may block, and waiting for work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pype_plugin::prelude::*;
use pype_plugin::queue::{LeaseRequest, LeasedJob};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::store::Store;

/// How often a worker looks for jobs that another process accepted, or that have become due.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// A store that the modules of this process share.
#[derive(Clone)]
pub(crate) struct Queue {
    // Held for one step, on a thread where it may block.
    store: Arc<Mutex<Store>>,
    accepted: Arc<Notify>,
}

impl Queue {
    pub(crate) fn new(store: Store) -> Self {
        Self { store: Arc::new(Mutex::new(store)), accepted: Arc::default() }
    }

    /// One step of the store.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        node: &Context,
        step: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        node.run_blocking(move || step(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Wakes those who wait for work.
    pub(crate) fn has_work(&self) {
        self.accepted.notify_waiters();
    }

    /// Lends jobs, or waits for one.
    pub(crate) async fn lease(&self, request: LeaseRequest, node: &Context) -> Result<Vec<LeasedJob>> {
        let end = Instant::now() + Duration::from_millis(request.wait_ms);
        loop {
            let accepted = self.accepted.notified();
            let asked = request.clone();
            let leased = self.step(node, move |store| store.lease(&asked)).await?;
            if !leased.is_empty() || Instant::now() >= end {
                return Ok(leased);
            }
            let next_look = end.min(Instant::now() + LOOKS_EVERY);
            // Either way it looks again.
            tokio::time::timeout_at(next_look, accepted).await.unwrap_or(());
        }
    }
}

/// The calls of a queue, for a module that has one at `self.queue`.
macro_rules! calls {
    () => {
        async fn enqueue(&self, job: NewJob, node: &Context) -> Result<Accepted> {
            let accepted = self.queue.step(node, move |store| store.enqueue(&job)).await?;
            self.queue.has_work();
            Ok(accepted)
        }

        async fn lease(&self, request: LeaseRequest, node: &Context) -> Result<Vec<LeasedJob>> {
            self.queue.lease(request, node).await
        }

        async fn extend(&self, lease: Lease, visibility_ms: u64, node: &Context) -> Result<()> {
            self.queue.step(node, move |store| store.extend(&lease, visibility_ms)).await
        }

        async fn conclude(&self, lease: Lease, verdict: Verdict, node: &Context) -> Result<()> {
            self.queue.step(node, move |store| store.conclude(&lease, &verdict)).await
        }

        async fn job(&self, id: &str, node: &Context) -> Result<Option<Job>> {
            let id = id.to_owned();
            self.queue.step(node, move |store| store.job(&id)).await
        }

        async fn jobs(&self, filter: JobFilter, node: &Context) -> Result<Vec<Job>> {
            self.queue.step(node, move |store| store.jobs(&filter)).await
        }

        async fn act(&self, id: &str, action: JobAction, node: &Context) -> Result<()> {
            let id = id.to_owned();
            self.queue.step(node, move |store| store.act(&id, action)).await?;
            self.queue.has_work();
            Ok(())
        }

        async fn purge(&self, filter: JobFilter, node: &Context) -> Result<u64> {
            self.queue.step(node, move |store| store.purge(&filter)).await
        }
    };
}

pub(crate) use calls;
