//! From records to a history.
//!
//! While reading, every sub flow has a [`Run`] for each item it ran for, outside all loops a single one; a session that is
//! resumed goes on with the runs of the one before. Only at the end are those of the items summed up.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{
    Announced, Attempt, Failure, History, ItemHistory, Items, LISTED, NodeHistory, NodeState, Session, StoredFile,
    SubFlowHistory, SubFlowState, Tally, Volume, Written,
};
use crate::flow::plan::SubFlowId;
use crate::name::{FlowName, NodeId, PortName, Version};
use crate::run::event::{ItemPath, NodeInfo, OutputInfo, RunEvent, StoredFor, SubFlowInfo};
use crate::run::fingerprint::Fingerprint;
use crate::run::log::Record;
use crate::run::scheduler::EndState;

pub(super) fn history(records: &[Record]) -> History {
    let mut fold = Fold::default();
    for record in records {
        fold.apply(record.at_ms, &record.event);
    }
    fold.finish()
}

/// What is known after some of the records.
#[derive(Default)]
struct Fold<'a> {
    run_id: &'a str,
    flow: Option<&'a FlowName>,
    version: Option<&'a Version>,
    sessions: Vec<Session>,
    units: Vec<Unit<'a>>,
    unit_places: HashMap<SubFlowId, usize>,
    /// Of each module: its sub flow's place, and its own there.
    node_places: HashMap<&'a NodeId, (usize, usize)>,
}

/// A sub flow, or a loop.
struct Unit<'a> {
    info: &'a SubFlowInfo,
    runs: BTreeMap<&'a ItemPath, Run<'a>>,
}

/// A sub flow for one item.
struct Run<'a> {
    /// The last session that ran it.
    session: u32,
    state: SubFlowState,
    reused: bool,
    reason: Option<&'a str>,
    attempts: Vec<Attempt>,
    fingerprint: Option<&'a Fingerprint>,
    /// Of a loop: how many items it has.
    items: Option<u64>,
    nodes: Vec<NodeRun<'a>>,
}

/// A module for one item, in the last attempt.
struct NodeRun<'a> {
    state: NodeState,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    rows: Option<u64>,
    bytes: u64,
    seconds: f64,
    outputs: &'a [OutputInfo],
    failure: Option<Failure>,
    globals: Vec<Global<'a>>,
    stored: Vec<Stored<'a>>,
}

struct Global<'a> {
    name: &'a str,
    value: &'a Value,
    is_masked: bool,
}

struct Stored<'a> {
    port: &'a str,
    purpose: StoredFor,
    path: &'a str,
    rows: u64,
    bytes: u64,
}

impl<'a> Fold<'a> {
    fn apply(&mut self, at_ms: u64, event: &'a RunEvent) {
        if !matches!(event, RunEvent::RunStarted { .. }) {
            let Some(session) = self.sessions.last_mut() else { return };
            session.ended_ms = session.ended_ms.max(at_ms);
        }
        match event {
            RunEvent::RunStarted { run_id, flow, version, session, sub_flows } => {
                (self.run_id, self.flow, self.version) = (run_id, Some(flow), version.as_ref());
                let session = Session { number: *session, started_ms: at_ms, ended_ms: at_ms, verdict: None };
                self.sessions.push(session);
                self.announce(sub_flows);
            }
            RunEvent::SubFlowStarted { sub_flow, item, attempt } => {
                self.with_run(*sub_flow, item, |run, session| run.start(session, *attempt, at_ms));
            }
            RunEvent::LoopStarted { sub_flow, item, items } => {
                self.with_run(*sub_flow, item, |run, session| {
                    if run.state != SubFlowState::Running {
                        run.start(session, 1, at_ms);
                    }
                    run.items = Some(*items);
                });
            }
            RunEvent::NodeStarted { node, item } => self.with_node(node, item, |node| {
                node.state = NodeState::Running;
                node.started_ms = Some(at_ms);
            }),
            RunEvent::NodeProgress { node, item, rows, bytes } => self.with_node(node, item, |node| {
                (node.rows, node.bytes) = (Some(*rows), *bytes);
            }),
            RunEvent::Global { node, item, name, value, masked } => self.with_node(node, item, |node| {
                node.globals.retain(|known| known.name != name);
                node.globals.push(Global { name, value, is_masked: *masked });
            }),
            RunEvent::Stored { node, item, port, purpose, path, rows, bytes } => self.with_node(node, item, |node| {
                node.stored.retain(|known| known.path != path);
                node.stored.push(Stored { port, purpose: *purpose, path, rows: *rows, bytes: *bytes });
            }),
            RunEvent::NodeFinished { node, item, rows, bytes, seconds, outputs } => {
                self.with_node(node, item, |node| {
                    node.state = NodeState::Finished;
                    node.ended_ms = Some(at_ms);
                    (node.rows, node.bytes, node.seconds, node.outputs) = (*rows, *bytes, *seconds, outputs);
                });
            }
            RunEvent::NodeFailed { node, item, error } => self.fail(at_ms, node, item, error),
            RunEvent::SubFlowFinished { sub_flow, item, state, reused, reason, seconds, fingerprint } => {
                self.with_run(*sub_flow, item, |run, session| {
                    if *reused {
                        run.reuse(session);
                    } else {
                        run.end(session, at_ms, *seconds);
                    }
                    run.state = SubFlowState::Ended(*state);
                    run.reason = reason.as_deref();
                    run.fingerprint = fingerprint.as_ref().or(run.fingerprint);
                });
            }
            RunEvent::RunFinished { verdict, .. } => {
                if let Some(session) = self.sessions.last_mut() {
                    session.verdict = Some(*verdict);
                }
            }
        }
    }

    /// A session begins: what the one before knew of the same sub flows holds until something else is said.
    fn announce(&mut self, sub_flows: &'a [SubFlowInfo]) {
        let mut before: HashMap<&str, Unit> =
            self.units.drain(..).map(|unit| (unit.info.name.as_str(), unit)).collect();
        let unit = |info: &'a SubFlowInfo| {
            let known = before.remove(info.name.as_str()).filter(|known| same_modules(known.info, info));
            Unit { info, runs: known.map(|known| known.runs).unwrap_or_default() }
        };
        self.units = sub_flows.iter().map(unit).collect();
        self.unit_places = sub_flows.iter().enumerate().map(|(at, info)| (info.id, at)).collect();
        self.node_places = sub_flows
            .iter()
            .enumerate()
            .flat_map(|(at, info)| info.nodes.iter().enumerate().map(move |(place, node)| (&node.id, (at, place))))
            .collect();
    }

    fn with_run(&mut self, id: SubFlowId, item: &'a ItemPath, change: impl FnOnce(&mut Run<'a>, u32)) {
        let session = self.session();
        if let Some(at) = self.unit_places.get(&id) {
            change(self.units[*at].run(item), session);
        }
    }

    fn with_node(&mut self, id: &'a NodeId, item: &'a ItemPath, change: impl FnOnce(&mut NodeRun<'a>)) {
        if let Some((at, place)) = self.node_places.get(id) {
            change(&mut self.units[*at].run(item).nodes[*place]);
        }
    }

    fn fail(&mut self, at_ms: u64, id: &'a NodeId, item: &'a ItemPath, error: &Value) {
        let session = self.session();
        let Some((at, place)) = self.node_places.get(id) else { return };
        let run = self.units[*at].run(item);
        let failure = Failure {
            node: id.clone(),
            item: item.clone(),
            session,
            attempt: run.attempts.last().map_or(1, |attempt| attempt.number),
            at_ms,
            error: error.clone(),
        };
        let node = &mut run.nodes[*place];
        (node.state, node.ended_ms) = (NodeState::Failed, Some(at_ms));
        node.failure = Some(failure.clone());
        if let Some(attempt) = run.attempts.last_mut() {
            attempt.ended_ms = Some(at_ms);
            attempt.failure.get_or_insert(failure);
        }
    }

    fn session(&self) -> u32 {
        self.sessions.last().map_or(1, |session| session.number)
    }

    fn finish(mut self) -> History {
        self.forget_items_that_are_gone();
        let places = self.node_places.iter().map(|(id, place)| ((*id).clone(), *place)).collect();
        History {
            run_id: self.run_id.to_owned(),
            flow: self.flow.cloned(),
            version: self.version.cloned(),
            sub_flows: self.units.iter().map(|unit| self.sub_flow(unit)).collect(),
            sessions: self.sessions,
            places,
        }
    }

    /// A loop that was resumed may have fewer items than it had.
    fn forget_items_that_are_gone(&mut self) {
        let loops = self.units.iter().filter(|unit| unit.info.is_loop);
        let counts = |unit: &Unit<'a>| {
            let runs = unit.runs.iter().filter_map(|(path, run)| Some((path.indices(), run.items?)));
            runs.collect::<HashMap<&'a [u64], u64>>()
        };
        let counts: HashMap<SubFlowId, _> = loops.map(|unit| (unit.info.id, counts(unit))).collect();
        for unit in &mut self.units {
            let Some(counts) = unit.info.within.and_then(|around| counts.get(&around)) else { continue };
            unit.runs.retain(|path, _| {
                let Some((last, outer)) = path.indices().split_last() else { return true };
                counts.get(outer).is_none_or(|count| last < count)
            });
        }
    }

    fn sub_flow(&self, unit: &Unit<'a>) -> SubFlowHistory {
        let gravest = unit.runs.values().max_by_key(|run| run.state.gravity());
        let outside = unit.runs.iter().find(|(path, _)| path.is_outside()).map(|(_, run)| run);
        let items = match (unit.info.is_loop, unit.info.within) {
            (true, _) => Some(self.items_of_loop(unit)),
            (false, Some(_)) => Some(unit.items()),
            (false, None) => None,
        };
        SubFlowHistory {
            id: unit.info.id,
            name: unit.info.name.clone(),
            within: unit.info.within,
            is_loop: unit.info.is_loop,
            state: gravest.map_or(SubFlowState::Waiting, |run| run.state),
            reused: !unit.runs.is_empty() && unit.runs.values().all(|run| run.reused),
            reason: gravest.and_then(|run| run.reason).map(str::to_owned),
            attempts: outside.map(|run| run.attempts.clone()).unwrap_or_default(),
            fingerprint: outside.and_then(|run| run.fingerprint).cloned(),
            nodes: unit.nodes(),
            items,
        }
    }

    /// An item of a loop stands as the gravest of what runs for it.
    fn items_of_loop(&self, unit: &Unit<'a>) -> Items {
        let mut gravest: BTreeMap<&ItemPath, Item> = BTreeMap::new();
        let inner = self.units.iter().filter(|inner| inner.info.within == Some(unit.info.id));
        for (path, run) in inner.flat_map(|inner| &inner.runs) {
            let item = Item { attempts: &[], ..Item::of(run) };
            let known = gravest.entry(path).or_insert(item);
            let reused = known.reused && run.reused;
            if run.state.gravity() > known.state.gravity() {
                *known = item;
            }
            known.reused = reused;
        }
        let announced = unit.runs.values().filter_map(|run| run.items).sum();
        Items::of(announced, gravest.into_iter())
    }
}

fn same_modules(one: &SubFlowInfo, other: &SubFlowInfo) -> bool {
    let ids = |info: &'_ SubFlowInfo| info.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    one.is_loop == other.is_loop && one.within.is_some() == other.within.is_some() && ids(one) == ids(other)
}

impl<'a> Unit<'a> {
    fn run(&mut self, item: &'a ItemPath) -> &mut Run<'a> {
        let modules = self.info.nodes.len();
        self.runs.entry(item).or_insert_with(|| Run {
            session: 0,
            state: SubFlowState::Waiting,
            reused: false,
            reason: None,
            attempts: Vec::new(),
            fingerprint: None,
            items: None,
            nodes: (0..modules).map(|_| NodeRun::waiting()).collect(),
        })
    }

    fn items(&self) -> Items {
        Items::of(0, self.runs.iter().map(|(path, run)| (*path, Item::of(run))))
    }

    fn nodes(&self) -> Vec<NodeHistory> {
        let node = |(place, info): (usize, &NodeInfo)| {
            let mut node = NodeHistory::waiting(info);
            for (path, run) in &self.runs {
                node.add(path, &run.nodes[place]);
            }
            node
        };
        self.info.nodes.iter().enumerate().map(node).collect()
    }
}

impl Run<'_> {
    fn start(&mut self, session: u32, attempt: u32, at_ms: u64) {
        (self.session, self.state, self.reused, self.reason) = (session, SubFlowState::Running, false, None);
        self.attempts.push(Attempt { session, number: attempt, started_ms: at_ms, ended_ms: None, failure: None });
        self.nodes.fill_with(NodeRun::waiting);
    }

    fn reuse(&mut self, session: u32) {
        (self.session, self.reused) = (session, true);
    }

    fn end(&mut self, session: u32, at_ms: u64, seconds: f64) {
        if self.session != session {
            // It was not started in this session: what an earlier one did is of no account.
            self.nodes.fill_with(NodeRun::waiting);
            (self.session, self.reused) = (session, false);
            return;
        }
        if let Some(attempt) = self.attempts.last_mut() {
            // Why something was stopped is said when all has ended, long after it was stopped.
            let lasted = attempt.started_ms.saturating_add((seconds * 1000.0).round() as u64);
            attempt.ended_ms = Some(if seconds > 0.0 { lasted.min(at_ms) } else { at_ms });
        }
        for node in &mut self.nodes {
            if matches!(node.state, NodeState::Waiting | NodeState::Running) {
                node.state = NodeState::Stopped;
            }
        }
    }
}

impl NodeRun<'_> {
    fn waiting() -> Self {
        NodeRun {
            state: NodeState::Waiting,
            started_ms: None,
            ended_ms: None,
            rows: None,
            bytes: 0,
            seconds: 0.0,
            outputs: &[],
            failure: None,
            globals: Vec::new(),
            stored: Vec::new(),
        }
    }
}

/// What an item's place in a list is decided by.
#[derive(Clone, Copy)]
struct Item<'r> {
    state: SubFlowState,
    reused: bool,
    reason: Option<&'r str>,
    attempts: &'r [Attempt],
}

impl<'r> Item<'r> {
    fn of(run: &'r Run<'_>) -> Self {
        Item { state: run.state, reused: run.reused, reason: run.reason, attempts: &run.attempts }
    }

    fn failed(&self) -> bool {
        matches!(self.state, SubFlowState::Ended(EndState::Failed | EndState::Handled))
    }
}

impl Items {
    fn of<'r>(announced: u64, all: impl Iterator<Item = (&'r ItemPath, Item<'r>)>) -> Items {
        let mut items = Items::default();
        let mut failed = 0;
        for (path, item) in all {
            items.count += 1;
            items.reused += u64::from(item.reused);
            items.tally(&item);
            let first = items.count <= LISTED as u64;
            let failure = !first && item.failed() && failed < LISTED;
            failed += usize::from(failure);
            if first || failure {
                items.listed.push(item.history(path));
            }
        }
        items.count = items.count.max(announced);
        items.tallies.sort_by_key(|tally| std::cmp::Reverse(tally.state.gravity()));
        items
    }

    fn tally(&mut self, item: &Item<'_>) {
        let at = self.tallies.iter().position(|tally| tally.state == item.state).unwrap_or_else(|| {
            self.tallies.push(Tally { state: item.state, count: 0, reason: None });
            self.tallies.len() - 1
        });
        let tally = &mut self.tallies[at];
        tally.count += 1;
        if tally.reason.is_none() {
            tally.reason = item.reason.map(str::to_owned);
        }
    }
}

impl Item<'_> {
    fn history(&self, path: &ItemPath) -> ItemHistory {
        ItemHistory {
            path: path.clone(),
            state: self.state,
            reused: self.reused,
            reason: self.reason.map(str::to_owned),
            attempts: self.attempts.to_vec(),
        }
    }
}

impl NodeHistory {
    fn waiting(info: &NodeInfo) -> Self {
        NodeHistory {
            id: info.id.clone(),
            module: info.module.clone(),
            state: NodeState::Waiting,
            started_ms: None,
            ended_ms: None,
            rows: None,
            bytes: 0,
            seconds: 0.0,
            finished: 0,
            failed: 0,
            failures: Vec::new(),
            ports: BTreeMap::new(),
            written: Vec::new(),
            more_written: 0,
            globals: Vec::new(),
            stored: Vec::new(),
            more_stored: 0,
        }
    }

    /// One item more.
    fn add(&mut self, item: &ItemPath, run: &NodeRun<'_>) {
        self.state = self.state.max(run.state);
        self.started_ms = earlier(self.started_ms, run.started_ms);
        self.ended_ms = self.ended_ms.max(run.ended_ms);
        self.rows = super::sum(self.rows, run.rows);
        self.bytes = self.bytes.saturating_add(run.bytes);
        self.seconds += run.seconds;
        self.finished += u64::from(run.state == NodeState::Finished);
        self.failed += u64::from(run.state == NodeState::Failed);
        add_bounded(&mut self.failures, run.failure.iter().cloned());
        run.outputs.iter().for_each(|output| self.add_output(item, output));
        add_bounded(&mut self.globals, run.globals.iter().map(|global| global.announced(item)));
        self.more_stored += add_bounded(&mut self.stored, run.stored.iter().map(|stored| stored.file(item)));
    }

    fn add_output(&mut self, item: &ItemPath, output: &OutputInfo) {
        let volume = Volume { rows: output.rows, bytes: output.bytes };
        match output.target.parse::<PortName>() {
            Ok(port) => {
                let known = self.ports.entry(port).or_default();
                *known = known.and(volume);
            }
            Err(_) => {
                let written = || Written { item: item.clone(), uri: output.target.clone(), volume };
                self.more_written += add_bounded(&mut self.written, std::iter::once_with(written));
            }
        }
    }
}

/// As many as there is room for; how many there is none for.
fn add_bounded<T>(list: &mut Vec<T>, mut more: impl Iterator<Item = T>) -> u64 {
    list.extend(more.by_ref().take(LISTED.saturating_sub(list.len())));
    more.count() as u64
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (known, None) | (None, known) => known,
    }
}

impl Global<'_> {
    fn announced(&self, item: &ItemPath) -> Announced {
        Announced {
            item: item.clone(),
            name: self.name.to_owned(),
            value: self.value.clone(),
            is_masked: self.is_masked,
        }
    }
}

impl Stored<'_> {
    fn file(&self, item: &ItemPath) -> StoredFile {
        StoredFile {
            item: item.clone(),
            port: self.port.to_owned(),
            purpose: self.purpose,
            path: self.path.to_owned(),
            rows: self.rows,
            bytes: self.bytes,
        }
    }
}
