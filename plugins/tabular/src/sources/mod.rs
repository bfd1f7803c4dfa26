//! The modules that read tables from files.
//!
//! A source finds its files and resolves their schema in `run`, and gives a lazy scan: rows are read by whoever
//! executes the query.

mod bad_rows;
pub(crate) mod csv;
pub(crate) mod decode;
pub(crate) mod files;
pub(crate) mod json;
pub(crate) mod locate;
pub(crate) mod parquet;

use bad_rows::Rejected;
use polars::prelude::LazyFrame;
use pype_plugin::prelude::*;

use crate::query;

/// What was read of text files.
struct Read {
    data: Frame,
    rows: Option<u64>,
    rejected: LazyFrame,
    rejected_count: Option<u64>,
    bytes: u64,
}

impl Read {
    /// `rejected` is there if bad rows are no errors.
    fn of(plan: LazyFrame, rejected: Option<Rejected>, counted: bool, bytes: u64) -> Result<Self> {
        let (data, rows) = read(plan, counted)?;
        let rejected_count = rejected.as_ref().map(|rejected| rejected.count);
        let rejected = rejected.map_or_else(|| Ok(bad_rows::none_rejected()), Rejected::into_plan)?;
        Ok(Self { data, rows, rejected, rejected_count, bytes })
    }

    /// Tells of it, and hands it on.
    fn give(self, ctx: &Context, of: &str) -> Result<Outputs> {
        announce(ctx, self.bytes, self.rows)?;
        if let Some(rejected) = self.rejected_count {
            bad_rows::announce(ctx, rejected, of)?;
        }
        Ok(Outputs::one("data", self.data).with("rejected", self.rejected))
    }
}

/// The frame to hand on, and its row count where that is wanted.
fn read(plan: LazyFrame, counted: bool) -> Result<(Frame, Option<u64>)> {
    let rows = counted.then(|| query::count(plan.clone())).transpose()?;
    Ok((query::frame(plan), rows))
}

/// Sets the globals that every source has: the size of its files, and its rows where they were counted.
fn announce(ctx: &Context, bytes: u64, rows: Option<u64>) -> Result<()> {
    ctx.set_global("file_size", bytes)?;
    rows.map_or(Ok(()), |rows| ctx.set_global("row_count", rows))
}
