//! Child processes that do the host's work: what crashes in one of them costs that work, and nothing else.
//!
//! The host starts this same binary with the hidden command [`COMMAND`] and one end of a socket. Over it the two sides ask each
//! other, take note, and read each other's frames batch by batch; [`wire`] is what crosses, [`peer`] one side of it. On the
//! host's side an [`Apart`] stands for a library whose modules run in children, and [`keeper`] has what is known of each: when one
//! dies that should not, why it did is in a post-mortem. On the child's side [`here`] is what all children do, [`modules`]
//! runs modules. What children do with the records of streams is said in [`crate::stream`].
//!
//! A child ends when the host tells it to, when its socket is closed, and never by Ctrl-C.

mod apart;
mod frames;
mod here;
mod keeper;
mod modules;
mod peer;
mod post_mortem;
mod process;
pub(crate) mod records;
mod rows;
mod wire;

use pype_plugin::{Error, ErrorKind};

pub use self::apart::Apart;
pub use self::keeper::Around;

pub(crate) use self::apart::ToOpenApart;
pub(crate) use self::here::{COMMAND, Child};
pub(crate) use self::keeper::{About, Death};
pub(crate) use self::modules::serve as serve_modules;
pub(crate) use self::post_mortem::FOLDER as POST_MORTEMS;
pub(crate) use self::wire::{PipelineToOpen, Turn, What};

fn not_asked() -> Error {
    Error::new(ErrorKind::Unsupported, "unknown-request", "the other process is asked for what it does not do")
}

/// What whoever waits for an answer hears, when somebody else explains the death.
fn gone(death: &Death) -> Error {
    let mut error = Error::new(ErrorKind::Internal, "crashed", format!("it {}", death.how())).retryable(true);
    error.causes.extend(death.last_words());
    error
}
