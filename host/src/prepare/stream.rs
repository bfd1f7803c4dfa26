//! Streams: from a document to a plan, where its libraries are, and the pipeline that handles its records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pype_core::diagnostic::Diagnostics;
use pype_core::document::Source;
use pype_core::name::NodeId;
use pype_core::stream;
use pype_core::stream::plan::{Handle, Module, Plan};
use pype_core::template::{self, Context, SecretUse};

use super::{
    Given, LibraryFile, PrepareError, PreparedPipeline, context, document_name, folder_of, library, prepare_pipeline,
    read,
};
use crate::registry;

/// A stream that can be opened.
pub struct PreparedStream {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What `{{context.…}}` stands for.
    pub context: Context,
    /// Relative paths in configs start here.
    pub folder: PathBuf,
    /// Each module's library.
    pub libraries: BTreeMap<NodeId, LibraryFile>,
    /// The pipeline that handles its records, if one does.
    pub pipeline: Option<PreparedPipeline>,
    /// What is odd, but no error.
    pub warnings: Diagnostics,
}

/// Loads and plans the stream at `path`, and the pipeline that it names.
///
/// # Errors
/// One of the documents is not valid, or something around them cannot be read.
pub fn prepare_stream(path: &Path, given: &Given) -> Result<PreparedStream, PrepareError> {
    let source = Source::new(path, read(path)?);
    let folder = folder_of(path)?;
    let registry = registry::find(given.registry.as_deref(), &folder)?;
    let name = document_name(&source, "stream")?;
    let context = context(&folder, name.as_deref(), given)?;
    let (plan, mut warnings) = stream::load_and_plan(&source, &registry.catalog, &context).map_err(|mut found| {
        // A module that is not known may be one whose entry cannot be read.
        found.extend(registry.problems.iter().cloned());
        PrepareError::Invalid(found)
    })?;
    let of = |module: &Module| Ok((module.id.clone(), library(&module.entry, &registry)?));
    let mut libraries: BTreeMap<_, _> = modules(&plan).map(of).collect::<Result<_, PrepareError>>()?;
    let pipeline = match &plan.handle {
        Handle::Pipeline(per_record) => Some(prepare_pipeline(&folder.join(&per_record.path.value), given)?),
        Handle::Batch(per_batch) => {
            let nodes = per_batch.flow.nodes().iter().filter(|node| node.id.as_str() != stream::SOURCE);
            for node in nodes {
                libraries.insert(node.id.clone(), library(&node.entry, &registry)?);
            }
            None
        }
    };
    warnings.extend(pipeline.iter().flat_map(|pipeline| pipeline.warnings.iter().cloned()));
    Ok(PreparedStream { plan: Arc::new(plan), context, folder, libraries, pipeline, warnings })
}

/// The modules outside of batches.
fn modules(plan: &Plan) -> impl Iterator<Item = &Module> {
    std::iter::once(&plan.source).chain(&plan.decode)
}

impl PreparedStream {
    /// The secrets that its configs name, and those of its pipeline.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretUse> {
        let own = modules(&self.plan).flat_map(|one| template::secrets(&one.configs, &one.spans, &self.plan.document));
        let pipeline = self.pipeline.iter().flat_map(PreparedPipeline::secrets);
        let batch = match &self.plan.handle {
            Handle::Batch(per_batch) => crate::secret::uses(&per_batch.flow),
            Handle::Pipeline(_) => Vec::new(),
        };
        own.chain(pipeline).chain(batch).collect()
    }
}
