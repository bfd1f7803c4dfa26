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
