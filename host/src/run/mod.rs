//! Carries out a plan.
//!
//! [`engine`] does what the scheduler of `pype-core` commands and reports back; [`sub_flow`] runs the nodes of one
//! sub flow; [`services`] is what plugins may ask meanwhile. Nothing here decides what runs next, and nothing here
//! knows a file format: frames pass through unread, unless two readers need the same one.

mod engine;
mod frames;
mod node;
mod scratch;
pub mod services;
mod sub_flow;

pub use self::engine::{Job, Limits, load_libraries, run};
pub use self::scratch::Scratch;
pub use self::services::{LibraryServices, Observer};
