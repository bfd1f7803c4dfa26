//! Which sub flow runs next.
//!
//! A pure structure: the host carries out its [`Command`]s and reports back with [`Event`]s. It
//! knows no clock, no task and no module; what waits for what was settled by
//! `flow::precedence` when the plan was made.
//!
//! A sub flow is decided once all that it waits for has ended. Each edge that leads to it is then taken, not taken or dead
//! (`state::resolve` is the table), and its join says what that makes of it. A stop decides for everything that is still
//! pending at once.

mod outcome;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::state::{Decision, EdgeState, State, Step, resolve};
use crate::flow::plan::{ControlEdge, Plan, SubFlow, SubFlowId, Trigger};
use crate::flow::spec::{FailStrategy, Join};

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
    },
    /// Report [`Event::Due`] after a while.
    Wait {
        /// Whose next attempt waits.
        sub_flow: SubFlowId,
        /// How long, in milliseconds.
        delay_ms: u64,
    },
    /// Stop a running sub flow and report [`Event::Cancelled`] when it has closed.
    Cancel(SubFlowId),
    /// Nothing runs and nothing will: see [`Scheduler::outcome`]. Given once.
    Finish,
}

/// What happened to a sub flow, or to the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It ended well: sinks closed, outputs durable.
    Succeeded {
        /// Which.
        sub_flow: SubFlowId,
        /// What the expressions on the edges that leave it gave, in the order of [`Scheduler::conditions`].
        conditions: Vec<Result<bool, String>>,
    },
    /// An attempt failed.
    Failed {
        /// Which.
        sub_flow: SubFlowId,
        /// May another attempt go better? A wrong config never does.
        retryable: bool,
    },
    /// The time that [`Command::Wait`] named has passed.
    Due(SubFlowId),
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
    edges: Vec<Edge>,
    halt_on_failure: bool,
    retries: u32,
    stop: Option<Stop>,
    /// How many have not ended: of those that the run waits for, and of the detached.
    open: usize,
    open_detached: usize,
    finished: bool,
}

/// A sub flow as the scheduler follows it.
#[derive(Debug, Clone)]
struct Tracked {
    id: SubFlowId,
    name: Arc<str>,
    join: Join,
    /// How many of those that it waits for have not ended.
    waits: usize,
    /// Those that wait for it.
    dependents: Vec<usize>,
    /// The edges that lead to it and leave it, by their place.
    incoming: Vec<usize>,
    outgoing: Vec<usize>,
    /// Whether every way to it goes through a `start detach` edge.
    detached: bool,
    state: State,
    attempts: u32,
    reason: Option<String>,
}

#[derive(Debug, Clone)]
struct Edge {
    from: usize,
    to: usize,
    trigger: Trigger,
    decision: Decision,
}

/// Why nothing new is started any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Halted {
        by: usize,
    },
    TimedOut,
    Interrupted,
    /// All that the run waits for has ended.
    Done,
}

impl Scheduler {
    /// A scheduler for one run of a plan, or for one item of a loop: of those that run within it, and no deeper.
    #[must_use]
    pub fn new(plan: &Plan, within: Option<SubFlowId>) -> Self {
        let members = || plan.sub_flows().iter().filter(|one| one.within == within);
        let mut sub_flows: Vec<Tracked> = members().map(Tracked::new).collect();
        let place = |id: SubFlowId| place(&sub_flows, id);
        let edges: Vec<Edge> = plan.control_edges().iter().filter_map(|edge| Edge::new(edge, place)).collect();
        let waits: Vec<(usize, usize)> = members()
            .flat_map(|one| one.after.iter().filter_map(|before| Some((place(*before)?, place(one.id)?))))
            .collect();
        for (at, edge) in edges.iter().enumerate() {
            sub_flows[edge.from].outgoing.push(at);
            sub_flows[edge.to].incoming.push(at);
        }
        for (before, after) in waits {
            sub_flows[before].dependents.push(after);
        }
        // Those that a sub flow waits for stand before it.
        for index in 0..sub_flows.len() {
            let mut incoming = sub_flows[index].incoming.iter().map(|edge| &edges[*edge]).peekable();
            let detaches =
                |edge: &Edge| edge.trigger == Trigger::Start { detach: true } || sub_flows[edge.from].detached;
            let detached = incoming.peek().is_some() && incoming.all(detaches);
            sub_flows[index].detached = detached;
        }
        let detached = sub_flows.iter().filter(|one| one.detached).count();
        Scheduler {
            open: sub_flows.len() - detached,
            open_detached: detached,
            sub_flows,
            edges,
            halt_on_failure: plan.settings.fail_strategy == FailStrategy::Halt,
            retries: u32::from(plan.settings.retries),
            stop: None,
            finished: false,
        }
    }

    /// The expressions on the edges that leave a sub flow, to be evaluated once when it has succeeded.
    pub fn conditions(&self, id: SubFlowId) -> impl Iterator<Item = &str> {
        let outgoing = place(&self.sub_flows, id).map(|at| &self.sub_flows[at].outgoing);
        outgoing.into_iter().flatten().filter_map(|edge| self.edges[*edge].expression())
    }

    /// The first commands: the roots, in parallel.
    #[must_use]
    pub fn start(&mut self) -> Vec<Command> {
        let roots = (0..self.sub_flows.len()).filter(|index| self.sub_flows[*index].waits == 0).collect();
        self.settle(roots)
    }

    /// What an event leads to. One that no legal transition accepts changes nothing: the late
    /// report of a sub flow that has already ended.
    #[must_use]
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        let whom = match &event {
            Event::Succeeded { sub_flow, .. } | Event::Failed { sub_flow, .. } => Some(*sub_flow),
            Event::Due(id) | Event::Cancelled(id) => Some(*id),
            Event::TimedOut | Event::Interrupted => None,
        };
        let at = whom.and_then(|id| place(&self.sub_flows, id));
        let ready = match (event, at) {
            (Event::TimedOut, _) => self.cancel_all(Stop::TimedOut, &mut commands),
            (Event::Interrupted, _) => self.cancel_all(Stop::Interrupted, &mut commands),
            (Event::Succeeded { conditions, .. }, Some(at)) => self.succeeded(at, conditions),
            (Event::Failed { retryable, .. }, Some(at)) => self.failed(at, retryable, &mut commands),
            (Event::Cancelled(_), Some(at)) => {
                let reason = self.stop_reason(true);
                self.end(at, Step::Stop, Some(reason))
            }
            (Event::Due(_), Some(at)) => {
                commands.extend(self.run(at));
                Vec::new()
            }
            // Another scheduler's.
            (Event::Succeeded { .. } | Event::Failed { .. } | Event::Cancelled(_) | Event::Due(_), None) => Vec::new(),
        };
        commands.extend(self.settle(ready));
        commands
    }

    /// Has [`Command::Finish`] been given?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// How a sub flow has ended, if it has.
    #[must_use]
    pub fn ended(&self, id: SubFlowId) -> Option<EndState> {
        self.sub_flows[place(&self.sub_flows, id)?].state.end()
    }

    /// Why a sub flow has ended as it did, if it did not just succeed or fail.
    #[must_use]
    pub fn reason(&self, id: SubFlowId) -> Option<&str> {
        self.sub_flows[place(&self.sub_flows, id)?].reason.as_deref()
    }

    /// How the run ended, or what would be said of it if it ended now.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let sub_flows: Vec<SubFlowOutcome> = self.sub_flows.iter().map(Tracked::outcome).collect();
        let verdict = self.verdict(&sub_flows);
        Outcome { sub_flows, verdict, handled_within_a_loop: false }
    }

    fn verdict(&self, ended: &[SubFlowOutcome]) -> Verdict {
        let fine = |one: &SubFlowOutcome| {
            one.detached || matches!(one.state, EndState::Success | EndState::Skipped | EndState::Handled)
        };
        if ended.iter().all(fine) {
            return Verdict::Succeeded;
        }
        match self.stop {
            Some(Stop::TimedOut) => Verdict::TimedOut,
            Some(Stop::Interrupted) => Verdict::Cancelled,
            Some(Stop::Halted { .. } | Stop::Done) | None => Verdict::Failed,
        }
    }

    fn succeeded(&mut self, index: usize, conditions: Vec<Result<bool, String>>) -> Vec<usize> {
        let ready = self.end(index, Step::Succeed, None);
        let mut given = conditions.into_iter();
        let mut all_decided = true;
        for edge in &self.sub_flows[index].outgoing {
            let edge = &mut self.edges[*edge];
            if edge.expression().is_some() {
                let given = given.next().unwrap_or_else(|| Err("it was not evaluated".to_owned()));
                all_decided &= given.is_ok();
                edge.decision = given.map_or_else(Decision::Impossible, Decision::Made);
            }
        }
        if !all_decided {
            self.halt(index);
        }
        ready
    }

    fn failed(&mut self, index: usize, retryable: bool, commands: &mut Vec<Command>) -> Vec<usize> {
        let may_retry = retryable && self.stop.is_none();
        let tracked = &mut self.sub_flows[index];
        if may_retry && tracked.attempts <= self.retries && tracked.step(Step::BackOff) {
            commands.push(Command::Wait { sub_flow: tracked.id, delay_ms: back_off_ms(tracked.attempts) });
            return Vec::new();
        }
        self.fail(index)
    }

    /// It has failed for good.
    fn fail(&mut self, index: usize) -> Vec<usize> {
        let outgoing = self.sub_flows[index].outgoing.iter().map(|edge| &self.edges[*edge]);
        let handlers: Vec<String> = outgoing
            .filter(|edge| edge.trigger == Trigger::Error)
            .map(|edge| format!("`{}`", self.sub_flows[edge.to].name))
            .collect();
        if handlers.is_empty() {
            let ready = self.end(index, Step::Fail, None);
            self.halt(index);
            return ready;
        }
        self.end(index, Step::Handle, Some(format!("it failed, which {} handles", handlers.join(", "))))
    }

    fn halt(&mut self, by: usize) {
        if self.halt_on_failure && self.stop.is_none() && !self.sub_flows[by].detached {
            self.stop = Some(Stop::Halted { by });
        }
    }

    /// A time-out or an interrupt also stops what a halt lets run to its end.
    fn cancel_all(&mut self, stop: Stop, commands: &mut Vec<Command>) -> Vec<usize> {
        if !matches!(self.stop, None | Some(Stop::Halted { .. })) {
            return Vec::new();
        }
        self.stop = Some(stop);
        self.cancel_running(commands)
    }

    fn cancel_running(&mut self, commands: &mut Vec<Command>) -> Vec<usize> {
        let running = self.sub_flows.iter_mut();
        commands.extend(running.filter_map(|one| one.step(Step::AskToStop).then_some(Command::Cancel(one.id))));
        self.end_waits()
    }

    /// Once a run stops no further attempt is made: the one that was made has failed.
    fn end_waits(&mut self) -> Vec<usize> {
        let backing_off = (0..self.sub_flows.len()).filter(|index| self.sub_flows[*index].state == State::BackingOff);
        backing_off.collect::<Vec<_>>().into_iter().flat_map(|index| self.fail(index)).collect()
    }

    /// Decides for those for which it can be decided now, and for those which that leads to.
    fn settle(&mut self, ready: Vec<usize>) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut ready: BTreeSet<usize> = ready.into_iter().collect();
        loop {
            while let Some(index) = ready.pop_first() {
                let (command, next) = self.decide(index);
                commands.extend(command);
                ready.extend(next);
            }
            if self.open == 0 && matches!(self.stop, None | Some(Stop::Halted { .. })) {
                self.stop = Some(Stop::Done);
                ready.extend(self.cancel_running(&mut commands));
            }
            ready.extend(self.stop_pending());
            if ready.is_empty() {
                break;
            }
        }
        if !self.finished && self.open + self.open_detached == 0 {
            self.finished = true;
            commands.push(Command::Finish);
        }
        commands
    }

    /// Ends what a stop leaves pending; gives those that are ready by that.
    fn stop_pending(&mut self) -> Vec<usize> {
        let Some(stop) = self.stop else { return Vec::new() };
        let (mut ready, spared) = match stop {
            Stop::Halted { .. } => (self.end_waits(), self.after_failures()),
            Stop::TimedOut | Stop::Interrupted | Stop::Done => Default::default(),
        };
        for index in 0..self.sub_flows.len() {
            if self.sub_flows[index].state == State::Pending && !spared.contains(&index) {
                let (step, reason) = match self.dead_edge(index) {
                    Some(reason) => (Step::FailUpstream, reason),
                    None => (Step::Stop, self.stop_reason(false)),
                };
                ready.extend(self.end(index, step, Some(reason)));
            }
        }
        ready.retain(|index| spared.contains(index));
        ready
    }

    /// A halt lets the `error` and `done` edges of what has failed, or may still, lead on.
    fn after_failures(&self) -> BTreeSet<usize> {
        let may_have_failed = |one: &Tracked| {
            matches!(one.state, State::Running | State::Cancelling | State::Ended(EndState::Failed | EndState::Handled))
        };
        let failed = self.sub_flows.iter().filter(|one| may_have_failed(one));
        let leads_on = |edge: &&Edge| matches!(edge.trigger, Trigger::Error | Trigger::Done);
        let mut open: Vec<usize> = failed
            .flat_map(|one| one.outgoing.iter().map(|edge| &self.edges[*edge]).filter(leads_on).map(|edge| edge.to))
            .collect();
        let mut reached = BTreeSet::new();
        while let Some(index) = open.pop() {
            if reached.insert(index) {
                open.extend(self.sub_flows[index].outgoing.iter().map(|edge| self.edges[*edge].to));
            }
        }
        reached
    }

    /// What becomes of a pending sub flow whose waits are over, and who is ready by that.
    fn decide(&mut self, index: usize) -> (Option<Command>, Vec<usize>) {
        if self.sub_flows[index].state != State::Pending {
            return (None, Vec::new());
        }
        if let Some(reason) = self.dead_edge(index) {
            return (None, self.end(index, Step::FailUpstream, Some(reason)));
        }
        let incoming = &self.sub_flows[index].incoming;
        let edges: Vec<EdgeState> = incoming.iter().map(|edge| self.resolved(*edge)).collect();
        let runs = match self.sub_flows[index].join {
            Join::Taken => self.is_taken(incoming, &edges),
            Join::All => edges.iter().all(|edge| *edge == EdgeState::Taken),
        };
        let stopped = match self.stop {
            None => false,
            Some(Stop::Halted { .. }) => !self.after_failures().contains(&index),
            Some(Stop::TimedOut | Stop::Interrupted | Stop::Done) => true,
        };
        match (runs, stopped) {
            (true, false) => (self.run(index), Vec::new()),
            (true, true) => {
                let reason = self.stop_reason(false);
                (None, self.end(index, Step::Stop, Some(reason)))
            }
            (false, _) => {
                // What is dead without a failure was cancelled.
                let step = if edges.contains(&EdgeState::Dead) { Step::Stop } else { Step::Skip };
                let reason = self.why_skipped(index);
                (None, self.end(index, step, Some(reason)))
            }
        }
    }

    /// Is one at least of these edges taken, and every one that brings data?
    fn is_taken(&self, incoming: &[usize], states: &[EdgeState]) -> bool {
        let brings_data = |edge: &usize| self.edges[*edge].trigger == Trigger::Data;
        let (data, control): (Vec<_>, Vec<_>) = incoming.iter().zip(states).partition(|(edge, _)| brings_data(edge));
        let taken = |(_, state): &(_, &EdgeState)| **state == EdgeState::Taken;
        data.iter().all(taken) && (control.is_empty() || control.iter().any(taken))
    }

    fn run(&mut self, index: usize) -> Option<Command> {
        let tracked = &mut self.sub_flows[index];
        tracked.step(Step::Start).then(|| {
            tracked.attempts += 1;
            Command::Run { sub_flow: tracked.id, attempt: tracked.attempts }
        })
    }

    fn resolved(&self, edge: usize) -> EdgeState {
        let edge = &self.edges[edge];
        match self.sub_flows[edge.from].state.end() {
            Some(from) => resolve(&edge.trigger, &edge.decision, from),
            None => EdgeState::Unresolved,
        }
    }

    /// Why a sub flow can no longer run, if an edge to it is dead by failure.
    fn dead_edge(&self, index: usize) -> Option<String> {
        let dead = self.sub_flows[index].incoming.iter().filter(|edge| self.resolved(**edge) == EdgeState::Dead);
        let mut reasons = dead.filter_map(|edge| {
            let edge = &self.edges[*edge];
            let from = &self.sub_flows[edge.from];
            match (&edge.decision, from.state.end()?) {
                (Decision::Impossible(why), EndState::Success) => {
                    Some(format!("the condition `{}` after `{}` cannot be evaluated: {why}", edge.trigger, from.name))
                }
                (_, EndState::Failed) => Some(format!("`{}` failed", from.name)),
                (_, EndState::UpstreamFailed) => Some(format!(
                    "`{}` did not run, because {}",
                    from.name,
                    from.reason.as_deref().unwrap_or("what it depends on failed")
                )),
                (_, EndState::Success | EndState::Handled | EndState::Skipped | EndState::Cancelled) => None,
            }
        });
        reasons.next()
    }

    /// Which edges were not taken, and why.
    fn why_skipped(&self, index: usize) -> String {
        let incoming = self.sub_flows[index].incoming.iter();
        let closed = incoming.filter(|edge| self.resolved(**edge) != EdgeState::Taken).map(|edge| {
            let edge = &self.edges[*edge];
            let from = &self.sub_flows[edge.from];
            match (&edge.trigger, from.state.end()) {
                (Trigger::When(expression), Some(EndState::Success)) => format!("`{expression}` was false"),
                (Trigger::Error, Some(EndState::Success)) => format!("`{}` succeeded", from.name),
                (_, Some(EndState::Skipped)) => format!("`{}` was skipped", from.name),
                (_, Some(EndState::Handled)) => format!("`{}` failed, which was handled", from.name),
                (_, Some(EndState::Cancelled)) => format!("`{}` was cancelled", from.name),
                (trigger, _) => format!("the `{trigger}` edge of `{}` was not taken", from.name),
            }
        });
        closed.collect::<Vec<_>>().join("; ")
    }

    fn stop_reason(&self, was_running: bool) -> String {
        let cause = match self.stop {
            Some(Stop::Halted { by }) => {
                format!("`{}` failed and the flow halts on failure", self.sub_flows[by].name)
            }
            Some(Stop::TimedOut) => "the run timed out".to_owned(),
            Some(Stop::Interrupted) => "the run was cancelled".to_owned(),
            Some(Stop::Done) => "the rest of the run had ended, and it was started with `start detach`".to_owned(),
            None => "it was cancelled".to_owned(),
        };
        match (was_running, self.stop) {
            (false, Some(Stop::TimedOut | Stop::Interrupted)) => format!("{cause} before it started"),
            (false, Some(Stop::Halted { .. } | Stop::Done) | None) | (true, _) => cause,
        }
    }

    /// Ends a sub flow, if the step is legal and ends it; gives those that have nothing more to wait for by that.
    fn end(&mut self, index: usize, step: Step, reason: Option<String>) -> Vec<usize> {
        let tracked = &mut self.sub_flows[index];
        if !tracked.step(step) {
            return Vec::new();
        }
        tracked.reason = reason;
        match tracked.detached {
            true => self.open_detached -= 1,
            false => self.open -= 1,
        }
        self.release(index)
    }

    /// Lets those on that wait for it. One that a stop has ended before its time does so only when it has nothing more to
    /// wait for itself, so that waiting stays transitive.
    fn release(&mut self, index: usize) -> Vec<usize> {
        let mut ready = Vec::new();
        let mut ended = vec![index];
        while let Some(index) = ended.pop() {
            if self.sub_flows[index].waits > 0 {
                continue;
            }
            for dependent in self.sub_flows[index].dependents.clone() {
                let waiting = &mut self.sub_flows[dependent];
                waiting.waits -= 1;
                match (waiting.waits, waiting.state.end()) {
                    (0, None) => ready.push(dependent),
                    (0, Some(_)) => ended.push(dependent),
                    (1.., _) => {}
                }
            }
        }
        ready
    }
}

/// Where a sub flow stands; they are in the order of their ids.
fn place(sub_flows: &[Tracked], id: SubFlowId) -> Option<usize> {
    sub_flows.binary_search_by_key(&id, |one| one.id).ok()
}

impl Tracked {
    fn new(sub_flow: &SubFlow) -> Self {
        Tracked {
            id: sub_flow.id,
            name: sub_flow.name().into(),
            join: sub_flow.join,
            waits: sub_flow.after.len(),
            dependents: Vec::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            detached: false,
            state: State::Pending,
            attempts: 0,
            reason: None,
        }
    }

    /// Takes a step if it is legal.
    fn step(&mut self, step: Step) -> bool {
        let next = self.state.after(step);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }

    fn outcome(&self) -> SubFlowOutcome {
        SubFlowOutcome {
            id: self.id,
            name: self.name.to_string(),
            state: self.state.end().unwrap_or(EndState::Cancelled),
            attempts: self.attempts,
            reason: self.reason.clone(),
            detached: self.detached,
        }
    }
}

impl Edge {
    /// The edge, if its ends have places.
    fn new(edge: &ControlEdge, place: impl Fn(SubFlowId) -> Option<usize>) -> Option<Self> {
        Some(Edge {
            from: place(edge.from_sub_flow)?,
            to: place(edge.to_sub_flow)?,
            trigger: edge.trigger.clone(),
            decision: Decision::Open,
        })
    }

    fn expression(&self) -> Option<&str> {
        match &self.trigger {
            Trigger::When(expression) => Some(expression),
            Trigger::Ok
            | Trigger::Error
            | Trigger::Done
            | Trigger::Start { .. }
            | Trigger::Iterate { .. }
            | Trigger::Data => None,
        }
    }
}

/// How long to wait after an attempt has failed: half a second, doubled each time.
fn back_off_ms(attempt: u32) -> u64 {
    const FIRST_MS: u64 = 500;
    const LONGEST_MS: u64 = 30_000;
    FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_MS)
}
