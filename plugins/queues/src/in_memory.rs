//! `in_memory`: jobs that are gone with the process. For tests, and for work that may be lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};

use tokio::sync::Notify;

use crate::queue::{Queue, calls};
use crate::store::Store;

/// By name. They stay: who closes one may open it again and find its jobs.
static STORES: Mutex<BTreeMap<String, Shared>> = Mutex::new(BTreeMap::new());

/// A store that the modules of this process share, and how they hear of work.
#[derive(Clone)]
struct Shared {
    // Held for one group of steps, or one look.
    store: Arc<Mutex<Store>>,
    accepted: Arc<Notify>,
}

pub(crate) struct InMemory {
    queue: Queue,
}

/// Which queue of this process.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Pipelines that name the same one share it.
    #[serde(default = "jobs")]
    name: String,
}

fn jobs() -> String {
    "jobs".to_owned()
}

impl Dispatch for InMemory {
    const NAME: &'static str = "in_memory";
    const DESCRIPTION: &'static str = "Keeps jobs in the memory of the process: they are lost with it";
    const CATEGORY: &'static str = "Queues";
    const PACKAGES: &'static [&'static str] = &["rusqlite"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let Shared { store, accepted } = shared(config.name)?;
        Ok(Self { queue: Queue::open(store.clone(), store, accepted)? })
    }

    calls!();
}

fn shared(name: String) -> Result<Shared> {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = stores.get(&name) {
        return Ok(shared.clone());
    }
    let shared = Shared { store: Arc::new(Mutex::new(Store::in_memory()?)), accepted: Arc::default() };
    stores.insert(name, shared.clone());
    Ok(shared)
}
