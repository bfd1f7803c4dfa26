//! From a library's preamble to its root, one check after the other.
//!
//! abi_stable's own check accepts a library only when its types have *more* fields than the host's. Here a library
//! passes when the check holds in either direction: an old plugin lacks the newest fields of a newer host, and the
//! suffix accessors of the prefix types answer `None` for those.

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::check_layout_compatibility;

use super::{API_MAJOR, AbiHeaderRef, LibHeader, MAGIC, Preamble, RootRef};

/// Why a library is not a plugin for this host.
#[derive(Debug, PartialEq, Eq)]
pub enum RootProblem {
    /// The symbol is there, but is not a preamble.
    NotAPreamble,
    /// It was built for another major version of the API.
    OtherApi {
        /// The plugin's version, major and minor.
        plugin: (u32, u32),
    },
    /// It was compiled with `panic=abort`.
    PanicAbort,
    /// Its abi_stable is another.
    Header(String),
    /// Its types differ from this host's though its version says otherwise.
    Layout(String),
    /// Its constructor failed.
    Constructor(String),
}

/// Checks the library behind `preamble` and gives its root. One that aborts where others panic is taken only if it `may_abort`.
///
/// # Errors
/// It is not a plugin for this host.
///
/// # Safety
/// `preamble` is what a library exports under [`PREAMBLE_SYMBOL`](super::PREAMBLE_SYMBOL), and the library is never
/// unloaded.
pub unsafe fn root(preamble: *const Preamble, may_abort: bool) -> Result<RootRef, RootProblem> {
    // SAFETY: the caller's promise; the preamble's layout never changes, and its first bytes say that it is one.
    let preamble = unsafe { &*preamble };
    if preamble.magic != MAGIC {
        return Err(RootProblem::NotAPreamble);
    }
    if preamble.api_major != API_MAJOR {
        return Err(RootProblem::OtherApi { plugin: (preamble.api_major, preamble.api_minor) });
    }
    if preamble.panic_abort != 0 && !may_abort {
        return Err(RootProblem::PanicAbort);
    }
    // SAFETY: `header` points to a `LibHeader`, whose first field is the `AbiHeader` that this reference type is of.
    let header = unsafe { std::mem::transmute::<*const std::ffi::c_void, AbiHeaderRef>(preamble.header) };
    let header = header.upgrade().map_err(|cause| RootProblem::Header(cause.to_string()))?;
    check_layout(header)?;
    // SAFETY: the layout was checked.
    unsafe { header.unchecked_layout::<RootRef>() }.map_err(|cause| RootProblem::Constructor(cause.to_string()))
}

fn check_layout(header: &LibHeader) -> Result<(), RootProblem> {
    let Some(plugin) = header.layout() else {
        return Err(RootProblem::Layout("the library says nothing of its types".to_owned()));
    };
    let host = <RootRef as StableAbi>::LAYOUT;
    let Err(older) = check_layout_compatibility(host, plugin) else { return Ok(()) };
    check_layout_compatibility(plugin, host).map_err(|_| RootProblem::Layout(older.to_string()))
}
