//! A value that calls share, until one has it alone.
//!
//! Sharing never waits, and costs two changes of a number: it is refused once somebody has the value alone, or has taken it
//! out. Having it alone waits until those who share it have left.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// Somebody has the value alone, or has taken it out.
const ALONE: usize = 1;
/// Somebody waits to have it alone.
const AWAITED: usize = 2;
/// One who shares it.
const SHARE: usize = 4;

/// The place of the value.
pub(crate) struct Commons<T> {
    state: AtomicUsize,
    value: UnsafeCell<Option<T>>,
    left: Notify,
}

// SAFETY: those who share the value only look at it, and whoever changes it has turned the state from none to `ALONE`.
unsafe impl<T: Send + Sync> Sync for Commons<T> {}

/// The value, shared until this is dropped.
pub(crate) struct Share<'a, T> {
    commons: &'a Commons<T>,
}

/// The value, for one alone until this is dropped.
pub(crate) struct Alone<'a, T> {
    commons: &'a Commons<T>,
}

impl<T> Commons<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: AtomicUsize::new(0), value: UnsafeCell::new(Some(value)), left: Notify::new() }
    }

    /// Shares the value.
    pub(crate) fn share(&self) -> Result<Share<'_, T>> {
        let before = self.state.fetch_add(SHARE, Ordering::Acquire);
        let share = Share { commons: self };
        match before & ALONE {
            0 => Ok(share),
            _ => Err(Error::new(ErrorKind::Internal, "gone", "it was closed before this call")),
        }
    }

    /// The value for the caller alone, once nobody shares it; `None` if another has it alone, or has taken it out.
    pub(crate) async fn alone(&self) -> Option<Alone<'_, T>> {
        loop {
            let before = self.state.fetch_or(AWAITED, Ordering::Relaxed);
            if before & ALONE != 0 {
                return None;
            }
            if self.state.compare_exchange(AWAITED, ALONE, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(Alone { commons: self });
            }
            // Who leaves last wakes also one who only begins to wait.
            self.left.notified().await;
        }
    }
}

impl<T> Deref for Share<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody changes it while it is shared.
        unsafe { &*self.commons.value.get() }.as_ref().expect("there until somebody has it alone")
    }
}

impl<T> Drop for Share<'_, T> {
    fn drop(&mut self) {
        if self.commons.state.fetch_sub(SHARE, Ordering::Release) == SHARE | AWAITED {
            self.commons.left.notify_one();
        }
    }
}

impl<T> Alone<'_, T> {
    pub(crate) fn value(&mut self) -> &mut T {
        // SAFETY: nobody else has it until this is dropped.
        unsafe { &mut *self.commons.value.get() }.as_mut().expect("there until it is taken out, which ends this")
    }

    /// Takes the value out for good.
    pub(crate) fn take(self) -> T {
        // SAFETY: nobody else has it, and since this is not dropped, nobody ever will.
        let value = unsafe { &mut *ManuallyDrop::new(self).commons.value.get() };
        value.take().expect("there until it is taken out, which ends this")
    }
}

impl<T> Drop for Alone<'_, T> {
    fn drop(&mut self) {
        self.commons.state.fetch_and(!ALONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn many_share_it_until_one_has_it_alone() {
        let commons = Commons::new(1);
        let (one, other) = (commons.share().expect("free"), commons.share().expect("free"));
        let mut waiting = pin!(commons.alone());
        assert!(poll(&mut waiting).is_pending());
        drop(one);
        assert!(poll(&mut waiting).is_pending());
        assert_eq!(*commons.share().expect("still there"), 1);
        drop(other);
        let Poll::Ready(Some(mut alone)) = poll(&mut waiting) else { panic!("all have left") };
        *alone.value() += 1;
        let refused = |commons: &Commons<i32>| commons.share().err().map(|error| error.code.clone());
        assert_eq!(refused(&commons), Some("gone".into()));
        // Who gives it back has changed nothing else.
        drop(alone);
        assert_eq!(*commons.share().expect("free again"), 2);
        let Poll::Ready(Some(alone)) = poll(&mut pin!(commons.alone())) else { panic!("nobody shares it") };
        assert_eq!(alone.take(), 2);
        assert_eq!(refused(&commons), Some("gone".into()));
        assert!(matches!(poll(&mut pin!(commons.alone())), Poll::Ready(None)));
    }
}
