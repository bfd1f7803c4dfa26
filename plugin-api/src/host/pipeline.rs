//! The host's side of pipelines: contexts that plugins look into, chains that they go on with, and opened stages.

use std::any::TypeId;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;

use super::{Instance, json};
use crate::abi::{
    self, ContextVtable, ContextVtableRef, ErrorBytes, Handle, Json, NextVtable, NextVtableRef, ROption, RResult, RStr,
    RawContext, RawNext, RawReturned, Task, WithMetadata, staticref,
};
use crate::context::{answer, done};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::origin;
use crate::glue::{contain, contain_service, crossing, task};
use crate::pipeline::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};
use crate::pipeline::{Bytes, ContextStore, Field, Next, PipelineContext, QueueRequest, Returned, returned};

/// The rest of a chain, which a stage goes on with, or does not.
pub trait Chain: Send + Sync + 'static {
    /// Runs it.
    ///
    /// # Errors
    /// A stage of it failed.
    fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going;
}

/// What a stage or the rest of a chain is at. Most are over at once, and need no place to wait in.
pub enum Going {
    /// It is over.
    Over(Result<Returned>),
    /// It has begun.
    Later(Pin<Box<dyn Future<Output = Result<Returned>> + Send>>),
}

impl Going {
    /// What has to be waited for.
    pub fn later(rest: impl Future<Output = Result<Returned>> + Send + 'static) -> Self {
        Self::Later(Box::pin(rest))
    }

    /// The same with another result.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Result<Returned>) -> Result<Returned> + Send + 'static) -> Self {
        match self {
            Self::Over(result) => Self::Over(change(result)),
            Self::Later(rest) => Self::later(async move { change(rest.await) }),
        }
    }

    /// Waits for its result.
    ///
    /// # Errors
    /// A stage failed.
    pub async fn end(self) -> Result<Returned> {
        match self {
            Self::Over(result) => result,
            Self::Later(rest) => rest.await,
        }
    }
}

impl Next {
    /// The rest of a chain, to be given to a stage.
    pub fn new<C: Chain>(chain: Arc<C>) -> Self {
        Self::from_raw(RawNext { handle: Handle::shared(chain), vtable: NextMethods::<C>::VTABLE })
    }
}

impl PipelineContext {
    /// A context with its fields in `store`.
    pub fn new<S: ContextStore>(store: S) -> Self {
        let held = Held { of: TypeId::of::<S>(), store: Mutex::new(store) };
        Self::from_raw(RawContext { handle: Handle::seated(held), vtable: ContextMethods::<S>::VTABLE })
    }

    /// The store again.
    ///
    /// # Errors
    /// Somebody else made this context.
    pub fn into_store<S: ContextStore>(self) -> Result<S> {
        Stored::new(self).map(Stored::into_store)
    }
}

/// A context that is known to have its fields in an `S`. It goes on as it is: what stages see of it is made once.
pub struct Stored<S> {
    ctx: PipelineContext,
    store: PhantomData<S>,
}

impl<S: ContextStore> Stored<S> {
    /// A context that somebody went on with.
    ///
    /// # Errors
    /// Somebody else made it.
    pub fn new(ctx: PipelineContext) -> Result<Self> {
        let raw = ctx.raw();
        if raw.vtable.origin()(&raw.handle) != origin() {
            return Err(foreign());
        }
        // SAFETY: this library made the handle, always of this type; whatever `S` it holds, `of` lies at the same place.
        let of = unsafe { raw.handle.get::<Held<()>>() }.of;
        if of != TypeId::of::<S>() {
            return Err(foreign());
        }
        Ok(Self { ctx, store: PhantomData })
    }

    /// A context with its fields in `store`.
    pub fn of(store: S) -> Self {
        Self { ctx: PipelineContext::new(store), store: PhantomData }
    }

    /// Looks into the store, or changes it.
    pub fn with<R>(&mut self, look: impl FnOnce(&mut S) -> R) -> R {
        // SAFETY: `new` has looked, or `of` has made it.
        let held = unsafe { self.ctx.raw().handle.get::<Held<S>>() };
        look(&mut held.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The context.
    pub fn into_context(self) -> PipelineContext {
        self.ctx
    }

    /// The store.
    pub fn into_store(self) -> S {
        // SAFETY: `new` has looked, or `of` has made it.
        let held = unsafe { self.ctx.into_raw().handle.into_inner::<Held<S>>() };
        held.store.into_inner().unwrap_or_else(PoisonError::into_inner)
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
    store: Mutex<S>,
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
        const METHODS: WithMetadata<NextVtable> = WithMetadata::new(NextVtable { run: Self::run, run_unread: Self::run_unread });
    }
    const VTABLE: NextVtableRef = NextVtableRef(Self::METHODS.as_prefix());

    extern "C" fn run(handle: &Handle, ctx: RawContext) -> Task<Json> {
        Self::begin(handle, ctx, Returned::into_json)
    }

    extern "C" fn run_unread(handle: &Handle, ctx: RawContext) -> Task<RawReturned> {
        Self::begin(handle, ctx, Returned::into_raw)
    }

    fn begin<T: 'static>(
        handle: &Handle,
        ctx: RawContext,
        crossed: impl Fn(Returned) -> T + Send + 'static,
    ) -> Task<T> {
        let go_on = |chain: &Arc<C>| chain.run(PipelineContext::from_raw(ctx));
        // SAFETY: only `Next::new` pairs a handle with the vtable that calls this.
        let run = || unsafe { handle.with_share(go_on) };
        match contain(None, run) {
            Ok(Going::Over(result)) => Task::Done(crossing(result.map(crossed))),
            Ok(Going::Later(rest)) => task(async move { rest.await.map(crossed) }),
            Err(panic) => Task::Done(crossing(Err(panic))),
        }
    }
}

impl Instance {
    /// Execute: handles one run. It fails with what the stage says, or since it is none.
    pub fn execute(&self, ctx: PipelineContext, next: Next) -> Going {
        let (ctx, next) = (ctx.into_raw(), next.into_raw());
        let call = match (self.vtable.execute_unread(), self.vtable.execute()) {
            (Some(execute), _) => execute(&self.handle, ctx, next),
            (None, Some(execute)) => returned(execute(&self.handle, ctx, next)),
            (None, None) => return Going::Over(Err(too_old())),
        };
        match call {
            Task::Done(result) => Going::Over(answer(result).map(Returned::from_raw)),
            Task::Later(call) => Going::later(async { answer(call.await).map(Returned::from_raw) }),
        }
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

pub(super) fn too_old() -> Error {
    Error::new(ErrorKind::Unsupported, "wrong-kind", "the module's library is from before there were pipelines")
        .hint("build the plugin anew")
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::context::{Artifact, Context};
    use crate::frame::Frame;
    use crate::glue::stage::{AsExecute, open};
    use crate::host::{HostServices, NodeFacts};
    use crate::pipeline::Execute;
    use crate::testing::{Fields, block_on};

    /// Puts what the rest returns into a list.
    struct Lists;

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    impl Execute for Lists {
        const NAME: &'static str = "lists";
        type Config = Nothing;

        async fn open(_: Nothing, _: &Context) -> Result<Self> {
            Ok(Self)
        }

        async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
            Ok(json!([next.run(ctx).await?]))
        }
    }

    /// Returns the number of fields; at once, or later.
    struct Counts {
        at_once: bool,
    }

    impl Chain for Counts {
        fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going {
            let count = Ok(json!(ctx.names().len()).into());
            match self.at_once {
                true => Going::Over(count),
                false => Going::later(async {
                    tokio::task::yield_now().await;
                    count
                }),
            }
        }
    }

    struct Nobody;

    impl HostServices for Nobody {
        fn log_enabled(&self, _: u8, _: &str) -> bool {
            false
        }

        fn log(&self, _: u8, _: &str, _: &str, _: &[u8]) {}

        fn set_global(&self, _: &str, _: Value) -> Result<()> {
            Ok(())
        }

        fn global(&self, _: &str) -> Option<Value> {
            None
        }

        fn progress(&self, _: u64, _: u64) {}

        fn metric(&self, _: &str, _: f64) {}

        fn cancelled(&self) -> bool {
            false
        }

        fn until_cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
            std::future::pending()
        }

        fn register_artifact(&self, _: Frame) -> impl Future<Output = Result<Artifact>> + Send + 'static {
            std::future::pending()
        }
    }

    #[test]
    fn sides_that_know_nothing_but_json_are_served_the_same() {
        block_on(async {
            let (configs, facts) = (json!({}), NodeFacts::default());
            let opening = Instance::open_with(open::<AsExecute<Lists>>, &configs, &facts, Arc::new(Nobody));
            let instance = opening.await.expect("it opens");
            for at_once in [true, false] {
                let (ctx, next) =
                    (|| PipelineContext::new(Fields::default()), || Next::new(Arc::new(Counts { at_once })));
                let result = instance.execute(ctx(), next()).end().await;
                assert_eq!(result.and_then(Returned::read), Ok(json!([0])));
                // As a host of before does.
                let execute = instance.vtable.execute().expect("it is a stage");
                let json = done(execute(&instance.handle, ctx().into_raw(), next().into_raw())).await;
                assert_eq!(json.as_deref(), Ok(b"[0]".as_slice()));
                // As a plugin of before does.
                let RawNext { handle, vtable } = next().into_raw();
                let json = done(vtable.run()(&handle, ctx().into_raw())).await;
                assert_eq!(json.as_deref(), Ok(b"0".as_slice()));
            }
            instance.close().await.expect("it closes");
            let result = instance
                .execute(PipelineContext::new(Fields::default()), Next::new(Arc::new(Counts { at_once: true })));
            assert_eq!(result.end().await.err().map(|error| error.code.clone()), Some("gone".to_owned()));
        });
    }
}
