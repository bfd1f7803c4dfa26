//! What the report says, section by section.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::redact::without_secrets;
use super::timeline::Timeline;
use super::{SCRIPT, SCRIPT_SHA256, STYLE, time};
use crate::catalog::ModuleKind;
use crate::flow::plan::{DataEdge, Plan};
use crate::flow::spec::{ExecutionMode, FailStrategy};
use crate::graph::{Graph, Mark};
use crate::human;
use crate::name::NodeId;
use crate::run::event::{ItemPath, StoredFor};
use crate::run::history::{
    Announced, Failure, History, ItemHistory, Items, LISTED, NodeHistory, Session, StoredFile, SubFlowHistory,
    SubFlowState, Tally, Volume, Written,
};
use crate::run::scheduler::{EndState, Verdict};

/// All that the template is given.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    style: &'static str,
    script: &'static str,
    script_sha256: &'static str,
    head: Head,
    failures: Vec<FailureCard>,
    more_failures: usize,
    earlier_failures: Vec<EarlierFailure>,
    not_run: Vec<NotRun>,
    timeline: Timeline,
    graph: String,
    legend: Vec<Sign>,
    nodes: Vec<NodeRow>,
    edges: Vec<EdgeRow>,
    loops: Vec<LoopCard>,
    globals: Vec<GlobalRow>,
    written: Vec<FileRow>,
    stored: Vec<FileRow>,
    configs: Vec<ConfigCard>,
    settings: Vec<Fact>,
    libraries: Vec<LibraryRow>,
}

#[derive(Debug, Serialize)]
struct Head {
    flow: String,
    version: String,
    run_id: String,
    description: Option<String>,
    verdict: Sign,
    sentence: String,
    /// The command that goes on from here.
    resume: Option<String>,
    started: Option<Moment>,
    sessions: Vec<SessionRow>,
    figures: Vec<Fact>,
    tally: Vec<Sign>,
}

#[derive(Debug, Serialize)]
struct Sign {
    sign: &'static str,
    class: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct Moment {
    text: String,
    machine: String,
}

#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
struct SessionRow {
    number: u32,
    started: Moment,
    took: String,
    verdict: &'static str,
}

#[derive(Debug, Serialize)]
struct FailureCard {
    is_handled: bool,
    node: Option<String>,
    module: String,
    sub_flow: String,
    item: Option<String>,
    mark: Sign,
    message: String,
    code: Option<String>,
    kind: Option<String>,
    causes: Vec<String>,
    hint: Option<String>,
    is_retryable: bool,
    when: String,
    at: Option<Moment>,
    configs: Option<String>,
}

/// A failure after which there was another attempt.
#[derive(Debug, Serialize)]
struct EarlierFailure {
    name: String,
    session: u32,
    attempt: u32,
    at: Moment,
    message: String,
}

#[derive(Debug, Serialize)]
struct NotRun {
    name: String,
    modules: String,
    mark: Sign,
    why: String,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    id: String,
    module: String,
    kind: &'static str,
    sub_flow: String,
    mark: Sign,
    rows: Number,
    bytes: Number,
    seconds: Number,
    rate: String,
    note: String,
}

/// A number for people, and for sorting.
#[derive(Debug, Default, Serialize)]
struct Number {
    text: String,
    value: Option<f64>,
}

#[derive(Debug, Serialize)]
struct EdgeRow {
    from: String,
    to: String,
    is_kept: bool,
    rows: Number,
    bytes: Number,
    note: &'static str,
}

#[derive(Debug, Serialize)]
struct LoopCard {
    name: String,
    mark: Sign,
    count: String,
    tallies: Vec<Sign>,
    inner: String,
    items: Vec<ItemCell>,
    more: Option<String>,
}

#[derive(Debug, Serialize)]
struct ItemCell {
    name: String,
    class: &'static str,
    sign: &'static str,
    hint: String,
}

#[derive(Debug, Serialize)]
struct GlobalRow {
    name: String,
    item: Option<String>,
    value: String,
    is_masked: bool,
}

#[derive(Debug, Serialize)]
struct FileRow {
    node: String,
    item: Option<String>,
    place: String,
    purpose: &'static str,
    rows: Number,
    bytes: Number,
}

#[derive(Debug, Serialize)]
struct ConfigCard {
    id: String,
    module: String,
    description: String,
    json: String,
}

#[derive(Debug, Serialize)]
struct LibraryRow {
    path: String,
    sha256: Option<String>,
    modules: String,
}

impl Page {
    pub(super) fn of(plan: &Plan, history: &History) -> Page {
        let mut failures: Vec<FailureCard> = history.sub_flows.iter().flat_map(|one| failures(plan, one)).collect();
        failures.sort_by_key(|failure| failure.is_handled);
        let more_failures = failures.len().saturating_sub(LISTED);
        failures.truncate(LISTED);
        let graph = Graph::of(plan).with(plan, history);
        Page {
            style: STYLE,
            script: SCRIPT,
            script_sha256: SCRIPT_SHA256.trim(),
            head: Head::of(plan, history),
            failures,
            more_failures,
            earlier_failures: history.sub_flows.iter().flat_map(earlier_failures).collect(),
            not_run: not_run(plan, history),
            timeline: Timeline::of(history),
            legend: graph.marks().into_iter().map(Sign::of).collect(),
            graph: graph.linked_svg(),
            nodes: nodes(plan, history),
            edges: plan.data_edges().iter().map(|edge| EdgeRow::of(edge, plan, history)).collect(),
            loops: history.sub_flows.iter().filter_map(|one| LoopCard::of(one, history)).collect(),
            globals: history.nodes().flat_map(globals).collect(),
            written: history.nodes().flat_map(written).collect(),
            stored: history.nodes().flat_map(stored).collect(),
            configs: plan.nodes().iter().map(|node| ConfigCard::of(plan, &node.id)).collect(),
            settings: settings(plan),
            libraries: libraries(plan, history),
        }
    }
}

impl Head {
    fn of(plan: &Plan, history: &History) -> Head {
        let verdict = verdict(history);
        let is_done = history.verdict() == Some(Verdict::Succeeded);
        Head {
            flow: plan.name.to_string(),
            version: history.version.as_ref().unwrap_or(&plan.version).to_string(),
            run_id: history.run_id.clone(),
            description: plan.about.desc.clone(),
            sentence: sentence(history),
            resume: (!is_done && !history.run_id.is_empty()).then(|| format!("pype run --resume {}", history.run_id)),
            verdict,
            started: history.started_ms().map(Moment::at),
            sessions: history.sessions.iter().map(SessionRow::of).collect(),
            figures: figures(plan, history),
            tally: tally(history),
        }
    }
}

fn verdict(history: &History) -> Sign {
    let mark = match history.verdict() {
        Some(Verdict::Succeeded) => Mark::Succeeded,
        Some(Verdict::Failed) => Mark::Failed,
        Some(Verdict::TimedOut | Verdict::Cancelled) => Mark::Cancelled,
        None => Mark::Unfinished,
    };
    Sign { sign: mark.sign(), class: mark.class(), text: verdict_word(history.verdict()).to_owned() }
}

fn verdict_word(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Succeeded) => "succeeded",
        Some(Verdict::Failed) => "failed",
        Some(Verdict::TimedOut) => "timed out",
        Some(Verdict::Cancelled) => "was cancelled",
        None => "was interrupted",
    }
}

/// What is within a loop counts as the loop.
fn outside_loops(history: &History) -> impl Iterator<Item = &SubFlowHistory> {
    history.sub_flows.iter().filter(|one| one.within.is_none())
}

/// What a reader in a hurry has to know.
fn sentence(history: &History) -> String {
    let count = |state| outside_loops(history).filter(|one| one.state == SubFlowState::Ended(state)).count() as u64;
    let all = outside_loops(history).count() as u64;
    let (failed, handled) = (count(EndState::Failed), count(EndState::Handled));
    let idle = outside_loops(history).filter(|one| !Mark::of_sub_flow(one).has_run()).count() as u64;
    if failed + handled + idle == 0 && history.verdict() == Some(Verdict::Succeeded) {
        return format!("All {} came to a good end.", human::counted(all, "sub flow"));
    }
    let mut parts = Vec::new();
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if handled > 0 {
        parts.push(format!("{handled} failed and the failure was handled"));
    }
    if idle > 0 {
        parts.push(format!("{idle} did not run"));
    }
    let told = if parts.is_empty() { "none failed".to_owned() } else { parts.join(", ") };
    let killed = history.verdict().is_none();
    let rest =
        if killed { " The run was ended from outside; what is done is kept, and it can be resumed." } else { "" };
    format!("Of {}, {told}.{rest}", human::counted(all, "sub flow"))
}

fn figures(plan: &Plan, history: &History) -> Vec<Fact> {
    let of_kind = |kind: ModuleKind| {
        let nodes = plan.nodes().iter().filter(move |node| node.entry.kind == kind);
        nodes.filter_map(|node| history.node(&node.id))
    };
    let rows = |kind| of_kind(kind).filter_map(|node| node.rows).reduce(u64::saturating_add);
    let bytes: u64 = of_kind(ModuleKind::Sink).map(|node| node.bytes).sum();
    let mut figures = vec![Fact { name: "duration", value: human::seconds(history.seconds()) }];
    figures.extend(rows(ModuleKind::Source).map(|rows| Fact { name: "rows read", value: human::grouped(rows) }));
    figures.extend(rows(ModuleKind::Sink).map(|rows| Fact { name: "rows written", value: human::grouped(rows) }));
    if bytes > 0 {
        figures.push(Fact { name: "bytes written", value: human::bytes(bytes) });
    }
    figures.push(Fact { name: "modules", value: plan.nodes().len().to_string() });
    figures
}

fn tally(history: &History) -> Vec<Sign> {
    let mut counts: BTreeMap<Mark, u64> = BTreeMap::new();
    for one in outside_loops(history) {
        *counts.entry(Mark::of_sub_flow(one)).or_default() += 1;
    }
    let sign = |(mark, count): (Mark, u64)| Sign { text: format!("{count} {}", mark.word()), ..Sign::of(mark) };
    counts.into_iter().map(sign).collect()
}

impl Sign {
    fn of(mark: Mark) -> Sign {
        Sign { sign: mark.sign(), class: mark.class(), text: mark.word().to_owned() }
    }
}

impl Moment {
    fn at(at_ms: u64) -> Moment {
        Moment { text: time::moment(at_ms), machine: time::machine(at_ms) }
    }
}

impl SessionRow {
    fn of(session: &Session) -> SessionRow {
        SessionRow {
            number: session.number,
            started: Moment::at(session.started_ms),
            took: human::seconds(session.seconds()),
            verdict: verdict_word(session.verdict),
        }
    }
}

/// What failed in a sub flow; a failure that is no module's own is told by its reason.
fn failures(plan: &Plan, one: &SubFlowHistory) -> Vec<FailureCard> {
    let of_nodes = one.nodes.iter().flat_map(|node| &node.failures);
    let cards: Vec<FailureCard> = of_nodes.map(|failure| FailureCard::of(plan, one, failure)).collect();
    let has_failed = matches!(one.state, SubFlowState::Ended(EndState::Failed | EndState::Handled));
    if cards.is_empty() && has_failed && !one.is_loop {
        return vec![FailureCard::without_module(one)];
    }
    cards
}

impl FailureCard {
    fn of(plan: &Plan, around: &SubFlowHistory, failure: &Failure) -> FailureCard {
        let handled = around.state == SubFlowState::Ended(EndState::Handled);
        let mark = if handled { Mark::Handled } else { Mark::Failed };
        let module = around.nodes.iter().find(|node| node.id == failure.node).map(|node| node.module.clone());
        FailureCard {
            is_handled: handled,
            node: Some(failure.node.to_string()),
            module: module.unwrap_or_default(),
            sub_flow: around.name.clone(),
            item: item(&failure.item),
            mark: Sign { text: handled_word(around, mark), ..Sign::of(mark) },
            message: failure.message(),
            code: failure.field("code").map(str::to_owned),
            kind: failure.field("kind").map(|kind| kind.replace('_', " ")),
            causes: failure.causes().map(str::to_owned).collect(),
            hint: failure.field("hint").map(str::to_owned),
            is_retryable: failure.is_retryable(),
            when: format!("attempt {}, session {}", failure.attempt, failure.session),
            at: Some(Moment::at(failure.at_ms)),
            configs: configs_of(plan, &failure.node),
        }
    }

    fn without_module(one: &SubFlowHistory) -> FailureCard {
        FailureCard {
            is_handled: one.state == SubFlowState::Ended(EndState::Handled),
            node: None,
            module: String::new(),
            sub_flow: one.name.clone(),
            item: None,
            mark: Sign::of(Mark::of_sub_flow(one)),
            message: one.reason.clone().unwrap_or_else(|| "no module of it reported why".to_owned()),
            code: None,
            kind: None,
            causes: Vec::new(),
            hint: None,
            is_retryable: false,
            when: String::new(),
            at: None,
            configs: None,
        }
    }
}

fn handled_word(around: &SubFlowHistory, mark: Mark) -> String {
    let reason = around.reason.as_deref().filter(|_| mark == Mark::Handled);
    reason.map_or_else(|| mark.word().to_owned(), |reason| format!("{}: {reason}", mark.word()))
}

fn item(path: &ItemPath) -> Option<String> {
    (!path.is_outside()).then(|| path.to_string())
}

/// Those that led to another attempt, or to another session.
fn earlier_failures(one: &SubFlowHistory) -> Vec<EarlierFailure> {
    let before = one.attempts.split_last().map_or(&[] as &[_], |(_, before)| before);
    let failed = before.iter().filter_map(|attempt| attempt.failure.as_ref());
    let row = |failure: &Failure| EarlierFailure {
        name: failure.item.name(failure.node.as_str()),
        session: failure.session,
        attempt: failure.attempt,
        at: Moment::at(failure.at_ms),
        message: failure.message(),
    };
    failed.map(row).collect()
}

/// All that has no good end, and whose failure is not told above.
fn not_run(plan: &Plan, history: &History) -> Vec<NotRun> {
    let untold = |one: &&SubFlowHistory| {
        !matches!(one.state, SubFlowState::Ended(EndState::Failed | EndState::Handled)) || one.is_loop
    };
    let known = history.not_done().filter(untold).map(NotRun::of);
    let unknown = plan.sub_flows().iter().filter(|one| !one.nodes.is_empty());
    let unknown = unknown.filter(|one| history.sub_flow_with(&one.nodes).is_none()).map(|one| NotRun {
        name: one.name(),
        modules: joined(one.nodes.iter().map(NodeId::as_str)),
        mark: Sign::of(Mark::NotRun),
        why: "the run says nothing about it".to_owned(),
    });
    let within =
        history.sub_flows.iter().filter(|one| one.within.is_some() && !untold(one)).filter_map(NotRun::for_items);
    known.chain(within).chain(unknown).collect()
}

impl NotRun {
    fn of(one: &SubFlowHistory) -> NotRun {
        let items = one.items.as_ref().map(|items| format!(" ({})", tallies(items))).unwrap_or_default();
        NotRun {
            name: if one.is_loop { format!("loop over {}", one.name) } else { one.name.clone() },
            modules: joined(one.nodes.iter().map(|node| node.id.as_str())),
            mark: Sign::of(Mark::of_sub_flow(one)),
            why: format!("{}{items}", one.why()),
        }
    }

    /// What failed for some items and did not run for others.
    fn for_items(one: &SubFlowHistory) -> Option<NotRun> {
        let items = one.items.as_ref()?;
        let idle = items.tallies.iter().find(|tally| !Mark::of_state(tally.state).has_run())?;
        Some(NotRun {
            name: one.name.clone(),
            modules: joined(one.nodes.iter().map(|node| node.id.as_str())),
            mark: Sign::of(Mark::of_state(idle.state)),
            why: format!("{} ({})", idle.reason.as_deref().unwrap_or("the run ended before its turn"), tallies(items)),
        })
    }
}

fn tallies(items: &Items) -> String {
    let parts = items
        .tallies
        .iter()
        .map(|tally| format!("{} {}", human::grouped(tally.count), Mark::of_state(tally.state).word()));
    format!("of {}: {}", human::counted(items.count, "item"), parts.collect::<Vec<_>>().join(", "))
}

fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

impl Number {
    fn counted(count: Option<u64>, show: impl Fn(u64) -> String) -> Number {
        Number { text: count.map(show).unwrap_or_default(), value: count.map(|count| count as f64) }
    }

    fn rows(count: Option<u64>) -> Number {
        Number::counted(count, human::grouped)
    }

    fn bytes(count: Option<u64>) -> Number {
        Number::counted(count, human::bytes)
    }
}

fn nodes(plan: &Plan, history: &History) -> Vec<NodeRow> {
    let rows = plan.sub_flows().iter().flat_map(|sub_flow| {
        let around = history.sub_flow_with(&sub_flow.nodes);
        sub_flow.nodes.iter().map(move |id| NodeRow::of(plan, id, around, around.and_then(|_| history.node(id))))
    });
    rows.collect()
}

impl NodeRow {
    fn of(plan: &Plan, id: &NodeId, around: Option<&SubFlowHistory>, node: Option<&NodeHistory>) -> NodeRow {
        let planned = plan.node(id);
        let mark = node.zip(around).map_or(Mark::NotRun, |(node, around)| Mark::of_node(node, around));
        let seconds = node.and_then(NodeHistory::took);
        let rate = |node: &NodeHistory| human::rate(node.rows?, Duration::try_from_secs_f64(node.seconds).ok()?);
        NodeRow {
            id: id.to_string(),
            module: planned.module.to_string(),
            kind: planned.entry.kind.as_str(),
            sub_flow: around.map(|around| around.name.clone()).unwrap_or_default(),
            mark: Sign::of(mark),
            rows: Number::rows(node.and_then(|node| node.rows)),
            bytes: Number::bytes(node.map(|node| node.bytes).filter(|bytes| *bytes > 0)),
            seconds: Number { text: seconds.map(human::seconds).unwrap_or_default(), value: seconds },
            rate: node.and_then(rate).unwrap_or_default(),
            note: node.map(note).unwrap_or_default(),
        }
    }
}

fn note(node: &NodeHistory) -> String {
    let fused = node.was_fused().then(|| "fused into a later query".to_owned());
    let times =
        (node.finished + node.failed > 1).then(|| format!("ran {} times", human::grouped(node.finished + node.failed)));
    let failed =
        (node.failed > 0 && node.finished > 0).then(|| format!("failed {} times", human::grouped(node.failed)));
    fused.into_iter().chain(times).chain(failed).collect::<Vec<_>>().join(", ")
}

impl EdgeRow {
    fn of(edge: &DataEdge, plan: &Plan, history: &History) -> EdgeRow {
        let node = history.node(&edge.from.node);
        let volume = node.and_then(|node| node.ports.get(&edge.from.port)).copied().unwrap_or_default();
        let sub_flow = |id: &NodeId| plan.sub_flow_of(id).map(|one| one.id);
        let uncounted = node.is_some_and(|node| node.was_fused()) && volume == Volume::default();
        EdgeRow {
            from: edge.from.to_string(),
            to: edge.to.to_string(),
            is_kept: sub_flow(&edge.from.node) != sub_flow(&edge.to.node),
            rows: Number::rows(volume.rows),
            bytes: Number::bytes(volume.bytes),
            note: if uncounted { "not counted: fused" } else { "" },
        }
    }
}

impl LoopCard {
    fn of(one: &SubFlowHistory, history: &History) -> Option<LoopCard> {
        let items = one.items.as_ref().filter(|_| one.is_loop)?;
        let inner = history.sub_flows.iter().filter(|inner| inner.within == Some(one.id));
        let sign = |tally: &Tally| {
            let mark = Mark::of_state(tally.state);
            Sign { text: format!("{} {}", human::grouped(tally.count), mark.word()), ..Sign::of(mark) }
        };
        let more = items.count.saturating_sub(items.listed.len() as u64);
        Some(LoopCard {
            name: one.name.clone(),
            mark: Sign::of(Mark::of_sub_flow(one)),
            count: human::counted(items.count, "item"),
            tallies: items.tallies.iter().map(sign).collect(),
            inner: joined(inner.map(|inner| inner.name.as_str())),
            items: items.listed.iter().map(ItemCell::of).collect(),
            more: (more > 0).then(|| human::grouped(more)),
        })
    }
}

impl ItemCell {
    fn of(item: &ItemHistory) -> ItemCell {
        let mark = if item.reused { Mark::Reused } else { Mark::of_state(item.state) };
        let why = item.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        ItemCell {
            name: item.path.to_string(),
            class: mark.class(),
            sign: mark.sign(),
            hint: format!("item {}: {}{why}", item.path, mark.word()),
        }
    }
}

fn globals(node: &NodeHistory) -> Vec<GlobalRow> {
    let row = |announced: &Announced| GlobalRow {
        name: format!("{}__{}", node.id, announced.name),
        item: item(&announced.item),
        value: announced.value.to_string(),
        is_masked: announced.is_masked,
    };
    node.globals.iter().map(row).collect()
}

fn written(node: &NodeHistory) -> Vec<FileRow> {
    let row = |written: &Written| FileRow {
        node: node.id.to_string(),
        item: item(&written.item),
        place: if written.uri.is_empty() { "(it does not say where)".to_owned() } else { written.uri.clone() },
        purpose: "",
        rows: Number::rows(written.volume.rows),
        bytes: Number::bytes(written.volume.bytes),
    };
    node.written.iter().map(row).chain(FileRow::more(node, node.more_written)).collect()
}

fn stored(node: &NodeHistory) -> Vec<FileRow> {
    let row = |stored: &StoredFile| FileRow {
        node: format!("{}.{}", node.id, stored.port),
        item: item(&stored.item),
        place: stored.path.clone(),
        purpose: match stored.purpose {
            StoredFor::Checkpoint => "checkpoint",
            StoredFor::Items => "items of a loop",
            StoredFor::Spill => "spill, removed at the end",
        },
        rows: Number::rows(Some(stored.rows)),
        bytes: Number::bytes(Some(stored.bytes)),
    };
    node.stored.iter().map(row).chain(FileRow::more(node, node.more_stored)).collect()
}

impl FileRow {
    fn more(node: &NodeHistory, more: u64) -> Option<FileRow> {
        (more > 0).then(|| FileRow {
            node: node.id.to_string(),
            item: None,
            place: format!("and {} more", human::grouped(more)),
            purpose: "",
            rows: Number::default(),
            bytes: Number::default(),
        })
    }
}

impl ConfigCard {
    fn of(plan: &Plan, id: &NodeId) -> ConfigCard {
        let node = plan.node(id);
        ConfigCard {
            id: id.to_string(),
            module: node.module.to_string(),
            description: node.entry.description.clone(),
            json: pretty(&without_secrets(&node.configs)),
        }
    }
}

fn configs_of(plan: &Plan, id: &NodeId) -> Option<String> {
    let node = plan.nodes().iter().find(|node| node.id == *id)?;
    Some(pretty(&without_secrets(&node.configs)))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

fn settings(plan: &Plan) -> Vec<Fact> {
    let settings = &plan.settings;
    let threads =
        settings.threads.map_or_else(|| "as many as the host gives".to_owned(), |threads| threads.to_string());
    let mode = match settings.execution_mode {
        ExecutionMode::Eager => "eager",
        ExecutionMode::Lazy => "lazy",
    };
    let strategy = match settings.fail_strategy {
        FailStrategy::Halt => "halt",
        FailStrategy::Continue => "continue",
    };
    vec![
        Fact { name: "report made by", value: format!("pype {}", env!("CARGO_PKG_VERSION")) },
        Fact { name: "authors", value: plan.about.authors.join(", ") },
        Fact { name: "execution mode", value: mode.to_owned() },
        Fact { name: "after a failure", value: strategy.to_owned() },
        Fact { name: "retries", value: settings.retries.to_string() },
        Fact { name: "time-out", value: human::seconds(settings.timeout_s as f64) },
        Fact { name: "threads", value: threads },
    ]
}

/// Each library with its digest: the one that ran, where a fingerprint tells, or else the one that was registered.
fn libraries(plan: &Plan, history: &History) -> Vec<LibraryRow> {
    let fingerprints = history.sub_flows.iter().filter_map(|one| one.fingerprint.as_ref());
    let ran: BTreeMap<&NodeId, &String> =
        fingerprints.flat_map(|one| &one.nodes).map(|(id, node)| (id, &node.library)).collect();
    let mut libraries: BTreeMap<(&str, Option<&String>), BTreeSet<&str>> = BTreeMap::new();
    for node in plan.nodes() {
        let sha256 = ran.get(&node.id).copied().or(node.entry.sha256.as_ref());
        libraries.entry((&node.entry.module_path, sha256)).or_default().insert(node.module.as_str());
    }
    let row = |((path, sha256), modules): ((&str, Option<&String>), BTreeSet<&str>)| LibraryRow {
        path: path.to_owned(),
        sha256: sha256.cloned(),
        modules: joined(modules.into_iter()),
    };
    libraries.into_iter().map(row).collect()
}
