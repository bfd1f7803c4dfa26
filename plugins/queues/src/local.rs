//! `local`: jobs in a SQLite file, which several processes of one machine share.

use std::fs;
use std::sync::{Arc, Mutex};

use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, LeasedJob, NewJob, Verdict};

use crate::queue::{Queue, calls};
use crate::store::Store;

pub(crate) struct Local {
    queue: Queue,
}

/// Where the jobs are.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The SQLite file. It and its folders are made as needed; any tool can read it. It must be on a disk of this machine:
    /// network file systems do not lock as it needs.
    #[serde(default = "jobs_db")]
    #[schemars(extend("format" = "path"))]
    path: String,
}

fn jobs_db() -> String {
    "jobs/jobs.db".to_owned()
}

impl Dispatch for Local {
    const NAME: &'static str = "local";
    const DESCRIPTION: &'static str = "Keeps jobs in a SQLite file that the processes of a machine share";
    const CATEGORY: &'static str = "Queues";
    const PACKAGES: &'static [&'static str] = &["rusqlite"];
    type Config = Config;

    async fn open(config: Config, node: &Context) -> Result<Self> {
        // A path that was left out is none that the host has made absolute.
        let path = node.folder().join(&config.path);
        let open = move || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.map_or(Ok(()), fs::create_dir_all)?;
            // Who looks does not wait for who writes: each has the file open.
            let store = || Ok::<_, Error>(Arc::new(Mutex::new(Store::open(&path)?)));
            Queue::open(store()?, store()?, Arc::default())
        };
        Ok(Self { queue: node.run_blocking(open).await? })
    }

    calls!();
}
