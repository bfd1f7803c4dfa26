//! Pipelines: from a document to a plan and where its libraries are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pype_core::diagnostic::Diagnostics;
use pype_core::document::Source;
use pype_core::name::NodeId;
use pype_core::pipeline;
use pype_core::pipeline::plan::{Plan, Stage};
use pype_core::template::{self, Context, SecretUse};

use super::{Given, LibraryFile, PrepareError, context, document_name, folder_of, library, read};
use crate::registry;

/// A pipeline that can be opened.
pub struct PreparedPipeline {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What `{{context.…}}` stands for.
    pub context: Context,
    /// Relative paths in configs start here.
    pub folder: PathBuf,
    /// Each stage's library.
    pub libraries: BTreeMap<NodeId, LibraryFile>,
    /// What is odd, but no error.
    pub warnings: Diagnostics,
}

/// Loads and plans the pipeline at `path`.
///
/// # Errors
/// The document is not valid, or something around it cannot be read.
pub fn prepare_pipeline(path: &Path, given: &Given) -> Result<PreparedPipeline, PrepareError> {
    let source = Source::new(path, read(path)?);
    let folder = folder_of(path)?;
    let registry = registry::find(given.registry.as_deref(), &folder)?;
    let name = document_name(&source, "pipeline")?;
    let context = context(&folder, name.as_deref(), given)?;
    let (plan, warnings) = pipeline::load_and_plan(&source, &registry.catalog, &context).map_err(|mut found| {
        // A module that is not known may be one whose entry cannot be read.
        found.extend(registry.problems.iter().cloned());
        PrepareError::Invalid(found)
    })?;
    let of = |stage: &Stage| Ok((stage.id.clone(), library(&stage.entry, &registry)?));
    let libraries = plan.opened().map(of).collect::<Result<_, PrepareError>>()?;
    Ok(PreparedPipeline { plan: Arc::new(plan), context, folder, libraries, warnings })
}

impl PreparedPipeline {
    /// The secrets that its configs name.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretUse> {
        self.plan.opened().flat_map(|stage| self.secrets_of(stage)).collect()
    }

    /// Those that looking after its jobs takes.
    #[must_use]
    pub fn secrets_of_queue(&self) -> Vec<SecretUse> {
        let store = self.plan.large().map(|large| &large.delete);
        self.plan.dispatch().into_iter().chain(store).flat_map(|stage| self.secrets_of(stage)).collect()
    }

    fn secrets_of(&self, stage: &Stage) -> Vec<SecretUse> {
        template::secrets(&stage.configs, &stage.spans, self.plan.source())
    }
}
