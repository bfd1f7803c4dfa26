//! `{{ … }}` in configs: minijinja, filled in after parsing, into the string leaves of a value.
//!
//! - A leaf that is exactly one expression keeps the expression's type; any other becomes text.
//! - A name that is missing is an error at its line; `null` inside a text is one too. Nothing ever
//!   becomes the text `None`.
//! - Names: `context.*`, `env.*`, `iter.*`, `secret.*`, and globals `moduleid__Var`, however cased.
//!
//! At validation only `context.*` is known: [`check`] fills that in and tells which leaves wait
//! for the run. At run [`render`] fills in the rest.

mod context;
mod engine;
mod globals;
mod references;
mod render;

pub use context::{Context, SetError, parse_set};
pub use globals::{GlobalSetTwice, Globals};
pub use references::References;
pub use render::{Checked, Scope, check, render};

pub(crate) use context::offset_of;
pub(crate) use globals::split_global;
pub(crate) use references::{expression_error, name_span};
