//! A line for each change of state, without control characters: for logs and pipes.

use pype_core::human;
use pype_core::run::event::{ItemPath, RunEvent, StoredFor};

use super::view::{NodeState, NodeView, View, state_word};
use crate::cli::render::printable;

/// The line that tells of `event`, which the view knows already.
pub(super) fn line(view: &View, event: &RunEvent) -> Option<String> {
    let text = match event {
        RunEvent::RunStarted { .. } => {
            let (sub_flows, nodes) = (view.sub_flows.len(), view.nodes().count());
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            let others = match view.left_out.len() {
                0 => String::new(),
                count => format!("; {count} sub flow{} not selected", plural(count)),
            };
            format!(
                "run {} of {}: {sub_flows} sub flow{}, {nodes} module{}{others}",
                view.run_id,
                view.flow,
                plural(sub_flows),
                plural(nodes)
            )
        }
        // Of what goes on in a loop only failures are worth a line: there may be a million items.
        RunEvent::SubFlowStarted { item, .. }
        | RunEvent::LoopStarted { item, .. }
        | RunEvent::NodeStarted { item, .. }
        | RunEvent::NodeFinished { item, .. }
        | RunEvent::SubFlowFinished { item, .. }
            if !item.is_outside() =>
        {
            return None;
        }
        RunEvent::LoopStarted { sub_flow, items, .. } => {
            let name = &view.sub_flows[view.sub_flow(*sub_flow)?].name;
            format!("loop over {name}: {items} item{}", if *items == 1 { "" } else { "s" })
        }
        RunEvent::SubFlowStarted { sub_flow, attempt, .. } => {
            let name = &view.sub_flows[view.sub_flow(*sub_flow)?].name;
            match attempt {
                0 | 1 => format!("sub flow {name}: started"),
                again => format!("sub flow {name}: started, attempt {again}"),
            }
        }
        RunEvent::NodeStarted { node, item }
        | RunEvent::NodeFinished { node, item, .. }
        | RunEvent::NodeFailed { node, item, .. } => {
            let (at, within) = view.node(node)?;
            node_line(&view.sub_flows[at].nodes[within], item)
        }
        RunEvent::Stored { node, item, port, purpose, path, rows, .. } => {
            let what = match purpose {
                StoredFor::Checkpoint | StoredFor::Items => return None,
                StoredFor::Spill => "spilled to",
            };
            format!("  {}.{port}: {} {what} {path}", item.name(node.as_str()), human::rows(*rows))
        }
        RunEvent::NodeProgress { .. } | RunEvent::Global { .. } | RunEvent::RunFinished { .. } => return None,
        RunEvent::SubFlowFinished { sub_flow, .. } => {
            let one = &view.sub_flows[view.sub_flow(*sub_flow)?];
            let ended = one.ended.as_ref()?;
            if ended.reused {
                return Some(printable(&format!("sub flow {}: used again from an earlier session", one.name)));
            }
            let time = if one.ran() { format!(" in {}", human::seconds(ended.seconds)) } else { String::new() };
            let reason = ended.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("sub flow {}: {}{time}{reason}", one.name, state_word(ended.state))
        }
    };
    Some(printable(&text).replace('\n', " "))
}

fn node_line(node: &NodeView, item: &ItemPath) -> String {
    let did = match &node.state {
        NodeState::Waiting | NodeState::Stopped => "stopped".to_owned(),
        NodeState::Running { .. } => "started".to_owned(),
        NodeState::Finished { seconds } => {
            let counts = [node.rows.map(human::rows), (node.bytes > 0).then(|| human::bytes(node.bytes))];
            let counts: Vec<String> = counts.into_iter().flatten().collect();
            let counts = if counts.is_empty() { String::new() } else { format!(", {}", counts.join(", ")) };
            format!("finished in {}{counts}", human::seconds(*seconds))
        }
        NodeState::Failed(failure) => format!("failed: {}", failure.message),
    };
    format!("  {} ({}): {did}", item.name(node.id.as_str()), node.module)
}
