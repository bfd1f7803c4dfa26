//! Maps a library and takes its root. The only place outside the SDK where pointers of others are followed.

use std::path::Path;

use libloading::os::unix::{Library as Mapped, RTLD_LOCAL, RTLD_NOW};
use pype_plugin::abi::{PREAMBLE_SYMBOL, Preamble, RootProblem, root};
use pype_plugin::host::Library;

use super::{Faults, LoadError};

/// Opens the library `copy`; errors name `path`, where the user has it.
pub(super) fn open(path: &Path, copy: &Path, faults: Faults) -> Result<Library, LoadError> {
    // SAFETY: mapping a library runs its initialisers. It is a plugin that the user registered, or one that a child
    // process is about to describe; NODELETE keeps it mapped for ever.
    let mapped = unsafe { Mapped::open(Some(copy), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) }.map_err(|cause| {
        let said = std::error::Error::source(&cause).map_or_else(|| cause.to_string(), ToString::to_string);
        let cause = said.replace(&format!("{}: ", copy.display()), "");
        LoadError::NotALibrary { path: path.to_owned(), cause }
    })?;
    // SAFETY: the symbol, if it is there, is a `Preamble`: `root` checks its first bytes before anything else.
    let symbol = unsafe { mapped.get::<*const Preamble>(PREAMBLE_SYMBOL.as_bytes()) };
    let preamble = symbol.map(|symbol| symbol.into_raw().cast_const().cast::<Preamble>()).map_err(|_| {
        let cause = format!("it exports no `{PREAMBLE_SYMBOL}`");
        LoadError::NotAPlugin { path: path.to_owned(), cause }
    })?;
    std::mem::forget(mapped);
    // SAFETY: it is what the library exports under that name, and the library is never unloaded.
    let root = unsafe { root(preamble, faults == Faults::EndProcess) }.map_err(|problem| refused(path, problem))?;
    Ok(Library::new(root))
}

fn refused(path: &Path, problem: RootProblem) -> LoadError {
    let path = path.to_owned();
    match problem {
        RootProblem::NotAPreamble => {
            LoadError::NotAPlugin { path, cause: format!("its `{PREAMBLE_SYMBOL}` is something else") }
        }
        RootProblem::OtherApi { plugin } => LoadError::OtherApi { path, plugin },
        RootProblem::PanicAbort => LoadError::PanicAbort { path },
        RootProblem::Header(differences) | RootProblem::Layout(differences) => LoadError::Layout { path, differences },
        RootProblem::Constructor(cause) => LoadError::NotAPlugin { path, cause },
    }
}
