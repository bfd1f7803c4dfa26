//! The scheduler, by example and against a naive model on random flows.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{plan_of_joined_solos, plan_of_solos, sub_flow};
use proptest::prelude::*;
use pype_core::flow::plan::{Plan, SubFlowId};
use pype_core::run::scheduler::{Command, EndState, Event, Scheduler, Verdict};

fn plan(settings: &str, ids: &[&str], control: &[&str]) -> Plan {
    let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    plan_of_solos(settings, &own(ids), &own(control))
}

fn run(plan: &Plan, id: &str, attempt: u32) -> Command {
    Command::Run { sub_flow: sub_flow(plan, id), attempt }
}

fn wait(plan: &Plan, id: &str, delay_ms: u64) -> Command {
    Command::Wait { sub_flow: sub_flow(plan, id), delay_ms }
}

fn fails(plan: &Plan, id: &str) -> Event {
    Event::Failed { sub_flow: sub_flow(plan, id), retryable: true }
}

fn succeeds(plan: &Plan, id: &str) -> Event {
    Event::Succeeded { sub_flow: sub_flow(plan, id), conditions: Vec::new() }
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
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1), run(&plan, "d", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "d")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "b")), [run(&plan, "c", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
}

#[test]
fn a_failure_is_tried_again_with_a_growing_delay() {
    let plan = plan("{retries: 2}", &["a"], &[]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [wait(&plan, "a", 500)]);
    assert_eq!(scheduler.handle(Event::Due(sub_flow(&plan, "a"))), [run(&plan, "a", 2)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [wait(&plan, "a", 1000)]);
    assert_eq!(scheduler.handle(Event::Due(sub_flow(&plan, "a"))), [run(&plan, "a", 3)]);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [Command::Finish]);
    assert_eq!(ends(&scheduler), [("a".into(), EndState::Failed, None)]);
    assert_eq!(scheduler.outcome().sub_flows[0].attempts, 3);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let plan = plan("{retries: 3}", &["a"], &[]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 1);
    let failed = Event::Failed { sub_flow: sub_flow(&plan, "a"), retryable: false };
    assert_eq!(scheduler.handle(failed), [Command::Finish]);
}

#[test]
fn halt_lets_what_runs_end_and_starts_nothing_new() {
    let plan = plan("{retries: 0}", &["a", "b", "c", "d"], &["a (1|) b", "c (1|) d"]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start(), [run(&plan, "a", 1), run(&plan, "c", 1)]);
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
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 2);
    assert_eq!(scheduler.handle(succeeds(&plan, "e")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1)]);
    assert_eq!(scheduler.handle(fails(&plan, "b")), [run(&plan, "d", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "d")), [Command::Finish]);
    assert_eq!(ends(&scheduler)[2], ("c".into(), EndState::UpstreamFailed, because("`b` failed")));
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn a_chain_names_the_first_cause() {
    let plan = plan("{retries: 0}", &["a", "b", "c"], &["a (1|) b", "b (1|) c"]);
    let mut scheduler = Scheduler::new(&plan, None);
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
        let mut scheduler = Scheduler::new(&plan, None);
        assert_eq!(scheduler.start().len(), 1);
        assert_eq!(scheduler.handle(event), [Command::Cancel(a)]);
        assert_eq!(scheduler.handle(Event::Interrupted), [], "the first reason counts, and nothing is cancelled twice");
        assert_eq!(scheduler.handle(Event::Cancelled(a)), [Command::Finish]);
        assert_eq!(scheduler.handle(succeeds(&plan, "a")), [], "a late report changes nothing");
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
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 1);
    assert_eq!(scheduler.handle(Event::TimedOut).len(), 1);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [Command::Finish]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
}

#[test]
fn a_halt_makes_no_further_attempt() {
    let plan = plan("{retries: 1}", &["a", "b"], &[]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 2);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [wait(&plan, "a", 500)]);
    let for_good = Event::Failed { sub_flow: sub_flow(&plan, "b"), retryable: false };
    assert_eq!(scheduler.handle(for_good), [Command::Finish]);
    assert_eq!(scheduler.handle(Event::Due(sub_flow(&plan, "a"))), []);
    assert_eq!(ends(&scheduler).iter().map(|one| one.1).collect::<Vec<_>>(), [EndState::Failed, EndState::Failed]);
}

/// What became of `a`, and of `b` behind an edge from it.
fn after(trigger: &str, strategy: &str, fate: Fate) -> String {
    let settings = format!("{{retries: 0, fail_strategy: {strategy}}}");
    let plan = plan(&settings, &["a", "b"], &[&format!("a (1|{trigger}) b")]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 1);
    let conditions = |given: Result<bool, String>| match trigger.contains('=') {
        true => vec![given],
        false => Vec::new(),
    };
    let a = sub_flow(&plan, "a");
    let commands = scheduler.handle(match fate {
        Fate::Succeeds => Event::Succeeded { sub_flow: a, conditions: conditions(Ok(true)) },
        Fate::SucceedsButFalse => Event::Succeeded { sub_flow: a, conditions: conditions(Ok(false)) },
        Fate::SucceedsUndecided => Event::Succeeded { sub_flow: a, conditions: conditions(Err("no".into())) },
        Fate::Fails | Fate::FailsForGood => fails(&plan, "a"),
        Fate::Interrupted => Event::Cancelled(a),
    });
    if commands == [run(&plan, "b", 1)] {
        assert_eq!(scheduler.handle(succeeds(&plan, "b")), [Command::Finish]);
    }
    let ends = ends(&scheduler);
    let reason = ends[1].2.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{:?} {:?}{reason} {:?}", ends[0].1, ends[1].1, scheduler.outcome().verdict())
}

/// The status table of the language, to be read by eye: trigger, what becomes of the sub flow it leaves, and then
/// how that ended, how the one behind it ended and why, and the verdict.
#[test]
fn the_status_table() {
    let mut table = String::new();
    let fates = [
        ("succeeds", Fate::Succeeds),
        ("succeeds, false", Fate::SucceedsButFalse),
        ("succeeds, undecided", Fate::SucceedsUndecided),
        ("fails", Fate::Fails),
    ];
    for trigger in ["ok", "error", "done", "1 == 1", "start"] {
        for (name, fate) in fates {
            if !trigger.contains('=') && matches!(fate, Fate::SucceedsButFalse | Fate::SucceedsUndecided) {
                continue;
            }
            let (halt, go_on) = (after(trigger, "halt", fate), after(trigger, "continue", fate));
            assert_eq!(halt, go_on, "with two sub flows in a row both strategies agree");
            table += &format!("{trigger:<7}| {name:<20}| {halt}\n");
        }
    }
    let expect = "\
ok     | succeeds            | Success Success Succeeded
ok     | fails               | Failed UpstreamFailed (`a` failed) Failed
error  | succeeds            | Success Skipped (`a` succeeded) Succeeded
error  | fails               | Handled Success Succeeded
done   | succeeds            | Success Success Succeeded
done   | fails               | Failed Success Failed
1 == 1 | succeeds            | Success Success Succeeded
1 == 1 | succeeds, false     | Success Skipped (`1 == 1` was false) Succeeded
1 == 1 | succeeds, undecided | Success UpstreamFailed (the condition `1 == 1` after `a` cannot be evaluated: no) Failed
1 == 1 | fails               | Failed UpstreamFailed (`a` failed) Failed
start  | succeeds            | Success Success Succeeded
start  | fails               | Failed UpstreamFailed (`a` failed) Failed
";
    assert_eq!(table, expect);
}

/// Two sub flows lead to a third: what the first, the second and the join make of it, under either strategy.
#[test]
fn the_table_of_joins() {
    let mut table = String::new();
    for join in ["taken", "all"] {
        for (first, second) in [("ok", "ok"), ("ok", "error"), ("error", "error"), ("ok", "done")] {
            for fails_second in [false, true] {
                let ends = ["halt", "continue"].map(|strategy| joined(join, [first, second], strategy, fails_second));
                let fate = if fails_second { "b fails" } else { "both succeed" };
                table += &format!("{join:<5} | {first:<5} {second:<5} | {fate:<12} | {:<14} | {}\n", ends[0], ends[1]);
            }
        }
    }
    let expect = "\
taken | ok    ok    | both succeed | Success        | Success
taken | ok    ok    | b fails      | UpstreamFailed | UpstreamFailed
taken | ok    error | both succeed | Success        | Success
taken | ok    error | b fails      | Success        | Success
taken | error error | both succeed | Skipped        | Skipped
taken | error error | b fails      | Success        | Success
taken | ok    done  | both succeed | Success        | Success
taken | ok    done  | b fails      | Success        | Success
all   | ok    ok    | both succeed | Success        | Success
all   | ok    ok    | b fails      | UpstreamFailed | UpstreamFailed
all   | ok    error | both succeed | Skipped        | Skipped
all   | ok    error | b fails      | Success        | Success
all   | error error | both succeed | Skipped        | Skipped
all   | error error | b fails      | Skipped        | Skipped
all   | ok    done  | both succeed | Success        | Success
all   | ok    done  | b fails      | Success        | Success
";
    assert_eq!(table, expect);
}

fn joined(join: &str, triggers: [&str; 2], strategy: &str, fails_second: bool) -> String {
    let settings = format!("{{retries: 0, fail_strategy: {strategy}}}");
    let control = [format!("a (1|{}) c", triggers[0]), format!("b (1|{}) c", triggers[1])];
    let ids = ["a", "b", "c"].map(str::to_owned);
    let plan = plan_of_joined_solos(&settings, &ids, &control, &[("c", join)]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 2);
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), []);
    let ended = if fails_second { fails(&plan, "b") } else { succeeds(&plan, "b") };
    if scheduler.handle(ended) == [run(&plan, "c", 1)] {
        assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
    }
    format!("{:?}", ends(&scheduler)[2].1)
}

#[test]
fn a_halt_lets_the_done_edge_of_the_failed_lead_on_and_nothing_else() {
    let edges = ["a (1|done) b", "b (1|) c", "x (1|) y", "x (1|done) z"];
    let plan = plan("{retries: 0}", &["a", "b", "c", "x", "y", "z"], &edges);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 2);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [run(&plan, "b", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "x")), []);
    assert_eq!(scheduler.handle(succeeds(&plan, "b")), [run(&plan, "c", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
    let states: Vec<_> = ends(&scheduler).into_iter().map(|one| one.1).collect();
    let expect = [EndState::Failed, EndState::Success, EndState::Success, EndState::Success];
    assert_eq!(states[..4], expect);
    assert_eq!(states[4..], [EndState::Cancelled, EndState::Cancelled]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Failed);
}

#[test]
fn a_handled_failure_halts_nothing_and_a_strict_reader_counts_it() {
    let plan = plan("{retries: 0}", &["a", "b", "c"], &["a (1|error) b", "a (2|) c"]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 1);
    assert_eq!(scheduler.handle(fails(&plan, "a")), [run(&plan, "b", 1)]);
    assert_eq!(scheduler.handle(succeeds(&plan, "b")), [Command::Finish]);
    let expect = [
        ("a".into(), EndState::Handled, because("it failed, which `b` handles")),
        ("b".into(), EndState::Success, None),
        ("c".into(), EndState::Skipped, because("`a` failed, which was handled")),
    ];
    assert_eq!(ends(&scheduler), expect);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
    assert_eq!(scheduler.outcome().strict_verdict(), Verdict::Failed);
}

#[test]
fn a_start_edge_is_not_waited_for_but_counts_and_a_detached_one_does_neither() {
    for (trigger, verdict) in [("start", Verdict::Failed), ("start detach", Verdict::Succeeded)] {
        let plan = plan("{retries: 0}", &["a", "b", "c"], &[&format!("a (1|{trigger}) b"), "a (2|) c"]);
        let mut scheduler = Scheduler::new(&plan, None);
        assert_eq!(scheduler.start().len(), 1);
        assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1), run(&plan, "c", 1)]);
        assert_eq!(scheduler.handle(fails(&plan, "b")), []);
        assert_eq!(scheduler.handle(succeeds(&plan, "c")), [Command::Finish]);
        assert_eq!(scheduler.outcome().verdict(), verdict);
    }
}

#[test]
fn the_end_of_the_run_cancels_what_is_detached() {
    let plan = plan("{}", &["a", "b", "c"], &["a (1|start detach) b", "b (1|) c"]);
    let mut scheduler = Scheduler::new(&plan, None);
    assert_eq!(scheduler.start().len(), 1);
    let b = sub_flow(&plan, "b");
    assert_eq!(scheduler.handle(succeeds(&plan, "a")), [run(&plan, "b", 1), Command::Cancel(b)]);
    assert_eq!(scheduler.handle(Event::Cancelled(b)), [Command::Finish]);
    assert_eq!(scheduler.outcome().verdict(), Verdict::Succeeded);
}

/// An edge, by the numbers in the names of its sub flows; `from < to`.
#[derive(Debug, Clone)]
struct RandomEdge {
    from: usize,
    to: usize,
    order: u32,
    trigger: &'static str,
}

#[derive(Debug, Clone)]
struct RandomFlow {
    count: usize,
    edges: Vec<RandomEdge>,
    /// Which sub flows want every edge taken.
    all: Vec<bool>,
    halt: bool,
    retries: u32,
    /// What happens next: whose turn it is among those that run or wait, and how its attempt ends.
    fates: Vec<(usize, Fate)>,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeeds,
    /// Its conditions are false.
    SucceedsButFalse,
    /// Its conditions cannot be evaluated.
    SucceedsUndecided,
    Fails,
    FailsForGood,
    /// The user stops the run first, then it ends well after all.
    Interrupted,
}

fn random_flow() -> impl Strategy<Value = RandomFlow> {
    let fate = prop_oneof![
        20 => Just(Fate::Succeeds), 3 => Just(Fate::SucceedsButFalse), 1 => Just(Fate::SucceedsUndecided),
        4 => Just(Fate::Fails), 3 => Just(Fate::FailsForGood), 1 => Just(Fate::Interrupted)
    ];
    let trigger = prop_oneof![
        6 => Just("ok"), 2 => Just("error"), 2 => Just("done"), 2 => Just("1 == 1"), 1 => Just("start"),
        1 => Just("start detach")
    ];
    (2_usize..9).prop_flat_map(move |count| {
        let edge = (0..count - 1, 1..count, 1_u32..4, trigger.clone()).prop_map(move |(from, step, order, trigger)| {
            RandomEdge { from, to: from + 1 + step % (count - from - 1).max(1), order, trigger }
        });
        let edges = prop::collection::vec(edge, 0..14);
        let all = prop::collection::vec(prop::bool::weighted(0.2), count);
        let fates = prop::collection::vec((0_usize..8, fate.clone()), 64);
        (edges, all, any::<bool>(), 0_u32..3, fates).prop_map(move |(edges, all, halt, retries, fates)| RandomFlow {
            count,
            edges: edges.into_iter().filter(|edge| edge.to < count).collect(),
            all,
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
        let edge = |edge: &RandomEdge| format!("n{} ({}|{}) n{}", edge.from, edge.order, edge.trigger, edge.to);
        let control: Vec<String> = self.edges.iter().map(edge).collect();
        let joins: Vec<(&str, &str)> =
            ids.iter().zip(&self.all).filter(|(_, all)| **all).map(|(id, _)| (id.as_str(), "all")).collect();
        plan_of_joined_solos(&settings, &ids, &control, &joins)
    }

    fn into(&self, number: usize) -> impl Iterator<Item = &RandomEdge> {
        self.edges.iter().filter(move |edge| edge.to == number)
    }

    fn out_of(&self, number: usize) -> impl Iterator<Item = &RandomEdge> {
        self.edges.iter().filter(move |edge| edge.from == number)
    }

    /// Those that no root reaches without an edge for which `closed` holds.
    fn unreached(&self, closed: impl Fn(&RandomEdge) -> bool) -> Vec<usize> {
        let mut reached: Vec<bool> = (0..self.count).map(|index| self.into(index).next().is_none()).collect();
        // Edges lead to higher numbers, so one pass in their order does.
        for index in 0..self.count {
            reached[index] |= self.into(index).any(|edge| !closed(edge) && reached[edge.from]);
        }
        (0..self.count).filter(|index| !reached[*index]).collect()
    }

    /// What an edge of `order` that leaves `from` has to wait for.
    fn barrier(&self, from: usize, order: u32) -> Vec<usize> {
        let dominated = self.unreached(|edge| edge.from == from && edge.order < order);
        // Of that, what is reached without a `start` edge.
        let mut waited: Vec<bool> = (0..self.count).map(|index| index == from).collect();
        for index in from + 1..self.count {
            waited[index] = self.into(index).any(|edge| !edge.trigger.starts_with("start") && waited[edge.from]);
        }
        dominated.into_iter().filter(|index| waited[*index]).collect()
    }

    fn detached(&self) -> BTreeSet<usize> {
        self.unreached(|edge| edge.trigger == "start detach").into_iter().collect()
    }
}

/// Plays the host, and watches.
struct Host<'a> {
    flow: &'a RandomFlow,
    number: BTreeMap<SubFlowId, usize>,
    running: Vec<SubFlowId>,
    waiting: Vec<SubFlowId>,
    cancelled: BTreeSet<SubFlowId>,
    attempts: BTreeMap<usize, u32>,
    conditions: BTreeMap<usize, Result<bool, String>>,
    interrupted: bool,
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
            waiting: Vec::new(),
            cancelled: BTreeSet::new(),
            attempts: BTreeMap::new(),
            conditions: BTreeMap::new(),
            interrupted: false,
            finishes: 0,
        }
    }

    fn obey(&mut self, scheduler: &Scheduler, commands: Vec<Command>) {
        for command in commands {
            assert_eq!(self.finishes, 0, "nothing follows the finish");
            match command {
                Command::Run { sub_flow, attempt } => self.run(scheduler, sub_flow, attempt),
                Command::Wait { sub_flow, .. } => self.waiting.push(sub_flow),
                Command::Cancel(id) => {
                    assert!(self.running.contains(&id), "only what runs is cancelled");
                    assert!(self.cancelled.insert(id), "nothing is cancelled twice");
                }
                Command::Finish => self.finishes += 1,
            }
        }
    }

    fn run(&mut self, scheduler: &Scheduler, id: SubFlowId, attempt: u32) {
        let number = self.number[&id];
        let before = self.attempts.insert(number, attempt).unwrap_or(0);
        assert_eq!(attempt, before + 1, "attempts are counted");
        assert!(attempt <= self.flow.retries + 1, "no attempt beyond the retries");
        assert!(!self.running.contains(&id), "nothing runs twice at a time");
        assert!(!self.interrupted, "nothing starts once the user stops the run");
        let states = self.states(scheduler);
        for edge in self.flow.into(number) {
            for barrier in self.flow.barrier(edge.from, edge.order) {
                assert!(states[barrier].is_some(), "n{number} started before n{barrier} had ended");
            }
        }
        assert_eq!(self.verdict_of_edges(number, &states), Ok(true), "n{number} must not run");
        self.running.push(id);
    }

    /// How those that have ended have.
    fn states(&self, scheduler: &Scheduler) -> Vec<Option<EndState>> {
        let mut states = vec![None; self.flow.count];
        for one in self.number.keys() {
            states[self.number[one]] = scheduler.ended(*one);
        }
        states
    }

    /// Whether the edges that lead to a sub flow let it run: not yet known, no by failure, yes or no.
    fn verdict_of_edges(&self, number: usize, states: &[Option<EndState>]) -> Result<bool, &'static str> {
        let mut taken = Vec::new();
        let mut cancelled = false;
        for edge in self.flow.into(number) {
            let from = states[edge.from].ok_or("an edge is not resolved")?;
            taken.push(match (edge.trigger, from) {
                (_, EndState::UpstreamFailed) => return Err("dead"),
                (_, EndState::Cancelled) => {
                    cancelled = true;
                    false
                }
                ("error" | "done", EndState::Failed | EndState::Handled) => true,
                (_, EndState::Failed) => return Err("dead"),
                (_, EndState::Handled | EndState::Skipped) | ("error", EndState::Success) => false,
                ("1 == 1", EndState::Success) => match &self.conditions[&edge.from] {
                    Ok(given) => *given,
                    Err(_) => return Err("dead"),
                },
                (_, EndState::Success) => true,
            });
        }
        let runs = match self.flow.all[number] {
            true => taken.iter().all(|one| *one),
            false => taken.is_empty() || taken.contains(&true),
        };
        if !runs && cancelled { Err("cancelled") } else { Ok(runs) }
    }

    fn play(&mut self, scheduler: &mut Scheduler) {
        let mut fates = self.flow.fates.iter().cycle();
        while !(self.running.is_empty() && self.waiting.is_empty()) && self.finishes == 0 {
            let Some((turn, fate)) = fates.next() else { break };
            let turn = turn % (self.running.len() + self.waiting.len());
            let commands = match turn.checked_sub(self.running.len()) {
                None => {
                    let id = self.running.remove(turn);
                    self.end(scheduler, id, *fate)
                }
                Some(waiting) => scheduler.handle(Event::Due(self.waiting.remove(waiting))),
            };
            self.obey(scheduler, commands);
        }
    }

    fn end(&mut self, scheduler: &mut Scheduler, id: SubFlowId, fate: Fate) -> Vec<Command> {
        let number = self.number[&id];
        if self.cancelled.contains(&id) {
            return scheduler.handle(Event::Cancelled(id));
        }
        let given = match fate {
            Fate::Succeeds | Fate::Interrupted => Ok(true),
            Fate::SucceedsButFalse => Ok(false),
            Fate::SucceedsUndecided => Err("no".to_owned()),
            Fate::Fails => return scheduler.handle(Event::Failed { sub_flow: id, retryable: true }),
            Fate::FailsForGood => return scheduler.handle(Event::Failed { sub_flow: id, retryable: false }),
        };
        if matches!(fate, Fate::Interrupted) {
            self.interrupted = true;
            self.running.push(id);
            let commands = scheduler.handle(Event::Interrupted);
            self.obey(scheduler, commands);
            self.running.retain(|running| *running != id);
        }
        self.conditions.insert(number, given.clone());
        let conditions = scheduler.conditions(id).map(|_| given.clone()).collect();
        scheduler.handle(Event::Succeeded { sub_flow: id, conditions })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(flow in random_flow()) {
        let plan = flow.plan();
        let mut scheduler = Scheduler::new(&plan, None);
        let mut host = Host::new(&flow, &plan);
        let first = scheduler.start();
        host.obey(&scheduler, first);
        host.play(&mut scheduler);

        prop_assert_eq!(host.finishes, 1, "the run ends, and says so once");
        prop_assert!(scheduler.is_finished());
        let outcome = scheduler.outcome();
        prop_assert_eq!(outcome.sub_flows.len(), flow.count);
        let states = host.states(&scheduler);
        let detached = flow.detached();
        for one in &outcome.sub_flows {
            let number = host.number[&one.id];
            prop_assert_eq!(one.attempts, host.attempts.get(&number).copied().unwrap_or(0));
            prop_assert_eq!(one.detached, detached.contains(&number));
            let ran = one.attempts > 0;
            prop_assert!(ran || one.reason.is_some(), "what did not run has a reason");
            let handles = flow.out_of(number).any(|edge| edge.trigger == "error");
            match one.state {
                EndState::Success => prop_assert!(ran),
                EndState::Failed => prop_assert!(ran && !handles),
                EndState::Handled => prop_assert!(ran && handles && one.reason.is_some()),
                EndState::Skipped => prop_assert_eq!(host.verdict_of_edges(number, &states), Ok(false)),
                EndState::UpstreamFailed => prop_assert_eq!(host.verdict_of_edges(number, &states), Err("dead")),
                EndState::Cancelled => {
                    // Only a stop cancels.
                    let halted = flow.halt && outcome.verdict() == Verdict::Failed;
                    prop_assert!(one.detached || host.interrupted || halted, "{:?}", one);
                }
            }
        }
        let fine = |one: &pype_core::run::scheduler::SubFlowOutcome| {
            one.detached || matches!(one.state, EndState::Success | EndState::Skipped | EndState::Handled)
        };
        prop_assert_eq!(outcome.verdict() == Verdict::Succeeded, outcome.sub_flows.iter().all(fine));
    }
}
