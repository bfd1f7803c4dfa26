//! The control plane of streams: named tests for what other consumers get wrong, and a simulation of whole groups of
//! consumers over a log, against a naive model.

#[path = "stream/faults.rs"]
mod faults;
#[path = "stream/followers.rs"]
mod followers;
#[path = "stream/one_by_one.rs"]
mod one_by_one;
#[path = "stream/simulation.rs"]
mod simulation;
#[path = "stream/stage.rs"]
mod stage;
