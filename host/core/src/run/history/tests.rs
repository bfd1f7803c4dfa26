use serde_json::json;

use super::*;
use crate::run::event::{NodeInfo, OutputInfo, RunEvent, SubFlowInfo};

fn id(of: usize) -> SubFlowId {
    SubFlowId(of)
}

fn node(id: &str) -> NodeId {
    id.parse().expect("an id")
}

fn path(indices: &[u64]) -> ItemPath {
    indices.iter().fold(ItemPath::default(), |path, index| path.inner(*index))
}

fn sub_flow(number: usize, nodes: &[&str], within: Option<usize>) -> SubFlowInfo {
    let info = |id: &&str| NodeInfo { id: node(id), module: "m".into() };
    SubFlowInfo {
        id: id(number),
        name: nodes.first().map_or_else(|| format!("loop{number}"), |first| (*first).to_owned()),
        nodes: nodes.iter().map(info).collect(),
        within: within.map(id),
        is_loop: nodes.is_empty(),
    }
}

fn run_started(session: u32, sub_flows: Vec<SubFlowInfo>) -> RunEvent {
    RunEvent::RunStarted {
        run_id: "r1".into(),
        flow: "flights".parse().expect("a name"),
        version: None,
        session,
        sub_flows,
    }
}

fn started(of: usize, item: &[u64], attempt: u32) -> RunEvent {
    RunEvent::SubFlowStarted { sub_flow: id(of), item: path(item), attempt }
}

fn node_started(of: &str, item: &[u64]) -> RunEvent {
    RunEvent::NodeStarted { node: node(of), item: path(item) }
}

fn finished(of: &str, item: &[u64], rows: Option<u64>, target: &str) -> RunEvent {
    let output = OutputInfo { target: target.to_owned(), rows, bytes: None };
    RunEvent::NodeFinished { node: node(of), item: path(item), rows, bytes: 5, seconds: 0.5, outputs: vec![output] }
}

fn failed(of: &str, item: &[u64], message: &str) -> RunEvent {
    let error = json!({"kind": "io", "code": "lost", "message": message, "causes": ["gone"], "retryable": true});
    RunEvent::NodeFailed { node: node(of), item: path(item), error }
}

fn ended(of: usize, item: &[u64], state: EndState, reason: Option<&str>) -> RunEvent {
    RunEvent::SubFlowFinished {
        sub_flow: id(of),
        item: path(item),
        state,
        reused: false,
        reason: reason.map(str::to_owned),
        seconds: 0.0,
        fingerprint: None,
    }
}

fn reused(of: usize, item: &[u64]) -> RunEvent {
    RunEvent::SubFlowFinished {
        sub_flow: id(of),
        item: path(item),
        state: EndState::Success,
        reused: true,
        reason: Some("nothing has changed".into()),
        seconds: 0.0,
        fingerprint: None,
    }
}

fn run_finished(verdict: Verdict) -> RunEvent {
    RunEvent::RunFinished { verdict, seconds: 1.0 }
}

/// Each 100 ms after the one before.
fn history(events: Vec<RunEvent>) -> History {
    let record = |(at, event): (usize, RunEvent)| Record { at_ms: 1000 + 100 * at as u64, event };
    History::of(&events.into_iter().enumerate().map(record).collect::<Vec<_>>())
}

fn announced() -> Vec<SubFlowInfo> {
    vec![sub_flow(0, &["load", "save"], None), sub_flow(1, &["mail"], None), sub_flow(2, &["late"], None)]
}

/// `load` runs, `mail` fails twice, `late` does not run.
fn first_session() -> Vec<RunEvent> {
    vec![
        run_started(1, announced()),
        started(0, &[], 1),
        node_started("load", &[]),
        finished("load", &[], Some(7), "data"),
        finished("save", &[], Some(7), "file:/out/a.csv"),
        ended(0, &[], EndState::Success, None),
        started(1, &[], 1),
        node_started("mail", &[]),
        failed("mail", &[], "no host"),
        started(1, &[], 2),
        node_started("mail", &[]),
        failed("mail", &[], "no answer"),
        ended(1, &[], EndState::Failed, Some("`mail` failed")),
        ended(2, &[], EndState::UpstreamFailed, Some("it waits for `mail`")),
        run_finished(Verdict::Failed),
    ]
}

fn states(history: &History) -> Vec<SubFlowState> {
    history.sub_flows.iter().map(|one| one.state).collect()
}

#[test]
fn a_run_is_told_sub_flow_by_sub_flow() {
    let history = history(first_session());
    assert_eq!(history.verdict(), Some(Verdict::Failed));
    assert_eq!((history.started_ms(), history.ended_ms()), (Some(1000), Some(2400)));
    let load = history.node(&node("load")).expect("it is there");
    assert_eq!((load.state, load.rows, load.bytes), (NodeState::Finished, Some(7), 5));
    assert_eq!(load.ports.values().map(|volume| volume.rows).collect::<Vec<_>>(), [Some(7)]);
    let save = history.node(&node("save")).expect("it is there");
    assert_eq!(save.written.iter().map(|written| written.uri.as_str()).collect::<Vec<_>>(), ["file:/out/a.csv"]);
    let why: Vec<_> = history.not_done().map(|one| (one.name.as_str(), one.why())).collect();
    assert_eq!(why, [("mail", "`mail` failed"), ("late", "it waits for `mail`")]);
}

#[test]
fn every_attempt_has_its_time_and_its_failure() {
    let history = history(first_session());
    let attempts = &history.sub_flows[1].attempts;
    let told: Vec<_> = attempts
        .iter()
        .map(|one| (one.number, one.started_ms, one.ended_ms, one.failure.as_ref().map(Failure::message)))
        .collect();
    let message = |text: &str| Some(text.to_owned());
    assert_eq!(told, [(1, 1600, Some(1800), message("no host")), (2, 1900, Some(2200), message("no answer"))]);
    let last = &history.node(&node("mail")).expect("it is there").failures[0];
    assert_eq!((last.attempt, last.field("code"), last.is_retryable()), (2, Some("lost"), true));
    assert_eq!(last.causes().collect::<Vec<_>>(), ["gone"]);
}

#[test]
fn a_resumed_run_shows_the_last_word_and_what_was_reused_keeps_its_rows() {
    let mut events = first_session();
    events.extend([
        run_started(2, announced()),
        reused(0, &[]),
        started(1, &[], 1),
        finished("mail", &[], None, ""),
        ended(1, &[], EndState::Success, None),
        ended(2, &[], EndState::Skipped, Some("no edge fired")),
        run_finished(Verdict::Succeeded),
    ]);
    let history = history(events);
    let of = |state| SubFlowState::Ended(state);
    assert_eq!(states(&history), [of(EndState::Success), of(EndState::Success), of(EndState::Skipped)]);
    assert_eq!(history.sub_flows.iter().map(|one| one.reused).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(history.node(&node("load")).expect("it is there").rows, Some(7));
    assert!(history.node(&node("mail")).expect("it is there").failures.is_empty());
    assert_eq!(history.sub_flows[1].attempts.iter().map(|one| one.session).collect::<Vec<_>>(), [1, 1, 2]);
    let verdicts: Vec<_> = history.sessions.iter().map(|one| one.verdict).collect();
    assert_eq!(verdicts, [Some(Verdict::Failed), Some(Verdict::Succeeded)]);
}

#[test]
fn what_a_killed_session_did_not_reach_stands_as_it_stood() {
    let mut events = first_session();
    events.extend([run_started(2, announced()), started(0, &[], 1), node_started("load", &[])]);
    let history = history(events);
    let failed = SubFlowState::Ended(EndState::Failed);
    let upstream = SubFlowState::Ended(EndState::UpstreamFailed);
    assert_eq!(states(&history), [SubFlowState::Running, failed, upstream]);
    assert_eq!(history.verdict(), None);
    assert_eq!(history.node(&node("load")).expect("it is there").state, NodeState::Running);
    assert_eq!(history.node(&node("save")).expect("it is there").written, []);
}

#[test]
fn what_did_not_run_again_has_no_rows_of_an_earlier_session() {
    let mut events = first_session();
    events.extend([run_started(2, announced()), ended(0, &[], EndState::Cancelled, None)]);
    let history = history(events);
    assert_eq!(history.node(&node("load")).expect("it is there").rows, None);
    assert_eq!(history.sub_flows[0].why(), "the run was stopped");
}

fn a_loop(items: u64, fails: impl Fn(u64) -> bool) -> Vec<RunEvent> {
    let sub_flows = vec![sub_flow(0, &["list"], None), sub_flow(1, &[], None), sub_flow(2, &["get", "put"], Some(1))];
    let mut events = vec![run_started(1, sub_flows)];
    events.push(RunEvent::LoopStarted { sub_flow: id(1), item: path(&[]), items });
    for item in 0..items {
        events.extend([started(2, &[item], 1), node_started("get", &[item])]);
        if fails(item) {
            events.push(failed("get", &[item], "no such month"));
            events.push(ended(2, &[item], EndState::Failed, Some("`get` failed")));
        } else {
            let target = format!("file:/out/{item}.csv");
            events.extend([finished("get", &[item], Some(10), "data"), finished("put", &[item], Some(10), &target)]);
            events.push(ended(2, &[item], EndState::Success, None));
        }
    }
    events
}

#[test]
fn items_are_summed_up() {
    let mut events = a_loop(3, |item| item == 1);
    events.push(ended(1, &[], EndState::Failed, Some("1 of 3 items failed")));
    let history = history(events);
    let items = history.sub_flows[1].items.as_ref().expect("it is a loop");
    let tallies: Vec<_> = items.tallies.iter().map(|tally| (tally.state, tally.count)).collect();
    let of = |state| SubFlowState::Ended(state);
    assert_eq!(tallies, [(of(EndState::Failed), 1), (of(EndState::Success), 2)]);
    assert_eq!(history.sub_flows[2].state, of(EndState::Failed));
    let get = history.node(&node("get")).expect("it is there");
    assert_eq!((get.state, get.rows, get.finished, get.failed), (NodeState::Failed, Some(20), 2, 1));
    assert_eq!(get.failures[0].item, path(&[1]));
}

#[test]
fn a_large_loop_is_told_within_bounds() {
    let history = history(a_loop(20_000, |item| item % 100 == 99));
    for sub_flow in &history.sub_flows[1..] {
        let items = sub_flow.items.as_ref().expect("it has items");
        assert_eq!(items.count, 20_000);
        assert_eq!(items.listed.len(), 2 * LISTED);
    }
    let get = history.node(&node("get")).expect("it is there");
    assert_eq!((get.rows, get.failed, get.failures.len()), (Some(198_000), 200, LISTED));
    let put = history.node(&node("put")).expect("it is there");
    assert_eq!((put.written.len(), put.more_written), (LISTED, 19_750));
}

#[test]
fn a_resumed_loop_keeps_reused_items_and_forgets_those_that_are_gone() {
    let mut events = a_loop(4, |item| item == 1);
    let sub_flows = vec![sub_flow(0, &["list"], None), sub_flow(1, &[], None), sub_flow(2, &["get", "put"], Some(1))];
    events.extend([
        run_started(2, sub_flows),
        RunEvent::LoopStarted { sub_flow: id(1), item: path(&[]), items: 2 },
        reused(2, &[0]),
        started(2, &[1], 1),
        finished("get", &[1], Some(3), "data"),
        finished("put", &[1], Some(3), "file:/out/1.csv"),
        ended(2, &[1], EndState::Success, None),
        ended(1, &[], EndState::Success, None),
        run_finished(Verdict::Succeeded),
    ]);
    let history = history(events);
    let items = history.sub_flows[1].items.as_ref().expect("it is a loop");
    assert_eq!((items.count, items.reused), (2, 1));
    assert_eq!(history.node(&node("put")).expect("it is there").rows, Some(13));
    assert_eq!(history.not_done().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["list"]);
}

#[test]
fn what_is_within_a_loop_of_nothing_lacks_nothing() {
    let mut events = a_loop(0, |_| false);
    events.push(ended(1, &[], EndState::Success, None));
    assert_eq!(history(events).not_done().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["list"]);
}

#[test]
fn every_prefix_of_a_log_is_a_history() {
    let events = first_session();
    for end in 0..=events.len() {
        let history = history(events[..end].to_vec());
        assert_eq!(history.sessions.len(), usize::from(end > 0));
    }
    assert_eq!(history(events[1..].to_vec()), History::default());
}
