//! What crosses between host and plugin, byte for byte.
//!
//! This module alone names abi_stable and async-ffi; everything an author or the host sees is built on top of
//! it. Three rules keep a plugin built today loading tomorrow:
//!
//! - [`Root`], [`InstanceVtable`], [`FrameVtable`] and [`HostVtable`] are *prefix types*: fields are only ever added
//!   at their end, and a reader gets an `Option` for each field the other side may not have.
//! - Every other struct here is frozen.
//! - What needs to grow freely (descriptors, node facts, errors) crosses as JSON bytes.
//!
//! The first thing read from a library is its [`Preamble`], a plain C struct that stays as it is for ever, so that
//! a plugin from another era is told apart before anything of abi_stable is touched.

mod c_data;
mod check;

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;

pub use abi_stable::library::{
    __call_root_module_loader, AbiHeaderRef, CheckTypeLayout, LibHeader, RootModule, RootModuleResult,
};
pub use abi_stable::prefix_type::{PrefixTypeTrait, WithMetadata};
use abi_stable::sabi_types::VersionStrings;
pub use abi_stable::staticref;
pub use abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use abi_stable::{StableAbi, package_version_strings};
pub use async_ffi::{FfiFuture, FutureExt};

pub use self::c_data::{ArrowArray, ArrowSchema, FfiArrowArray, FfiArrowSchema};
pub use self::check::{RootProblem, root};

/// The API's version. A plugin runs on a host of the same major version.
pub const API_MAJOR: u32 = if cfg!(feature = "__next-major") { 2 } else { 1 };
/// Rises with every field or method that is added.
pub const API_MINOR: u32 = if cfg!(feature = "__next-minor") { 1 } else { 0 };

/// The symbol that every plugin exports, of type [`Preamble`].
pub const PREAMBLE_SYMBOL: &str = "PYPE_PLUGIN";
/// The first bytes of a [`Preamble`].
pub const MAGIC: [u8; 16] = *b"pype-plugin-abi\n";

/// Plain facts about a library, readable without trusting anything else in it. Never changes.
#[repr(C)]
pub struct Preamble {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// The plugin's [`API_MAJOR`].
    pub api_major: u32,
    /// The plugin's [`API_MINOR`].
    pub api_minor: u32,
    /// 1 when the library was compiled with `panic=abort`, 0 when panics unwind.
    pub panic_abort: u32,
    /// Zero.
    pub reserved: u32,
    /// The library's [`LibHeader`].
    pub header: *const c_void,
}

// SAFETY: a preamble is immutable plain data; `header` points to a `'static`.
unsafe impl Sync for Preamble {}

impl Preamble {
    /// The preamble of the library that `header` belongs to.
    pub const fn new(header: &'static LibHeader) -> Self {
        Self {
            magic: MAGIC,
            api_major: API_MAJOR,
            api_minor: API_MINOR,
            panic_abort: cfg!(panic = "abort") as u32,
            reserved: 0,
            header: std::ptr::from_ref(header).cast(),
        }
    }
}

/// JSON bytes: an [`Error`](crate::Error).
pub type ErrorBytes = RVec<u8>;
/// JSON bytes of the type that the field's documentation names.
pub type Json = RVec<u8>;
/// What every asynchronous entry returns. The entry itself polls once, with a waker that wakes nobody: most calls are
/// over by then, and need no future. Frozen.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Task<T> {
    /// The call is over.
    Done(RResult<T, ErrorBytes>),
    /// It was polled and is pending: whoever wants to be woken polls it again. Only `'static` futures cross.
    Later(FfiFuture<RResult<T, ErrorBytes>>),
}

/// An owned object of the other side: a pointer and the function that drops it.
///
/// The drop function contains panics; the object behind it is never touched by anybody but its own library.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct Handle {
    data: *mut c_void,
    release: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: `Handle::new` takes only `Send + Sync` values, and the release function may run on any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Hands `value` out.
    pub(crate) fn new<T: Send + Sync + 'static>(value: T) -> Self {
        Self { data: Box::into_raw(Box::new(value)).cast(), release: crate::glue::release::<T> }
    }

    /// Hands `value` out, in a place that the thread keeps: for what is soon taken out again.
    pub(crate) fn seated<T: Send + Sync + 'static>(value: T) -> Self {
        Self { data: crate::glue::Seat::new(value).into_raw().cast(), release: crate::glue::release_seat::<T> }
    }

    /// Hands a share of `value` out.
    pub(crate) fn shared<T: Send + Sync + 'static>(value: Arc<T>) -> Self {
        Self { data: Arc::into_raw(value).cast_mut().cast(), release: crate::glue::release_share::<T> }
    }

    /// The value inside.
    ///
    /// # Safety
    /// The handle was made with this very `T`, by this library.
    pub(crate) unsafe fn get<T>(&self) -> &T {
        // SAFETY: the caller says what is inside, and the handle owns it until it is dropped.
        unsafe { &*self.data.cast::<T>() }
    }

    /// The share that the handle has of the value inside. Whoever needs it for longer clones it.
    ///
    /// # Safety
    /// The handle was made by [`Handle::shared`] with this very `T`, by this library.
    pub(crate) unsafe fn with_share<T, R>(&self, look: impl FnOnce(&Arc<T>) -> R) -> R {
        // SAFETY: it came from `Arc::into_raw` of an `Arc<T>`, and the handle keeps its share: this one is never dropped.
        let share = ManuallyDrop::new(unsafe { Arc::from_raw(self.data.cast_const().cast::<T>()) });
        look(&share)
    }

    /// The value, out of its handle.
    ///
    /// # Safety
    /// The handle was made by [`Handle::seated`] with this very `T`, by this library.
    pub(crate) unsafe fn into_inner<T>(self) -> T {
        let handle = ManuallyDrop::new(self);
        // SAFETY: `data` came from the seat of a `T`, which nobody else frees: the handle is not dropped.
        unsafe { crate::glue::Seat::from_raw(handle.data.cast::<T>()) }.into_inner()
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `data` came from the `Box`, the `Arc` or the seat that `release` frees, and a handle is dropped once.
        unsafe { (self.release)(self.data) }
    }
}

/// The root of a plugin library.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef, prefix_fields = RootPrefix)))]
#[sabi(missing_field(option))]
pub struct Root {
    /// What is in the library: JSON of [`LibraryDescriptor`](crate::descriptor::LibraryDescriptor).
    pub describe: extern "C" fn() -> RResult<Json, ErrorBytes>,
    /// Called once after loading: the host's services for records that belong to no node, and JSON of
    /// [`LibraryFacts`](crate::host::LibraryFacts).
    pub init: extern "C" fn(Services, Json) -> RResult<(), ErrorBytes>,
    /// Opens a module for one node.
    #[sabi(last_prefix_field)]
    pub open: extern "C" fn(OpenRequest) -> Task<Instance>,
    /// What a module with these configs reads and writes. JSON of [`Resources`](crate::Resources).
    pub resources: extern "C" fn(ResourcesRequest) -> Task<Json>,
    /// A method that a next minor version adds.
    #[cfg(feature = "__next-minor")]
    pub greet: extern "C" fn() -> RString,
    /// What a next major version would take away: the old meaning of a field.
    #[cfg(feature = "__next-major")]
    pub version_two: u64,
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "pype_plugin";
    const NAME: &'static str = "pype_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// What [`Root::open`] takes. Frozen.
#[repr(C)]
#[derive(StableAbi)]
pub struct OpenRequest {
    /// The module's name, as described.
    pub module: RString,
    /// The node's configs: a JSON object.
    pub config: Json,
    /// JSON of [`NodeFacts`](crate::host::NodeFacts).
    pub facts: Json,
    /// The host's services for this node.
    pub services: Services,
}

/// What [`Root::resources`] takes. Frozen.
#[repr(C)]
#[derive(StableAbi)]
pub struct ResourcesRequest {
    /// The module's name, as described.
    pub module: RString,
    /// The node's configs: a JSON object.
    pub config: Json,
}

/// A module that was opened for a node. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct Instance {
    /// The module's state.
    pub handle: Handle,
    /// What can be done with it.
    pub vtable: InstanceVtableRef,
}

/// The methods of an [`Instance`]. Kinds share them: which ones mean something is said at each.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = InstanceVtableRef, prefix_fields = InstanceVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct InstanceVtable {
    /// Source, mod, solo: runs, from the frames at the input ports to those at the output ports. Sink: writes what
    /// arrived, and returns nothing.
    pub run: extern "C" fn(&Handle, RVec<PortFrame>) -> Task<RVec<PortFrame>>,
    /// Sink: makes what was written durable and visible. JSON: a list of [`Commit`](crate::Commit).
    pub commit: extern "C" fn(&Handle) -> Task<Json>,
    /// Ends the instance; awaited after success, failure and cancellation.
    #[sabi(last_prefix_field)]
    pub close: extern "C" fn(&Handle) -> Task<()>,
    /// Execute: handles one run of a pipeline. JSON: its result.
    pub execute: extern "C" fn(&Handle, RawContext, RawNext) -> Task<Json>,
    /// Dispatch: JSON of what is asked of the queue, and the payload of the job in it. JSON of the answer, and the payloads
    /// of the jobs in it.
    pub queue: extern "C" fn(&Handle, Json, RawBytes) -> Task<QueueAnswer>,
    /// Execute: the same as `execute`, its result unread.
    pub execute_unread: extern "C" fn(&Handle, RawContext, RawNext) -> Task<RawReturned>,
    /// A source without an end: what happened next, within so many milliseconds.
    pub poll: extern "C" fn(&Handle, u64) -> Task<RawEvent>,
    /// A source without an end: JSON of what is asked of it, and the records in it. JSON of the answer.
    pub source: extern "C" fn(&Handle, Json, ROption<RawFrame>) -> Task<Json>,
    /// A field that a next minor version adds.
    #[cfg(feature = "__next-minor")]
    pub generation: extern "C" fn(&Handle) -> u32,
}

/// A frame at a port. Frozen.
#[repr(C)]
#[derive(StableAbi)]
pub struct PortFrame {
    /// The port's name.
    pub port: RString,
    /// What arrives or leaves there.
    pub frame: RawFrame,
}

/// Bulk data: a schema and a stream of Arrow batches. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawFrame {
    /// The frame's state.
    pub handle: Handle,
    /// What can be done with it.
    pub vtable: FrameVtableRef,
}

/// The methods of a [`RawFrame`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = FrameVtableRef, prefix_fields = FrameVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct FrameVtable {
    /// The address of a static of the library that made the frame: who may take the inner value out.
    pub origin: extern "C" fn(&Handle) -> usize,
    /// The schema, a struct of the columns. The same at every call.
    pub schema: extern "C" fn(&Handle) -> Task<ArrowSchema>,
    /// The next batch, a struct array; none at the end.
    pub next: extern "C" fn(&Handle) -> Task<ROption<ArrowArray>>,
    /// Another frame with the same rows, where that costs nothing (a query not yet run, batches in memory).
    pub try_clone: extern "C" fn(&Handle) -> ROption<Handle>,
    /// Moves the inner value to `out` and returns true if its type is the one asked for. Only the library that
    /// `origin` names may call it; both pointers are then of its own types.
    #[sabi(last_prefix_field)]
    pub take: unsafe extern "C" fn(&Handle, type_id: *const c_void, out: *mut c_void) -> bool,
    /// The path of a local Parquet file with exactly the frame's rows, which is there as long as the frame.
    pub parquet: extern "C" fn(&Handle) -> ROption<RString>,
}

/// The context of one run of a pipeline. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawContext {
    /// The store of its fields.
    pub handle: Handle,
    /// What can be done with it.
    pub vtable: ContextVtableRef,
}

/// The methods of a [`RawContext`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ContextVtableRef, prefix_fields = ContextVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct ContextVtable {
    /// The address of a static of the library that made the context: who may look into the handle.
    pub origin: extern "C" fn(&Handle) -> usize,
    /// JSON of [`RunFacts`](crate::RunFacts).
    pub facts: extern "C" fn(&Handle) -> Json,
    /// JSON: the names of all fields.
    pub names: extern "C" fn(&Handle) -> Json,
    /// A field.
    pub get: extern "C" fn(&Handle, RStr<'_>) -> ROption<Field>,
    /// Sets a field.
    pub set: extern "C" fn(&Handle, RStr<'_>, Field) -> RResult<(), ErrorBytes>,
    /// Takes a field away; whether it was there.
    pub remove: extern "C" fn(&Handle, RStr<'_>) -> bool,
    /// Another context with the same fields.
    #[sabi(last_prefix_field)]
    pub duplicate: extern "C" fn(&Handle) -> RawContext,
}

/// What a field of a context holds. Frozen.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Field {
    /// A JSON value.
    Json(Json),
    /// Bytes.
    Bytes(RawBytes),
}

/// The rest of a chain. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawNext {
    /// The host's state.
    pub handle: Handle,
    /// What can be done with it.
    pub vtable: NextVtableRef,
}

/// The methods of a [`RawNext`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = NextVtableRef, prefix_fields = NextVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct NextVtable {
    /// Runs the rest of the chain. JSON: its result.
    #[sabi(last_prefix_field)]
    pub run: extern "C" fn(&Handle, RawContext) -> Task<Json>,
    /// The same, its result unread.
    pub run_unread: extern "C" fn(&Handle, RawContext) -> Task<RawReturned>,
}

/// What a stage or the rest of a chain has returned. Frozen.
#[repr(u8)]
#[derive(StableAbi)]
pub enum RawReturned {
    /// JSON.
    Json(Json),
    /// A value of some library.
    Value(RawValue),
}

/// A value of some library, which others read as JSON. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawValue {
    /// The value.
    pub handle: Handle,
    /// What can be done with it.
    pub vtable: ValueVtableRef,
}

/// The methods of a [`RawValue`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ValueVtableRef, prefix_fields = ValueVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct ValueVtable {
    /// The address of a static of the library that made the value: who may take it out of the handle.
    pub origin: extern "C" fn() -> usize,
    /// The value as JSON.
    #[sabi(last_prefix_field)]
    pub json: extern "C" fn(&Handle) -> Json,
}

/// What a queue answers. Frozen.
#[repr(C)]
#[derive(StableAbi)]
pub struct QueueAnswer {
    /// JSON; of which type, the request says.
    pub answer: Json,
    /// The payloads of the jobs in it, in their order.
    pub payloads: RVec<RawBytes>,
}

/// Something that happened at a source without an end. Frozen.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawEvent {
    /// JSON: what.
    pub facts: Json,
    /// The records that came.
    pub records: ROption<RawFrame>,
}

/// Bytes of the other side, shared: they stay where they are until the owner is dropped. Frozen.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct RawBytes {
    data: *const u8,
    length: usize,
    owner: Handle,
}

// SAFETY: the bytes are immutable, and the owner that keeps them is `Send + Sync`.
unsafe impl Send for RawBytes {}
// SAFETY: as above.
unsafe impl Sync for RawBytes {}

impl RawBytes {
    pub(crate) fn owned_by<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        let owner = Handle::new(owner);
        // SAFETY: it was just made of a `T`, which stays where it is from now on.
        let bytes = unsafe { owner.get::<T>() }.as_ref();
        let (data, length) = (bytes.as_ptr(), bytes.len());
        Self { data, length, owner }
    }

    /// The same bytes, for one more owner.
    pub(crate) fn shared(bytes: Arc<RawBytes>) -> Self {
        Self { data: bytes.data, length: bytes.length, owner: Handle::new(bytes) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `data` points to `length` bytes that the owner keeps, and nobody changes.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

/// The host's services for a node or a library. Frozen; its vtable grows.
#[repr(C)]
#[derive(StableAbi)]
pub struct Services {
    /// The host's state.
    pub handle: Handle,
    /// What can be asked of it.
    pub vtable: HostVtableRef,
}

/// The methods of [`Services`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostVtableRef, prefix_fields = HostVtablePrefix)))]
#[sabi(missing_field(option))]
pub struct HostVtable {
    /// Whether a record of this level (1 error … 5 trace) and target would be kept.
    pub log_enabled: extern "C" fn(&Handle, u8, RStr<'_>) -> bool,
    /// A log record: level, target, message, and a JSON object of its other fields.
    pub log: extern "C" fn(&Handle, u8, RStr<'_>, RStr<'_>, RSlice<'_, u8>),
    /// Sets a declared global to a JSON value, once.
    pub set_global: extern "C" fn(&Handle, RStr<'_>, RSlice<'_, u8>) -> RResult<(), ErrorBytes>,
    /// The JSON value of `node__Name`, if it is set.
    pub global: extern "C" fn(&Handle, RStr<'_>) -> ROption<Json>,
    /// Rows and bytes done so far.
    pub progress: extern "C" fn(&Handle, u64, u64),
    /// A measurement.
    pub metric: extern "C" fn(&Handle, RStr<'_>, f64),
    /// Whether the run was cancelled.
    pub cancelled: extern "C" fn(&Handle) -> bool,
    /// Resolves when the run is cancelled.
    pub until_cancelled: extern "C" fn(&Handle) -> FfiFuture<()>,
    /// Keeps a frame in the host as an artifact. JSON of [`Artifact`](crate::Artifact).
    #[sabi(last_prefix_field)]
    pub register_artifact: extern "C" fn(&Handle, RawFrame) -> Task<Json>,
    /// Announces a declared list, a JSON array, once.
    pub set_list: extern "C" fn(&Handle, RStr<'_>, RSlice<'_, u8>) -> RResult<(), ErrorBytes>,
}
