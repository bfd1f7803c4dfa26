//! The instances of a stage: one for all runs, or, of a module that serves one at a time, as many as are needed.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use pype_plugin::descriptor::ModuleDescriptor;
use pype_plugin::host::{HostServices, Instance, Library, NodeFacts};
use pype_plugin::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use crate::worker::{Apart, ToOpenApart};

/// All that opening one more takes.
pub(crate) struct Opener<S> {
    pub(super) home: Home<S>,
    pub(super) module: String,
    pub(super) configs: Value,
    pub(super) facts: NodeFacts,
    pub(super) services: Arc<S>,
    /// Whether one run at a time may use an instance.
    pub(super) exclusive: bool,
}

/// Where a module runs.
pub(super) enum Home<S> {
    /// In this process.
    Here(Library),
    /// In one of its own.
    Apart {
        /// Its library.
        library: Arc<Apart<S>>,
        /// Its configs as the document has them.
        written: Value,
        /// What its records of the log say besides.
        tags: Map<String, Value>,
    },
}

impl<S: HostServices> Opener<S> {
    /// One more instance.
    ///
    /// # Errors
    /// What the module says.
    pub(crate) async fn open(&self) -> Result<Instance> {
        let Self { home, module, configs, facts, services, .. } = self;
        match home {
            Home::Here(library) => library.open(module, configs, facts, services.clone()).await,
            Home::Apart { library, written, tags } => {
                let open = ToOpenApart { module, configs, written, facts, tags: tags.clone() };
                library.open(open, services.clone()).await
            }
        }
    }

    /// What the module says of itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn describe(&self) -> Result<ModuleDescriptor> {
        let Home::Here(library) = &self.home else {
            return Err(Error::new(ErrorKind::Unsupported, "elsewhere", "the module runs in another process"));
        };
        let described = library.describe()?.modules.into_iter().find(|one| one.name == self.module);
        described.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "unknown-module", format!("the library has no module `{}`", self.module))
        })
    }
}

pub(super) struct Instances<S> {
    opener: Opener<S>,
    first: Arc<Instance>,
    // Locked for one look or one change.
    idle: Mutex<Vec<Arc<Instance>>>,
    others: Mutex<Vec<Arc<Instance>>>,
}

/// An instance, for one run.
pub(super) enum Taken<'a> {
    /// Others may use it too.
    Shared(&'a Instance),
    /// It is idle again afterwards.
    Alone { instance: Arc<Instance>, idle: &'a Mutex<Vec<Arc<Instance>>> },
}

impl<S: HostServices> Instances<S> {
    /// Opens the first.
    ///
    /// # Errors
    /// What the module says.
    pub(super) async fn open(opener: Opener<S>) -> Result<Self> {
        let first = Arc::new(opener.open().await?);
        Ok(Self { opener, idle: Mutex::new(vec![first.clone()]), first, others: Mutex::default() })
    }

    /// The instance of all runs, if there is one.
    pub(super) fn shared(&self) -> Option<&Instance> {
        (!self.opener.exclusive).then_some(&*self.first)
    }

    /// An instance for one run, opened if all are in use.
    ///
    /// # Errors
    /// What the module says when it is opened.
    pub(super) async fn take(&self) -> Result<Taken<'_>> {
        if let Some(instance) = self.shared() {
            return Ok(Taken::Shared(instance));
        }
        let idle = held(&self.idle).pop();
        let instance = match idle {
            Some(instance) => instance,
            None => self.one_more().await?,
        };
        Ok(Taken::Alone { instance, idle: &self.idle })
    }

    /// The one that was opened first.
    pub(super) fn first(&self) -> &Arc<Instance> {
        &self.first
    }

    async fn one_more(&self) -> Result<Arc<Instance>> {
        let opened = Arc::new(self.opener.open().await?);
        held(&self.others).push(opened.clone());
        Ok(opened)
    }

    /// All of them, to be closed.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        let others = held(&self.others);
        std::iter::once(&self.first).chain(others.iter()).cloned().collect()
    }
}

impl Deref for Taken<'_> {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        match self {
            Self::Shared(instance) => instance,
            Self::Alone { instance, .. } => instance,
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Self::Alone { instance, idle } = self {
            held(idle).push(instance.clone());
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
