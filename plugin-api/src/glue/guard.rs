//! The one place for panics, runtimes and the current node.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::Future;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use super::seat::Seat;
use crate::abi::{ErrorBytes, FutureExt, RResult, Services, Task};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// What this library knows of a thread.
struct Here {
    /// The services of the node whose code runs, [`OUTSIDE`] when none of ours does, [`NO_NODE`] when it belongs to no node.
    current: Cell<*const Services>,
    in_runtime: Cell<bool>,
}

type Panic = Box<dyn Any + Send>;

const OUTSIDE: *const Services = std::ptr::null();
const NO_NODE: *const Services = std::ptr::dangling();

thread_local! {
    // One place, for finding it is what an entry costs most; and nothing in it has a destructor, so that it is still
    // there for values that are dropped while their thread ends.
    static HERE: Here = const { Here { current: Cell::new(OUTSIDE), in_runtime: Cell::new(false) } };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls `f` with the services of the node whose code runs on this thread, if any.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Services>) -> R) -> R {
    let current = HERE.with(|here| here.current.get());
    if current == OUTSIDE || current == NO_NODE {
        return f(None);
    }
    // SAFETY: `contain_for` is given services that outlive its call, and puts the old ones back.
    f(Some(unsafe { &*current }))
}

/// Runs author code: inside the library's runtime, as `scope`'s node, panics becoming errors.
pub(crate) fn contain<R>(scope: Option<&Context>, f: impl FnOnce() -> R) -> Result<R> {
    contain_for(scope.map_or(NO_NODE, |node| std::ptr::from_ref(node.services())), f).map_err(panicked)
}

/// The same for services that stay where they are while `f` works for them; a panic is not put into words yet, since what
/// is returned should be small.
#[inline]
fn contain_for<R>(services: *const Services, f: impl FnOnce() -> R) -> Result<R, Panic> {
    HERE.with(|here| {
        let outer = here.current.replace(services);
        let result = catch_unwind(AssertUnwindSafe(|| {
            // Who runs inside another entry is in the runtime with it.
            if outer == OUTSIDE && !here.in_runtime.get() {
                stay_in_runtime(here);
            }
            f()
        }));
        here.current.set(outer);
        result
    })
}

/// A thread of the host stays in the runtime once it has entered: nobody else sees this library's copy of tokio, and
/// the cheapest entry is none.
#[cold]
fn stay_in_runtime(here: &Here) {
    if tokio::runtime::Handle::try_current().is_err() {
        std::mem::forget(runtime::enter());
        here.in_runtime.set(true);
    }
}

/// Runs author code that blocks, on a thread where it may.
pub(crate) async fn blocking<T, F>(scope: Option<Context>, work: F) -> Result<T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let joined = runtime::runtime().spawn_blocking(move || contain(scope.as_ref(), work)).await;
    joined.unwrap_or_else(|lost| Err(Error::cancelled().caused_by(lost))).flatten()
}

/// Runs host code that a plugin asks for, panics becoming errors. It needs no runtime: it answers at once.
pub(crate) fn contain_service<R>(f: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(panicked)
}

/// A call that runs author code for no node.
#[inline]
pub(crate) fn task<T: 'static>(future: impl Future<Output = Result<T>> + Send + 'static) -> Task<T> {
    begin(NO_NODE, &(), || Ok(future))
}

/// A call that works for the node of `context`, and keeps a clone of `owner` if it is not over at once: most are, and for
/// those it would be the largest part of the work.
///
/// # Safety
/// The context, and whatever else the future borrows with a lifetime that was made up, are there as long as the caller
/// runs, and as long as `owner` or the future itself.
#[inline]
pub(crate) unsafe fn node_task<T, F, O>(context: &Context, owner: &O, call: impl FnOnce() -> Result<F>) -> Task<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + Send + 'static,
    O: Clone + Send + 'static,
{
    begin(context.services(), owner, call)
}

#[inline]
fn begin<T, F, O>(services: *const Services, owner: &O, call: impl FnOnce() -> Result<F>) -> Task<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + Send + 'static,
    O: Clone + Send + 'static,
{
    let (mut seat, mut done) = (None, None);
    let begun = contain_for(services, || {
        let made = Seat::made(|| {
            let future = ManuallyDrop::new(call()?);
            Ok(Guarded { services, future, ended: false, owner: None })
        });
        match made {
            Ok(made) => {
                let mut cx = TaskContext::from_waker(Waker::noop());
                seat.insert(made).as_mut().advance(&mut cx, |result| done = Some(Task::Done(result)));
            }
            Err(refused) => done = Some(Task::Done(crossing(Err(refused)))),
        }
    });
    if let Err(panic) = begun {
        return Task::Done(RResult::RErr(panicked(panic).to_json()));
    }
    done.unwrap_or_else(|| {
        let mut seat = seat.expect("what is not done has a future");
        seat.as_mut().keep(owner.clone());
        Task::Later(seat.into_ffi())
    })
}

/// The drop function of a [`Handle`](crate::abi::Handle).
///
/// # Safety
/// `data` came from `Box::into_raw` of a `Box<T>` and is not used again.
pub(crate) unsafe extern "C" fn release<T>(data: *mut c_void) {
    // SAFETY: the caller's promise.
    contain_drop("a value", || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
}

/// The same for one that is [seated](crate::abi::Handle::seated).
///
/// # Safety
/// `data` came from [`Seat::into_raw`] of a `Seat<T>` and is not used again.
pub(crate) unsafe extern "C" fn release_seat<T>(data: *mut c_void) {
    // SAFETY: the caller's promise.
    contain_drop("a value", || drop(unsafe { Seat::from_raw(data.cast::<T>()) }));
}

/// The same for one that is [shared](crate::abi::Handle::shared).
///
/// # Safety
/// `data` came from `Arc::into_raw` of an `Arc<T>` and is not used again.
pub(crate) unsafe extern "C" fn release_share<T>(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let share = unsafe { Arc::from_raw(data.cast_const().cast::<T>()) };
    // Most are not the last one, and there is nothing to contain.
    if let Some(value) = Arc::into_inner(share) {
        contain_drop("a value", || drop(value));
    }
}

/// Runs a destructor, whose panic has nobody to go to but the log.
fn contain_drop(what: &str, destructor: impl FnOnce()) {
    if let Err(error) = contain(None, destructor) {
        tracing::error!(target: "pype_plugin", "while {what} was dropped: {error}");
    }
}

/// Keeps what a panic of author code said and where; `elsewhere` takes the panics of other threads.
pub(crate) fn install_panic_hook(elsewhere: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |info| {
        HERE.with(|here| match here.current.get() == OUTSIDE {
            true => elsewhere(info),
            false => remember(panic_text(info)),
        });
    }));
}

fn remember(panic: String) {
    if cfg!(panic = "abort") {
        // Nobody comes to ask: whoever has started this process finds it there.
        drop(writeln!(std::io::stderr(), "panicked: {panic}"));
    }
    // A thread that is about to end has no place for it any more: the payload's own text will do.
    LAST_PANIC.try_with(|last| last.replace(Some(panic))).ok();
}

/// What a panic said, and where.
pub(crate) fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a value that is no text");
    let place = info.location().map(|at| format!(" at {}:{}:{}", at.file(), at.line(), at.column()));
    format!("{message}{}", place.unwrap_or_default())
}

#[cold]
fn panicked(payload: Panic) -> Error {
    let said = LAST_PANIC.try_with(RefCell::take).ok().flatten().or_else(|| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    });
    // A payload's own drop may panic again: it is left where it is.
    std::mem::forget(payload);
    let said = said.unwrap_or_else(|| "a value that is no text".to_owned());
    Error::new(ErrorKind::Panicked, "panicked", format!("the plugin panicked: {said}"))
        .hint("this is a fault in the plugin: report it to its author")
}

struct Guarded<F, O> {
    services: *const Services,
    // Dropped as soon as it is ready, while the runtime is entered anyway.
    future: ManuallyDrop<F>,
    ended: bool,
    // Of what the future borrows: dropped after it.
    owner: Option<O>,
}

// SAFETY: what `services` points to is shared between threads, and the owner or the future keeps it.
unsafe impl<F: Send, O: Send> Send for Guarded<F, O> {}

impl<F, O> Guarded<F, O> {
    fn keep(self: Pin<&mut Self>, owner: O) {
        // SAFETY: the owner is not pinned.
        unsafe { self.get_unchecked_mut() }.owner = Some(owner);
    }

    /// Polls, and gives the result to `done` if there is one. It is put where it belongs at once: a result is moved in
    /// pieces of another size than it was written in, for which a processor has to wait.
    #[inline]
    fn advance<T>(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, done: impl FnOnce(RResult<T, ErrorBytes>))
    where
        F: Future<Output = Result<T>>,
    {
        // SAFETY: `future` is pinned with `self` and never moved; the other fields are not pinned.
        let Self { future, ended, .. } = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        if let Poll::Ready(result) = unsafe { Pin::new_unchecked(&mut **future) }.poll(cx) {
            *ended = true;
            // SAFETY: dropped once: `ended` says so to the destructor. A future that is ready is not polled again.
            unsafe { ManuallyDrop::drop(future) };
            done(crossing(result));
        }
    }
}

impl<T, F: Future<Output = Result<T>>, O> Future for Guarded<F, O> {
    type Output = RResult<T, ErrorBytes>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut done = Poll::Pending;
        let polled = contain_for(self.services, || self.advance(cx, |result| done = Poll::Ready(result)));
        match polled {
            Ok(()) => done,
            Err(panic) => Poll::Ready(RResult::RErr(panicked(panic).to_json())),
        }
    }
}

/// What a call answers, as it crosses.
#[inline]
pub(crate) fn crossing<T>(result: Result<T>) -> RResult<T, ErrorBytes> {
    match result {
        Ok(value) => RResult::ROk(value),
        Err(error) => RResult::RErr(error.to_json()),
    }
}

impl<F, O> Drop for Guarded<F, O> {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: dropped once: here, because it was not when it ended.
            contain_drop("a future", || unsafe { ManuallyDrop::drop(&mut self.future) });
        }
    }
}
