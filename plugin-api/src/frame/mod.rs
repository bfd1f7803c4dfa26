//! Bulk data between modules: a schema and a stream of Arrow batches.
//!
//! A frame is made of a [`Producer`]. Whoever reads it asks for the schema once and then for batches until there
//! are none; each crosses as a bare C data interface array. A frame knows the library that made it, so that a
//! module that gets back a frame of its own library takes the producer out ([`Frame::take`]) instead of streaming
//! it: that is how neighbouring modules fuse into one query.
//!
//! With the feature `polars` or `arrow` a frame is made of, and turned into, their types. Without either, work with
//! the C structures: [`Frame::from_batches`], [`Frame::schema`], [`Frame::next`].

#[cfg(feature = "arrow")]
mod arrow;
#[cfg(feature = "polars")]
mod polars;
pub(crate) mod shared;

use std::any::TypeId;
use std::ffi::c_void;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use crate::abi::{
    ArrowArray, ArrowSchema, FrameVtable, FrameVtableRef, Handle, ROption, RString, RawFrame, Task, WithMetadata,
    staticref,
};
use crate::context::done;
use crate::error::Result;
use crate::glue::slot::Slot;
use crate::glue::{contain, task};

#[cfg(feature = "arrow")]
pub use self::arrow::RecordBatches;
#[cfg(feature = "polars")]
pub use self::polars::{DataFrames, Explain};
pub use self::shared::SharedBatches;

/// Its address tells this library from all others in the process.
static ORIGIN: u8 = 0;

pub(crate) fn origin() -> usize {
    std::ptr::from_ref(&ORIGIN).addr()
}

/// Makes the batches of a frame.
pub trait Producer: Sized + Send + 'static {
    /// The columns, as one struct; the same whenever it is asked.
    ///
    /// # Errors
    /// It cannot be told without reading, and reading fails.
    fn schema(&mut self) -> impl Future<Output = Result<ArrowSchema>> + Send;

    /// The next batch, a struct array of that schema; none at the end.
    ///
    /// # Errors
    /// Reading fails. The frame is then at its end.
    fn next(&mut self) -> impl Future<Output = Result<Option<ArrowArray>>> + Send;

    /// Another producer of the same rows, if that costs nothing.
    fn try_clone(&self) -> Option<Self> {
        None
    }

    /// The path of a local Parquet file that has exactly these rows, in this order, if there is one: a reader may
    /// take them from there instead. It is there, and stays as it is, as long as the producer.
    fn parquet(&self) -> Option<PathBuf> {
        None
    }
}

/// Bulk data that comes from or goes to another module.
pub struct Frame {
    raw: RawFrame,
}

impl Frame {
    /// A frame of what `producer` makes.
    pub fn new<P: Producer>(producer: P) -> Self {
        Self { raw: RawFrame { handle: State::handle(producer), vtable: Vtable::<P>::VTABLE } }
    }

    /// A frame of batches in memory: struct arrays of `schema`.
    pub fn from_batches(schema: ArrowSchema, batches: impl IntoIterator<Item = ArrowArray>) -> Self {
        Self::new(SharedBatches::new(schema, batches))
    }

    /// The columns, as one struct.
    ///
    /// # Errors
    /// The producer fails.
    pub async fn schema(&self) -> Result<ArrowSchema> {
        done(self.raw.vtable.schema()(&self.raw.handle)).await
    }

    /// The next batch: a struct array of [`Frame::schema`].
    ///
    /// # Errors
    /// The producer fails.
    pub async fn next(&self) -> Result<Option<ArrowArray>> {
        done(self.raw.vtable.next()(&self.raw.handle)).await.map(ROption::into_option)
    }

    /// Another frame of the same rows, if that costs nothing.
    pub fn try_clone(&self) -> Option<Self> {
        let handle = self.raw.vtable.try_clone()(&self.raw.handle).into_option()?;
        Some(Self { raw: RawFrame { handle, vtable: self.raw.vtable } })
    }

    /// The path of a local Parquet file that has exactly the rows of this frame, those already read included. It may
    /// go with the frame.
    pub fn parquet(&self) -> Option<PathBuf> {
        let path = self.raw.vtable.parquet()?(&self.raw.handle).into_option()?;
        Some(path.into_string().into())
    }

    /// The producer itself, if this library made the frame of a `P`; else the frame, unchanged.
    pub fn take<P: Producer>(self) -> Result<P, Self> {
        if self.raw.vtable.origin()(&self.raw.handle) != origin() {
            return Err(self);
        }
        let wanted = TypeId::of::<P>();
        let mut out: Option<P> = None;
        // SAFETY: the frame is of this very library, so `TypeId` and `Option<P>` mean the same on both sides, and
        // the callee writes only if the type is the one asked for.
        let taken = unsafe {
            self.raw.vtable.take()(
                &self.raw.handle,
                std::ptr::from_ref(&wanted).cast(),
                std::ptr::from_mut(&mut out).cast(),
            )
        };
        match out {
            Some(producer) if taken => Ok(producer),
            _ => Err(self),
        }
    }

    pub(crate) fn from_raw(raw: RawFrame) -> Self {
        Self { raw }
    }

    pub(crate) fn into_raw(self) -> RawFrame {
        self.raw
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").finish_non_exhaustive()
    }
}

/// A producer behind a handle. `take` empties the slot.
struct State<P> {
    producer: Arc<Slot<P>>,
}

impl<P: Producer> State<P> {
    fn handle(producer: P) -> Handle {
        Handle::new(Self { producer: Arc::new(Slot::new(producer)) })
    }

    fn of(handle: &Handle) -> &Arc<Slot<P>> {
        // SAFETY: only `Frame::new` and `Vtable::try_clone` pair a handle with the vtable that calls this.
        &unsafe { handle.get::<Self>() }.producer
    }
}

struct Vtable<P>(PhantomData<P>);

impl<P: Producer> Vtable<P> {
    staticref! {
        const METHODS: WithMetadata<FrameVtable> = WithMetadata::new(FrameVtable {
            origin: Self::origin,
            schema: Self::schema,
            next: Self::next,
            try_clone: Self::try_clone,
            take: Self::take,
            parquet: Self::parquet,
        });
    }
    const VTABLE: FrameVtableRef = FrameVtableRef(Self::METHODS.as_prefix());

    extern "C" fn origin(_: &Handle) -> usize {
        origin()
    }

    extern "C" fn schema(handle: &Handle) -> Task<ArrowSchema> {
        let producer = State::<P>::of(handle).clone();
        task(async move { producer.lease()?.schema().await })
    }

    extern "C" fn next(handle: &Handle) -> Task<ROption<ArrowArray>> {
        let producer = State::<P>::of(handle).clone();
        task(async move {
            let batch = producer.lease()?.next().await?;
            Ok(batch.into())
        })
    }

    extern "C" fn try_clone(handle: &Handle) -> ROption<Handle> {
        let clone = contain(None, || State::<P>::of(handle).peek(P::try_clone));
        clone.ok().flatten().flatten().map(State::handle).into()
    }

    unsafe extern "C" fn take(handle: &Handle, type_id: *const c_void, out: *mut c_void) -> bool {
        // SAFETY: `Frame::take` of this same library passes a `TypeId`.
        let wanted = unsafe { *type_id.cast::<TypeId>() };
        if wanted != TypeId::of::<P>() {
            return false;
        }
        // SAFETY: the type is `P`, so `out` is an `Option<P>`.
        let out = unsafe { &mut *out.cast::<Option<P>>() };
        *out = State::<P>::of(handle).take();
        out.is_some()
    }

    extern "C" fn parquet(handle: &Handle) -> ROption<RString> {
        let path = contain(None, || State::<P>::of(handle).peek(P::parquet));
        // Whoever cannot be told the name in UTF-8 reads the frame.
        let path = path.ok().flatten().flatten().and_then(|path| path.into_os_string().into_string().ok());
        path.map(RString::from).into()
    }
}
