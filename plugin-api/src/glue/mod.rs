//! Where author code meets the boundary: generic functions, no generated code.
//!
//! Everything of an author's that runs, runs inside [`guard::contain`]: in the library's runtime, with the node's
//! context at hand, and with panics turned into errors. Nothing unwinds out of this library.

mod commons;
pub(crate) mod export;
pub(crate) mod guard;
pub(crate) mod instance;
pub(crate) mod seat;
pub(crate) mod slot;
pub(crate) mod stage;

pub(crate) use guard::{
    blocking, contain, contain_service, crossing, node_task, release, release_seat, release_share, task,
};
pub(crate) use seat::Seat;
