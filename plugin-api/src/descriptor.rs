//! What a library says about itself. Crosses as JSON, so it may grow freely.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stream::Acknowledge;

/// What a module does, which decides where it may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// Brings data in.
    Source,
    /// Turns data into other data.
    Mod,
    /// Takes data out.
    Sink,
    /// Works without data.
    Solo,
    /// A stage of a pipeline.
    Execute,
    /// A queue, which takes the rest of a pipeline.
    Dispatch,
}

/// How often a stage is executed while it fails with errors that are retryable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// The first time included.
    pub attempts: u32,
    /// How long it waits before the second, in milliseconds.
    pub delay_ms: u64,
    /// What each delay is multiplied by for the next: 1 at least.
    pub backoff: f64,
}

impl RetryPolicy {
    /// So many attempts, a second apart at first, and then half as long again each time.
    #[must_use]
    pub const fn attempts(attempts: u32) -> Self {
        Self { attempts, delay_ms: 1000, backoff: 1.5 }
    }
}

/// A library and its modules.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LibraryDescriptor {
    /// The crate's name.
    pub name: String,
    /// The crate's version.
    pub version: String,
    /// The API it was built for: `1.0`.
    pub api_version: String,
    /// The modules it exports.
    pub modules: Vec<ModuleDescriptor>,
}

/// A module, as the registry keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModuleDescriptor {
    /// Its name in flows.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Its version, the library's unless it says otherwise.
    pub version: String,
    /// One line.
    pub description: String,
    /// For grouping.
    pub category: String,
    /// Ports that data enters by; `in*` stands for any number of them.
    pub input_ports: Vec<String>,
    /// Ports that data leaves by.
    pub output_ports: Vec<String>,
    /// Globals it may set.
    pub globals: Vec<String>,
    /// Lists it may announce, for iterations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<String>,
    /// When a stage is tried again, if its pipeline says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Whether one run of a pipeline at a time may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// How a source without an end is told that records are done; none if it is no such source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<Acknowledge>,
    /// Notable packages it is built on.
    pub packages: Vec<String>,
    /// The JSON Schema of its configs.
    pub config_schema: Value,
}
