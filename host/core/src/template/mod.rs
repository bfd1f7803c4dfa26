//! `{{ … }}` in configs: minijinja, filled in after parsing, into the string leaves of a value.
//!
//! - A leaf that is exactly one expression keeps the expression's type; any other becomes text.
//! - A name that is missing is an error at its line; `null` inside a text is one too. No value of a context or a global
//!   becomes the text `None`; only a `none` that a template itself spells out beside a `~` does.
//! - Names: `context.*`, `env.*`, `iter.*`, `secret.*`, and globals `moduleid__Var`, however cased. `env` and `secret` are
//!   asked by name, `env.HOME`, and by nothing else.
//! - `iter` is the turn of a loop: `iter.item`, `iter.index`, and `iter.outer` for the loop around it.
//! - A secret is a text. No finding holds one, whatever a template does with it.
//! - A leaf takes 100,000 steps at most and becomes a text of 1 MiB at most.
//!
//! At validation only `context.*` is known: [`check`] fills that in and tells which leaves wait
//! for the run. At run [`render`] fills in the rest.

mod condition;
mod context;
mod engine;
mod globals;
mod iteration;
mod names;
mod plain;
mod references;
mod render;
mod secret;
mod texts;
mod walk;

pub use condition::condition;
pub use context::{Context, SetError, parse_set};
pub use globals::{GlobalSetTwice, Globals};
pub use iteration::Iteration;
pub use references::References;
pub use render::{Checked, Scope, check, render, render_sealed};
pub use secret::{SecretUse, secrets};

pub(crate) use condition::check_condition;
pub(crate) use context::offset_of;
pub(crate) use globals::split_global;
pub(crate) use iteration::depth;
pub(crate) use references::{expression_error, name_span};
pub(crate) use texts::each_template;
