//! What can be wrong with a registry.

use std::fmt::Write;
use std::path::PathBuf;

use pype_core::name::NameError;

use crate::loader::LoadError;

/// What can be wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A registry was asked for that does not exist.
    #[error("there is no registry at `{}`", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is not JSON, or not an object.
    #[error("the registry `{}:{line}:{column}` is not valid: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What the parser says.
        cause: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, `lock`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A library that an entry names, or that is to be registered, is nowhere.
    #[error("there is no library `{library}`{}", places(looked))]
    NoLibrary {
        /// As it was named.
        library: String,
        /// The files that were looked for.
        looked: Vec<PathBuf>,
    },
    /// A library without a digest that does not stand beside the executable.
    #[error("the plugin `{}` is listed without a sha256, so nobody vouches for its bytes", path.display())]
    NoDigest {
        /// The library.
        path: PathBuf,
    },
    /// No module has this name.
    #[error("there is no module `{name}` in `{}`", registry.display())]
    NoModule {
        /// The name.
        name: String,
        /// The registry.
        registry: PathBuf,
        /// A name that is near.
        near: Option<String>,
    },
    /// The name of a module belongs to another library.
    #[error("the module `{module}` of `{}` is already registered from `{taken_by}`", library.display())]
    Taken {
        /// The module.
        module: String,
        /// The library to be registered.
        library: PathBuf,
        /// The library that has the name.
        taken_by: String,
    },
    /// A library calls a module something that cannot be written in a flow.
    #[error("the plugin `{}` has a module with an unusable name: {cause}", library.display())]
    BadName {
        /// The library.
        library: PathBuf,
        /// The rule.
        cause: NameError,
    },
    /// A library has two modules of one name.
    #[error("the plugin `{}` has two modules that are called `{module}`", library.display())]
    Twice {
        /// The library.
        library: PathBuf,
        /// The name.
        module: String,
    },
    /// A library has modules of a kind that this pype does not know.
    #[error("the plugin `{}` has a module `{module}` of a kind that this pype does not know", library.display())]
    UnknownKind {
        /// The library.
        library: PathBuf,
        /// The module.
        module: String,
    },
    /// The file was overwritten between being described and being hashed.
    #[error("the plugin `{}` changed while it was being registered", library.display())]
    Changing {
        /// The library.
        library: PathBuf,
    },
    /// The library is no plugin for this host.
    #[error(transparent)]
    Library(#[from] LoadError),
}

impl RegistryError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } => "register a plugin to create it: pype register-module PATH.so".into(),
            Self::Malformed { path, .. } => format!(
                "nothing was written; repair that place by hand, or start anew: mv {0} {0}.bad && pype auto-register",
                path.display()
            ),
            Self::Io { path, .. } => format!("look at its permissions: ls -l {}", path.display()),
            Self::NoLibrary { .. } => {
                "build it (cargo build --release), then: pype register-module PATH.so; or set PYPE_PLUGIN_PATH".into()
            }
            Self::NoDigest { path } => format!("register it: pype register-module {}", path.display()),
            Self::NoModule { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NoModule { near: None, .. } => "see what there is: pype list-modules".into(),
            Self::Taken { library, .. } => format!(
                "to take the name over: pype register-module --replace {}; otherwise give the module another `NAME`",
                library.display()
            ),
            Self::BadName { .. } => "change `const NAME` in the plugin, build it, and register it again".into(),
            Self::Twice { .. } => "remove one of them from `export_plugin!`, build it, and register it again".into(),
            Self::UnknownKind { .. } => "use a newer pype".into(),
            Self::Changing { library } => {
                format!("once it is built: pype register-module {}", library.display())
            }
            Self::Library(error) => error.hint(),
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "no-registry",
            Self::Malformed { .. } => "malformed-registry",
            Self::Io { .. } => "io",
            Self::NoLibrary { .. } => "no-library",
            Self::NoDigest { .. } => "no-digest",
            Self::NoModule { .. } => "no-module",
            Self::Taken { .. } => "name-taken",
            Self::BadName { .. } => "bad-name",
            Self::Twice { .. } => "name-twice",
            Self::UnknownKind { .. } => "unknown-kind",
            Self::Changing { .. } => "library-changing",
            Self::Library(_) => "library-refused",
        }
    }
}

fn places(looked: &[PathBuf]) -> String {
    let mut text = String::new();
    for (at, path) in looked.iter().enumerate() {
        let lead = if at == 0 { "; looked for " } else { ", " };
        write!(text, "{lead}`{}`", path.display()).expect("a string takes any text");
    }
    text
}
