//! `in_memory`: jobs that are gone with the process. For tests, and for work that may be lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};

use crate::queue::{Queue, calls};
use crate::store::Store;

/// By name. They stay: who closes one may open it again and find its jobs.
static QUEUES: Mutex<BTreeMap<String, Queue>> = Mutex::new(BTreeMap::new());

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
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&config.name) {
            return Ok(Self { queue: queue.clone() });
        }
        let queue = Queue::new(Store::in_memory()?);
        queues.insert(config.name, queue.clone());
        Ok(Self { queue })
    }

    calls!();
}
