//! A value that one call at a time borrows, across await points.
//!
//! The host makes the calls on an instance or a frame one after the other, so there is nothing to wait for: a second
//! call while the first is under way is a fault of the caller and answered as one. A call that is dropped half-way
//! (cancellation) gives the value back.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The place of the value.
pub(crate) struct Slot<T> {
    // Held for moments only, to take the box out or put it back.
    state: Mutex<State<T>>,
}

enum State<T> {
    Free(Box<T>),
    Lent,
    Gone,
}

/// The value, until it is dropped.
pub(crate) struct Lease<'a, T> {
    value: Option<Box<T>>,
    slot: &'a Slot<T>,
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: Mutex::new(State::Free(Box::new(value))) }
    }

    /// Borrows the value.
    pub(crate) fn lease(&self) -> Result<Lease<'_, T>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Lent) {
            State::Free(value) => Ok(Lease { value: Some(value), slot: self }),
            State::Lent => Err(Error::new(ErrorKind::Internal, "busy", "another call is still under way")),
            State::Gone => {
                *state = State::Gone;
                Err(Error::new(ErrorKind::Internal, "gone", "it was closed or taken before this call"))
            }
        }
    }

    /// Whether the value was taken out for good.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.lock(), State::Gone)
    }

    /// Takes the value out for good, if it is there.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Free(value) => Some(*value),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Looks at the value, if it is there.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        match &*self.lock() {
            State::Free(value) => Some(look(value)),
            State::Lent | State::Gone => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Lease<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until the lease is dropped")
    }
}

impl<T> DerefMut for Lease<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until the lease is dropped")
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            *self.slot.lock() = State::Free(value);
        }
    }
}
