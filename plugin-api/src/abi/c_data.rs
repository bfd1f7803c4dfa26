//! The structures of the Arrow C data interface (<https://arrow.apache.org/docs/format/CDataInterface.html>).
//!
//! [`FfiArrowSchema`] and [`FfiArrowArray`] are the C structs, plain and without an owner. [`ArrowSchema`] and
//! [`ArrowArray`] own one and release it; whoever makes one vouches for what its pointers say.

use std::ffi::{c_char, c_void};
use std::mem::{ManuallyDrop, transmute_copy};

use abi_stable::StableAbi;

/// `struct ArrowSchema` as the C header has it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
#[sabi(unsafe_opaque_fields)]
pub struct FfiArrowSchema {
    /// The type, as a format string.
    pub format: *const c_char,
    /// The field's name.
    pub name: *const c_char,
    /// Binary-encoded key-value metadata.
    pub metadata: *const c_char,
    /// Dictionary-ordered 1, nullable 2, map keys sorted 4.
    pub flags: i64,
    /// How many children there are.
    pub n_children: i64,
    /// The children.
    pub children: *mut *mut FfiArrowSchema,
    /// The dictionary's value type.
    pub dictionary: *mut FfiArrowSchema,
    /// Frees what the producer owns; null once released.
    pub release: Option<unsafe extern "C" fn(*mut FfiArrowSchema)>,
    /// The producer's.
    pub private_data: *mut c_void,
}

/// `struct ArrowArray` as the C header has it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
#[sabi(unsafe_opaque_fields)]
pub struct FfiArrowArray {
    /// Rows.
    pub length: i64,
    /// Nulls, −1 when not counted.
    pub null_count: i64,
    /// Rows to skip.
    pub offset: i64,
    /// How many buffers there are.
    pub n_buffers: i64,
    /// How many children there are.
    pub n_children: i64,
    /// The buffers.
    pub buffers: *mut *const c_void,
    /// The children.
    pub children: *mut *mut FfiArrowArray,
    /// The dictionary's values.
    pub dictionary: *mut FfiArrowArray,
    /// Frees what the producer owns; null once released.
    pub release: Option<unsafe extern "C" fn(*mut FfiArrowArray)>,
    /// The producer's.
    pub private_data: *mut c_void,
}

/// An owned schema, released when it is dropped.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct ArrowSchema(FfiArrowSchema);

/// An owned array, released when it is dropped.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct ArrowArray(FfiArrowArray);

impl ArrowSchema {
    /// How many columns a struct has.
    pub fn columns(&self) -> u64 {
        u64::try_from(self.ffi().n_children).unwrap_or(0)
    }
}

impl ArrowArray {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.0.length.unsigned_abs()
    }

    #[cfg(feature = "polars")]
    pub(crate) fn ffi_mut(&mut self) -> &mut FfiArrowArray {
        &mut self.0
    }
}

macro_rules! owner {
    ($owner:ident, $plain:ident) => {
        // SAFETY: the C data interface lets a consumer move structures between threads and release them on any.
        unsafe impl Send for $owner {}
        // SAFETY: read-only once exported.
        unsafe impl Sync for $owner {}

        impl $owner {
            /// Takes over a structure of any implementation of the interface: this one's plain struct, polars',
            /// arrow-rs', a C library's.
            ///
            /// # Safety
            /// `T` is laid out as the C header says, what it points to is as the interface demands, and it was not
            /// released.
            pub unsafe fn from_ffi<T>(structure: T) -> Self {
                const { assert!(size_of::<T>() == size_of::<Self>() && align_of::<T>() == align_of::<Self>()) };
                // SAFETY: of one layout, as the caller says; ownership moves.
                unsafe { transmute_copy(&*ManuallyDrop::new(structure)) }
            }

            /// Hands the structure over to another implementation, which releases it.
            ///
            /// # Safety
            /// `T` is laid out as the C header says.
            pub unsafe fn into_ffi<T>(self) -> T {
                const { assert!(size_of::<T>() == size_of::<Self>() && align_of::<T>() == align_of::<Self>()) };
                // SAFETY: of one layout, as the caller says; ownership moves.
                unsafe { transmute_copy(&*ManuallyDrop::new(self)) }
            }

            /// The structure as another implementation sees it.
            ///
            /// # Safety
            /// `T` is laid out as the C header says.
            pub unsafe fn as_ffi<T>(&self) -> &T {
                const { assert!(size_of::<T>() == size_of::<Self>() && align_of::<T>() == align_of::<Self>()) };
                // SAFETY: of one layout, as the caller says.
                unsafe { &*std::ptr::from_ref(self).cast::<T>() }
            }

            /// The plain structure.
            pub fn ffi(&self) -> &$plain {
                &self.0
            }
        }

        impl Drop for $owner {
            fn drop(&mut self) {
                if let Some(release) = self.0.release {
                    // SAFETY: an unreleased structure is released once, by its owner.
                    unsafe { release(&mut self.0) }
                }
            }
        }
    };
}

owner!(ArrowSchema, FfiArrowSchema);
owner!(ArrowArray, FfiArrowArray);
