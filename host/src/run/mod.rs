//! Carries out a plan.
//!
//! [`engine`] does what the scheduler of `pype-core` commands and reports back; [`sub_flow`] runs the nodes of one
//! sub flow, [`loops`] those of a loop once per item, in a [`turn`] of its own; [`resume`] finds out what need not run again;
//! [`services`] is what plugins may ask meanwhile. Nothing here decides what runs next, and nothing here
//! knows a file format: frames pass through unread, unless two readers need the same one.

mod engine;
mod frames;
mod home;
mod loops;
mod mock;
mod node;
mod resume;
pub mod services;
mod sub_flow;
mod turn;

pub use self::engine::{Job, Limits, load_libraries, run};
pub use self::home::Home;
pub use self::mock::Mocks;
pub use self::resume::{Forecast, forecast, wirings};
pub use self::services::{LibraryServices, Observer, Store};

pub(crate) use self::node::settled;
