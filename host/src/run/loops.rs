//! A loop: what runs within it, once per item, as many at a time as its edge says.
//!
//! Under `halt` the first item that fails is the last that starts, and those that run end; under `continue` all others run.
//! Either way the loop has failed.

use std::sync::Arc;

use pype_core::flow::plan::{Iterate, SubFlow};
use pype_core::flow::spec::FailStrategy;
use pype_core::run::event::RunEvent;
use pype_core::run::scheduler::{Outcome, Scheduler, Verdict};
use pype_plugin::{Error, ErrorKind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{self, Job};
use super::sub_flow::End;
use super::turn::Turn;

/// Runs a loop to its end.
pub(super) async fn run(
    job: &Arc<Job>,
    turn: &Arc<Turn>,
    sub_flow: &SubFlow,
    iterate: &Iterate,
    cancel: CancellationToken,
) -> End {
    let Some(items) = turn.list(&iterate.node, &iterate.over) else {
        job.failed(Some(&iterate.node), &turn.path, no_items(iterate));
        return End::Failed { retryable: false, reason: None };
    };
    let (path, count) = (turn.path.clone(), items.len() as u64);
    job.shared.tell(RunEvent::LoopStarted { sub_flow: sub_flow.id, item: path, items: count });
    let scheduler = Scheduler::new(&job.plan, Some(sub_flow.id));
    let globals = turn.globals();
    let mut tally = Tally::new(job);
    let mut running = JoinSet::new();
    let parallel = iterate.parallel.get() as usize;
    for (index, item) in (0..).zip(items.iter()) {
        if running.len() == parallel
            && let Some(ended) = running.join_next().await
        {
            tally.count(ended.expect("an item's turn neither panics nor is aborted"));
        }
        if tally.stops || cancel.is_cancelled() {
            break;
        }
        let inner = Arc::new(turn.inner(index, item.clone(), globals.clone()));
        let item = engine::run_turn(job.clone(), inner, scheduler.clone(), cancel.clone());
        if parallel == 1 {
            tally.count(item.await);
        } else {
            running.spawn(item);
        }
    }
    while let Some(ended) = running.join_next().await {
        tally.count(ended.expect("an item's turn neither panics nor is aborted"));
    }
    if tally.handled {
        job.shared.note_handled();
    }
    if cancel.is_cancelled() {
        return End::Cancelled;
    }
    match tally.failed {
        0 => End::Succeeded { told: false },
        failed => {
            let reason = format!("{failed} of {count} items failed");
            End::Failed { retryable: false, reason: Some(reason) }
        }
    }
}

struct Tally {
    failed: u64,
    handled: bool,
    stops: bool,
    halts: bool,
}

impl Tally {
    fn new(job: &Job) -> Self {
        let halts = job.plan.settings.fail_strategy == FailStrategy::Halt;
        Self { failed: 0, handled: false, stops: false, halts }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome.verdict() {
            Verdict::Succeeded => self.handled |= outcome.strict_verdict() != Verdict::Succeeded,
            Verdict::Failed => {
                self.failed += 1;
                self.stops |= self.halts;
            }
            Verdict::TimedOut | Verdict::Cancelled => self.stops = true,
        }
    }
}

fn no_items(iterate: &Iterate) -> Error {
    let message = format!("the module did not announce the list `{}`, which a loop goes over", iterate.over);
    Error::new(ErrorKind::Internal, "missing-list", message)
        .hint("this is a fault in the plugin: report it to its author")
}
