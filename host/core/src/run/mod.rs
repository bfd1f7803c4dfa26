//! Running a plan: what starts when, what became of it, and what is told about it.

pub mod event;
pub mod scheduler;
