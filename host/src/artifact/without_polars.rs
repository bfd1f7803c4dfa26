//! What `tables` does, in a host that was built without the feature `polars`: rows stay in memory, and whatever needs a file
//! or JSON is refused.

use std::convert::Infallible;
use std::path::Path;

use pype_plugin::{ArrowArray, ArrowSchema, Error, ErrorKind, Frame, Producer, Result};
use serde_json::Value;

use super::Kept;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How many rows.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// The rows of a Parquet file: there are none.
#[derive(Clone)]
pub struct ParquetRows(Infallible);

/// Refuses to write a checkpoint.
///
/// # Errors
/// Always.
pub async fn store(_: Frame, _: &Path) -> Result<Stored> {
    Err(refused("a checkpoint"))
}

pub(super) async fn spill(_: Frame, _: Frame, _: &Path) -> Result<ParquetRows> {
    Err(refused("rows that do not fit into memory"))
}

/// Refuses to read rows as items.
///
/// # Errors
/// Always.
pub async fn items_of(_: Frame) -> Result<Vec<Value>> {
    Err(refused("a loop over rows"))
}

/// Refuses to make rows of objects.
///
/// # Errors
/// Always.
pub fn kept_rows(_: &[Value]) -> Result<Kept> {
    Err(refused("rows in a test"))
}

impl ParquetRows {
    /// Refuses to read a file.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &Path) -> Result<Self> {
        Err(refused("a Parquet file"))
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        match self.0 {}
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        match self.0 {}
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        match self.0 {}
    }

    /// Refuses to read a file.
    ///
    /// # Errors
    /// Always.
    pub fn head_as_json(_: &Path, _: usize) -> Result<Vec<Value>> {
        Err(refused("a Parquet file"))
    }
}

impl Producer for ParquetRows {
    async fn schema(&mut self) -> Result<ArrowSchema> {
        match self.0 {}
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>> {
        match self.0 {}
    }
}

fn refused(what: &str) -> Error {
    let message = format!("{what} needs a pype that was built with the feature `polars`");
    Error::new(ErrorKind::Unsupported, "without-polars", message)
}
