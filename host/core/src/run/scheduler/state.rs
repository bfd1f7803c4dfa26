//! Where a sub flow stands, what can happen to it, and what that makes of its edges.

use super::EndState;
use crate::flow::plan::Trigger;

/// Where a sub flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Running,
    /// Running, and told to stop.
    Cancelling,
    Ended(EndState),
}

/// What can happen to a sub flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    Retry,
    Succeed,
    Fail,
    Skip,
    FailUpstream,
    AskToStop,
    Stop,
}

/// What became of a control edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeState {
    Unresolved,
    Taken,
    NotTaken,
    Dead,
}

impl State {
    /// The legal transitions, all of them.
    pub(super) fn after(self, step: Step) -> Option<State> {
        match (self, step) {
            (State::Pending, Step::Start) | (State::Running, Step::Retry) => Some(State::Running),
            (State::Pending, Step::Skip) => Some(State::Ended(EndState::Skipped)),
            (State::Pending, Step::FailUpstream) => Some(State::Ended(EndState::UpstreamFailed)),
            (State::Running, Step::AskToStop) => Some(State::Cancelling),
            (State::Running | State::Cancelling, Step::Succeed) => Some(State::Ended(EndState::Success)),
            (State::Running | State::Cancelling, Step::Fail) => Some(State::Ended(EndState::Failed)),
            (State::Pending | State::Running | State::Cancelling, Step::Stop) => {
                Some(State::Ended(EndState::Cancelled))
            }
            (State::Pending, Step::Retry | Step::Succeed | Step::Fail | Step::AskToStop)
            | (State::Running, Step::Start | Step::Skip | Step::FailUpstream)
            | (State::Cancelling, Step::Start | Step::Retry | Step::Skip | Step::FailUpstream | Step::AskToStop)
            | (State::Ended(_), _) => None,
        }
    }

    pub(super) fn end(self) -> Option<EndState> {
        match self {
            State::Ended(end) => Some(end),
            State::Pending | State::Running | State::Cancelling => None,
        }
    }
}

/// What a control edge becomes when the sub flow it leaves is in a state.
pub(super) fn resolve(trigger: Trigger, from: State) -> EdgeState {
    match (trigger, from.end()) {
        (Trigger::Ok, None) => EdgeState::Unresolved,
        (Trigger::Ok, Some(EndState::Success)) => EdgeState::Taken,
        (Trigger::Ok, Some(EndState::Skipped)) => EdgeState::NotTaken,
        (Trigger::Ok, Some(EndState::Failed | EndState::UpstreamFailed | EndState::Cancelled)) => EdgeState::Dead,
    }
}
