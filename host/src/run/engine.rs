//! Does what the scheduler commands, and tells it what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_core::flow::plan::{Plan, SubFlowId};
use pype_core::flow::spec::ExecutionMode;
use pype_core::name::NodeId;
use pype_core::run::event::{NodeInfo, RunEvent, SubFlowInfo};
use pype_core::run::scheduler::{Command, EndState, Event, Outcome, Scheduler};
use pype_core::template::{Context, Globals, Scope, condition};
use pype_plugin::Error;
use pype_plugin::host::Library;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::services::{LibraryServices, Shared};
use super::sub_flow::{self, End};
use crate::loader::{LoadError, Loader};
use crate::prepare::LibraryFile;
use crate::secret;

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads for blocking work in each library.
    pub blocking_threads: usize,
}

/// Everything that one run of a plan needs.
pub struct Job {
    /// Its name among runs.
    pub run_id: String,
    /// What runs.
    pub plan: Plan,
    /// What `{{context.…}}` stands for.
    pub context: Context,
    /// Relative paths in configs start here.
    pub folder: PathBuf,
    /// For files that nobody needs afterwards.
    pub temp_dir: PathBuf,
    /// Each module's library, loaded.
    pub libraries: BTreeMap<NodeId, Library>,
    /// What it may use.
    pub limits: Limits,
    /// What its nodes share.
    pub shared: Arc<Shared>,
}

impl Job {
    pub(super) fn is_eager(&self) -> bool {
        self.plan.settings.execution_mode == ExecutionMode::Eager
    }

    /// What templates and conditions may use.
    pub(super) fn scope<'a>(&'a self, globals: &'a Globals) -> Scope<'a> {
        let secret = self.shared.secrets.lookup();
        Scope { context: &self.context, globals, env: &secret::environment, iter: None, secret }
    }

    pub(super) fn failed(&self, node: Option<&NodeId>, error: Error) {
        match node {
            Some(node) => {
                let error = serde_json::to_value(&error).expect("an error is plain data");
                self.shared.tell(RunEvent::NodeFailed { node: node.clone(), error });
            }
            None => tracing::error!("{error}"),
        }
    }
}

/// Loads the library of every node, before any of them runs.
///
/// # Errors
/// One is not there, changed since it was registered, or is no plugin for this host.
pub fn load_libraries(
    plan: &Plan,
    files: &BTreeMap<NodeId, LibraryFile>,
    loader: &Loader<LibraryServices>,
) -> Result<BTreeMap<NodeId, Library>, LoadError> {
    let mut loaded: BTreeMap<&LibraryFile, Library> = BTreeMap::new();
    let mut libraries = BTreeMap::new();
    for node in plan.nodes() {
        let file = &files[&node.id];
        let library = match loaded.get(file) {
            Some(library) => *library,
            None => loader.load(&file.path, file.sha256.as_ref())?,
        };
        loaded.insert(file, library);
        libraries.insert(node.id.clone(), library);
    }
    Ok(libraries)
}

/// Runs `job` until everything has ended, its time is up, or `interrupt` fires.
pub async fn run(job: Arc<Job>, interrupt: CancellationToken) -> Outcome {
    let started = Instant::now();
    job.shared.tell(announce(&job));
    let mut engine = Engine {
        scheduler: Scheduler::new(&job.plan),
        job: job.clone(),
        running: JoinSet::new(),
        tokens: BTreeMap::new(),
        seconds: BTreeMap::new(),
        told: BTreeSet::new(),
    };
    engine.drive(interrupt).await;
    let outcome = engine.scheduler.outcome();
    engine.tell_others(outcome.clone());
    let seconds = started.elapsed().as_secs_f64();
    job.shared.tell(RunEvent::RunFinished { verdict: outcome.verdict(), seconds });
    outcome
}

/// What a task of the engine has done.
enum Done {
    /// It ran a sub flow.
    Ran { id: SubFlowId, end: End, seconds: f64 },
    /// It waited until the next attempt of a sub flow is due.
    Waited(SubFlowId),
}

struct Engine {
    scheduler: Scheduler,
    job: Arc<Job>,
    running: JoinSet<Done>,
    tokens: BTreeMap<SubFlowId, CancellationToken>,
    // How long the last attempt of each took.
    seconds: BTreeMap<SubFlowId, f64>,
    told: BTreeSet<SubFlowId>,
}

impl Engine {
    async fn drive(&mut self, interrupt: CancellationToken) {
        let time_up = tokio::time::sleep(Duration::from_secs(self.job.plan.settings.timeout_s));
        tokio::pin!(time_up);
        let mut stopping = false;
        let mut commands = self.scheduler.start();
        while !self.carry_out(commands) {
            commands = tokio::select! {
                Some(joined) = self.running.join_next() => {
                    match joined.expect("a task of the engine neither panics nor is aborted") {
                        Done::Ran { id, end, seconds } => self.ended(id, end, seconds),
                        Done::Waited(id) => self.scheduler.handle(Event::Due(id)),
                    }
                }
                () = interrupt.cancelled(), if !stopping => {
                    stopping = true;
                    self.scheduler.handle(Event::Interrupted)
                }
                () = &mut time_up, if !stopping => {
                    stopping = true;
                    self.scheduler.handle(Event::TimedOut)
                }
            };
        }
    }

    /// True when the run is over.
    fn carry_out(&mut self, commands: Vec<Command>) -> bool {
        let mut finished = false;
        for command in commands {
            match command {
                Command::Run { sub_flow, attempt } => self.start(sub_flow, attempt),
                Command::Wait { sub_flow, delay_ms } => {
                    let delay = Duration::from_millis(delay_ms);
                    self.running.spawn(async move {
                        tokio::time::sleep(delay).await;
                        Done::Waited(sub_flow)
                    });
                }
                Command::Cancel(sub_flow) => self.tokens[&sub_flow].cancel(),
                Command::Finish => finished = true,
            }
        }
        finished
    }

    fn start(&mut self, id: SubFlowId, attempt: u32) {
        let sub_flow = self.job.plan.sub_flow(id).clone();
        if attempt > 1 {
            sub_flow.nodes.iter().for_each(|node| self.job.shared.forget_globals(node));
        }
        let cancel = CancellationToken::new();
        self.tokens.insert(id, cancel.clone());
        let job = self.job.clone();
        self.running.spawn(async move {
            let started = Instant::now();
            job.shared.tell(RunEvent::SubFlowStarted { sub_flow: id, attempt });
            let end = sub_flow::run(job, sub_flow, cancel).await;
            Done::Ran { id, end, seconds: started.elapsed().as_secs_f64() }
        });
    }

    fn ended(&mut self, id: SubFlowId, end: End, seconds: f64) -> Vec<Command> {
        self.seconds.insert(id, seconds);
        match end {
            End::Succeeded => {
                self.tell_end(id, EndState::Success, None);
                let conditions = self.scheduler.conditions(id).map(|expression| self.is_true(expression)).collect();
                self.scheduler.handle(Event::Succeeded { sub_flow: id, conditions })
            }
            End::Failed { retryable } => {
                let commands = self.scheduler.handle(Event::Failed { sub_flow: id, retryable });
                let again = |command: &Command| matches!(command, Command::Wait { sub_flow, .. } if *sub_flow == id);
                if !commands.iter().any(again) {
                    let (state, reason) = self.scheduler.end_of(id);
                    self.tell_end(id, state, reason);
                }
                commands
            }
            // Why it was stopped is said at the end.
            End::Cancelled => self.scheduler.handle(Event::Cancelled(id)),
        }
    }

    /// Evaluates the condition of an edge.
    fn is_true(&self, expression: &str) -> Result<bool, String> {
        let globals = self.job.shared.globals();
        condition(expression, &self.job.scope(&globals))
    }

    /// Tells of those that did not run, or were stopped.
    fn tell_others(&mut self, outcome: Outcome) {
        for ended in outcome.sub_flows {
            if !self.told.contains(&ended.id) {
                self.tell_end(ended.id, ended.state, ended.reason);
            }
        }
    }

    fn tell_end(&mut self, id: SubFlowId, state: EndState, reason: Option<String>) {
        self.told.insert(id);
        let seconds = self.seconds.get(&id).copied().unwrap_or_default();
        self.job.shared.tell(RunEvent::SubFlowFinished { sub_flow: id, state, reason, seconds });
    }
}

fn announce(job: &Job) -> RunEvent {
    let nodes = |ids: &[NodeId]| {
        let info = |id: &NodeId| NodeInfo { id: id.clone(), module: job.plan.node(id).module.to_string() };
        ids.iter().map(info).collect()
    };
    let of_plan = job.plan.sub_flows().iter();
    let sub_flows = of_plan.map(|s| SubFlowInfo { id: s.id, name: s.name().to_string(), nodes: nodes(&s.nodes) });
    RunEvent::RunStarted { run_id: job.run_id.clone(), flow: job.plan.name.clone(), sub_flows: sub_flows.collect() }
}
