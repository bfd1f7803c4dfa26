//! Where the module of a node runs: in this process, or in one of its own.

use std::sync::Arc;

use pype_core::flow::plan::PlannedNode;
use pype_plugin::host::{Instance, NodeFacts};
use pype_plugin::{Resources, Result};
use serde_json::{Map, Value};

use super::services::NodeServices;
use crate::loader::{Digest, Loaded};
use crate::worker::{Apart, ToOpenApart};

/// The library of a node, where it runs.
#[derive(Clone)]
pub struct Home(Place);

#[derive(Clone)]
enum Place {
    Here(Loaded),
    Apart(Arc<Apart<NodeServices>>),
}

impl Home {
    pub(super) fn here(loaded: Loaded) -> Self {
        Self(Place::Here(loaded))
    }

    pub(super) fn apart(apart: Arc<Apart<NodeServices>>) -> Self {
        Self(Place::Apart(apart))
    }

    /// The digest of its bytes.
    pub(super) fn digest(&self) -> &Digest {
        match &self.0 {
            Place::Here(loaded) => &loaded.digest,
            Place::Apart(apart) => apart.digest(),
        }
    }

    /// What a module reads and writes outside the flow with these configs.
    ///
    /// # Errors
    /// What the module says, or that its process crashed.
    pub(super) async fn resources(&self, node: &PlannedNode, configs: &Value) -> Result<Resources> {
        let module = node.module.as_str();
        match &self.0 {
            Place::Here(loaded) => loaded.library.resources(module, configs).await,
            Place::Apart(apart) => apart.resources(module, configs).await,
        }
    }

    /// Opens the module of a node.
    ///
    /// # Errors
    /// What the module says, or that its process crashed.
    pub(super) async fn open(
        &self,
        node: &PlannedNode,
        configs: &Value,
        facts: &NodeFacts,
        services: Arc<NodeServices>,
    ) -> Result<Instance> {
        let module = node.module.as_str();
        match &self.0 {
            Place::Here(loaded) => loaded.library.open(module, configs, facts, services).await,
            Place::Apart(apart) => {
                let tags = Map::from_iter(services.tags());
                let written = &node.configs;
                apart.open(ToOpenApart { module, configs, written, facts, tags }, services).await
            }
        }
    }
}
