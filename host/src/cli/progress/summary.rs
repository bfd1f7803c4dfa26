//! The end of a run: the verdict, what was written, what failed, and what did not run and why.

use std::path::Path;

use pype_core::human;
use pype_core::run::event::OutputInfo;
use pype_core::run::scheduler::{EndState, Verdict};

use super::view::{ItemsEnded, NodeState, SubFlowView, View, state_word, verdict_word};
use crate::cli::render::{self, Style, printable};

pub(super) fn text(view: &View, style: Style) -> String {
    let Some((verdict, seconds)) = view.ended else { return String::new() };
    let colour = if verdict == Verdict::Succeeded { "1;32" } else { "1;31" };
    let mut text = failures(view, style);
    text.push_str(&not_run(view));
    text.push_str(&left_out(view));
    let word = style.paint(colour, verdict_word(verdict));
    text.push_str(&format!("{} {word} in {} (run {})\n", view.flow, human::seconds(seconds), view.run_id));
    text.push_str(&written(view));
    text
}

fn failures(view: &View, style: Style) -> String {
    let mut text = String::new();
    for node in view.nodes() {
        if let NodeState::Failed(failure) = &node.state {
            text.push_str(&failure.text(style));
            text.push('\n');
        }
    }
    text
}

/// Sub flows that were never started, were stopped, or failed without failing the run; each with its reason.
fn not_run(view: &View) -> String {
    let mut rows: Vec<Vec<String>> = view
        .sub_flows
        .iter()
        .filter(|one| !one.is_inner())
        .filter_map(|one| match &one.ended {
            Some(ended) if ended.state == EndState::Success => None,
            Some(ended) if one.ran() && !matches!(ended.state, EndState::Cancelled | EndState::Handled) => None,
            Some(ended) => {
                let reason = ended.reason.clone().unwrap_or_else(|| "the run ended before its turn".to_owned());
                Some(vec![format!("  {}", one.name), state_word(ended.state).to_owned(), printable(&reason)])
            }
            None => {
                Some(vec![format!("  {}", one.name), "not run".to_owned(), "the run ended before its turn".to_owned()])
            }
        })
        .collect();
    rows.extend(view.sub_flows.iter().filter(|one| one.is_inner()).flat_map(not_run_for_items));
    match rows.is_empty() {
        true => String::new(),
        false => format!("did not run to their end:\n{}\n", render::columns(&rows)),
    }
}

/// The same of a sub flow in a loop: for how many items.
fn not_run_for_items(one: &SubFlowView) -> Vec<Vec<String>> {
    let all: u64 = one.items.iter().map(|items| items.count).sum();
    let unusual = one.items.iter().filter(|items| items.state != EndState::Success);
    let row = |items: &ItemsEnded| {
        let state = format!("{} for {} of {all} items", state_word(items.state), items.count);
        vec![format!("  {}", one.name), state, printable(items.reason.as_deref().unwrap_or_default())]
    };
    unusual.map(row).collect()
}

fn left_out(view: &View) -> String {
    match view.left_out.as_slice() {
        [] => String::new(),
        [one] => format!("1 sub flow was not selected: {one}\n"),
        several => format!("{} sub flows were not selected: {}\n", several.len(), several.join(", ")),
    }
}

/// Only what is there to stay: a node is finished once its sink has committed.
fn written(view: &View) -> String {
    let outputs = view.nodes().filter(|node| matches!(node.state, NodeState::Finished { .. }));
    let row = |output: &OutputInfo| {
        let rows = output.rows.map(human::rows).unwrap_or_default();
        let bytes = output.bytes.map(human::bytes).unwrap_or_default();
        vec![format!("  {}", place(&output.target)), rows, bytes]
    };
    let rows: Vec<Vec<String>> = outputs
        .flat_map(|node| {
            let more =
                (node.more_outputs > 0).then(|| vec![format!("  and {} more by {}", node.more_outputs, node.id)]);
            node.written().map(row).chain(more).collect::<Vec<_>>()
        })
        .collect();
    render::columns(&rows)
}

/// A file as a path, from here if it is below; anything else as its URI.
fn place(uri: &str) -> String {
    let path = uri.strip_prefix("file://").or_else(|| uri.strip_prefix("file:")).unwrap_or(uri);
    printable(&render::shown(Path::new(path)))
}
