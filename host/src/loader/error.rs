//! Why a library does not load.

use std::path::PathBuf;

use super::Digest;
use pype_plugin::abi::{API_MAJOR, API_MINOR};

/// Why a library does not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no library at `{}`", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The dynamic linker refuses it.
    #[error("`{}` is not a shared library that this machine can load: {cause}", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the linker says.
        cause: String,
    },
    /// It does not export a plugin.
    #[error("`{}` is a shared library, but not a pype plugin: {cause}", path.display())]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is missing.
        cause: String,
    },
    /// It was built for another major version of the API.
    #[error(
        "the plugin `{}` was built for plugin API {}.{}, and this pype has {API_MAJOR}.{API_MINOR}",
        path.display(), plugin.0, plugin.1
    )]
    OtherApi {
        /// The file.
        path: PathBuf,
        /// The plugin's version, major and minor.
        plugin: (u32, u32),
    },
    /// Its types are not what its version says.
    #[error("the plugin `{}` does not fit this pype's plugin API {API_MAJOR}.{API_MINOR}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The first differences, for whoever looks into it.
        differences: String,
    },
    /// It was compiled with `panic=abort`.
    #[error("the plugin `{}` was built with panic=abort: a fault in it would end the whole host", path.display())]
    PanicAbort {
        /// The file.
        path: PathBuf,
    },
    /// Its bytes are not those that were registered.
    #[error("the plugin `{}` changed since it was registered (its sha256 was {})", path.display(), registered.short())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest in the registry.
        registered: Digest,
    },
    /// The child process that asks a library what is in it did not survive.
    #[error("the plugin `{}` {how} while it was asked what is in it", path.display())]
    Crashed {
        /// The file.
        path: PathBuf,
        /// `crashed with SIGSEGV`, `ended with exit code 3`, `did not answer within 30 s`.
        how: String,
        /// What it printed last.
        stderr: String,
    },
    /// The plugin itself reports an error.
    #[error("the plugin `{}` failed while it {doing}: {error}", path.display())]
    Plugin {
        /// The file.
        path: PathBuf,
        /// What it was doing.
        doing: &'static str,
        /// What it says.
        error: pype_plugin::Error,
    },
    /// A file of the cache, or the library itself, cannot be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The user has no home.
    #[error("there is no place to keep copies of plugins: neither PYPE_CACHE_DIR, XDG_CACHE_HOME nor HOME is set")]
    NoCache,
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } => "build it, or register it where it is now: pype register-module PATH.so".into(),
            Self::NotALibrary { .. } => "build the plugin for this machine: cargo build --release".into(),
            Self::NotAPlugin { .. } => {
                "a plugin is a crate of type cdylib with one `export_plugin!` line: pype new-module shows one".into()
            }
            Self::OtherApi { plugin, .. } if plugin.0 > API_MAJOR => {
                "use a newer pype, or build the plugin with an older pype-plugin".into()
            }
            Self::OtherApi { .. } | Self::Layout { .. } => {
                format!("build the plugin again with pype-plugin {API_MAJOR}, then: pype register-module PATH.so")
            }
            Self::PanicAbort { .. } => {
                "register it again, and it runs in a process of its own; or remove `panic = \"abort\"` from its profile"
                    .into()
            }
            Self::Changed { path, .. } => {
                format!("if that is what you want: pype register-module {}", path.display())
            }
            Self::Crashed { .. } | Self::Plugin { .. } => {
                "this is a fault in the plugin: report it to its author".into()
            }
            Self::Io { .. } | Self::NoCache => "set PYPE_CACHE_DIR to a directory that you may write".into(),
        }
    }
}
