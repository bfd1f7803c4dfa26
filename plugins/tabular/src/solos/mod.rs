//! The modules that work without a table.

pub(crate) mod list_files;
