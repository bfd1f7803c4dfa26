//! From a path to a library whose modules can be opened.
//!
//! A library passes through these states, each with a file of its own:
//!
//! 1. *a file*: anything at all ([`describe`] asks a child process what it is, so a crashing one costs nothing);
//! 2. *admitted* ([`cache`]): its digest is known, and a copy under that digest stands in the user's cache, where
//!    nobody overwrites it while it is mapped;
//! 3. *open* ([`open`]): mapped, its preamble, header and layout checked, its root taken. Never unloaded;
//! 4. *ready* ([`Loader`]): told of the host's services, once.
//!
//! This module knows no flow and no registry file: it is given paths and digests.

mod cache;
mod describe;
mod error;
mod open;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pype_plugin::host::{HostServices, Library, LibraryFacts};

pub use self::cache::{Admitted, Cache, Digest};
pub use self::describe::{Described, describe, describe_here};
pub use self::error::LoadError;

pub(crate) use self::describe::COMMAND as DESCRIBE;

/// The digest of the library at `path`, which is then in the user's cache.
///
/// # Errors
/// It cannot be read, or the cache cannot be written.
pub fn digest(path: &Path) -> Result<Digest, LoadError> {
    Cache::of_user()?.admit(path).map(|admitted| admitted.digest)
}

/// The library at `path`, copied to the user's cache; with `expected`, only if its bytes are still those that were registered.
///
/// # Errors
/// It changed, cannot be read, or the cache cannot be written.
pub fn admit(path: &Path, expected: Option<&Digest>) -> Result<Admitted, LoadError> {
    Cache::of_user()?.admit_as(path, expected)
}

/// A library, and the digest of its bytes.
#[derive(Clone)]
pub struct Loaded {
    /// The library.
    pub library: Library,
    /// Its digest.
    pub digest: Digest,
}

/// The libraries of this process. Each is loaded once, however many nodes use it.
pub struct Loader<S> {
    cache: Cache,
    services: Arc<S>,
    facts: LibraryFacts,
    faults: Faults,
    // Locked while a library loads: two nodes that need the same one must not both initialise it.
    ready: Mutex<BTreeMap<Digest, Library>>,
}

/// What a fault in a library may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faults {
    /// Become an error.
    Contained,
    /// End this process, which is there for the library alone.
    EndProcess,
}

impl<S: HostServices> Loader<S> {
    /// A loader that tells each library `facts` and gives it `services` for what belongs to no node.
    ///
    /// # Errors
    /// There is no place for the cache.
    pub fn new(services: Arc<S>, facts: LibraryFacts) -> Result<Self, LoadError> {
        Ok(Self { cache: Cache::of_user()?, services, facts, faults: Faults::Contained, ready: Mutex::default() })
    }

    /// The same in a process that is there for the library alone: a fault in it may end the process.
    ///
    /// # Errors
    /// There is no place for the cache.
    pub fn alone(services: Arc<S>, facts: LibraryFacts) -> Result<Self, LoadError> {
        Ok(Self { faults: Faults::EndProcess, ..Self::new(services, facts)? })
    }

    /// The library at `path`, loaded. With `expected`, only if its bytes are still those that were registered.
    ///
    /// # Errors
    /// It changed, is no plugin for this host, or fails while it is initialised.
    pub fn load(&self, path: &Path, expected: Option<&Digest>) -> Result<Loaded, LoadError> {
        self.load_admitted(path, self.cache.admit_as(path, expected)?)
    }

    /// A library that was admitted before; the user has it at `path`, or had.
    ///
    /// # Errors
    /// It is no plugin for this host, or fails while it is initialised.
    pub fn load_admitted(&self, path: &Path, admitted: Admitted) -> Result<Loaded, LoadError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = ready.get(&admitted.digest) {
            return Ok(Loaded { library: *library, digest: admitted.digest });
        }
        let library = open::open(path, &admitted.copy, self.faults)?;
        library.init(self.services.clone(), &self.facts).map_err(|error| LoadError::Plugin {
            path: path.to_owned(),
            doing: "was initialised",
            error,
        })?;
        #[cfg(feature = "__next-minor")]
        if let Some(name) = library.greet() {
            tracing::info!("{name} greets");
        }
        ready.insert(admitted.digest.clone(), library);
        Ok(Loaded { library, digest: admitted.digest })
    }
}
