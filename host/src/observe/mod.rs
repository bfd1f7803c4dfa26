//! What a running host lets see: one log, written by one thread.

pub mod log;
