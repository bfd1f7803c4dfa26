//! The host's side of pipelines: contexts that plugins look into, chains that they go on with, and opened stages.

use std::any::TypeId;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Instance, json};
use crate::abi::{
    self, ContextVtable, ContextVtableRef, ErrorBytes, Handle, Json, NextVtable, NextVtableRef, ROption, RResult, RStr,
    RawContext, RawNext, Task, WithMetadata, staticref,
};
use crate::context::done;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::origin;
use crate::glue::{contain_service, crossing, task};
use crate::pipeline::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};
use crate::pipeline::{Bytes, ContextStore, Field, Next, PipelineContext, QueueRequest, SharedStore};

/// The rest of a chain, which a stage goes on with, or does not.
pub trait Chain: Send + Sync + 'static {
    /// Runs it.
    ///
    /// # Errors
    /// A stage of it failed.
    fn run(&self, ctx: PipelineContext) -> impl Future<Output = Result<Value>> + Send + 'static;
}

impl Next {
    /// The rest of a chain, to be given to a stage.
    pub fn new<C: Chain>(chain: C) -> Self {
        Self::from_raw(RawNext { handle: Handle::new(chain), vtable: NextMethods::<C>::VTABLE })
    }
}

impl PipelineContext {
    /// A context with its fields in `store`.
    pub fn new<S: ContextStore>(store: S) -> Self {
        let shared = Held { of: TypeId::of::<S>(), store: SharedStore::new(Mutex::new(store)) };
        Self::from_raw(RawContext { handle: Handle::new(shared), vtable: ContextMethods::<S>::VTABLE })
    }

    /// The store again.
    ///
    /// # Errors
    /// Somebody else made this context.
    pub fn into_store<S: ContextStore>(self) -> Result<S> {
        let raw = self.into_raw();
        if raw.vtable.origin()(&raw.handle) != origin() {
            return Err(foreign());
        }
        // SAFETY: this library made the handle, always of this type; whatever `S` it holds, `of` lies at the same place.
        let of = unsafe { raw.handle.get::<Held<()>>() }.of;
        if of != TypeId::of::<S>() {
            return Err(foreign());
        }
        Ok(ContextMethods::<S>::lock(&raw.handle).clone())
    }
}

fn foreign() -> Error {
    let message = "the stage went on with a context that is not the one it was given, nor a clone of it";
    Error::new(ErrorKind::Internal, "foreign-context", message).hint("this is a fault in the plugin")
}

/// What the handle of a context holds.
#[repr(C)]
struct Held<S> {
    of: TypeId,
    store: SharedStore<S>,
}

struct ContextMethods<S>(PhantomData<S>);

impl<S: ContextStore> ContextMethods<S> {
    staticref! {
        const METHODS: WithMetadata<ContextVtable> = WithMetadata::new(ContextVtable {
            origin: Self::origin,
            facts: Self::facts,
            names: Self::names,
            get: Self::get,
            set: Self::set,
            remove: Self::remove,
            duplicate: Self::duplicate,
        });
    }
    const VTABLE: ContextVtableRef = ContextVtableRef(Self::METHODS.as_prefix());

    // Held for one look or one change, never across an await.
    fn lock(handle: &Handle) -> MutexGuard<'_, S> {
        // SAFETY: only `PipelineContext::new` pairs a handle with the vtable that calls this, or its caller has looked.
        unsafe { handle.get::<Held<S>>() }.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    extern "C" fn origin(_: &Handle) -> usize {
        origin()
    }

    extern "C" fn facts(handle: &Handle) -> Json {
        contain_service(|| json(&Self::lock(handle).facts())).unwrap_or_default()
    }

    extern "C" fn names(handle: &Handle) -> Json {
        contain_service(|| json(&Self::lock(handle).names())).unwrap_or_default()
    }

    extern "C" fn get(handle: &Handle, name: RStr<'_>) -> ROption<abi::Field> {
        let field = contain_service(|| Self::lock(handle).get(name.as_str())).ok().flatten();
        let raw = field.map(|field| match field {
            Field::Json(value) => abi::Field::Json(json(&value)),
            Field::Bytes(bytes) => abi::Field::Bytes(bytes.into_raw()),
        });
        raw.into()
    }

    extern "C" fn set(handle: &Handle, name: RStr<'_>, field: abi::Field) -> RResult<(), ErrorBytes> {
        let set = contain_service(|| {
            let field = match field {
                abi::Field::Json(json) => Field::Json(serde_json::from_slice(&json)?),
                abi::Field::Bytes(bytes) => Field::Bytes(Bytes::from_raw(bytes)),
            };
            Self::lock(handle).set(name.as_str(), field)
        });
        crossing(set.flatten())
    }

    extern "C" fn remove(handle: &Handle, name: RStr<'_>) -> bool {
        contain_service(|| Self::lock(handle).remove(name.as_str())).unwrap_or_default()
    }

    extern "C" fn duplicate(handle: &Handle) -> RawContext {
        // A store's clone shares; there is nothing in it that panics, and nothing else to answer if it does.
        PipelineContext::new(Self::lock(handle).clone()).into_raw()
    }
}

struct NextMethods<C>(PhantomData<C>);

impl<C: Chain> NextMethods<C> {
    staticref! {
        const METHODS: WithMetadata<NextVtable> = WithMetadata::new(NextVtable { run: Self::run });
    }
    const VTABLE: NextVtableRef = NextVtableRef(Self::METHODS.as_prefix());

    extern "C" fn run(handle: &Handle, ctx: RawContext) -> Task<Json> {
        // SAFETY: only `Next::new` pairs a handle with the vtable that calls this.
        let chain = unsafe { handle.get::<C>() };
        let run = contain_service(|| chain.run(PipelineContext::from_raw(ctx)));
        task(async move { Ok(json(&run?.await?)) })
    }
}

impl Instance {
    /// Execute: handles one run.
    ///
    /// # Errors
    /// What the stage says, or that it is none.
    pub async fn execute(&self, ctx: PipelineContext, next: Next) -> Result<Value> {
        let execute = self.vtable.execute().ok_or_else(too_old)?;
        Ok(serde_json::from_slice(&done(execute(&self.handle, ctx.into_raw(), next.into_raw())).await?)?)
    }

    /// Dispatch: accepts a job.
    ///
    /// # Errors
    /// What the queue says, or that it is none.
    pub async fn enqueue(&self, job: NewJob) -> Result<Accepted> {
        let payload = job.payload.clone();
        self.ask_with(QueueRequest::Enqueue { job }, payload).await.map(|(accepted, _)| accepted)
    }

    /// Dispatch: lends jobs to a worker.
    ///
    /// # Errors
    /// What the queue says, or that it is none.
    pub async fn lease(&self, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        let (jobs, payloads): (Vec<LeasedJob>, _) =
            self.ask_with(QueueRequest::Lease { request }, Bytes::default()).await?;
        Ok(jobs.into_iter().zip(payloads).map(|(job, payload)| LeasedJob { payload, ..job }).collect())
    }

    /// Dispatch: lends a job for longer.
    ///
    /// # Errors
    /// The lease is stale, or what else the queue says.
    pub async fn extend(&self, lease: Lease, visibility_ms: u64) -> Result<()> {
        self.ask(QueueRequest::Extend { lease, visibility_ms }).await
    }

    /// Dispatch: gives a job back.
    ///
    /// # Errors
    /// The lease is stale, or what else the queue says.
    pub async fn conclude(&self, lease: Lease, verdict: Verdict) -> Result<()> {
        self.ask(QueueRequest::Conclude { lease, verdict }).await
    }

    /// Dispatch: a job as it is.
    ///
    /// # Errors
    /// What the queue says, or that it is none.
    pub async fn job(&self, id: &str) -> Result<Option<Job>> {
        self.ask(QueueRequest::Job { id: id.to_owned() }).await
    }

    /// Dispatch: the jobs that a filter leaves.
    ///
    /// # Errors
    /// What the queue says, or that it is none.
    pub async fn jobs(&self, filter: JobFilter) -> Result<Vec<Job>> {
        self.ask(QueueRequest::Jobs { filter }).await
    }

    /// Dispatch: does something to a job by hand.
    ///
    /// # Errors
    /// There is no such job, it is in no state for that, or what else the queue says.
    pub async fn act(&self, id: &str, action: JobAction) -> Result<()> {
        self.ask(QueueRequest::Act { id: id.to_owned(), action }).await
    }

    /// Dispatch: forgets jobs that are over; how many.
    ///
    /// # Errors
    /// What the queue says, or that it is none.
    pub async fn purge(&self, filter: JobFilter) -> Result<u64> {
        self.ask(QueueRequest::Purge { filter }).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: QueueRequest) -> Result<T> {
        self.ask_with(request, Bytes::default()).await.map(|(answer, _)| answer)
    }

    async fn ask_with<T: DeserializeOwned>(&self, request: QueueRequest, payload: Bytes) -> Result<(T, Vec<Bytes>)> {
        let queue = self.vtable.queue().ok_or_else(too_old)?;
        let answered = done(queue(&self.handle, json(&request), payload.into_raw())).await?;
        let payloads = answered.payloads.into_iter().map(Bytes::from_raw).collect();
        Ok((serde_json::from_slice(&answered.answer)?, payloads))
    }
}

fn too_old() -> Error {
    Error::new(ErrorKind::Unsupported, "wrong-kind", "the module's library is from before there were pipelines")
        .hint("build the plugin anew")
}
