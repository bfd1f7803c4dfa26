//! Which sub flow runs next.
//!
//! A pure structure: the host carries out its [`Command`]s and reports back with [`Event`]s. It
//! knows no clock, no task and no module; what waits for what was settled by
//! `flow::precedence` when the plan was made.

mod outcome;
mod state;

use self::state::{EdgeState, State, Step, resolve};
use crate::flow::plan::{Plan, SubFlow, SubFlowId, Trigger};
use crate::flow::spec::FailStrategy;

pub use self::outcome::{EndState, Outcome, SubFlowOutcome, Verdict};

/// What the host has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run a sub flow.
    Run {
        /// Which.
        sub_flow: SubFlowId,
        /// 1 at first.
        attempt: u32,
        /// How long to wait before, in milliseconds; 0 for a first attempt.
        delay_ms: u64,
    },
    /// Stop a running sub flow and report [`Event::Cancelled`] when it has closed.
    Cancel(SubFlowId),
    /// Nothing runs and nothing will: see [`Scheduler::outcome`]. Given once.
    Finish,
}

/// What happened to a sub flow, or to the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It ended well: sinks closed, outputs durable.
    Succeeded(SubFlowId),
    /// An attempt failed.
    Failed {
        /// Which.
        sub_flow: SubFlowId,
        /// May another attempt go better? A wrong config never does.
        retryable: bool,
    },
    /// It was told to stop and has.
    Cancelled(SubFlowId),
    /// The run's time is up.
    TimedOut,
    /// The user wants it to stop.
    Interrupted,
}

/// Decides, event by event, what runs next.
///
/// [`start`](Scheduler::start) gives the first commands, [`handle`](Scheduler::handle) those that an
/// event leads to. After [`Command::Finish`] there are none, and [`outcome`](Scheduler::outcome) is final.
#[derive(Debug, Clone)]
pub struct Scheduler {
    sub_flows: Vec<Tracked>,
    halt_on_failure: bool,
    retries: u32,
    stop: Option<Stop>,
    finished: bool,
}

/// A sub flow as the scheduler follows it.
#[derive(Debug, Clone)]
struct Tracked {
    id: SubFlowId,
    name: String,
    after: Vec<SubFlowId>,
    incoming: Vec<(SubFlowId, Trigger)>,
    state: State,
    attempts: u32,
    reason: Option<String>,
}

/// Why nothing new is started any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Halted { by: SubFlowId },
    TimedOut,
    Interrupted,
}

impl Scheduler {
    /// A scheduler for one run of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let tracked = |sub_flow: &SubFlow| Tracked {
            id: sub_flow.id,
            name: sub_flow.name().to_string(),
            after: sub_flow.after.iter().copied().collect(),
            incoming: plan
                .control_edges()
                .iter()
                .filter(|edge| edge.to_sub_flow == sub_flow.id)
                .map(|edge| (edge.from_sub_flow, edge.trigger))
                .collect(),
            state: State::Pending,
            attempts: 0,
            reason: None,
        };
        Scheduler {
            sub_flows: plan.sub_flows().iter().map(tracked).collect(),
            halt_on_failure: plan.settings.fail_strategy == FailStrategy::Halt,
            retries: u32::from(plan.settings.retries),
            stop: None,
            finished: false,
        }
    }

    /// The first commands: the roots, in parallel.
    #[must_use]
    pub fn start(&mut self) -> Vec<Command> {
        self.settle()
    }

    /// What an event leads to. One that no legal transition accepts changes nothing: the late
    /// report of a sub flow that has already ended.
    #[must_use]
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = match event {
            Event::Succeeded(id) => self.report(id, Step::Succeed),
            Event::Cancelled(id) => {
                self.note_stop(id);
                self.report(id, Step::Stop)
            }
            Event::Failed { sub_flow, retryable } => self.failed(sub_flow, retryable),
            Event::TimedOut => self.cancel_all(Stop::TimedOut),
            Event::Interrupted => self.cancel_all(Stop::Interrupted),
        };
        commands.extend(self.settle());
        commands
    }

    /// Has [`Command::Finish`] been given?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// How the run ended, or what would be said of it if it ended now.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let sub_flows: Vec<SubFlowOutcome> = self.sub_flows.iter().map(Tracked::outcome).collect();
        let verdict = self.verdict(&sub_flows);
        Outcome { sub_flows, verdict }
    }

    fn verdict(&self, ended: &[SubFlowOutcome]) -> Verdict {
        let fine = |one: &SubFlowOutcome| matches!(one.state, EndState::Success | EndState::Skipped);
        if ended.iter().all(fine) {
            return Verdict::Succeeded;
        }
        match self.stop {
            Some(Stop::TimedOut) => Verdict::TimedOut,
            Some(Stop::Interrupted) => Verdict::Cancelled,
            Some(Stop::Halted { .. }) | None => Verdict::Failed,
        }
    }

    fn report(&mut self, id: SubFlowId, step: Step) -> Vec<Command> {
        self.sub_flows[id.0].step(step);
        Vec::new()
    }

    fn failed(&mut self, id: SubFlowId, retryable: bool) -> Vec<Command> {
        let may_retry = retryable && self.stop.is_none();
        let tracked = &mut self.sub_flows[id.0];
        if may_retry && tracked.attempts <= self.retries && tracked.step(Step::Retry) {
            return vec![tracked.attempt()];
        }
        if tracked.step(Step::Fail) && self.halt_on_failure && self.stop.is_none() {
            self.stop = Some(Stop::Halted { by: id });
        }
        Vec::new()
    }

    /// A time-out or an interrupt also stops what a halt lets run to its end.
    fn cancel_all(&mut self, stop: Stop) -> Vec<Command> {
        if matches!(self.stop, None | Some(Stop::Halted { .. })) {
            self.stop = Some(stop);
        }
        let running = self.sub_flows.iter_mut();
        running.filter_map(|one| one.step(Step::AskToStop).then_some(Command::Cancel(one.id))).collect()
    }

    fn note_stop(&mut self, id: SubFlowId) {
        let reason = self.stop_reason(true);
        let tracked = &mut self.sub_flows[id.0];
        if tracked.state.end().is_none() {
            tracked.reason = Some(reason);
        }
    }

    /// Decides for every pending sub flow for which it can be decided. One pass does: those that a
    /// sub flow waits for stand before it.
    fn settle(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for index in 0..self.sub_flows.len() {
            if self.sub_flows[index].state == State::Pending {
                commands.extend(self.decide(index));
            }
        }
        if !self.finished && self.sub_flows.iter().all(|one| one.state.end().is_some()) {
            self.finished = true;
            commands.push(Command::Finish);
        }
        commands
    }

    fn decide(&mut self, index: usize) -> Option<Command> {
        if let Some(reason) = self.dead_edge(index) {
            self.end(index, Step::FailUpstream, reason);
            return None;
        }
        if self.stop.is_some() {
            let reason = self.stop_reason(false);
            self.end(index, Step::Stop, reason);
            return None;
        }
        let waits = self.sub_flows[index].after.iter();
        if waits.clone().any(|before| self.sub_flows[before.0].state.end().is_none()) {
            return None;
        }
        let edges = self.resolved(index);
        if edges.is_empty() || edges.contains(&EdgeState::Taken) {
            self.sub_flows[index].step(Step::Start);
            return Some(self.sub_flows[index].attempt());
        }
        self.end(index, Step::Skip, "no edge that leads to it was taken".to_owned());
        None
    }

    fn resolved(&self, index: usize) -> Vec<EdgeState> {
        let edges = self.sub_flows[index].incoming.iter();
        edges.map(|(from, trigger)| resolve(*trigger, self.sub_flows[from.0].state)).collect()
    }

    /// Why a sub flow can no longer run, if an edge to it is dead by failure.
    fn dead_edge(&self, index: usize) -> Option<String> {
        let edges = self.sub_flows[index].incoming.iter();
        let dead = edges.filter(|(from, trigger)| resolve(*trigger, self.sub_flows[from.0].state) == EdgeState::Dead);
        let mut reasons = dead.filter_map(|(from, _)| {
            let from = &self.sub_flows[from.0];
            match from.state.end()? {
                EndState::Failed => Some(format!("`{}` failed", from.name)),
                EndState::UpstreamFailed => Some(format!(
                    "`{}` did not run, because {}",
                    from.name,
                    from.reason.as_deref().unwrap_or("what it depends on failed")
                )),
                EndState::Success | EndState::Skipped | EndState::Cancelled => None,
            }
        });
        reasons.next()
    }

    fn stop_reason(&self, was_running: bool) -> String {
        let cause = match self.stop {
            Some(Stop::Halted { by }) => {
                format!("`{}` failed and the flow halts on failure", self.sub_flows[by.0].name)
            }
            Some(Stop::TimedOut) => "the run timed out".to_owned(),
            Some(Stop::Interrupted) => "the run was cancelled".to_owned(),
            None => "it was cancelled".to_owned(),
        };
        match (was_running, self.stop) {
            (false, Some(Stop::TimedOut | Stop::Interrupted)) => format!("{cause} before it started"),
            (false, Some(Stop::Halted { .. }) | None) | (true, _) => cause,
        }
    }

    fn end(&mut self, index: usize, step: Step, reason: String) {
        let tracked = &mut self.sub_flows[index];
        if tracked.step(step) {
            tracked.reason = Some(reason);
        }
    }
}

impl Tracked {
    /// Takes a step if it is legal.
    fn step(&mut self, step: Step) -> bool {
        let next = self.state.after(step);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }

    fn attempt(&mut self) -> Command {
        self.attempts += 1;
        Command::Run { sub_flow: self.id, attempt: self.attempts, delay_ms: back_off_ms(self.attempts) }
    }

    fn outcome(&self) -> SubFlowOutcome {
        SubFlowOutcome {
            id: self.id,
            name: self.name.clone(),
            state: self.state.end().unwrap_or(EndState::Cancelled),
            attempts: self.attempts,
            reason: self.reason.clone(),
        }
    }
}

/// Nothing before a first attempt, then half a second, doubled each time.
fn back_off_ms(attempt: u32) -> u64 {
    const FIRST_MS: u64 = 500;
    const LONGEST_MS: u64 = 30_000;
    match attempt.checked_sub(2) {
        None => 0,
        Some(doublings) => FIRST_MS.saturating_mul(1 << doublings.min(16)).min(LONGEST_MS),
    }
}
