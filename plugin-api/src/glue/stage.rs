//! Stages, queues and the sources of streams behind the vtable. Unlike a flow's module, one of these serves many calls at a time.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::commons::{Commons, Share};
use super::instance::{config_schema, owned, read_config};
use super::{contain, node_task, task};
use crate::abi::{
    Handle, Instance, InstanceVtable, InstanceVtableRef, Json, OpenRequest, PortFrame, QueueAnswer, ROption, RVec,
    RawBytes, RawContext, RawEvent, RawFrame, RawNext, RawReturned, Task, WithMetadata, staticref,
};
use crate::context::Context;
use crate::descriptor::{Kind, ModuleDescriptor};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::pipeline::queue::NewJob;
use crate::pipeline::{Bytes, Dispatch, Execute, Next, PipelineContext, QueueRequest, Returned};
use crate::resource::Resources;
use crate::stream::{EventFacts, SourceRequest, StreamEvent, StreamSource};

/// The three kinds seen as one: what the vtable needs.
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
    fn poll(&self, wait: Duration, node: &Context) -> impl Future<Output = Result<Option<StreamEvent>>> + Send {
        let _ = (wait, node);
        async { Err(not_for("a source of a stream")) }
    }
    fn source(
        &self,
        request: SourceRequest,
        records: Option<Frame>,
        node: &Context,
    ) -> impl Future<Output = Result<Json>> + Send {
        let _ = (request, records, node);
        async { Err(not_for("a source of a stream")) }
    }
    fn close(&mut self, node: &Context) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) struct AsExecute<M>(M);
pub(crate) struct AsDispatch<M>(M);
pub(crate) struct AsStream<M>(M);

macro_rules! any_stage {
    ($wrapper:ident, $trait:ident as $kind:ident, outputs: $outputs:expr, exclusive: $exclusive:expr, retry: $retry:expr,
        acknowledge: $acknowledge:expr, $($call:tt)*) => {
        impl<M: $trait> AnyStage for $wrapper<M> {
            type Config = M::Config;

            fn descriptor(library_version: &str) -> ModuleDescriptor {
                ModuleDescriptor {
                    name: M::NAME.to_owned(),
                    kind: Kind::$kind,
                    version: M::VERSION.unwrap_or(library_version).to_owned(),
                    description: M::DESCRIPTION.to_owned(),
                    category: M::CATEGORY.to_owned(),
                    input_ports: Vec::new(),
                    output_ports: owned($outputs),
                    globals: Vec::new(),
                    lists: Vec::new(),
                    retry: $retry,
                    exclusive: $exclusive,
                    acknowledge: $acknowledge,
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

any_stage! { AsExecute, Execute as Execute, outputs: &[], exclusive: M::EXCLUSIVE, retry: M::RETRY, acknowledge: None,
    fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> impl Future<Output = Result<Value>> + Send {
        self.0.execute(ctx, next, node)
    }
}
any_stage! { AsDispatch, Dispatch as Dispatch, outputs: &[], exclusive: false, retry: None, acknowledge: None,
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

any_stage! { AsStream, StreamSource as Source, outputs: &["records"], exclusive: false, retry: None,
    acknowledge: Some(M::ACKNOWLEDGE),
    async fn poll(&self, wait: Duration, node: &Context) -> Result<Option<StreamEvent>> {
        self.0.poll(wait, node).await
    }

    async fn source(&self, request: SourceRequest, records: Option<Frame>, node: &Context) -> Result<Json> {
        let source = &self.0;
        match request {
            SourceRequest::Commit { positions } => bytes(&source.commit(positions, node).await?),
            SourceRequest::Acknowledge { verdicts } => bytes(&source.acknowledge(verdicts, node).await?),
            SourceRequest::Hold { partitions, held } => bytes(&source.hold(partitions, held, node).await?),
            SourceRequest::Release { partitions } => bytes(&source.release(partitions, node).await?),
            SourceRequest::Publish => bytes(&source.publish(given(records)?, node).await?),
            SourceRequest::Announce => bytes(&source.announce(given(records)?, node).await?),
        }
    }
}

fn given(records: Option<Frame>) -> Result<Frame> {
    records.ok_or_else(|| Error::new(ErrorKind::Internal, "nothing-to-publish", "there are no records to publish"))
}

fn json(answer: &impl serde::Serialize) -> Result<QueueAnswer> {
    Ok(QueueAnswer { answer: bytes(answer)?, payloads: RVec::new() })
}

fn bytes(answer: &impl serde::Serialize) -> Result<Json> {
    Ok(serde_json::to_vec(answer)?.into())
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
        let opened = Shared(Arc::new(Opened { stage: Commons::new(stage), context }));
        Ok(Instance { handle: Handle::new(opened), vtable: Vtable::<M>::VTABLE })
    };
    // SAFETY: the future owns the other clone until it has made the instance.
    unsafe { node_task(&node, &(), || Ok(opening)) }
}

/// Stages read and write for each run, so nothing can be told before.
pub(crate) fn no_resources(_: Json) -> Task<Json> {
    task(async { Ok(serde_json::to_vec(&Resources::default())?.into()) })
}

/// An opened stage. Calls share it; `close` has it alone, once they are over, and empties it.
struct Opened<M> {
    stage: Commons<M>,
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
    fn task<T, F>(handle: &Handle, call: impl FnOnce(&'static Opened<M>) -> Result<F>) -> Task<T>
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
        unsafe { node_task(&opened.context, shared, || call(opened)) }
    }
}

impl<M: AnyStage> Opened<M> {
    /// Written out, since what a future is made of is in it twice if it is a future itself.
    fn execute<T: 'static>(
        &'static self,
        ctx: RawContext,
        next: RawNext,
        crossed: impl Fn(Returned) -> T + Send + 'static,
    ) -> Result<impl Future<Output = Result<T>> + Send + 'static> {
        let share = self.stage.share()?;
        // SAFETY: it is seen by the future only, which is dropped before the share.
        let stage: &'static M = unsafe { &*std::ptr::from_ref(&*share) };
        let work = stage.execute(PipelineContext::from_raw(ctx), Next::from_raw(next), &self.context);
        Ok(Executing { work, crossed, _share: share })
    }

    async fn queue(&'static self, request: Json, payload: Bytes) -> Result<QueueAnswer> {
        let request = serde_json::from_slice(&request).map_err(|cause| {
            Error::new(ErrorKind::Unsupported, "unknown-request", "the queue does not know what it is asked")
                .caused_by(cause)
        })?;
        self.stage.share()?.queue(request, payload, &self.context).await
    }

    async fn poll(&'static self, wait: Duration) -> Result<RawEvent> {
        let (facts, records) = match self.stage.share()?.poll(wait, &self.context).await? {
            None => (EventFacts::Nothing, None),
            Some(StreamEvent::Assigned(partitions)) => (EventFacts::Assigned { partitions }, None),
            Some(StreamEvent::Revoked(partitions)) => (EventFacts::Revoked { partitions }, None),
            Some(StreamEvent::Lost(partitions)) => (EventFacts::Lost { partitions }, None),
            Some(StreamEvent::Records(records)) => (EventFacts::Records, Some(records.into_raw())),
            Some(StreamEvent::Progress(partitions)) => (EventFacts::Progress { partitions }, None),
        };
        Ok(RawEvent { facts: bytes(&facts)?, records: records.into() })
    }

    async fn source(&'static self, request: Json, records: Option<Frame>) -> Result<Json> {
        let request = serde_json::from_slice(&request).map_err(|cause| {
            Error::new(ErrorKind::Unsupported, "unknown-request", "the source does not know what it is asked")
                .caused_by(cause)
        })?;
        self.stage.share()?.source(request, records, &self.context).await
    }

    async fn close(&'static self) -> Result<()> {
        // It stays in its place while `close` runs: a panic there must not drop it while it unwinds.
        let Some(mut alone) = self.stage.alone().await else { return Ok(()) };
        self.context.begin_close();
        let closed = alone.value().close(&self.context).await;
        let stage = alone.take();
        let dropped = contain(Some(&self.context), || drop(stage));
        closed.and(dropped)
    }
}

/// A run of a stage.
struct Executing<M: 'static, F, C> {
    work: F,
    crossed: C,
    // Dropped after what looks at the stage.
    _share: Share<'static, M>,
}

impl<M, F, C, T> Future for Executing<M, F, C>
where
    F: Future<Output = Result<Value>>,
    C: Fn(Returned) -> T,
{
    type Output = Result<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<T>> {
        // SAFETY: `work` is pinned with `self` and never moved; the other fields are not pinned.
        let Self { work, crossed, .. } = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let polled = unsafe { Pin::new_unchecked(work) }.poll(cx);
        polled.map(|result| result.map(|value| crossed(value.into())))
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
            execute_unread: Self::execute_unread,
            poll: Self::poll,
            source: Self::source,
            #[cfg(feature = "__next-minor")]
            generation: generation,
        });
    }
    const VTABLE: InstanceVtableRef = InstanceVtableRef(Self::METHODS.as_prefix());

    extern "C" fn execute(handle: &Handle, ctx: RawContext, next: RawNext) -> Task<Json> {
        Shared::<M>::task(handle, |opened| opened.execute(ctx, next, Returned::into_json))
    }

    extern "C" fn execute_unread(handle: &Handle, ctx: RawContext, next: RawNext) -> Task<RawReturned> {
        Shared::<M>::task(handle, |opened| opened.execute(ctx, next, Returned::into_raw))
    }

    extern "C" fn queue(handle: &Handle, request: Json, payload: RawBytes) -> Task<QueueAnswer> {
        Shared::<M>::task(handle, |opened| Ok(opened.queue(request, Bytes::from_raw(payload))))
    }

    extern "C" fn poll(handle: &Handle, wait_ms: u64) -> Task<RawEvent> {
        Shared::<M>::task(handle, |opened| Ok(opened.poll(Duration::from_millis(wait_ms))))
    }

    extern "C" fn source(handle: &Handle, request: Json, records: ROption<RawFrame>) -> Task<Json> {
        let records = records.into_option().map(Frame::from_raw);
        Shared::<M>::task(handle, |opened| Ok(opened.source(request, records)))
    }

    extern "C" fn close(handle: &Handle) -> Task<()> {
        Shared::<M>::task(handle, |opened| Ok(opened.close()))
    }
}

extern "C" fn no_run(_: &Handle, _: RVec<PortFrame>) -> Task<RVec<PortFrame>> {
    task(async { Err(not_for("a module of a flow")) })
}

extern "C" fn no_commit(_: &Handle) -> Task<Json> {
    task(async { Err(not_for("a sink")) })
}

pub(crate) extern "C" fn no_execute(_: &Handle, _: RawContext, _: RawNext) -> Task<Json> {
    task(async { Err(not_for("a stage")) })
}

pub(crate) extern "C" fn no_execute_unread(_: &Handle, _: RawContext, _: RawNext) -> Task<RawReturned> {
    task(async { Err(not_for("a stage")) })
}

pub(crate) extern "C" fn no_queue(_: &Handle, _: Json, _: RawBytes) -> Task<QueueAnswer> {
    task(async { Err(not_for("a queue")) })
}

pub(crate) extern "C" fn no_poll(_: &Handle, _: u64) -> Task<RawEvent> {
    task(async { Err(not_for("a source of a stream")) })
}

pub(crate) extern "C" fn no_source(_: &Handle, _: Json, _: ROption<RawFrame>) -> Task<Json> {
    task(async { Err(not_for("a source of a stream")) })
}

#[cfg(feature = "__next-minor")]
extern "C" fn generation(_: &Handle) -> u32 {
    crate::abi::API_MINOR
}

fn not_for(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "wrong-kind", format!("the module is not {what}"))
}
