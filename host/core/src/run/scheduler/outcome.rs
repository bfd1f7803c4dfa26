//! How a run ended.

use serde::{Deserialize, Serialize};

use crate::flow::plan::SubFlowId;

/// How a sub flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EndState {
    /// It ran and ended well.
    Success,
    /// It ran and failed, its last attempt too.
    Failed,
    /// It ran and failed, and an `error` edge leads on from it.
    Handled,
    /// No edge that leads to it fired.
    Skipped,
    /// What it depends on failed.
    UpstreamFailed,
    /// It was stopped, or never started because the run stopped.
    Cancelled,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that had to run ended well.
    Succeeded,
    /// Something failed.
    Failed,
    /// The time was up.
    TimedOut,
    /// The user stopped it.
    Cancelled,
}

/// How a run ended, sub flow by sub flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// In the order of the plan.
    pub sub_flows: Vec<SubFlowOutcome>,
    pub(super) verdict: Verdict,
    /// Whether a loop handled a failure within: its own sub flows are not among these.
    pub handled_within_a_loop: bool,
}

/// How one sub flow ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubFlowOutcome {
    /// Which.
    pub id: SubFlowId,
    /// Its name: the id of its first module.
    pub name: String,
    /// How it ended.
    pub state: EndState,
    /// How many attempts were started.
    pub attempts: u32,
    /// Why it did not run, or was stopped, or who handles its failure; in words.
    pub reason: Option<String>,
    /// Whether the run neither waited for it nor counts how it ended.
    pub detached: bool,
}

impl Outcome {
    /// How the run as a whole ended. A failure that was handled is none.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The same where handled failures count too.
    #[must_use]
    pub fn strict_verdict(&self) -> Verdict {
        let handled = self.sub_flows.iter().any(|one| one.state == EndState::Handled && !one.detached);
        match self.verdict {
            Verdict::Succeeded if handled || self.handled_within_a_loop => Verdict::Failed,
            other => other,
        }
    }
}
