//! When everything ran: sub flows and modules over time, as bars in percent of the width.
//!
//! Between the sessions of a resumed run may lie days. Each session has a part of the width as long as it took; what lies
//! between them is a gap, however long it was.

use serde::Serialize;

use super::time;
use crate::graph::Mark;
use crate::human;
use crate::run::history::{Attempt, History, NodeHistory, Session, SubFlowHistory, SubFlowState};

/// Of what has no length a mark is seen nevertheless.
const NARROWEST: f64 = 0.25;
/// Between two sessions.
const GAP: f64 = 2.0;
/// What the text of a tick takes.
const TICK: f64 = 4.0;
/// No session is so short that it could not be seen.
const SHORTEST: f64 = 4.0;
/// So many modules are shown at once; of more only the sub flows, until one is opened.
const OPEN: usize = 80;

/// The whole of it.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    sessions: Vec<Span>,
    ticks: Vec<Tick>,
    sub_flows: Vec<Track>,
    is_open: bool,
}

/// A part of the width.
#[derive(Debug, Serialize)]
struct Span {
    left: f64,
    width: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct Tick {
    left: f64,
    label: String,
}

/// A line of the timeline.
#[derive(Debug, Serialize)]
struct Track {
    id: Option<usize>,
    name: String,
    /// The module that it leads to.
    link: Option<String>,
    sign: &'static str,
    class: &'static str,
    word: &'static str,
    took: String,
    is_loop: bool,
    is_inner: bool,
    bars: Vec<Bar>,
    nodes: Vec<Track>,
}

#[derive(Debug, Serialize)]
struct Bar {
    left: f64,
    width: f64,
    class: &'static str,
    hint: String,
    label: String,
}

impl Timeline {
    pub(super) fn of(history: &History) -> Timeline {
        let axis = Axis::of(history);
        let is_open = history.nodes().count() <= OPEN;
        let sub_flows = history.sub_flows.iter().map(|one| axis.sub_flow(one)).collect();
        Timeline { sessions: axis.spans(), ticks: axis.ticks(), sub_flows, is_open }
    }
}

/// Where a moment lies.
struct Axis<'a> {
    sessions: Vec<Part<'a>>,
}

struct Part<'a> {
    session: &'a Session,
    left: f64,
    width: f64,
}

impl<'a> Axis<'a> {
    fn of(history: &'a History) -> Axis<'a> {
        let gaps = GAP * history.sessions.len().saturating_sub(1) as f64;
        let all = history.seconds().max(0.001);
        let share = |session: &Session| (session.seconds() / all * 100.0).max(SHORTEST);
        let shares: f64 = history.sessions.iter().map(share).sum();
        let mut left = 0.0;
        let part = |session| {
            let width = share(session) / shares * (100.0 - gaps).max(1.0);
            let part = Part { session, left, width };
            left += width + GAP;
            part
        };
        Axis { sessions: history.sessions.iter().map(part).collect() }
    }

    fn spans(&self) -> Vec<Span> {
        let span = |part: &Part| Span {
            left: rounded(part.left),
            width: rounded(part.width),
            label: format!("session {}, from {}", part.session.number, time::moment(part.session.started_ms)),
        };
        self.sessions.iter().map(span).collect()
    }

    fn ticks(&self) -> Vec<Tick> {
        self.sessions.iter().flat_map(Part::ticks).collect()
    }

    /// In percent; what lies between sessions counts as the end of the one before.
    fn place(&self, at_ms: u64) -> f64 {
        let begun = self.sessions.iter().take_while(|part| part.session.started_ms <= at_ms);
        begun.last().map_or(0.0, |part| {
            let since = at_ms.saturating_sub(part.session.started_ms) as f64 / 1000.0;
            let share = (since / part.session.seconds().max(0.001)).min(1.0);
            part.left + share * part.width
        })
    }

    /// When something that has no end was last known of.
    fn end_of(&self, started_ms: u64) -> u64 {
        let begun = self.sessions.iter().take_while(|part| part.session.started_ms <= started_ms);
        begun.last().map_or(started_ms, |part| part.session.ended_ms)
    }

    fn bar(&self, from_ms: u64, to_ms: u64, class: &'static str, label: String, hint: String) -> Bar {
        let (left, right) = (self.place(from_ms), self.place(to_ms));
        let width = (right - left).max(NARROWEST);
        Bar { left: rounded(left.min(100.0 - NARROWEST)), width: rounded(width), class, hint, label }
    }

    fn sub_flow(&self, one: &SubFlowHistory) -> Track {
        let mark = Mark::of_sub_flow(one);
        let sole = one.nodes.first().filter(|_| one.nodes.len() == 1);
        let items = one.items.iter().filter(|_| !one.is_loop).flat_map(|items| &items.listed);
        let of_items = items.flat_map(|item| {
            let name = item.path.name(&one.name);
            item.attempts
                .iter()
                .map(move |attempt| (name.clone(), attempt, is_last(attempt, &item.attempts), item.state))
        });
        let own =
            one.attempts.iter().map(|attempt| (one.name.clone(), attempt, is_last(attempt, &one.attempts), one.state));
        let bars: Vec<Bar> =
            own.chain(of_items).map(|(name, attempt, last, state)| self.attempt(&name, attempt, last, state)).collect();
        Track {
            id: Some(one.id.index()),
            name: one.name.clone(),
            link: sole.map(|node| node.id.to_string()),
            sign: mark.sign(),
            class: mark.class(),
            word: mark.word(),
            took: took(one),
            is_loop: one.is_loop,
            is_inner: one.within.is_some(),
            bars,
            // One module is its sub flow, and needs no line of its own.
            nodes: one.nodes.iter().filter(|_| sole.is_none()).map(|node| self.node(node, one)).collect(),
        }
    }

    fn attempt(&self, name: &str, attempt: &Attempt, is_last: bool, state: SubFlowState) -> Bar {
        let mark = match (&attempt.failure, is_last) {
            (Some(_), false) => Mark::Failed,
            (_, true) => Mark::of_state(state),
            (None, false) if attempt.ended_ms.is_some() => Mark::Succeeded,
            (None, false) => Mark::Unfinished,
        };
        let end = attempt.ended_ms.unwrap_or_else(|| self.end_of(attempt.started_ms));
        let seconds = end.saturating_sub(attempt.started_ms) as f64 / 1000.0;
        let number = if attempt.number > 1 { format!(", attempt {}", attempt.number) } else { String::new() };
        let failure = attempt.failure.as_ref().map(|failure| format!(": {}", failure.message())).unwrap_or_default();
        let hint = format!(
            "{name}{number}: {} after {}, started {}{failure}",
            mark.word(),
            human::seconds(seconds),
            time::clock(attempt.started_ms),
        );
        let label = if attempt.number > 1 { attempt.number.to_string() } else { String::new() };
        self.bar(attempt.started_ms, end, mark.class(), label, hint)
    }

    fn node(&self, node: &NodeHistory, around: &SubFlowHistory) -> Track {
        let mark = Mark::of_node(node, around);
        let bar = node.started_ms.map(|started| {
            let end = node.ended_ms.unwrap_or_else(|| self.end_of(started));
            let rows = node.rows.map(|rows| format!(", {}", human::rows(rows))).unwrap_or_default();
            let hint = format!("{}: {}, started {}{rows}", node.id, mark.word(), time::clock(started));
            // When it ran, it was not reused yet.
            let mark = if mark == Mark::Reused { Mark::Succeeded } else { mark };
            self.bar(started, end, mark.class(), String::new(), hint)
        });
        Track {
            id: None,
            name: node.id.to_string(),
            link: Some(node.id.to_string()),
            sign: mark.sign(),
            class: mark.class(),
            word: mark.word(),
            took: node.took().map(human::seconds).unwrap_or_default(),
            is_loop: false,
            is_inner: false,
            bars: bar.into_iter().collect(),
            nodes: Vec::new(),
        }
    }
}

impl Part<'_> {
    /// At round distances, more of them where there is more room.
    fn ticks(&self) -> Vec<Tick> {
        let seconds = self.session.seconds();
        let room = (self.width / 8.0).floor().max(1.0);
        let step = round_step(seconds / room);
        let count = if step > 0.0 { (seconds / step).floor() as usize } else { 0 };
        let tick = |at: usize| {
            let offset = at as f64 * step;
            let left = self.left + offset / seconds.max(0.001) * self.width;
            Tick { left: rounded(left), label: offset_label(offset) }
        };
        // The text of one close to the end would run out of its session.
        let fits = |tick: &Tick| tick.left <= self.left + (self.width - TICK).max(0.0);
        (0..=count.min(20)).map(tick).filter(fits).collect()
    }
}

fn offset_label(seconds: f64) -> String {
    match seconds {
        zero if zero < 0.001 => "0".to_owned(),
        short if short < 1.0 => format!("{:.0} ms", short * 1000.0),
        middle if middle < 60.0 => format!("{} s", rounded(middle)),
        long => human::seconds(long),
    }
}

/// The next of 1, 2, 5, 10, 15, 30 in its unit.
fn round_step(least: f64) -> f64 {
    const STEPS: [f64; 20] = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
        900.0, 1800.0,
    ];
    let hours = || (least / 3600.0).ceil() * 3600.0;
    STEPS.iter().copied().find(|step| *step >= least).unwrap_or_else(hours)
}

fn is_last(attempt: &Attempt, all: &[Attempt]) -> bool {
    all.last().is_some_and(|last| std::ptr::eq(last, attempt))
}

/// How long the last attempt took.
fn took(one: &SubFlowHistory) -> String {
    let last = one.attempts.last();
    let took = last.and_then(|last| Some(last.ended_ms?.saturating_sub(last.started_ms) as f64 / 1000.0));
    took.map(human::seconds).unwrap_or_default()
}

fn rounded(percent: f64) -> f64 {
    (percent * 1000.0).round() / 1000.0
}
