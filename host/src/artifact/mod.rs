//! Rows that the host keeps: in memory while there is room, else in Parquet files.
//!
//! [`Policy::keep`] decides, batch by batch, so that rows which do not fit never have to; [`store`] writes a checkpoint,
//! durable when it returns. Both are read back as frames, by as many readers as like, each from the first row.

mod items;
mod memory;
#[cfg_attr(not(feature = "polars"), path = "without_polars.rs")]
mod tables;

use std::path::Path;

use pype_plugin::{Error, ErrorKind, Frame, Result, SharedBatches};

pub use self::items::{read_items, write_items};
pub use self::memory::RamLimit;
pub use self::tables::{ParquetRows, Stored, items_of, kept_rows, store};

/// When rows leave memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Beyond so many rows of one frame.
    pub spill_threshold_rows: u64,
    /// Beyond this share of the memory that the process may use.
    pub ram: RamLimit,
}

/// Rows that the host has.
#[derive(Clone)]
pub enum Kept {
    /// In memory.
    Memory(SharedBatches),
    /// In a file.
    File(ParquetRows),
}

impl Kept {
    /// A frame of all rows.
    pub fn frame(&self) -> Frame {
        match self {
            Kept::Memory(batches) => Frame::new(batches.clone()),
            Kept::File(rows) => Frame::new(rows.clone()),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        match self {
            Kept::Memory(batches) => batches.rows(),
            Kept::File(rows) => rows.rows(),
        }
    }
}

impl Policy {
    /// Reads a frame to its end. What is too large goes to a file in `folder`, which is gone when nobody has the rows any
    /// more.
    ///
    /// # Errors
    /// The frame fails, or the file cannot be written.
    pub async fn keep(&self, frame: Frame, folder: &Path) -> Result<Kept> {
        let schema = frame.schema().await?;
        let mut batches = Vec::new();
        let mut rows = 0;
        while let Some(batch) = frame.next().await? {
            rows += batch.rows();
            batches.push(batch);
            if (rows > self.spill_threshold_rows || self.ram.is_reached()) && schema.columns() > 0 {
                let beginning = Frame::from_batches(schema, batches);
                return tables::spill(beginning, frame, folder).await.map(Kept::File);
            }
        }
        Ok(Kept::Memory(SharedBatches::new(schema, batches)))
    }
}

fn io(doing: &str, path: &Path, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, "artifact", format!("cannot {doing} `{}`: {cause}", path.display()))
}

#[cfg(all(test, feature = "polars"))]
mod tests;
