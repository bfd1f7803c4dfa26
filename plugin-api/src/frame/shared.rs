//! Batches in memory that several readers may have, each as often as it likes.
//!
//! The C data interface lets a consumer move children out of an array, so readers cannot share one structure: each
//! gets a tree of its own whose leaves keep the first owner alive.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Frame, Producer};
use crate::abi::{ArrowArray, ArrowSchema, FfiArrowArray, FfiArrowSchema};
use crate::error::Result;

/// A schema and batches in memory. Clones share the memory, and each starts at the first batch.
pub struct SharedBatches {
    schema: Arc<ArrowSchema>,
    batches: Arc<[Arc<ArrowArray>]>,
    at: usize,
}

impl SharedBatches {
    /// Takes a struct schema and its struct arrays.
    pub fn new(schema: ArrowSchema, batches: impl IntoIterator<Item = ArrowArray>) -> Self {
        Self { schema: Arc::new(schema), batches: batches.into_iter().map(Arc::new).collect(), at: 0 }
    }

    /// Reads a frame to its end.
    ///
    /// # Errors
    /// The frame fails.
    pub async fn read(frame: &Frame) -> Result<Self> {
        let schema = frame.schema().await?;
        let mut batches = Vec::new();
        while let Some(batch) = frame.next().await? {
            batches.push(batch);
        }
        Ok(Self::new(schema, batches))
    }

    /// How many rows all batches have.
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.rows()).sum()
    }
}

impl Clone for SharedBatches {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), batches: self.batches.clone(), at: 0 }
    }
}

impl Producer for SharedBatches {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        // SAFETY: what is shared is valid, and kept so by its owner.
        Ok(unsafe { ArrowSchema::from_ffi(share_schema(self.schema.ffi(), &self.schema)) })
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        let Some(batch) = self.batches.get(self.at) else { return Ok(None) };
        self.at += 1;
        // SAFETY: as for the schema.
        Ok(Some(unsafe { ArrowArray::from_ffi(share_array(batch.ffi(), batch)) }))
    }

    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// What a shared structure owns: its list of children, and the structure whose memory it shows.
struct Keep<Owner, Plain> {
    _owner: Arc<Owner>,
    children: Vec<*mut Plain>,
    dictionary: *mut Plain,
}

macro_rules! share {
    ($share:ident, $release:ident, $owner:ident, $plain:ident { $($field:ident),* }) => {
        fn $share(of: &$plain, owner: &Arc<$owner>) -> $plain {
            let child = |child: *mut $plain| {
                // SAFETY: children and dictionaries of an unreleased structure are valid, and `owner` keeps them so.
                Box::into_raw(Box::new($share(unsafe { &*child }, owner)))
            };
            let count = usize::try_from(of.n_children).unwrap_or(0);
            // SAFETY: `children` points to `n_children` pointers.
            let children = (0..count).map(|i| child(unsafe { *of.children.add(i) })).collect();
            let dictionary = if of.dictionary.is_null() { std::ptr::null_mut() } else { child(of.dictionary) };
            let mut keep = Box::new(Keep { _owner: owner.clone(), children, dictionary });
            $plain {
                $($field: of.$field,)*
                n_children: of.n_children,
                children: keep.children.as_mut_ptr(),
                dictionary,
                release: Some($release),
                private_data: Box::into_raw(keep).cast::<c_void>(),
            }
        }

        unsafe extern "C" fn $release(shared: *mut $plain) {
            // SAFETY: the consumer passes a structure that `share` made, once.
            let shared = unsafe { &mut *shared };
            // SAFETY: `private_data` is the box that `share` made.
            let keep = unsafe { Box::from_raw(shared.private_data.cast::<Keep<$owner, $plain>>()) };
            for child in keep.children.iter().copied().chain([keep.dictionary]).filter(|child| !child.is_null()) {
                // SAFETY: made by `Box::into_raw` in `share`; a child that was moved out has no release any more.
                drop(unsafe { $owner::from_ffi(*Box::from_raw(child)) });
            }
            shared.release = None;
        }
    };
}

share!(share_schema, release_schema, ArrowSchema, FfiArrowSchema { format, name, metadata, flags });
share!(share_array, release_array, ArrowArray, FfiArrowArray { length, null_count, offset, n_buffers, buffers });
