//! The one place for panics, runtimes and the current node.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use crate::abi::{FutureExt, RResult, Task};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// What this library knows of a thread.
struct Here {
    /// The node whose code runs, [`OUTSIDE`] when none of ours does, [`NO_NODE`] when it belongs to no node.
    current: Cell<*const Context>,
    in_runtime: Cell<bool>,
    last_panic: RefCell<Option<String>>,
}

const OUTSIDE: *const Context = std::ptr::null();
const NO_NODE: *const Context = std::ptr::dangling();

thread_local! {
    // One place for all of it: finding a thread's place is what an entry costs most.
    static HERE: Here = const {
        Here { current: Cell::new(OUTSIDE), in_runtime: Cell::new(false), last_panic: RefCell::new(None) }
    };
}

/// The node that author code works for; remembered while it runs.
pub(crate) type Scope = Option<Context>;

/// Calls `f` with the node whose code runs on this thread, if any.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Context>) -> R) -> R {
    let current = HERE.with(|here| here.current.get());
    if current == OUTSIDE || current == NO_NODE {
        return f(None);
    }
    // SAFETY: `contain` sets the pointer to a context that outlives its call, and puts the old one back.
    f(Some(unsafe { &*current }))
}

/// Runs author code: inside the library's runtime, as `scope`'s node, panics becoming errors.
pub(crate) fn contain<R>(scope: Option<&Context>, f: impl FnOnce() -> R) -> Result<R> {
    HERE.with(|here| {
        if !here.in_runtime.get() && tokio::runtime::Handle::try_current().is_err() {
            // A thread of the host stays in the runtime once it has entered: nobody else sees this library's copy of
            // tokio, and the cheapest entry is none.
            std::mem::forget(runtime::enter());
            here.in_runtime.set(true);
        }
        let outer = here.current.replace(scope.map_or(NO_NODE, std::ptr::from_ref));
        let result = catch_unwind(AssertUnwindSafe(f));
        here.current.set(outer);
        result.map_err(panicked)
    })
}

/// Makes a future that crosses the boundary of one that runs author code.
pub(crate) fn task<T, S, F>(scope: S, future: F) -> Task<T>
where
    S: Scoped,
    F: Future<Output = Result<T>> + Send + 'static,
    T: 'static,
{
    Guarded { scope, future: ManuallyDrop::new(future), ended: false }.into_ffi()
}

/// Knows the node that a future works for.
pub(crate) trait Scoped: Send + 'static {
    fn context(&self) -> Option<&Context>;
}

impl Scoped for Scope {
    fn context(&self) -> Option<&Context> {
        self.as_ref()
    }
}

/// The drop function of a [`Handle`](crate::abi::Handle).
///
/// # Safety
/// `data` came from `Box::into_raw` of a `Box<T>` and is not used again.
pub(crate) unsafe extern "C" fn release<T>(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let dropped = contain(None, || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
    if let Err(error) = dropped {
        tracing::error!(target: "pype_plugin", "while a value was dropped: {error}");
    }
}

/// Keeps what a panic of author code said and where; `elsewhere` takes the panics of other threads.
pub(crate) fn install_panic_hook(elsewhere: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |info| {
        HERE.with(|here| match here.current.get() == OUTSIDE {
            true => elsewhere(info),
            false => drop(here.last_panic.replace(Some(panic_text(info)))),
        });
    }));
}

/// What a panic said, and where.
pub(crate) fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a value that is no text");
    let place = info.location().map(|at| format!(" at {}:{}:{}", at.file(), at.line(), at.column()));
    format!("{message}{}", place.unwrap_or_default())
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let said = HERE.with(|here| here.last_panic.take()).or_else(|| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    });
    // A payload's own drop may panic again: it is left where it is.
    std::mem::forget(payload);
    let said = said.unwrap_or_else(|| "a value that is no text".to_owned());
    Error::new(ErrorKind::Panicked, "panicked", format!("the plugin panicked: {said}"))
        .hint("this is a fault in the plugin: report it to its author")
}

struct Guarded<S, F> {
    scope: S,
    // Dropped as soon as it is ready, while the runtime is entered anyway.
    future: ManuallyDrop<F>,
    ended: bool,
}

impl<T, S: Scoped, F: Future<Output = Result<T>>> Future for Guarded<S, F> {
    type Output = RResult<T, crate::abi::ErrorBytes>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is pinned with `self` and never moved; the other fields are not pinned.
        let Self { scope, future, ended } = unsafe { self.get_unchecked_mut() };
        let polled = contain(scope.context(), || {
            // SAFETY: as above.
            let polled = unsafe { Pin::new_unchecked(&mut **future) }.poll(cx);
            if polled.is_ready() {
                *ended = true;
                // SAFETY: dropped once: `ended` says so to the destructor. A future that is ready is not polled again.
                unsafe { ManuallyDrop::drop(future) };
            }
            polled
        });
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(value))) => Poll::Ready(RResult::ROk(value)),
            Ok(Poll::Ready(Err(error))) | Err(error) => Poll::Ready(RResult::RErr(error.to_json())),
        }
    }
}

impl<S, F> Drop for Guarded<S, F> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // SAFETY: dropped once: here, because it was not when it ended.
        let dropped = contain(None, || unsafe { ManuallyDrop::drop(&mut self.future) });
        if let Err(error) = dropped {
            tracing::error!(target: "pype_plugin", "while a future was dropped: {error}");
        }
    }
}
