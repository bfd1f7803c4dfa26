//! Pipelines: a chain of stages around a context, with at most one dispatch that hands the rest to the background.
//!
//! `Source` → [`load_and_plan`] → [`plan::Plan`]. Stages before the dispatch run in the caller, those after it in a worker,
//! on this machine or another. Between the two stands a job: an [`envelope::Envelope`] in a queue, which is tried again as
//! [`retry`] says. What the stages work on is a [`context::Context`].
//!
//! This room runs no stage and knows no queue: clocks, random numbers and bytes are passed in.

pub mod context;
pub mod envelope;
mod form;
mod load;
pub mod plan;
mod schema;

use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::Source;
use crate::template;

pub use schema::{schema, schema_with};

/// From a document to a plan, with all that is wrong at once. `context` is what `{{ context.* }}` in configs stands for,
/// not what the stages work on.
///
/// # Errors
/// All findings, warnings too. With a plan come warnings only.
pub fn load_and_plan(
    source: &Source,
    catalog: &Catalog,
    context: &template::Context,
) -> Result<(plan::Plan, Diagnostics), Diagnostics> {
    load::load_and_plan(source, catalog, context)
}
