//! What a user selects: modules of a registry, or a part of a flow.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::document::Source;
use pype_core::flow::plan::{ControlEdge, SubFlow};
use pype_core::flow::select::{Reduced, SelectError, Selection, Selector, Unmet, reduce};
use pype_core::label::{Rule, TextError};
use pype_core::name::NodeId;

use super::Exit;
use super::flow::FlowArgs;
use super::render::{Failure, Style, diagnostics_json, in_argument};
use crate::prepare::Prepared;

/// Which part of a flow is meant.
#[derive(Args)]
pub(crate) struct SelectArgs {
    /// Only this part: a module's id or a rule over labels; with + before it what it depends on too, with + after it what
    /// depends on it; may be repeated.
    #[arg(long, value_name = "RULE")]
    select: Vec<String>,
    /// But not this part; may be repeated.
    #[arg(long, value_name = "RULE")]
    exclude: Vec<String>,
}

/// A flow, or the part of it that is selected.
pub(crate) struct Part {
    /// With the plan of the part.
    pub(crate) prepared: Prepared,
    /// The sub flows that are not selected.
    pub(crate) left_out: Vec<String>,
}

impl SelectArgs {
    /// Loads and plans the flow, and takes the selected part; problems of either are printed, and no plan comes of it.
    pub(crate) fn prepare(&self, flow: &FlowArgs, out: &mut dyn Write) -> Result<Option<Part>, Failure> {
        let selection = match self.selection() {
            Ok(selection) => selection,
            Err(refused) => return refused.show(flow.json, out).map(|_| None),
        };
        let Some(mut prepared) = flow.prepare(out)? else { return Ok(None) };
        if selection == Selection::default() {
            return Ok(Some(Part { prepared, left_out: Vec::new() }));
        }
        let Reduced { plan, left_out, lost_conditions } = reduce(&prepared.plan, &selection)?;
        prepared.warnings.extend(lost_conditions.iter().map(|edge| runs_in_any_case(edge, &prepared.source)));
        prepared.plan = plan;
        Ok(Some(Part { prepared, left_out }))
    }

    fn selection(&self) -> Result<Selection, Refused> {
        let selectors = |argument: &str, given: &[String]| -> Result<Vec<Selector>, Refused> {
            given.iter().map(|one| one.parse().map_err(|error| Refused::new(argument, one, error))).collect()
        };
        Ok(Selection { select: selectors("--select", &self.select)?, exclude: selectors("--exclude", &self.exclude)? })
    }
}

fn runs_in_any_case(edge: &ControlEdge, source: &Source) -> Diagnostic {
    let ControlEdge { from, to, order, trigger, .. } = edge;
    let message =
        format!("`{to}` runs in any case: `{from} ({order}|{trigger}) {to}` has no say, for `{from}` is not selected");
    Diagnostic::warning("condition-left-out", &source.path, message)
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let message = error.to_string();
        let meant = |near: Option<String>| near.map(|near| format!("did you mean `{near}`?"));
        let rules = || "select by id, or by labels: id, name, kind, and those under `labels` in the flow".to_owned();
        let (code, hint) = match error {
            SelectError::UnknownWord { near, .. } => ("unknown-selector", meant(near).unwrap_or_else(rules)),
            SelectError::UnknownLabel { near, .. } => ("unknown-label", meant(near).unwrap_or_else(rules)),
            SelectError::Nothing { sub_flows } => ("nothing-selected", there_is(&sub_flows)),
            SelectError::Unmet(unmet) => {
                let readers: BTreeSet<&NodeId> = unmet.iter().map(Unmet::reader).collect();
                let more: Vec<String> = readers.iter().map(|id| format!("--select +{id}")).collect();
                ("needs-more", format!("select what it depends on, too: {}", more.join(" ")))
            }
            SelectError::Circle(_) => ("control-cycle", "select the sub flows between them, too".to_owned()),
        };
        Self::invalid(code, message).hint(hint)
    }
}

/// The sub flows and their modules, cut after a dozen.
fn there_is(sub_flows: &[SubFlow]) -> String {
    const SHOWN: usize = 12;
    let shown = sub_flows.iter().take(SHOWN).map(|one| {
        let ids: Vec<&str> = one.nodes.iter().map(NodeId::as_str).collect();
        ids.join(", ")
    });
    let more = if sub_flows.len() > SHOWN { format!("; and {} more", sub_flows.len() - SHOWN) } else { String::new() };
    format!("the sub flows of this flow are: {}{more}", shown.collect::<Vec<_>>().join("; "))
}

/// An argument that is no rule.
#[derive(Debug)]
pub(crate) struct Refused {
    given: String,
    found: Diagnostic,
}

/// Reads a rule that was given as `argument`.
///
/// # Errors
/// It is malformed.
pub(crate) fn rule(argument: &str, given: &str) -> Result<Rule, Refused> {
    given.parse().map_err(|error| Refused::new(argument, given, error))
}

impl Refused {
    fn new(argument: &str, given: &str, error: TextError) -> Self {
        Self { given: given.to_owned(), found: error.into_diagnostic(argument) }
    }

    /// Tells what is wrong and where: to programs on `out`, to people on standard error.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn show(self, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
        if json {
            write!(out, "{}", diagnostics_json(&Diagnostics::from(self.found)))?;
        } else {
            let stderr = std::io::stderr();
            write!(stderr.lock(), "{}", in_argument(&self.found, &self.given, Style::of(&stderr)))?;
        }
        Ok(Exit::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_rule_is_shown_with_its_place() {
        let refused = rule("--select", "type = mod and category").expect("a rule");
        assert_eq!(refused.to_string(), "type = mod and category");
        let Refused { given, found } = rule("--select", "type = mod and name lke x").expect_err("malformed");
        let expect = "\
error[bad-rule]: `lke` is not an operator
 --> --select:1:21
  |
1 | type = mod and name lke x
  |                     ^^^
  |
  = help: did you mean `lte`?
";
        assert_eq!(in_argument(&found, &given, Style::Plain), expect);
    }
}
