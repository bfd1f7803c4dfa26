//! The modules that read tables from files.
//!
//! A source finds its files and resolves their schema in `run`, and gives a lazy scan: rows are read by whoever
//! executes the query.

pub(crate) mod csv;
pub(crate) mod decode;
pub(crate) mod files;
pub(crate) mod json;
pub(crate) mod locate;
pub(crate) mod parquet;

use pype_plugin::prelude::*;

/// Sets the globals that every source has: the size of its files, and its rows where they were counted.
fn announce(ctx: &Context, bytes: u64, rows: Option<u64>) -> Result<()> {
    ctx.set_global("file_size", bytes)?;
    rows.map_or(Ok(()), |rows| ctx.set_global("row_count", rows))
}
