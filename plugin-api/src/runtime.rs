//! The library's own tokio runtime.
//!
//! Every cdylib carries its own copy of tokio's statics, so a future made here finds no reactor when the host polls
//! it. The glue enters this runtime around every poll, drop and entry. It starts at first use with one worker
//! thread and is never dropped: libraries are never unloaded.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::Semaphore;

static RUNTIME: OnceLock<Handle> = OnceLock::new();
static BLOCKING: OnceLock<Semaphore> = OnceLock::new();
static BLOCKING_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Fixes how many threads blocking work may use, if none was asked for yet.
pub(crate) fn set_blocking_threads(threads: usize) {
    BLOCKING_THREADS.store(threads, Ordering::Relaxed);
}

/// A permit for each thread that blocking work may use. The runtime's own pool is larger: what must not wait behind a
/// query that cannot be interrupted, above all a module's `close`, goes there without a permit.
pub(crate) fn blocking_permits() -> &'static Semaphore {
    BLOCKING.get_or_init(|| {
        Semaphore::new(match BLOCKING_THREADS.load(Ordering::Relaxed) {
            0 => std::thread::available_parallelism().map_or(4, |n| n.get() * 2),
            threads => threads,
        })
    })
}

/// The runtime, started if it was not.
pub(crate) fn runtime() -> &'static Handle {
    RUNTIME.get_or_init(start)
}

/// Uses a runtime that is there already: the host's, in the host. The first one stays.
pub(crate) fn adopt(handle: Handle) {
    RUNTIME.get_or_init(|| handle);
}

/// Makes the runtime the current one until the guard is dropped.
pub(crate) fn enter() -> EnterGuard<'static> {
    runtime().enter()
}

fn start() -> Handle {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("pype-plugin")
        .enable_all()
        .build()
        .expect("the operating system lets a library start one thread");
    let handle = runtime.handle().clone();
    std::mem::forget(runtime);
    handle
}
