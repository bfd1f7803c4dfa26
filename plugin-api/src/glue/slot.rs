//! A value that one call at a time borrows, across await points.
//!
//! The host makes the calls on an instance or a frame one after the other, so there is nothing to wait for: a second
//! call while the first is under way is a fault of the caller and answered as one. A call that is dropped half-way
//! (cancellation) gives the value back.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Whoever turns this into one of the others has the value.
const FREE: u8 = 0;
const LENT: u8 = 1;
const GONE: u8 = 2;

/// The place of the value.
pub(crate) struct Slot<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is touched only by whoever changed the state from `FREE`, which is one thread at a time.
unsafe impl<T: Send> Sync for Slot<T> {}

/// The value, until it is dropped.
pub(crate) struct Lease<'a, T> {
    slot: &'a Slot<T>,
    // As shareable as what it gives.
    _value: PhantomData<&'a mut T>,
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: AtomicU8::new(FREE), value: UnsafeCell::new(Some(value)) }
    }

    /// Borrows the value.
    pub(crate) fn lease(&self) -> Result<Lease<'_, T>> {
        match self.claim(LENT) {
            Ok(()) => Ok(Lease { slot: self, _value: PhantomData }),
            Err(LENT) => Err(Error::new(ErrorKind::Internal, "busy", "another call is still under way")),
            Err(_) => Err(Error::new(ErrorKind::Internal, "gone", "it was closed or taken before this call")),
        }
    }

    /// Whether the value was taken out for good.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) == GONE
    }

    /// Takes the value out for good, if it is there.
    pub(crate) fn take(&self) -> Option<T> {
        self.claim(GONE).ok()?;
        // SAFETY: the state was `FREE` and nobody can claim it again.
        unsafe { &mut *self.value.get() }.take()
    }

    /// Looks at the value, if it is there.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.lease().ok().map(|value| look(&value))
    }

    fn claim(&self, state: u8) -> Result<(), u8> {
        self.state.compare_exchange(FREE, state, Ordering::Acquire, Ordering::Acquire).map(drop)
    }
}

impl<T> Deref for Lease<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a lease has the value to itself until it is dropped.
        unsafe { &*self.slot.value.get() }.as_ref().expect("there until the slot is gone")
    }
}

impl<T> DerefMut for Lease<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a lease has the value to itself until it is dropped.
        unsafe { &mut *self.slot.value.get() }.as_mut().expect("there until the slot is gone")
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        self.slot.state.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_has_the_value_and_taking_it_ends_that() {
        let slot = Slot::new(1);
        let mut lease = slot.lease().expect("free");
        *lease += 1;
        assert_eq!(slot.lease().err().map(|error| error.code.clone()), Some("busy".into()));
        assert_eq!((slot.take(), slot.peek(|value| *value)), (None, None));
        drop(lease);
        assert_eq!(slot.peek(|value| *value), Some(2));
        assert_eq!(slot.take(), Some(2));
        assert!(slot.is_gone());
        assert_eq!(slot.lease().err().map(|error| error.code.clone()), Some("gone".into()));
    }
}
