//! The report of the runs in `tests/graphs`: what it says, and that nothing in it comes to life.

mod common;

use std::fs;

use pype_core::document::Source;
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::Plan;
use pype_core::report;
use pype_core::run::history::History;
use pype_core::run::log;
use pype_core::template::Context;

use common::{catalog, folder};

fn read(name: &str) -> String {
    fs::read_to_string(folder().join("graphs").join(name)).expect("the case can be read")
}

fn plan() -> Plan {
    let planned = load_and_plan(&Source::new("small.yaml", read("small.yaml")), catalog(), &Context::new());
    planned.unwrap_or_else(|found| panic!("{found}")).0
}

fn report_of(log: &str) -> String {
    let log = log::read(log).expect("it is a log");
    report::html(&plan(), &History::of(&log.records))
}

/// The text of a page: what stands outside of tags.
fn text(page: &str) -> String {
    let body = page.split_once("<body>").expect("it has a body").1;
    let mut text = String::new();
    for part in body.split('<').skip(1) {
        text.push(' ');
        text.push_str(part.split_once('>').map_or("", |(_, text)| text));
    }
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#x2f;", "/");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(log: &str, says: &[&str]) {
    let text = text(&report_of(log));
    let missing: Vec<_> = says.iter().filter(|says| !text.contains(**says)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in\n{text}");
}

#[test]
fn it_says_what_failed_what_did_not_run_and_why() {
    check(
        &read("small.run.json"),
        &[
            "The run failed",
            "Of 4 sub flows, 1 failed, 2 did not run.",
            "pype run --resume r1",
            "nobody <answers> at \"mail\"</script>",
            "connection refused",
            "What to do: start the mail server",
            "attempt 2, session 1",
            "skipped warn no edge that leads to it fired",
            "upstream failed last it waits for tell , which failed",
            "Failures that were followed by another attempt (1)",
        ],
    );
}

#[test]
fn it_has_rows_bytes_outputs_globals_and_libraries() {
    check(
        &read("small.run.json"),
        &[
            "orders.data adults.input 2,400,000 41.2 MB",
            "not counted: fused",
            "file:/out/orders.parquet table 1,800,000 9.0 MB",
            "orders__row_count 2400000",
            "csv_source 5f0c8d1e",
        ],
    );
}

#[test]
fn a_run_that_was_killed_can_be_resumed() {
    let log = read("small.run.json");
    let killed: String = log.lines().take(9).map(|line| format!("{line}\n")).collect();
    check(&killed, &["The run was interrupted", "pype run --resume r1", "the run ended before its turn"]);
}

#[test]
fn items_of_a_loop_are_told_one_by_one() {
    let log = r#"{"format":"pype-run","format_version":1}
{"at_ms":1000,"event":"run_started","run_id":"r1","flow":"small","sub_flows":[{"id":0,"name":"list.months","nodes":[],"is_loop":true},{"id":1,"name":"orders","nodes":[{"id":"orders","module":"csv_source"},{"id":"adults","module":"filter_mod"},{"id":"table","module":"parquet_sink"}],"within":0}]}
{"at_ms":1100,"event":"loop_started","sub_flow":0,"items":2}
{"at_ms":1200,"event":"sub_flow_started","sub_flow":1,"item":[0],"attempt":1}
{"at_ms":1300,"event":"sub_flow_finished","sub_flow":1,"item":[0],"state":"SUCCESS","seconds":0.1}
{"at_ms":1400,"event":"sub_flow_started","sub_flow":1,"item":[1],"attempt":1}
{"at_ms":1500,"event":"node_failed","node":"orders","item":[1],"error":{"kind":"data","code":"bad","message":"no such month"}}
{"at_ms":1500,"event":"sub_flow_finished","sub_flow":1,"item":[1],"state":"FAILED","seconds":0.1,"reason":"`orders` failed"}
{"at_ms":1600,"event":"sub_flow_finished","sub_flow":0,"state":"FAILED","seconds":0.5,"reason":"1 of 2 items failed"}
{"at_ms":1700,"event":"run_finished","verdict":"failed","seconds":0.7}
"#;
    check(log, &["no such month", "item 1", "over list.months 2 items; runs orders", "1 failed", "1 succeeded"]);
}

#[test]
fn every_prefix_of_a_log_makes_a_report() {
    let log = read("small.run.json");
    for end in 1..=log.lines().count() {
        let prefix: String = log.lines().take(end).map(|line| format!("{line}\n")).collect();
        assert!(report_of(&prefix).ends_with("</html>"), "{end}");
    }
}

#[test]
fn nothing_in_it_comes_to_life_or_fetches() {
    let page = report_of(&read("small.run.json"));
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(page.contains("default-src 'none'"));
    for attribute in
        ["src=", "<link", "<iframe", "<object", "<embed", "<form", "@import", "url(h", " onerror", " onclick"]
    {
        assert!(!page.contains(attribute), "{attribute}");
    }
    let links = page.match_indices("href=\"").map(|(at, found)| &page[at + found.len()..]);
    assert!(links.into_iter().all(|link| link.starts_with('#')));
}
