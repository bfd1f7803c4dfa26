//! The modules that write tables to files.
//!
//! All three are one [`file::FileSink`] with a format: the query streams into a temporary file beside the target
//! ([`atomic`]), past a counter that reports its rows and stops it when the run is cancelled ([`writer`]).

pub(crate) mod atomic;
pub(crate) mod csv;
pub(crate) mod file;
pub(crate) mod json;
pub(crate) mod parquet;
pub(crate) mod writer;
