//! The plan of a run, kept beside its log: a run can be shown, drawn and reported without its flow.

use std::fs;
use std::path::Path;

use pype_core::document::Source;
use pype_core::flow::dag::{self, Artifacts};
use pype_core::flow::plan::Plan;

use super::{RunsError, doing};

const DAG: &str = "plan.dag.json";
const EXECUTION: &str = "plan.execution.json";
const DOCUMENT: &str = "flow.yaml";

/// Writes the plan of a run to its folder.
pub(super) fn write(folder: &Path, plan: &Plan) -> Result<(), RunsError> {
    let Artifacts { dag, execution } = dag::to_artifacts(plan);
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).map_err(doing("write", &folder.join(name)));
    put(DAG, &dag.to_string())?;
    put(EXECUTION, &execution.to_string())?;
    put(DOCUMENT, &plan.source.text)
}

/// Reads it back.
///
/// # Errors
/// It is not there, or of a later version.
pub fn read(folder: &Path) -> Result<Plan, RunsError> {
    let get = |name: &str| fs::read_to_string(folder.join(name)).map_err(doing("read", &folder.join(name)));
    let source = Source::new(folder.join(DOCUMENT), get(DOCUMENT)?);
    dag::from_artifacts(&get(DAG)?, &get(EXECUTION)?, source)
        .map_err(|problem| RunsError::Plan { path: folder.join(DAG), problem })
}
