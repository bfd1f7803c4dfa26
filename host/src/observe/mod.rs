//! What a running host lets see: one log, written by one thread, and spans, if somebody collects them.

pub mod log;
pub mod spans;
