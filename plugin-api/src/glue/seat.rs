//! Where the future of a call is polled, and where the value is that it returns.
//!
//! A future may not be moved once it was polled, so it needs a place in memory of its own, though most are ready at once and
//! would not; and what it returns crosses behind a pointer. Getting and giving back such places costs more than the call. So each
//! thread keeps the last ones for its next calls: a chain of stages is as many calls, each inside the one before.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// What fits in here is kept.
const KEPT: Layout = match Layout::from_size_align(512, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("16 is a power of two"),
};
/// So many places does a thread keep.
const ROOM: usize = 64;

/// A pinned value, as in a box.
pub(crate) struct Seat<T>(NonNull<T>);

// SAFETY: it owns its value, as a box does.
unsafe impl<T: Send> Send for Seat<T> {}

impl<T> Seat<T> {
    pub(crate) fn new(value: T) -> Self {
        let Ok(seat) = Self::made(|| Ok::<_, Infallible>(value));
        seat
    }

    /// A value that is made where it stays, if it is made.
    #[inline]
    pub(super) fn made<E>(make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        const { assert!(layout::<T>().size() > 0, "what takes no place cannot be allocated") };
        let free = Vacated { place: take(layout::<T>()), layout: layout::<T>() };
        let place = free.place.cast::<T>();
        // SAFETY: the place is as large as a `T` and aligned for it, and nobody else has it.
        unsafe { place.write(make()?) };
        std::mem::forget(free);
        Ok(Self(place))
    }

    pub(crate) fn into_raw(self) -> *mut T {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// The seat again.
    ///
    /// # Safety
    /// `place` came from [`Seat::into_raw`], and is not used again.
    pub(crate) unsafe fn from_raw(place: *mut T) -> Self {
        // SAFETY: no seat is at no place.
        Self(unsafe { NonNull::new_unchecked(place) })
    }

    /// The value; its place is free.
    pub(crate) fn into_inner(self) -> T {
        let seat = std::mem::ManuallyDrop::new(self);
        let _place = Vacated { place: seat.0.cast(), layout: layout::<T>() };
        // SAFETY: it is read once, here, and not dropped there.
        unsafe { seat.0.read() }
    }

    pub(super) fn as_mut(&mut self) -> Pin<&mut T> {
        // SAFETY: the value stays where it is until it is dropped there.
        unsafe { Pin::new_unchecked(self.0.as_mut()) }
    }
}

impl<F: Future> Future for Seat<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.get_mut().as_mut().poll(cx)
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let place = Vacated { place: self.0.cast(), layout: layout::<T>() };
        // SAFETY: the value is dropped once, here; its place is given back after it, also when it panics.
        unsafe { self.0.drop_in_place() };
        drop(place);
    }
}

/// A place whose value is gone.
struct Vacated {
    place: NonNull<u8>,
    layout: Layout,
}

impl Drop for Vacated {
    #[inline]
    fn drop(&mut self) {
        let Self { place, layout } = *self;
        // A thread that is about to end keeps nothing.
        if layout == KEPT && SPARE.try_with(|spare| spare.keep(place)).unwrap_or(false) {
            return;
        }
        // SAFETY: it was allocated with this layout, and nobody has it any more.
        unsafe { dealloc(place.as_ptr(), layout) };
    }
}

/// The places that a thread keeps: the first so many of these.
struct Spare {
    places: [Cell<NonNull<u8>>; ROOM],
    kept: Cell<usize>,
}

thread_local! {
    static SPARE: Spare = const { Spare { places: [const { Cell::new(NonNull::dangling()) }; ROOM], kept: Cell::new(0) } };
}

impl Spare {
    /// Whether there was room for it.
    #[inline]
    fn keep(&self, place: NonNull<u8>) -> bool {
        let kept = self.kept.get();
        let Some(room) = self.places.get(kept) else { return false };
        room.set(place);
        self.kept.set(kept + 1);
        true
    }

    #[inline]
    fn take(&self) -> Option<NonNull<u8>> {
        let last = self.kept.get().checked_sub(1)?;
        self.kept.set(last);
        Some(self.places[last].get())
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        while let Some(place) = self.take() {
            // SAFETY: it was allocated with this layout, and only this thread had it.
            unsafe { dealloc(place.as_ptr(), KEPT) };
        }
    }
}

const fn layout<T>() -> Layout {
    let layout = Layout::new::<T>();
    if layout.size() <= KEPT.size() && layout.align() <= KEPT.align() { KEPT } else { layout }
}

#[inline]
fn take(layout: Layout) -> NonNull<u8> {
    if layout == KEPT
        && let Some(place) = SPARE.try_with(Spare::take).ok().flatten()
    {
        return place;
    }
    // SAFETY: its size is not zero: what is small gets as much as all that is kept.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    /// Panics when it is dropped.
    struct Sore<T>(Rc<()>, T);

    impl<T> Drop for Sore<T> {
        fn drop(&mut self) {
            assert_eq!(Rc::strong_count(&self.0), 1, "told to panic");
        }
    }

    #[test]
    fn places_are_used_again_one_at_a_time_and_after_a_panic_too() {
        let place = |seat: &mut Seat<u64>| std::ptr::from_mut(seat.as_mut().get_mut()).addr();
        let mut first = Seat::new(1_u64);
        let mut second = Seat::new(2_u64);
        let at = place(&mut first);
        assert_ne!(at, place(&mut second));
        drop(second);
        drop(first);
        let count = Rc::new(());
        let sore = Seat::new(Sore(count.clone(), ()));
        assert_eq!(sore.0.addr().get(), at);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(sore))).is_err());
        assert_eq!(place(&mut Seat::new(3_u64)), at);
        let large = Seat::new(Sore(count.clone(), [0_u8; 1000]));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(large))).is_err());
        assert_eq!(Rc::strong_count(&count), 1, "what a value holds is dropped though the value panics");
    }
}
