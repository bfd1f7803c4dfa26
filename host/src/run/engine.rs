//! Does what the scheduler commands, and tells it what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pype_core::catalog::ModuleKind;
use pype_core::flow::plan::{Plan, SubFlow, SubFlowId};
use pype_core::name::NodeId;
use pype_core::run::event::{ItemPath, NodeInfo, RunEvent, SubFlowInfo};
use pype_core::run::previous::Previous;
use pype_core::run::scheduler::{Command, EndState, Event, Outcome, Scheduler};
use pype_core::template::{Context, Globals, Scope, condition};
use pype_plugin::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::home::Home;
use super::mock::Mocks;
use super::services::{LibraryServices, Shared};
use super::sub_flow::{self, End};
use super::turn::Turn;
use super::{loops, node, resume};
use crate::loader::{LoadError, Loader};
use crate::prepare::LibraryFile;
use crate::runs::CHECKPOINTS;
use crate::secret;
use crate::worker::{Apart, Around};

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
    /// What is kept of it.
    pub run_folder: PathBuf,
    /// 1 at first, one more with each resume.
    pub session: u32,
    /// What earlier sessions have completed.
    pub previous: Previous,
    /// Each module's library, where it runs.
    pub libraries: BTreeMap<NodeId, Home>,
    /// What [`wirings`](super::wirings) says of the plan.
    pub wirings: BTreeMap<SubFlowId, String>,
    /// What stands in for modules, in a test.
    pub mocks: Option<Arc<Mocks>>,
    /// What secrets are hashed with, if there are any.
    pub key: Option<secret::Key>,
    /// What it may use.
    pub limits: Limits,
    /// What its nodes share.
    pub shared: Arc<Shared>,
}

impl Job {
    /// What templates and conditions may use.
    pub(super) fn scope<'a>(&'a self, turn: &'a Turn, globals: &'a Globals) -> Scope<'a> {
        let iter = turn.iteration.as_deref();
        let secret = self.shared.secrets.lookup();
        Scope { context: &self.context, globals, env: &secret::environment, iter, secret }
    }

    /// Where the rows of this name are kept, and the same as the log of the run has it: from its folder on.
    pub(super) fn place(&self, name: &str) -> (PathBuf, String) {
        let place = format!("{CHECKPOINTS}/{name}");
        (self.run_folder.join(&place), place)
    }

    pub(super) fn failed(&self, node: Option<&NodeId>, item: &ItemPath, error: Error) {
        match node {
            Some(node) => {
                let error = serde_json::to_value(&error).expect("an error is plain data");
                self.shared.tell(RunEvent::NodeFailed { node: node.clone(), item: item.clone(), error });
            }
            None => tracing::error!("{error}"),
        }
    }
}

/// Loads the library of every node, before any of them runs; each file once. Those of nodes that run in processes of their own
/// are not loaded here.
///
/// # Errors
/// One is not there, changed since it was registered, or is no plugin for this host.
pub fn load_libraries(
    plan: &Plan,
    files: &BTreeMap<NodeId, LibraryFile>,
    loader: &Loader<LibraryServices>,
    apart: &Around,
) -> Result<BTreeMap<NodeId, Home>, LoadError> {
    let mut homes: BTreeMap<(&LibraryFile, bool), Home> = BTreeMap::new();
    let mut libraries = BTreeMap::new();
    for node in plan.nodes() {
        let file = &files[&node.id];
        let home = match homes.get(&(file, node.isolated)) {
            Some(home) => home.clone(),
            None if node.isolated => Home::apart(Arc::new(Apart::new(file, apart.clone())?)),
            None => Home::here(loader.load(&file.path, file.sha256.as_ref())?),
        };
        homes.insert((file, node.isolated), home.clone());
        libraries.insert(node.id.clone(), home);
    }
    Ok(libraries)
}

/// Runs `job` until everything has ended, its time is up, or `interrupt` fires.
pub async fn run(job: Arc<Job>, interrupt: CancellationToken) -> Outcome {
    let started = Instant::now();
    job.shared.tell(announce(&job));
    let mut engine = Engine::new(job.clone(), Arc::default(), Scheduler::new(&job.plan, None));
    let time = Duration::from_secs(job.plan.settings.timeout_s);
    let journal = job.shared.journal().clone();
    let stop = async move {
        tokio::select! {
            () = interrupt.cancelled() => Event::Interrupted,
            // Without its log a run could not be resumed.
            () = journal.lost() => Event::Interrupted,
            () = tokio::time::sleep(time) => Event::TimedOut,
        }
    };
    engine.drive(stop).await;
    let mut outcome = engine.finish();
    outcome.handled_within_a_loop = job.shared.handled_within_a_loop();
    let seconds = started.elapsed().as_secs_f64();
    job.shared.tell(RunEvent::RunFinished { verdict: outcome.verdict(), seconds });
    outcome
}

/// Runs what is within a loop for one item.
pub(super) fn run_turn(
    job: Arc<Job>,
    turn: Arc<Turn>,
    scheduler: Scheduler,
    cancel: CancellationToken,
) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    // Loops hold loops: without the box the future would hold itself.
    Box::pin(async move {
        let mut engine = Engine::new(job, turn, scheduler);
        let stop = async move {
            cancel.cancelled().await;
            Event::Interrupted
        };
        engine.drive(stop).await;
        engine.finish()
    })
}

/// What a task of the engine has done.
enum Done {
    /// It ran a sub flow, or used again what it gave.
    Ran { id: SubFlowId, end: End, seconds: f64 },
    /// It waited until the next attempt of a sub flow is due.
    Waited(SubFlowId),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Engine {
    scheduler: Scheduler,
    job: Arc<Job>,
    turn: Arc<Turn>,
    running: JoinSet<Done>,
    // What runs alone needs no task of its own: a chain, or a loop, is one task from end to end.
    alone: Option<Work>,
    tokens: BTreeMap<SubFlowId, CancellationToken>,
    // How long the last attempt of each took.
    seconds: BTreeMap<SubFlowId, f64>,
    told: BTreeSet<SubFlowId>,
}

impl Engine {
    fn new(job: Arc<Job>, turn: Arc<Turn>, scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            job,
            turn,
            running: JoinSet::new(),
            alone: None,
            tokens: BTreeMap::new(),
            seconds: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    async fn drive(&mut self, stop: impl Future<Output = Event>) {
        tokio::pin!(stop);
        let mut stopping = false;
        let mut commands = self.scheduler.start();
        while !self.carry_out(commands) {
            commands = tokio::select! {
                done = next(&mut self.alone, &mut self.running) => match done {
                    Done::Ran { id, end, seconds } => self.ended(id, end, seconds),
                    Done::Waited(id) => self.scheduler.handle(Event::Due(id)),
                },
                event = &mut stop, if !stopping => {
                    stopping = true;
                    self.scheduler.handle(event)
                }
            };
        }
    }

    /// How it ended; tells of those that did not run, or were stopped.
    fn finish(&mut self) -> Outcome {
        let outcome = self.scheduler.outcome();
        for ended in &outcome.sub_flows {
            if !self.told.contains(&ended.id) {
                self.tell_end(ended.id, ended.state, ended.reason.clone());
            }
        }
        outcome
    }

    /// True when the run is over.
    fn carry_out(&mut self, commands: Vec<Command>) -> bool {
        let mut finished = false;
        let runs = commands.iter().filter(|command| matches!(command, Command::Run { .. })).count();
        for command in commands {
            match command {
                Command::Run { sub_flow, attempt } => {
                    let work = self.work(sub_flow, attempt);
                    if runs == 1 && self.alone.is_none() && self.running.is_empty() {
                        self.alone = Some(work);
                    } else {
                        self.running.spawn(work);
                    }
                }
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

    fn work(&mut self, id: SubFlowId, attempt: u32) -> Work {
        let cancel = CancellationToken::new();
        self.tokens.insert(id, cancel.clone());
        let (job, turn) = (self.job.clone(), self.turn.clone());
        Box::pin(async move {
            let started = Instant::now();
            let end = carry(&job, &turn, id, attempt, cancel).await;
            Done::Ran { id, end, seconds: started.elapsed().as_secs_f64() }
        })
    }

    fn ended(&mut self, id: SubFlowId, end: End, seconds: f64) -> Vec<Command> {
        self.seconds.insert(id, seconds);
        match end {
            End::Succeeded { told } => {
                if told {
                    self.told.insert(id);
                } else {
                    self.tell_end(id, EndState::Success, None);
                }
                let conditions = self.scheduler.conditions(id).map(|expression| self.is_true(expression)).collect();
                self.scheduler.handle(Event::Succeeded { sub_flow: id, conditions })
            }
            End::Failed { retryable, reason } => {
                let commands = self.scheduler.handle(Event::Failed { sub_flow: id, retryable });
                let again = |command: &Command| matches!(command, Command::Wait { sub_flow, .. } if *sub_flow == id);
                if !commands.iter().any(again) {
                    let state = self.scheduler.ended(id).unwrap_or(EndState::Failed);
                    let reason = self.scheduler.reason(id).map(str::to_owned).or(reason);
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
        let globals = self.turn.globals();
        condition(expression, &self.job.scope(&self.turn, &globals))
    }

    /// Tells how a sub flow has ended.
    fn tell_end(&mut self, id: SubFlowId, state: EndState, reason: Option<String>) {
        let seconds = self.seconds.get(&id).copied().unwrap_or_default();
        self.job.shared.tell(RunEvent::SubFlowFinished {
            sub_flow: id,
            item: self.turn.path.clone(),
            state,
            reused: false,
            reason,
            seconds,
            fingerprint: None,
        });
        self.told.insert(id);
    }
}

/// The next that is done, of what runs alone and of the tasks; never, if there is neither.
async fn next(alone: &mut Option<Work>, running: &mut JoinSet<Done>) -> Done {
    match alone {
        Some(work) => {
            let done = tokio::select! {
                done = work => done,
                Some(joined) = running.join_next() => return joined.expect(UNHARMED),
            };
            *alone = None;
            done
        }
        None => match running.join_next().await {
            Some(joined) => joined.expect(UNHARMED),
            None => std::future::pending().await,
        },
    }
}

const UNHARMED: &str = "a task of the engine neither panics nor is aborted";

/// Runs a sub flow or loop, or uses again what an earlier session made of the same.
async fn carry(job: &Arc<Job>, turn: &Arc<Turn>, id: SubFlowId, attempt: u32, cancel: CancellationToken) -> End {
    let sub_flow = job.plan.sub_flow(id);
    let begins = || RunEvent::SubFlowStarted { sub_flow: id, item: turn.path.clone(), attempt };
    if let Some(iterate) = &sub_flow.iterate {
        job.shared.tell(begins());
        return loops::run(job, turn, sub_flow, iterate, cancel).await;
    }
    let started = Instant::now();
    let succeeded = |reused, reason, fingerprint| RunEvent::SubFlowFinished {
        sub_flow: id,
        item: turn.path.clone(),
        state: EndState::Success,
        reused,
        reason,
        seconds: started.elapsed().as_secs_f64(),
        fingerprint,
    };
    let configs = match node::all_configs(job, turn, sub_flow) {
        Ok(configs) => configs,
        Err((id, error)) => {
            job.shared.tell(begins());
            job.failed(Some(&id), &turn.path, error);
            return End::Failed { retryable: false, reason: None };
        }
    };
    // What goes wrong here goes wrong again where it is told. A store may take its time to answer.
    let made_from = tokio::select! {
        biased;
        () = cancel.cancelled() => return End::Cancelled,
        made_from = resume::fingerprint(job, turn, sub_flow, &configs) => made_from.ok(),
    };
    let mut reason = None;
    if let Some(made_from) = made_from.as_ref().filter(|_| attempt == 1 && job.session > 1) {
        reason = resume::use_again(job, turn, sub_flow, made_from);
        if reason.is_none() {
            job.shared.tell(succeeded(true, None, Some(made_from.clone())));
            return End::Succeeded { told: true };
        }
    }
    turn.note_run(id, job.plan.loops_around(id).map(|one| one.id));
    if attempt > 1 {
        sub_flow.nodes.iter().for_each(|node| turn.forget(node));
    }
    job.shared.tell(begins());
    let end = sub_flow::run(job, turn, sub_flow, configs.clone(), cancel.clone()).await;
    if !matches!(end, End::Succeeded { .. }) {
        return end;
    }
    let fingerprint = match made_from {
        Some(made_from) => tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            made = resume::with_outputs(job, &configs, made_from) => made.ok(),
        },
        None => None,
    };
    job.shared.tell(succeeded(false, reason, fingerprint));
    match leaves_something(job, sub_flow) {
        true => written_down(job, sub_flow).await,
        false => End::Succeeded { told: true },
    }
}

/// Whether a sub flow has made something durable, so that its end must be too.
fn leaves_something(job: &Job, sub_flow: &SubFlow) -> bool {
    sub_flow.nodes.iter().any(|id| {
        let node = job.plan.node(id);
        node.checkpoint || node.entry.kind == ModuleKind::Sink || job.plan.loops_over(id).next().is_some()
    })
}

async fn written_down(job: &Job, sub_flow: &SubFlow) -> End {
    match job.shared.journal().settled().await {
        Ok(()) => End::Succeeded { told: true },
        Err(why) => {
            tracing::error!("`{}` has ended well, but that could not be written down: {why}", sub_flow.name());
            End::Failed { retryable: false, reason: Some("its end could not be written down".to_owned()) }
        }
    }
}

fn announce(job: &Job) -> RunEvent {
    let nodes = |ids: &[NodeId]| {
        let info = |id: &NodeId| NodeInfo { id: id.clone(), module: job.plan.node(id).module.to_string() };
        ids.iter().map(info).collect()
    };
    let of_plan = job.plan.sub_flows().iter();
    let sub_flows = of_plan.map(|s| SubFlowInfo {
        id: s.id,
        name: s.name(),
        nodes: nodes(&s.nodes),
        within: s.within,
        is_loop: s.iterate.is_some(),
    });
    RunEvent::RunStarted {
        run_id: job.run_id.clone(),
        flow: job.plan.name.clone(),
        version: Some(job.plan.version.clone()),
        session: job.session,
        sub_flows: sub_flows.collect(),
    }
}
