//! Where a sub flow stands, what can happen to it, and what that makes of its edges.

use super::EndState;
use crate::flow::plan::Trigger;

/// Where a sub flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Running,
    /// An attempt has failed, and the next one is not due yet.
    BackingOff,
    /// Running, and told to stop.
    Cancelling,
    Ended(EndState),
}

/// What can happen to a sub flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    BackOff,
    Succeed,
    Fail,
    Handle,
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

/// What a condition has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Open,
    Made(bool),
    Impossible(String),
}

impl State {
    /// The legal transitions, all of them.
    pub(super) fn after(self, step: Step) -> Option<State> {
        match (self, step) {
            (State::Pending | State::BackingOff, Step::Start) => Some(State::Running),
            (State::Running, Step::BackOff) => Some(State::BackingOff),
            (State::Running, Step::AskToStop) => Some(State::Cancelling),
            (State::Pending, Step::Skip) => Some(State::Ended(EndState::Skipped)),
            (State::Pending, Step::FailUpstream) => Some(State::Ended(EndState::UpstreamFailed)),
            (State::Running | State::Cancelling, Step::Succeed) => Some(State::Ended(EndState::Success)),
            (State::Running | State::BackingOff | State::Cancelling, Step::Fail) => {
                Some(State::Ended(EndState::Failed))
            }
            (State::Running | State::BackingOff | State::Cancelling, Step::Handle) => {
                Some(State::Ended(EndState::Handled))
            }
            (State::Pending | State::Running | State::Cancelling, Step::Stop) => {
                Some(State::Ended(EndState::Cancelled))
            }
            (State::Pending, Step::BackOff | Step::Succeed | Step::Fail | Step::Handle | Step::AskToStop)
            | (State::Running, Step::Start | Step::Skip | Step::FailUpstream)
            | (
                State::BackingOff,
                Step::BackOff | Step::Succeed | Step::Skip | Step::FailUpstream | Step::AskToStop | Step::Stop,
            )
            | (State::Cancelling, Step::Start | Step::BackOff | Step::Skip | Step::FailUpstream | Step::AskToStop)
            | (State::Ended(_), _) => None,
        }
    }

    pub(super) fn end(self) -> Option<EndState> {
        match self {
            State::Ended(end) => Some(end),
            State::Pending | State::Running | State::BackingOff | State::Cancelling => None,
        }
    }
}

/// What a control edge becomes when the sub flow it leaves has ended: the table of the language.
pub(super) fn resolve(trigger: &Trigger, decision: &Decision, from: EndState) -> EdgeState {
    match (trigger, from) {
        (
            Trigger::Ok | Trigger::Start { .. } | Trigger::Done | Trigger::Iterate { .. } | Trigger::Data,
            EndState::Success,
        )
        | (Trigger::Error | Trigger::Done, EndState::Failed | EndState::Handled) => EdgeState::Taken,
        (Trigger::When(_), EndState::Success) => match decision {
            Decision::Open => EdgeState::Unresolved,
            Decision::Made(true) => EdgeState::Taken,
            Decision::Made(false) => EdgeState::NotTaken,
            Decision::Impossible(_) => EdgeState::Dead,
        },
        (Trigger::Error, EndState::Success)
        | (
            Trigger::Ok | Trigger::Start { .. } | Trigger::When(_) | Trigger::Iterate { .. } | Trigger::Data,
            EndState::Handled,
        )
        | (_, EndState::Skipped) => EdgeState::NotTaken,
        (
            Trigger::Ok | Trigger::Start { .. } | Trigger::When(_) | Trigger::Iterate { .. } | Trigger::Data,
            EndState::Failed,
        )
        | (_, EndState::UpstreamFailed | EndState::Cancelled) => EdgeState::Dead,
    }
}
