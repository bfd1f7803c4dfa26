//! A small plan and a run of it, as pictures: `tests/graphs`.
//!
//! To accept what the code says now: `UPDATE_EXPECTED=1 cargo test -p pype-core --test graph`, and look at the pictures.

mod common;

use std::fs;

use pype_core::document::Source;
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::Plan;
use pype_core::graph::Graph;
use pype_core::run::history::History;
use pype_core::run::log;
use pype_core::template::Context;

use common::{catalog, folder, plan_of_solos};

fn read(name: &str) -> String {
    fs::read_to_string(folder().join("graphs").join(name)).expect("the case can be read")
}

fn small() -> (Plan, History) {
    let source = Source::new("small.yaml", read("small.yaml"));
    let planned = load_and_plan(&source, catalog(), &Context::new());
    let (plan, _) = planned.unwrap_or_else(|found| panic!("{found}"));
    let log = log::read(&read("small.run.json")).expect("it is a log");
    (plan, History::of(&log.records))
}

#[track_caller]
fn check(name: &str, found: &str) {
    let path = folder().join("graphs").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, found).expect("the expectation can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "--- {name}: expected\n{expected}\n--- found\n{found}");
}

#[test]
fn a_plan_is_drawn() {
    let (plan, _) = small();
    let graph = Graph::of(&plan);
    check("small.plan.mmd", &graph.mermaid());
    check("small.plan.dot", &graph.dot());
    check("small.plan.svg", &graph.svg());
}

#[test]
fn a_run_lies_over_its_plan() {
    let (plan, history) = small();
    let graph = Graph::of(&plan).with(&plan, &history);
    check("small.run.mmd", &graph.mermaid());
    check("small.run.dot", &graph.dot());
    check("small.run.svg", &graph.svg());
}

#[test]
fn loops_and_checkpoints_are_drawn() {
    for name in ["good-loops", "good-checkpoint"] {
        let path = folder().join("flows").join(name).with_extension("yaml");
        let text = fs::read_to_string(&path).expect("the case can be read");
        let planned = load_and_plan(&Source::new(path, text), catalog(), &Context::new());
        let (plan, _) = planned.unwrap_or_else(|found| panic!("{found}"));
        let graph = Graph::of(&plan);
        check(&format!("{name}.mmd"), &graph.mermaid());
        check(&format!("{name}.svg"), &graph.svg());
    }
}

#[test]
fn a_page_fetches_and_runs_nothing() {
    let (plan, history) = small();
    let page = Graph::of(&plan).with(&plan, &history).html();
    assert!(page.contains("default-src 'none'"));
    for active in ["<script", "</script>", "src=", "url(h", "@import", "<b>"] {
        assert!(!page.contains(active), "{active}");
    }
}

#[test]
fn a_very_large_plan_is_shown_by_sub_flows() {
    let ids: Vec<String> = (0..500).map(|at| format!("s{at}")).collect();
    let control: Vec<String> =
        (1..500).map(|at| format!("s{} (1|ok) s{at}", at / 2)).filter(|edge| edge != "s0 (1|ok) s0").collect();
    let graph = Graph::of(&plan_of_solos("{}", &ids, &control));
    assert!(graph.mermaid().contains("s499<br>1 module"));
    assert!(graph.svg().len() < 1_000_000);
}
