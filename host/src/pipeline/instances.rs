//! The instances of a stage: one for all runs, or, of a module that serves one at a time, as many as are needed.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use pype_plugin::Result;
use pype_plugin::host::{HostServices, Instance, Library, NodeFacts};
use serde_json::Value;

/// All that opening one more takes.
pub(super) struct Opener<S> {
    pub(super) library: Library,
    pub(super) module: String,
    pub(super) configs: Value,
    pub(super) facts: NodeFacts,
    pub(super) services: Arc<S>,
    /// Whether one run at a time may use an instance.
    pub(super) exclusive: bool,
}

pub(super) struct Instances<S> {
    opener: Opener<S>,
    // Locked for one look or one change.
    idle: Mutex<Vec<Arc<Instance>>>,
    all: Mutex<Vec<Arc<Instance>>>,
}

/// An instance, for one run.
pub(super) struct Taken<'a, S> {
    instance: Arc<Instance>,
    instances: &'a Instances<S>,
}

impl<S: HostServices> Instances<S> {
    /// Opens the first.
    ///
    /// # Errors
    /// What the module says.
    pub(super) async fn open(opener: Opener<S>) -> Result<Self> {
        let instances = Self { opener, idle: Mutex::default(), all: Mutex::default() };
        let first = instances.one_more().await?;
        held(&instances.idle).push(first);
        Ok(instances)
    }

    /// An instance for one run, opened if all are in use.
    ///
    /// # Errors
    /// What the module says when it is opened.
    pub(super) async fn take(&self) -> Result<Taken<'_, S>> {
        let instance = match self.opener.exclusive {
            false => Some(self.first()),
            true => held(&self.idle).pop(),
        };
        let instance = match instance {
            Some(instance) => instance,
            None => self.one_more().await?,
        };
        Ok(Taken { instance, instances: self })
    }

    /// The one that was opened first.
    pub(super) fn first(&self) -> Arc<Instance> {
        held(&self.all).first().expect("the first is open as long as these are").clone()
    }

    async fn one_more(&self) -> Result<Arc<Instance>> {
        let Opener { library, module, configs, facts, services, .. } = &self.opener;
        let opened = Arc::new(library.open(module, configs, facts, services.clone()).await?);
        held(&self.all).push(opened.clone());
        Ok(opened)
    }

    /// All of them, to be closed.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        held(&self.all).clone()
    }
}

impl<S> Deref for Taken<'_, S> {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl<S> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        if self.instances.opener.exclusive {
            held(&self.instances.idle).push(self.instance.clone());
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
