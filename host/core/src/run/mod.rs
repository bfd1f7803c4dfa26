//! Running a plan: what starts when, what became of it, what is told about it, and what of it a later session may use again.

pub mod event;
pub mod fingerprint;
pub mod history;
pub mod log;
pub mod previous;
pub mod scheduler;
