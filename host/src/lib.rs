//! The pype host, as a library: load plugins, plan what is declared, run it. The binary `pype` is a thin shell around it.
//!
//! Arrows run one way: [`cli`] → [`prepare`] (load and plan, with `pype-core`) → [`run`], or [`pipeline`] → [`loader`] →
//! `pype-plugin`.

pub mod artifact;
mod child;
pub mod cli;
mod clock;
mod durable;
pub mod loader;
pub mod observe;
pub mod pipeline;
pub mod prepare;
pub mod registry;
pub mod run;
pub mod runs;
pub mod secret;
pub mod stream;
pub mod worker;
