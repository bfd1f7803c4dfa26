//! Stages and queues behind the vtable. Unlike a flow's module, one of these serves many calls at a time.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::instance::{config_schema, owned, read_config};
use super::{contain, node_task, task};
use crate::abi::{
    Handle, Instance, InstanceVtable, InstanceVtableRef, Json, OpenRequest, PortFrame, QueueAnswer, RVec, RawBytes,
    RawContext, RawNext, Task, WithMetadata, staticref,
};
use crate::context::Context;
use crate::descriptor::{Kind, ModuleDescriptor};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::queue::NewJob;
use crate::pipeline::{Bytes, Dispatch, Execute, Next, PipelineContext, QueueRequest};
use crate::resource::Resources;

/// Both kinds seen as one: what the vtable needs.
pub(crate) trait AnyStage: Sized + Send + Sync + 'static {
    type Config: DeserializeOwned + JsonSchema + Send;

    fn descriptor(library_version: &str) -> ModuleDescriptor;
    fn open(config: Self::Config, node: &Context) -> impl Future<Output = Result<Self>> + Send;
    fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> impl Future<Output = Result<Value>> + Send {
        let _ = (ctx, next, node);
        async { Err(not_for("a stage")) }
    }
    fn queue(
        &self,
        request: QueueRequest,
        payload: Bytes,
        node: &Context,
    ) -> impl Future<Output = Result<QueueAnswer>> + Send {
        let _ = (request, payload, node);
        async { Err(not_for("a queue")) }
    }
    fn close(&mut self, node: &Context) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) struct AsExecute<M>(M);
pub(crate) struct AsDispatch<M>(M);

macro_rules! any_stage {
    ($wrapper:ident, $kind:ident, exclusive: $exclusive:expr, retry: $retry:expr, $($call:tt)*) => {
        impl<M: $kind> AnyStage for $wrapper<M> {
            type Config = M::Config;

            fn descriptor(library_version: &str) -> ModuleDescriptor {
                ModuleDescriptor {
                    name: M::NAME.to_owned(),
                    kind: Kind::$kind,
                    version: M::VERSION.unwrap_or(library_version).to_owned(),
                    description: M::DESCRIPTION.to_owned(),
                    category: M::CATEGORY.to_owned(),
                    input_ports: Vec::new(),
                    output_ports: Vec::new(),
                    globals: Vec::new(),
                    lists: Vec::new(),
                    retry: $retry,
                    exclusive: $exclusive,
                    packages: owned(M::PACKAGES),
                    config_schema: config_schema::<M::Config>(),
                }
            }

            async fn open(config: M::Config, node: &Context) -> Result<Self> {
                M::open(config, node).await.map($wrapper)
            }

            async fn close(&mut self, node: &Context) -> Result<()> {
                self.0.close(node).await
            }

            $($call)*
        }
    };
}

any_stage! { AsExecute, Execute, exclusive: M::EXCLUSIVE, retry: M::RETRY,
    async fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        self.0.execute(ctx, next, node).await
    }
}
any_stage! { AsDispatch, Dispatch, exclusive: false, retry: None,
    async fn queue(&self, request: QueueRequest, payload: Bytes, node: &Context) -> Result<QueueAnswer> {
        let queue = &self.0;
        match request {
            QueueRequest::Enqueue { job } => json(&queue.enqueue(NewJob { payload, ..job }, node).await?),
            QueueRequest::Lease { request } => {
                let jobs = queue.lease(request, node).await?;
                let answer = serde_json::to_vec(&jobs)?.into();
                Ok(QueueAnswer { answer, payloads: jobs.into_iter().map(|job| job.payload.into_raw()).collect() })
            }
            QueueRequest::Extend { lease, visibility_ms } => json(&queue.extend(lease, visibility_ms, node).await?),
            QueueRequest::Conclude { lease, verdict } => json(&queue.conclude(lease, verdict, node).await?),
            QueueRequest::Job { id } => json(&queue.job(&id, node).await?),
            QueueRequest::Jobs { filter } => json(&queue.jobs(filter, node).await?),
            QueueRequest::Act { id, action } => json(&queue.act(&id, action, node).await?),
            QueueRequest::Purge { filter } => json(&queue.purge(filter, node).await?),
        }
    }
}

fn json(answer: &impl serde::Serialize) -> Result<QueueAnswer> {
    Ok(QueueAnswer { answer: serde_json::to_vec(answer)?.into(), payloads: RVec::new() })
}

/// Opens a stage or a queue.
pub(crate) fn open<M: AnyStage>(request: OpenRequest) -> Task<Instance> {
    let OpenRequest { config, facts, services, .. } = request;
    let facts = match serde_json::from_slice(&facts) {
        Ok(facts) => facts,
        Err(cause) => return task(async { Err(Error::from(cause)) }),
    };
    let context = Context::new(facts, services);
    let node = context.clone();
    let opening = async move {
        let stage = M::open(read_config::<M::Config>(&config)?, &context).await?;
        let opened = Shared(Arc::new(Opened { stage: RwLock::new(Some(stage)), context }));
        Ok(Instance { handle: Handle::new(opened), vtable: Vtable::<M>::VTABLE })
    };
    // SAFETY: the future owns the other clone until it has made the instance.
    unsafe { node_task(&node, &(), opening) }
}

/// Stages read and write for each run, so nothing can be told before.
pub(crate) fn no_resources(_: Json) -> Task<Json> {
    task(async { Ok(serde_json::to_vec(&Resources::default())?.into()) })
}

/// An opened stage. Calls share it; `close` has it alone, once they are over, and empties it.
struct Opened<M> {
    stage: RwLock<Option<M>>,
    context: Context,
}

struct Shared<M>(Arc<Opened<M>>);

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: AnyStage> Shared<M> {
    /// A call on the stage behind `handle`.
    fn task<T, F>(handle: &Handle, call: impl FnOnce(&'static Opened<M>) -> F) -> Task<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // SAFETY: only `open` pairs a handle with the vtable that calls this.
        let shared = unsafe { handle.get::<Self>() };
        // SAFETY: nobody sees it but the call, of which `node_task` says how long it is there.
        let opened = unsafe { &*Arc::as_ptr(&shared.0) };
        // SAFETY: the handle, which is there as long as this function, owns the stage and with it the context; so does
        // `shared`.
        unsafe { node_task(&opened.context, shared, call(opened)) }
    }
}

impl<M: AnyStage> Opened<M> {
    async fn stage(&self) -> Result<RwLockReadGuard<'_, M>> {
        let stage = self.stage.read().await;
        RwLockReadGuard::try_map(stage, Option::as_ref)
            .map_err(|_| Error::new(ErrorKind::Internal, "gone", "it was closed before this call"))
    }

    async fn execute(&'static self, ctx: PipelineContext, next: Next) -> Result<Json> {
        let result = self.stage().await?.execute(ctx, next, &self.context).await?;
        Ok(serde_json::to_vec(&result)?.into())
    }

    async fn queue(&'static self, request: Json, payload: Bytes) -> Result<QueueAnswer> {
        let request = serde_json::from_slice(&request).map_err(|cause| {
            Error::new(ErrorKind::Unsupported, "unknown-request", "the queue does not know what it is asked")
                .caused_by(cause)
        })?;
        self.stage().await?.queue(request, payload, &self.context).await
    }

    async fn close(&'static self) -> Result<()> {
        let mut place = self.stage.write().await;
        // It stays in its place while `close` runs: a panic there must not drop it while it unwinds.
        let Some(stage) = place.as_mut() else { return Ok(()) };
        self.context.begin_close();
        let closed = stage.close(&self.context).await;
        let stage = place.take();
        let dropped = contain(Some(&self.context), || drop(stage));
        closed.and(dropped)
    }
}

struct Vtable<M>(PhantomData<M>);

impl<M: AnyStage> Vtable<M> {
    staticref! {
        const METHODS: WithMetadata<InstanceVtable> = WithMetadata::new(InstanceVtable {
            run: no_run,
            commit: no_commit,
            close: Self::close,
            execute: Self::execute,
            queue: Self::queue,
            #[cfg(feature = "__next-minor")]
            generation: generation,
        });
    }
    const VTABLE: InstanceVtableRef = InstanceVtableRef(Self::METHODS.as_prefix());

    extern "C" fn execute(handle: &Handle, ctx: RawContext, next: RawNext) -> Task<Json> {
        let (ctx, next) = (PipelineContext::from_raw(ctx), Next::from_raw(next));
        Shared::<M>::task(handle, |opened| opened.execute(ctx, next))
    }

    extern "C" fn queue(handle: &Handle, request: Json, payload: RawBytes) -> Task<QueueAnswer> {
        Shared::<M>::task(handle, |opened| opened.queue(request, Bytes::from_raw(payload)))
    }

    extern "C" fn close(handle: &Handle) -> Task<()> {
        Shared::<M>::task(handle, Opened::close)
    }
}

extern "C" fn no_run(_: &Handle, _: RVec<PortFrame>) -> Task<RVec<PortFrame>> {
    task(async { Err(not_for("a module of a flow")) })
}

extern "C" fn no_commit(_: &Handle) -> Task<Json> {
    task(async { Err(not_for("a sink")) })
}

pub(super) extern "C" fn no_execute(_: &Handle, _: RawContext, _: RawNext) -> Task<Json> {
    task(async { Err(not_for("a stage")) })
}

pub(super) extern "C" fn no_queue(_: &Handle, _: Json, _: RawBytes) -> Task<QueueAnswer> {
    task(async { Err(not_for("a queue")) })
}

#[cfg(feature = "__next-minor")]
extern "C" fn generation(_: &Handle) -> u32 {
    crate::abi::API_MINOR
}

fn not_for(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "wrong-kind", format!("the module is not {what}"))
}
