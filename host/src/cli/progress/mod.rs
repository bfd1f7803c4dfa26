//! What a user sees of a run: a live tree on a terminal, plain lines elsewhere, events for programs, and at the end
//! always the summary.
//!
//! [`View`] says what is the case, from events alone; the displays only draw it.

mod live;
mod plain;
mod summary;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use indicatif::MultiProgress;
use pype_core::run::event::RunEvent;

use self::live::Live;
use self::view::View;
use super::render::Style;

pub(super) use self::view::{state_word, verdict_word};

/// Shows one run.
pub(crate) struct Progress<'a> {
    view: View,
    display: Display,
    /// For programs and for the summary.
    out: &'a mut dyn Write,
    style: Style,
}

enum Display {
    /// A tree on the terminal, on standard error.
    Live(Live),
    /// A line on standard error for each change of state.
    Lines,
    /// An event a line, as JSON, on `out`; no summary.
    Json,
}

impl<'a> Progress<'a> {
    /// Live if standard error is a terminal, or else lines. The summary goes to `out`, in `style`.
    pub(crate) fn for_people(out: &'a mut dyn Write, style: Style) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let display = match io::stderr().is_terminal() && !dumb {
            true => Display::Live(Live::on_stderr()),
            false => Display::Lines,
        };
        Self { view: View::default(), display, out, style }
    }

    /// Each event as a JSON object on a line of `out`.
    pub(crate) fn for_programs(out: &'a mut dyn Write) -> Self {
        Self { view: View::default(), display: Display::Json, out, style: Style::Plain }
    }

    /// A line for people below everything else.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        match self.display {
            Display::Json => Ok(()),
            Display::Live(_) | Display::Lines => writeln!(self.out, "{text}"),
        }
    }

    /// Sub flows that are not selected, and so no part of the run: to be told with it.
    pub(crate) fn leaves_out(&mut self, sub_flows: &[String]) {
        self.view.left_out = sub_flows.iter().map(ToString::to_string).collect();
    }

    /// The live tree, if there is one: other output to the terminal must go through its `suspend` or `println`.
    pub(crate) fn live(&self) -> Option<MultiProgress> {
        match &self.display {
            Display::Live(live) => Some(live.bars()),
            Display::Lines | Display::Json => None,
        }
    }

    /// Shows an event; after the last one, the summary.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn event(&mut self, event: &RunEvent) -> io::Result<()> {
        self.view.apply(event, Instant::now());
        match &mut self.display {
            Display::Json => {
                let mut line = serde_json::to_value(event).expect("an event is plain data");
                if matches!(event, RunEvent::RunStarted { .. }) && !self.view.left_out.is_empty() {
                    line["not_selected"] = self.view.left_out.clone().into();
                }
                writeln!(self.out, "{line}")?;
                return self.out.flush();
            }
            Display::Live(live) => live.draw(&self.view, event),
            Display::Lines => {
                if let Some(line) = plain::line(&self.view, event) {
                    writeln!(io::stderr(), "{line}")?;
                }
            }
        }
        if let RunEvent::RunFinished { .. } = event {
            self.out.write_all(summary::text(&self.view, self.style).as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};
    use pype_core::flow::plan::SubFlowId;
    use pype_core::name::NodeId;
    use pype_core::run::event::{ItemPath, NodeInfo, OutputInfo, SubFlowInfo};
    use pype_core::run::scheduler::{EndState, Verdict};
    use serde_json::json;

    use super::*;

    fn node(id: &str) -> NodeId {
        id.parse().expect("an id")
    }

    fn number(of: usize) -> SubFlowId {
        serde_json::from_value(json!(of)).expect("a number")
    }

    fn sub_flow(id: usize, nodes: &[(&str, &str)]) -> SubFlowInfo {
        let nodes = nodes.iter().map(|(id, module)| NodeInfo { id: node(id), module: (*module).to_owned() });
        let nodes: Vec<NodeInfo> = nodes.collect();
        SubFlowInfo { id: number(id), name: nodes[0].id.to_string(), nodes, within: None, is_loop: false }
    }

    fn started(id: usize, attempt: u32) -> RunEvent {
        RunEvent::SubFlowStarted { sub_flow: number(id), item: ItemPath::default(), attempt }
    }

    fn ended(id: usize, state: EndState, reason: Option<&str>, seconds: f64) -> RunEvent {
        RunEvent::SubFlowFinished {
            sub_flow: number(id),
            item: ItemPath::default(),
            state,
            reused: false,
            reason: reason.map(str::to_owned),
            seconds,
            fingerprint: None,
        }
    }

    /// A run of three sub flows: one succeeds, one fails in its second attempt, one never runs.
    fn events() -> Vec<RunEvent> {
        let output = |target: &str, rows, bytes| OutputInfo { target: target.to_owned(), rows, bytes };
        let written = std::env::current_dir().expect("a folder").join("out/delays.csv");
        let error = json!({"kind": "data", "code": "bad-row", "message": "row 3 has no date", "hint": "look at row 3"});
        let finished = |id: &str, rows, bytes, outputs| RunEvent::NodeFinished {
            node: node(id),
            item: ItemPath::default(),
            rows,
            bytes,
            seconds: 0.5,
            outputs,
        };
        vec![
            RunEvent::RunStarted {
                run_id: "r1".into(),
                flow: "flights".parse().expect("a name"),
                version: None,
                session: 1,
                sub_flows: vec![
                    sub_flow(0, &[("flights", "csv_source"), ("delays", "csv_sink")]),
                    sub_flow(1, &[("weather", "csv_source")]),
                    sub_flow(2, &[("late", "parquet_source")]),
                ],
            },
            started(0, 1),
            RunEvent::NodeStarted { node: node("flights"), item: ItemPath::default() },
            RunEvent::NodeProgress { node: node("flights"), item: ItemPath::default(), rows: 100, bytes: 0 },
            finished("flights", Some(336_776), 41_200_000, vec![output("data", Some(336_776), None)]),
            RunEvent::NodeStarted { node: node("delays"), item: ItemPath::default() },
            finished("delays", None, 0, vec![output(&format!("file:{}", written.display()), Some(31), Some(2900))]),
            ended(0, EndState::Success, None, 1.25),
            started(1, 1),
            started(1, 2),
            RunEvent::NodeStarted { node: node("weather"), item: ItemPath::default() },
            RunEvent::NodeFailed { node: node("weather"), item: ItemPath::default(), error },
            ended(1, EndState::Failed, Some("`weather` failed"), 0.002),
            ended(2, EndState::UpstreamFailed, Some("it waits for `weather`"), 0.0),
            RunEvent::RunFinished { verdict: Verdict::Failed, seconds: 1.3 },
        ]
    }

    #[test]
    fn lines_tell_each_change_and_the_summary_what_came_of_it() {
        let mut view = View::default();
        let mut lines = Vec::new();
        for event in events() {
            view.apply(&event, Instant::now());
            lines.extend(plain::line(&view, &event));
        }
        let expect = "\
run r1 of flights: 3 sub flows, 4 modules
sub flow flights: started
  flights (csv_source): started
  flights (csv_source): finished in 0.50 s, 336,776 rows, 41.2 MB
  delays (csv_sink): started
  delays (csv_sink): finished in 0.50 s
sub flow flights: succeeded in 1.25 s
sub flow weather: started
sub flow weather: started, attempt 2
  weather (csv_source): started
  weather (csv_source): failed: row 3 has no date
sub flow weather: failed in 2.0 ms: `weather` failed
sub flow late: upstream failed: it waits for `weather`";
        assert_eq!(lines.join("\n"), expect);
        let expect = "\
error[bad-row]: row 3 has no date
     in: `weather` (csv_source)
   kind: data
   help: look at row 3

did not run to their end:
  late  upstream failed  it waits for `weather`

flights failed in 1.30 s (run r1)
  out/delays.csv  31 rows  2.9 kB
";
        assert_eq!(summary::text(&view, Style::Plain), expect);
    }

    #[test]
    fn what_is_not_selected_is_told() {
        let mut view = View::default();
        view.left_out = vec!["people".into(), "report".into()];
        let events = events();
        view.apply(&events[0], Instant::now());
        let line = plain::line(&view, &events[0]);
        assert_eq!(line.as_deref(), Some("run r1 of flights: 3 sub flows, 4 modules; 2 sub flows not selected"));
        view.apply(&RunEvent::RunFinished { verdict: Verdict::Succeeded, seconds: 1.3 }, Instant::now());
        let text = summary::text(&view, Style::Plain);
        assert!(text.contains("2 sub flows were not selected: people, report\nflights succeeded"), "{text}");

        let mut out = Vec::new();
        let mut progress = Progress::for_programs(&mut out);
        progress.leaves_out(&["people".to_owned()]);
        progress.event(&events[0]).expect("written");
        let line: serde_json::Value = serde_json::from_slice(&out).expect("an event");
        assert_eq!(line["not_selected"], json!(["people"]));
    }

    #[test]
    fn the_tree_ends_as_the_run_did_and_folds_what_does_not_fit() {
        let tree = |height: u16| {
            let terminal = InMemoryTerm::new(height, 80);
            let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())), usize::from(height));
            let mut view = View::default();
            for event in events() {
                view.apply(&event, Instant::now());
                live.draw(&view, &event);
            }
            terminal.contents()
        };
        let expect = "\
✓ flights  1.25 s
├ ✓ flights csv_source  336,776 rows  673.6k rows/s  41.2 MB  0.50 s
└ ✓ delays csv_sink  0.50 s
✗ weather  2.0 ms  failed: `weather` failed
└ ✗ weather csv_source  row 3 has no date
– late  upstream failed: it waits for `weather`";
        assert_eq!(tree(24), expect);
        let folded = "\
✓ flights  1.25 s
✗ weather  2.0 ms  failed: `weather` failed
└ ✗ weather csv_source  row 3 has no date
– late  upstream failed: it waits for `weather`";
        assert_eq!(tree(5), folded);
    }

    #[test]
    fn programs_get_an_event_a_line() {
        let mut out = Vec::new();
        let mut progress = Progress::for_programs(&mut out);
        for event in events() {
            progress.event(&event).expect("written");
        }
        let text = String::from_utf8(out).expect("text");
        let read: Vec<RunEvent> = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
        assert_eq!(read, events());
    }
}
