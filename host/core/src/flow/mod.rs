//! Flows: bounded jobs of modules joined by data edges and control edges.
//!
//! `Source` → [`load`] → [`spec::Flow`] → [`plan`] → [`plan::Plan`] → [`dag`] → job folder. Each type can only be made by
//! the step before it, so a plan is always wired right and acyclic. [`load_and_plan`] takes both steps.

pub mod dag;
mod edge;
pub(crate) mod form;
pub mod load;
pub mod plan;
mod precedence;
pub mod schema;
pub mod select;
pub mod spec;

use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::Source;
use crate::template::Context;

/// From a document to a plan, with all that is wrong on both steps at once.
///
/// # Errors
/// All findings, warnings too. With a plan come warnings only.
pub fn load_and_plan(
    source: &Source,
    catalog: &Catalog,
    context: &Context,
) -> Result<(plan::Plan, Diagnostics), Diagnostics> {
    let (flow, mut found) = load::load(source, catalog, context);
    let Some(flow) = flow else { return Err(found) };
    match plan::plan(flow, catalog) {
        Ok((plan, warnings)) => {
            found.append(warnings);
            if found.has_errors() { Err(found) } else { Ok((plan, found)) }
        }
        Err(problems) => {
            found.append(problems);
            Err(found)
        }
    }
}
