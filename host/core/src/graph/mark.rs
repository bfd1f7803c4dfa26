//! How a state is shown: a sign, a word, a colour; never by the colour alone.

use crate::run::history::{NodeHistory, NodeState, SubFlowHistory, SubFlowState};
use crate::run::scheduler::EndState;

/// What is to be seen of a sub flow's or a module's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// It ended well.
    Succeeded,
    /// An earlier session had done it.
    Reused,
    /// It failed.
    Failed,
    /// It failed, and an `error` edge leads on.
    Handled,
    /// No edge that leads to it fired.
    Skipped,
    /// What it depends on failed.
    UpstreamFailed,
    /// It was stopped, or not started because the run stopped.
    Cancelled,
    /// It started, and nothing says that it ended.
    Unfinished,
    /// Nothing was said about it.
    NotRun,
}

impl Mark {
    /// Of a sub flow.
    #[must_use]
    pub fn of_sub_flow(one: &SubFlowHistory) -> Mark {
        if one.reused && one.is_done() { Mark::Reused } else { Mark::of_state(one.state) }
    }

    /// Of an item, or of a sub flow that was not reused.
    #[must_use]
    pub fn of_state(state: SubFlowState) -> Mark {
        match state {
            SubFlowState::Waiting => Mark::NotRun,
            SubFlowState::Running => Mark::Unfinished,
            SubFlowState::Ended(EndState::Success) => Mark::Succeeded,
            SubFlowState::Ended(EndState::Failed) => Mark::Failed,
            SubFlowState::Ended(EndState::Handled) => Mark::Handled,
            SubFlowState::Ended(EndState::Skipped) => Mark::Skipped,
            SubFlowState::Ended(EndState::UpstreamFailed) => Mark::UpstreamFailed,
            SubFlowState::Ended(EndState::Cancelled) => Mark::Cancelled,
        }
    }

    /// Of a module of a sub flow. What did not start stands as its sub flow does.
    #[must_use]
    pub fn of_node(node: &NodeHistory, around: &SubFlowHistory) -> Mark {
        match node.state {
            NodeState::Finished if around.reused => Mark::Reused,
            NodeState::Finished => Mark::Succeeded,
            NodeState::Failed if around.state == SubFlowState::Ended(EndState::Handled) => Mark::Handled,
            NodeState::Failed => Mark::Failed,
            NodeState::Running => Mark::Unfinished,
            NodeState::Stopped => Mark::Cancelled,
            NodeState::Waiting => Mark::of_sub_flow(around),
        }
    }

    /// One character.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Mark::Succeeded => "✓",
            Mark::Reused => "↺",
            Mark::Failed => "✗",
            Mark::Handled => "!",
            Mark::Skipped => "–",
            Mark::UpstreamFailed => "⊘",
            Mark::Cancelled => "■",
            Mark::Unfinished => "…",
            Mark::NotRun => "·",
        }
    }

    /// In words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mark::Succeeded => "succeeded",
            Mark::Reused => "reused",
            Mark::Failed => "failed",
            Mark::Handled => "failed, handled",
            Mark::Skipped => "skipped",
            Mark::UpstreamFailed => "upstream failed",
            Mark::Cancelled => "stopped",
            Mark::Unfinished => "unfinished",
            Mark::NotRun => "not run",
        }
    }

    /// For style sheets and class definitions.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Mark::Succeeded => "succeeded",
            Mark::Reused => "reused",
            Mark::Failed => "failed",
            Mark::Handled => "handled",
            Mark::Skipped => "skipped",
            Mark::UpstreamFailed => "upstream",
            Mark::Cancelled => "stopped",
            Mark::Unfinished => "unfinished",
            Mark::NotRun => "idle",
        }
    }

    /// Whether it did any work.
    #[must_use]
    pub fn has_run(self) -> bool {
        match self {
            Mark::Succeeded | Mark::Reused | Mark::Failed | Mark::Handled | Mark::Unfinished => true,
            Mark::Skipped | Mark::UpstreamFailed | Mark::Cancelled | Mark::NotRun => false,
        }
    }

    /// Its colours on white, for formats that have no dark side: the fill, and the line and sign.
    #[must_use]
    pub fn colours(self) -> (&'static str, &'static str) {
        match self {
            Mark::Succeeded => ("#e8f5ec", "#1a7f37"),
            Mark::Reused => ("#e2f3f5", "#0b7285"),
            Mark::Failed => ("#ffebe9", "#cf222e"),
            Mark::Handled => ("#fff4d6", "#8a5a00"),
            Mark::Skipped | Mark::NotRun => ("#f3f4f6", "#626c77"),
            Mark::UpstreamFailed => ("#f4eefe", "#7a45d6"),
            Mark::Cancelled => ("#fff0e5", "#b34700"),
            Mark::Unfinished => ("#e2f1ff", "#0a63cc"),
        }
    }
}
