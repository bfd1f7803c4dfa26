//! The modules that turn tables into tables.
//!
//! Each reads its config in `open`, where a bad expression is refused before any data moves, and in `run` extends
//! its input's plan. Nothing is executed here in lazy mode, with the exceptions that `check` explains.

pub(crate) mod aggregate;
pub(crate) mod check;
pub(crate) mod derive;
pub(crate) mod distinct;
pub(crate) mod filter;
pub(crate) mod join;
pub(crate) mod label_filter;
pub(crate) mod select;
pub(crate) mod sort;
pub(crate) mod sql;
pub(crate) mod union;
