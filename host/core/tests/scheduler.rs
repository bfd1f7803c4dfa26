//! The scheduler, by example and against a naive model on random flows.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{plan_of_solos, sub_flow};
use proptest::prelude::*;
use pype_core::flow::plan::{Plan, SubFlowId};
use pype_core::run::scheduler::{Command, EndState, Event, Scheduler, Verdict};

fn plan(settings: &str, ids: &[&str], control: &[&str]) -> Plan {
    let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    plan_of_solos(settings, &own(ids), &own(control))
}

fn run(plan: &Plan, id: &str, attempt: u32, delay_ms: u64) -> Command {
    Command::Run { sub_flow: sub_flow(plan, id), attempt, delay_ms }
}

fn fails(plan: &Plan, id: &str) -> Event {
    Event::Failed { sub_flow: sub_flow(plan, id), retryable: true }
}

fn succeeds(plan: &Plan, id: &str) -> Event {
    Event::Succeeded(sub_flow(plan, id))
}

/// How each sub flow ended, and why, in the order of their names.
fn ends(scheduler: &Scheduler) -> Vec<(String, EndState, Option<String>)> {
    let mut ends: Vec<_> =
        scheduler.outcome().sub_flows.into_iter().map(|one| (one.name, one.state, one.reason)).collect();
    ends.sort_by(|one, other| one.0.cmp(&other.0));
    ends
}

fn because(reason: &str) -> Option<String> {
    Some(reason.to_owned())
}

#[test]
fn roots_start_together_and_orders_are_barriers() {
    let plan = plan("{}", &["a", "b", "c", "d"], &["a (1|) b", "a (2|) c"]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1, 0), run(&plan, "d", 1, 0)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1, 0)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "d")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "b")), [run(&plan, "c", 1, 0)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
}

#[test]
fn a_failure_is_tried_again_with_a_growing_delay() {
    let plan = plan("{retries: 2}", &["a"], &[]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1, 0)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [run(&plan, "a", 2, 500)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [run(&plan, "a", 3, 1000)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [Command::Finish]);
    assert_eq!(ends(&scheduler), [("a".into(), EndState::Failed, None)]);
    assert_eq!(scheduler.outcome().sub_flows[0].attempts, 3);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let plan = plan("{retries: 3}", &["a"], &[]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start().len(), 1);
    let failed = Event::Failed { sub_flow: sub_flow(&plan, "a"), retryable: false };
    assert_eq!(scheduler.handle(failed), [Command::Finish]);
}

#[test]
fn halt_lets_what_runs_end_and_starts_nothing_new() {
    let plan = plan("{retries: 0}", &["a", "b", "c", "d"], &["a (1|) b", "c (1|) d"]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1, 0), run(&plan, "c", 1, 0)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
    assert_eq!(
        ends(&scheduler),
        [
            ("a".into(), EndState::Failed, None),
            ("b".into(), EndState::UpstreamFailed, because("`a` failed")),
            ("c".into(), EndState::Success, None),
            ("d".into(), EndState::Cancelled, because("`a` failed and the flow halts on failure")),
        ]
    );
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn continue_only_drops_what_depends_on_the_failure() {
    let settings = "{retries: 0, fail_strategy: continue}";
    let plan = plan(settings, &["a", "b", "c", "d", "e"], &["a (1|) b", "b (1|) c", "a (2|) d", "e (1|) d"]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start().len(), 2);
    assert_eq!(scheduler.handle(succeeds(&plan, "e")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1, 0)]);
    assert_eq!(scheduler.handle(fails(&plan, "b")), [run(&plan, "d", 1, 0)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "d")), [Command::Finish]);
    assert_eq!(ends(&scheduler)[2], ("c".into(), EndState::UpstreamFailed, because("`b` failed")));
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn a_chain_names_the_first_cause() {
    let plan = plan("{retries: 0}", &["a", "b", "c"], &["a (1|) b", "b (1|) c"]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start().len(), 1);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [Command::Finish]);
    let reason = because("`b` did not run, because `a` failed");
    assert_eq!(ends(&scheduler)[2], ("c".into(), EndState::UpstreamFailed, reason));
}

#[test]
fn time_out_and_interrupt_cancel_what_runs() {
    for (event, verdict, said) in [
        (Event::TimedOut, Verdict::TimedOut, "the run timed out"),
        (Event::Interrupted, Verdict::Cancelled, "the run was cancelled"),
    ] {
        let plan = plan("{}", &["a", "b"], &["a (1|) b"]);
        let a = sub_flow(&plan, "a");
        let mut scheduler = Scheduler::new(&plan);
        assert_eq!(scheduler.start().len(), 1);
        assert_eq!(scheduler.handle(event), [Command::Cancel(a)]);
        assert_eq!(scheduler.handle(Event::Interrupted), [], "the first reason counts, and nothing is cancelled twice");
        assert_eq!(scheduler.handle(Event::Cancelled(a)), [Command::Finish]);
        assert_eq!(scheduler.handle(Event::Succeeded(a)), [], "a late report changes nothing");
        let never = format!("{said} before it started");
        assert_eq!(
            ends(&scheduler),
            [("a".into(), EndState::Cancelled, because(said)), ("b".into(), EndState::Cancelled, because(&never))]
        );
        assert_eq!(scheduler.outcome().verdict(), verdict);
    }
}

#[test]
fn what_ends_well_before_the_cancel_reaches_it_has_ended_well() {
    let plan = plan("{}", &["a"], &[]);
    let mut scheduler = Scheduler::new(&plan);
    assert_eq!(scheduler.start().len(), 1);
    assert_eq!(scheduler.handle(Event::TimedOut).len(), 1);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [Command::Finish]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
}

/// Edges `(from, to, order)` with `from < to`, by the number in a sub flow's name.
#[derive(Debug, Clone)]
struct RandomFlow {
    count: usize,
    edges: Vec<(usize, usize, u32)>,
    halt: bool,
    retries: u32,
    /// What happens next: whose turn it is among those that run, and how its attempt ends.
    fates: Vec<(usize, Fate)>,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeeds,
    Fails,
    FailsForGood,
    /// The user stops the run first, then it ends well after all.
    Interrupted,
}

fn random_flow() -> impl Strategy<Value = RandomFlow> {
    let fate = prop_oneof![
        12 => Just(Fate::Succeeds), 3 => Just(Fate::Fails), 1 => Just(Fate::FailsForGood), 1 => Just(Fate::Interrupted)
    ];
    (2_usize..9).prop_flat_map(move |count| {
        let edge = (0..count - 1, 1..count, 1_u32..4)
            .prop_map(move |(from, step, order)| (from, from + 1 + step % (count - from - 1).max(1), order));
        let edges = prop::collection::vec(edge, 0..14);
        let fates = prop::collection::vec((0_usize..8, fate.clone()), 64);
        (edges, any::<bool>(), 0_u32..3, fates).prop_map(move |(edges, halt, retries, fates)| RandomFlow {
            count,
            edges: edges.into_iter().filter(|(from, to, _)| to < &count && from < to).collect(),
            halt,
            retries,
            fates,
        })
    })
}

impl RandomFlow {
    fn plan(&self) -> Plan {
        let strategy = if self.halt { "halt" } else { "continue" };
        let settings = format!("{{retries: {}, fail_strategy: {strategy}}}", self.retries);
        let ids: Vec<String> = (0..self.count).map(|index| format!("n{index}")).collect();
        let control: Vec<String> =
            self.edges.iter().map(|(from, to, order)| format!("n{from} ({order}|ok) n{to}")).collect();
        plan_of_solos(&settings, &ids, &control)
    }

    /// The sub flows that cannot be reached from a root without an edge that leaves `from` with an order below `order`.
    fn dominated_below(&self, from: usize, order: u32) -> Vec<usize> {
        let open = |edge: &&(usize, usize, u32)| edge.0 != from || edge.2 >= order;
        let mut reached: Vec<bool> =
            (0..self.count).map(|index| self.edges.iter().all(|edge| edge.1 != index)).collect();
        // Edges lead to higher numbers, so one pass in their order does.
        for index in 0..self.count {
            let mut incoming = self.edges.iter().filter(open).filter(|edge| edge.1 == index);
            reached[index] = reached[index] || incoming.any(|edge| reached[edge.0]);
        }
        (0..self.count).filter(|index| !reached[*index]).collect()
    }
}

/// Plays the host, and watches.
struct Host<'a> {
    flow: &'a RandomFlow,
    number: BTreeMap<SubFlowId, usize>,
    running: Vec<SubFlowId>,
    cancelled: BTreeSet<SubFlowId>,
    attempts: BTreeMap<usize, u32>,
    succeeded: BTreeSet<usize>,
    failed: BTreeSet<usize>,
    stopped: bool,
    finishes: usize,
}

impl<'a> Host<'a> {
    fn new(flow: &'a RandomFlow, plan: &Plan) -> Self {
        let number = |name: &str| name[1..].parse().expect("a number follows the n");
        let numbers = plan.sub_flows().iter().map(|one| (one.id, number(one.name().as_str())));
        Host {
            flow,
            number: numbers.collect(),
            running: Vec::new(),
            cancelled: BTreeSet::new(),
            attempts: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            failed: BTreeSet::new(),
            stopped: false,
            finishes: 0,
        }
    }

    fn obey(&mut self, commands: Vec<Command>) {
        for command in commands {
            assert_eq!(self.finishes, 0, "nothing follows the finish");
            match command {
                Command::Run { sub_flow, attempt, .. } => self.run(sub_flow, attempt),
                Command::Cancel(id) => {
                    assert!(self.running.contains(&id), "only what runs is cancelled");
                    assert!(self.cancelled.insert(id), "nothing is cancelled twice");
                }
                Command::Finish => self.finishes += 1,
            }
        }
    }

    fn run(&mut self, id: SubFlowId, attempt: u32) {
        let number = self.number[&id];
        let before = self.attempts.insert(number, attempt).unwrap_or(0);
        assert_eq!(attempt, before + 1, "attempts are counted");
        assert!(attempt <= self.flow.retries + 1, "no attempt beyond the retries");
        assert!(!self.running.contains(&id), "nothing runs twice at a time");
        assert!(!self.stopped, "nothing starts once the run stops");
        for (from, _, order) in self.flow.edges.iter().filter(|edge| edge.1 == number) {
            assert!(self.succeeded.contains(from), "an `ok` edge needs a success");
            for barrier in self.flow.dominated_below(*from, *order) {
                assert!(self.has_ended(barrier), "n{number} started before n{barrier} had ended");
            }
        }
        self.running.push(id);
    }

    /// What is not running and can no longer start has ended, whether it ran or not.
    fn has_ended(&self, number: usize) -> bool {
        let lost =
            self.flow.edges.iter().any(|edge| edge.1 == number && (self.failed.contains(&edge.0) || self.lost(edge.0)));
        self.succeeded.contains(&number) || self.failed.contains(&number) || lost
    }

    fn lost(&self, number: usize) -> bool {
        !self.attempts.contains_key(&number) && self.has_ended(number)
    }

    fn play(&mut self, scheduler: &mut Scheduler) {
        let mut fates = self.flow.fates.iter().cycle();
        while let Some((turn, fate)) = fates.next().filter(|_| !self.running.is_empty()) {
            let id = self.running.remove(turn % self.running.len());
            let commands = self.end(scheduler, id, *fate);
            self.obey(commands);
        }
    }

    fn end(&mut self, scheduler: &mut Scheduler, id: SubFlowId, fate: Fate) -> Vec<Command> {
        let number = self.number[&id];
        if self.cancelled.contains(&id) {
            self.failed.insert(number);
            return scheduler.handle(Event::Cancelled(id));
        }
        match fate {
            Fate::Succeeds => {
                self.succeeded.insert(number);
                scheduler.handle(Event::Succeeded(id))
            }
            Fate::Interrupted => {
                self.stopped = true;
                self.running.push(id);
                let commands = scheduler.handle(Event::Interrupted);
                self.obey(commands);
                self.running.retain(|running| *running != id);
                self.succeeded.insert(number);
                scheduler.handle(Event::Succeeded(id))
            }
            Fate::Fails | Fate::FailsForGood => {
                let retryable = matches!(fate, Fate::Fails);
                let again = retryable && !self.stopped && self.attempts[&number] <= self.flow.retries;
                if !again {
                    self.failed.insert(number);
                    self.stopped |= self.flow.halt;
                }
                scheduler.handle(Event::Failed { sub_flow: id, retryable })
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(flow in random_flow()) {
        let plan = flow.plan();
        let mut scheduler = Scheduler::new(&plan);
        let mut host = Host::new(&flow, &plan);
        let first = scheduler.start();
        host.obey(first);
        host.play(&mut scheduler);

        prop_assert_eq!(host.finishes, 1, "the run ends, and says so once");
        prop_assert!(scheduler.is_finished());
        let outcome = scheduler.outcome();
        prop_assert_eq!(outcome.sub_flows.len(), flow.count);
        for one in &outcome.sub_flows {
            let number = host.number[&one.id];
            prop_assert_eq!(one.attempts, host.attempts.get(&number).copied().unwrap_or(0));
            prop_assert_eq!(one.state == EndState::Success, host.succeeded.contains(&number));
            let ran = one.attempts > 0;
            prop_assert_eq!(matches!(one.state, EndState::UpstreamFailed | EndState::Skipped) && ran, false);
            prop_assert!(ran || one.reason.is_some(), "what did not run has a reason");
            if !host.stopped {
                // Without a stop only what depends on a failure does not run.
                prop_assert_eq!(one.state == EndState::UpstreamFailed, host.lost(number));
                prop_assert!(one.state != EndState::Cancelled);
            }
        }
        let all_well = host.succeeded.len() == flow.count;
        prop_assert_eq!(outcome.verdict() == Verdict::Succeeded, all_well);
    }
}
