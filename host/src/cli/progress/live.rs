//! The tree on a terminal: sub flows, and below each its nodes.
//!
//! A tree that is higher than the terminal cannot be redrawn in place, so the nodes of a sub flow come when it starts,
//! and go when it ended well and the room is needed.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pype_core::human;
use pype_core::run::event::RunEvent;
use pype_core::run::scheduler::EndState;

use super::view::{NodeState, NodeView, SubFlowView, View, state_word};
use crate::cli::render::printable;

/// How often the terminal is redrawn, at most, in a second.
const REDRAWS: u8 = 12;

pub(super) struct Live {
    bars: MultiProgress,
    /// One a sub flow, in the order of the plan.
    branches: Vec<Branch>,
    height: usize,
}

struct Branch {
    head: ProgressBar,
    leaves: Vec<ProgressBar>,
    /// It ended well: its nodes have nothing more to tell.
    done: bool,
}

impl Live {
    pub(super) fn on_stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(REDRAWS), usize::from(console::Term::stderr().size().0))
    }

    pub(super) fn on(target: ProgressDrawTarget, height: usize) -> Self {
        Self { bars: MultiProgress::with_draw_target(target), branches: Vec::new(), height }
    }

    pub(super) fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Draws what `event` has changed.
    pub(super) fn draw(&mut self, view: &View, event: &RunEvent) {
        match event {
            RunEvent::RunStarted { .. } => self.plant(view),
            RunEvent::SubFlowStarted { sub_flow, item, .. } => {
                if let Some(at) = view.sub_flow(*sub_flow).filter(|_| item.is_outside()) {
                    self.grow(at, &view.sub_flows[at]);
                }
            }
            RunEvent::NodeStarted { node, .. }
            | RunEvent::NodeProgress { node, .. }
            | RunEvent::NodeFinished { node, .. }
            | RunEvent::NodeFailed { node, .. } => {
                if let Some((at, within)) = view.node(node) {
                    self.show_leaf(at, within, &view.sub_flows[at].nodes[within]);
                }
            }
            RunEvent::Global { .. } | RunEvent::LoopStarted { .. } | RunEvent::Stored { .. } => {}
            RunEvent::SubFlowFinished { sub_flow, item, .. } => {
                let Some(at) = view.sub_flow(*sub_flow) else { return };
                match item.is_outside() {
                    true => self.finish(at, &view.sub_flows[at]),
                    false => self.count_items(at, &view.sub_flows[at]),
                }
            }
            RunEvent::RunFinished { .. } => self.end(),
        }
    }

    fn plant(&mut self, view: &View) {
        for one in &view.sub_flows {
            let head = self.bars.add(ProgressBar::new_spinner());
            show(&head, Mark::None, &format!("· {}", one.name));
            self.branches.push(Branch { head, leaves: Vec::new(), done: false });
        }
    }

    fn grow(&mut self, at: usize, one: &SubFlowView) {
        let Some(branch) = self.branches.get_mut(at) else { return };
        for leaf in branch.leaves.drain(..) {
            self.bars.remove(&leaf);
        }
        let again = if one.attempt > 1 { format!(" (attempt {})", one.attempt) } else { String::new() };
        show(&branch.head, Mark::Spinner(""), &format!("{}{again}", one.name));
        let mut above = branch.head.clone();
        for (within, node) in one.nodes.iter().enumerate() {
            let leaf = self.bars.insert_after(&above, ProgressBar::new_spinner());
            let twig = twig(within, one.nodes.len());
            show(&leaf, Mark::None, &format!("{twig}· {} {}", node.id, node.module));
            above = leaf.clone();
            branch.leaves.push(leaf);
        }
        self.make_room();
    }

    /// How many items of the loop around it a sub flow has ended.
    fn count_items(&self, at: usize, one: &SubFlowView) {
        let Some(branch) = self.branches.get(at) else { return };
        let told = one.items.iter().map(|items| format!("{} {}", items.count, state_word(items.state)));
        show(&branch.head, Mark::None, &format!("↻ {}  {}", one.name, told.collect::<Vec<_>>().join(", ")));
    }

    fn show_leaf(&self, at: usize, within: usize, node: &NodeView) {
        let Some(branch) = self.branches.get(at) else { return };
        // Nodes whose branch was folded have no line.
        let Some(leaf) = branch.leaves.get(within) else { return };
        let twig = twig(within, branch.leaves.len());
        let mark = if matches!(node.state, NodeState::Running { .. }) { Mark::Spinner(twig) } else { Mark::None };
        let symbol = match &node.state {
            NodeState::Running { .. } => String::new(),
            NodeState::Waiting => format!("{twig}· "),
            NodeState::Finished { .. } => format!("{twig}✓ "),
            NodeState::Failed(_) => format!("{twig}✗ "),
            NodeState::Stopped => format!("{twig}– "),
        };
        show(leaf, mark, &format!("{symbol}{}", told(node)));
    }

    fn finish(&mut self, at: usize, one: &SubFlowView) {
        let Some(ended) = &one.ended else { return };
        for (within, node) in one.nodes.iter().enumerate() {
            self.show_leaf(at, within, node);
        }
        let Some(branch) = self.branches.get_mut(at) else { return };
        branch.done = ended.state == EndState::Success;
        let symbol = match ended.state {
            EndState::Success => "✓",
            EndState::Failed | EndState::Handled => "✗",
            EndState::Skipped | EndState::UpstreamFailed | EndState::Cancelled => "–",
        };
        let time = match one.ran() {
            true => format!("  {}", human::seconds(ended.seconds)),
            false if ended.reused => "  used again".to_owned(),
            false => String::new(),
        };
        let why = match ended.state {
            EndState::Success => String::new(),
            other => format!(
                "  {}{}",
                state_word(other),
                ended.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"))
            ),
        };
        show(&branch.head, Mark::None, &format!("{symbol} {}{time}{why}", one.name));
        branch.head.tick();
        self.make_room();
    }

    /// Folds branches that have nothing more to tell, from the top, until the tree fits.
    fn make_room(&mut self) {
        let lines = |branches: &[Branch]| branches.iter().map(|branch| 1 + branch.leaves.len()).sum::<usize>();
        for at in 0..self.branches.len() {
            if lines(&self.branches) < self.height {
                return;
            }
            let branch = &mut self.branches[at];
            if branch.done {
                branch.leaves.drain(..).for_each(|leaf| self.bars.remove(&leaf));
            }
        }
    }

    /// Leaves the tree as it is on the screen, above the summary.
    fn end(&self) {
        for branch in &self.branches {
            branch.leaves.iter().chain([&branch.head]).for_each(ProgressBar::abandon);
        }
    }
}

enum Mark<'a> {
    /// The message brings its own.
    None,
    /// A spinner after this, and the time behind.
    Spinner(&'a str),
}

fn show(bar: &ProgressBar, mark: Mark<'_>, message: &str) {
    let template = match mark {
        Mark::None => "{msg}",
        Mark::Spinner(_) => "{prefix}{spinner:.cyan} {msg}  {elapsed:.dim}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is one of two above"));
    bar.set_message(printable(message).replace('\n', " "));
    match mark {
        Mark::None => {
            bar.disable_steady_tick();
            bar.tick();
        }
        Mark::Spinner(prefix) => {
            bar.set_prefix(prefix.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }
}

fn twig(within: usize, of: usize) -> &'static str {
    if within + 1 == of { "└ " } else { "├ " }
}

fn told(node: &NodeView) -> String {
    let elapsed = node.elapsed(Instant::now());
    let rows = node.rows.filter(|rows| *rows > 0 || matches!(node.state, NodeState::Finished { .. }));
    let time = match &node.state {
        NodeState::Finished { seconds } => Some(human::seconds(*seconds)),
        NodeState::Failed(failure) => Some(failure.message.clone()),
        NodeState::Waiting | NodeState::Running { .. } | NodeState::Stopped => None,
    };
    let parts = [
        Some(format!("{} {}", node.id, node.module)),
        rows.map(human::rows),
        rows.and_then(|rows| human::rate(rows, elapsed)),
        (node.bytes > 0).then(|| human::bytes(node.bytes)),
        time,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
