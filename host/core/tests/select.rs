//! Parts of flows: which sub flows a selection means, and the plan without the others.

mod common;

use std::collections::BTreeSet;

use proptest::prelude::*;
use pype_core::document::Source;
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::Plan;
use pype_core::flow::select::{Reduced, SelectError, Selection, Selector, reduce, select};
use pype_core::template::Context;

use common::{catalog, plan_of_solos};

/// Two sub flows of modules, and two solos.
const FLOW: &str = r#"
flow: {name: shop, version: 1.0.0, authors: [tester], created: 2025-01-15}
modules:
  - {id: orders, name: csv_source, configs: {required: {file_path: a.csv}}, labels: {tier: gold}}
  - {id: paid, name: filter_mod, configs: {required: {condition: "a > 1"}}}
  - {id: out, name: parquet_sink, configs: {required: {output_path: o.parquet}}, labels: {name: totals}}
  - {id: people, name: csv_source, configs: {required: {file_path: b.csv}}, labels: {tier: silver, beta: true}}
  - {id: copy, name: parquet_sink, configs: {required: {output_path: c.parquet}}}
  - {id: report, name: notify_solo, configs: {required: {message: "{{orders__row_count}} orders"}}}
  - {id: alarm, name: notify_solo, configs: {required: {message: failed}}}
connections:
  data:
    - orders.data - paid.input
    - paid.output - out.input
    - people.data - copy.input
  control:
    - out (1|ok) people
    - out (2|ok) report
    - copy (1|error) alarm
"#;

fn shop() -> Plan {
    load_and_plan(&Source::new("shop.yaml", FLOW), catalog(), &Context::new())
        .unwrap_or_else(|found| panic!("{found}"))
        .0
}

fn selectors(given: &[&str]) -> Vec<Selector> {
    given.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
}

fn selection(select: &[&str], exclude: &[&str]) -> Selection {
    Selection { select: selectors(select), exclude: selectors(exclude) }
}

/// The selected sub flows by name, or why there are none.
fn selected(plan: &Plan, given: &[&str], exclude: &[&str]) -> String {
    match select(plan, &selection(given, exclude)) {
        Ok(ids) => ids.iter().map(|id| plan.sub_flow(*id).name()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_selector_means_whole_sub_flows() {
    let plan = shop();
    for (given, expect) in [
        ("orders", "orders"),
        ("paid", "orders"),
        ("copy", "people"),
        ("tier = gold", "orders"),
        ("tier", "orders people"),
        ("beta", "people"),
        ("kind = solo", "alarm report"),
        ("name = notify_solo and not id = alarm", "report"),
        // A label that the flow gives hides the implied one.
        ("name = totals", "orders"),
        ("true", "orders people alarm report"),
        ("tier > gold and tier < z", "people"),
    ] {
        assert_eq!(selected(&plan, &[given], &[]), expect, "{given}");
    }
}

#[test]
fn a_plus_takes_in_what_depends() {
    let plan = shop();
    for (given, expect) in [
        ("+people", "orders people"),
        ("people+", "people alarm"),
        ("+people+", "orders people alarm"),
        (" + alarm ", "orders people alarm"),
        ("orders+", "orders people alarm report"),
        ("+tier = silver+", "orders people alarm"),
        ("+(id = report or id = alarm)", "orders people alarm report"),
        ("+beta", "orders people"),
    ] {
        assert_eq!(selected(&plan, &[given], &[]), expect, "{given}");
    }
    // In quotes it is part of the value.
    assert_eq!(selected(&plan, &["not tier = \"gold+\" and tier"], &[]), "orders people");
}

#[test]
fn selections_add_up_and_exclusions_take_away() {
    let plan = shop();
    assert_eq!(selected(&plan, &["orders", "alarm"], &[]), "orders alarm");
    assert_eq!(selected(&plan, &[], &["people+"]), "orders report");
    assert_eq!(selected(&plan, &["orders+"], &["alarm", "report"]), "orders people");
    assert_eq!(selected(&plan, &["beta"], &["tier = silver"]), "nothing is selected");
}

#[test]
fn what_says_nothing_about_the_flow_is_an_error() {
    let plan = shop();
    let near = |given: &[&str], exclude: &[&str]| match select(&plan, &selection(given, exclude)) {
        Err(SelectError::UnknownWord { near, .. } | SelectError::UnknownLabel { near, .. }) => near,
        other => panic!("{other:?}"),
    };
    assert_eq!(selected(&plan, &["ordrs"], &[]), "`ordrs` is no module of this flow, and no label of one");
    assert_eq!(near(&["ordrs"], &[]).as_deref(), Some("orders"));
    assert_eq!(near(&["+Copy"], &[]).as_deref(), Some("copy"));
    assert_eq!(near(&["bta"], &[]).as_deref(), Some("beta"));
    assert_eq!(near(&[], &["kafka"]), None);
    assert_eq!(selected(&plan, &["teir = gold"], &[]), "no module of this flow has a label `teir`");
    assert_eq!(near(&["teir = gold"], &[]).as_deref(), Some("tier"));
    assert_eq!(selected(&plan, &["tier = bronze"], &[]), "nothing is selected");
    assert_eq!(selected(&plan, &["exists"], &[]), "`exists` is no module of this flow, and no label of one");
}

#[test]
fn a_malformed_selector_knows_its_place() {
    for (text, column) in [("+tier = ", 9), ("  tier lke gold", 8), ("+", 1), ("", 1), ("a = b)+", 6)] {
        let error = text.parse::<Selector>().expect_err(text);
        assert_eq!(error.span.start.column, column, "{text}: {error}");
    }
}

fn reduced(given: &[&str], exclude: &[&str]) -> Result<Reduced, String> {
    reduce(&shop(), &selection(given, exclude)).map_err(|error| error.to_string())
}

#[test]
fn a_reduced_plan_has_no_other_modules_and_edges() {
    let Reduced { plan, left_out, lost_conditions } = reduced(&["people+"], &[]).expect("a part");
    let ids: Vec<_> = plan.nodes().iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["people", "copy", "alarm"]);
    assert_eq!((plan.data_edges().len(), plan.control_edges().len()), (1, 1));
    assert_eq!(left_out.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["orders", "report"]);
    assert_eq!(lost_conditions, []);
    assert!(plan.sub_flows()[0].after.is_empty(), "what it waited for is left out");

    let Reduced { lost_conditions, .. } = reduced(&["alarm"], &[]).expect("a part");
    let lost: Vec<_> =
        lost_conditions.iter().map(|edge| format!("{} ({}) {}", edge.from, edge.trigger, edge.to)).collect();
    assert_eq!(lost, ["copy (error) alarm"]);
}

#[test]
fn globals_that_nobody_reads_any_more_are_not_wanted() {
    let wanted = |reduced: &Reduced| reduced.plan.nodes()[0].wanted_globals.len();
    assert_eq!(wanted(&reduced(&["+report"], &[]).expect("a part")), 1);
    assert_eq!(wanted(&reduced(&[], &["report"]).expect("a part")), 0);
}

#[test]
fn what_a_selected_module_cannot_do_without_is_not_left_out() {
    assert_eq!(
        reduced(&["report"], &[]).expect_err("refused"),
        "`report` reads `orders__row_count`, and `orders` is not selected"
    );
    let text = FLOW.replace("out (2|ok) report", "copy (1|ok) report");
    let (plan, _) = load_and_plan(&Source::new("shop.yaml", text), catalog(), &Context::new()).expect("a plan");
    let error = reduce(&plan, &selection(&[], &["people"])).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "`report` reads `orders__row_count`, and nothing that is selected makes it wait for `orders`"
    );
    // A condition is gone with its edge.
    let text = FLOW.replace("out (1|ok) people", "out (1|orders__row_count > 1) people");
    let (plan, _) = load_and_plan(&Source::new("shop.yaml", text), catalog(), &Context::new()).expect("a plan");
    let part = reduce(&plan, &selection(&["people"], &[])).expect("a part");
    assert_eq!(part.lost_conditions.len(), 1);
}

proptest! {
    /// Edges go up in number, so that there is no circle in the whole.
    #[test]
    fn upstream_of_a_plan_is_closed_and_runs_in_the_same_order(
        edges in proptest::collection::btree_set((0_usize..9, 0_usize..9, 1_u32..3), 0..16),
        start in 0_usize..9,
    ) {
        let ids: Vec<String> = (0..9).map(|index| format!("s{index}")).collect();
        let pairs: BTreeSet<(usize, usize, u32)> = edges.into_iter().filter(|(from, to, _)| from < to).collect();
        let control: Vec<String> = pairs.iter().map(|(from, to, order)| format!("s{from} ({order}|ok) s{to}")).collect();
        let plan = plan_of_solos("{}", &ids, &control);
        let mut expect = BTreeSet::from([start]);
        for index in (0..=start).rev() {
            if pairs.iter().any(|(from, to, _)| *from == index && expect.contains(to)) {
                expect.insert(index);
            }
        }
        let part = reduce(&plan, &selection(&[&format!("+s{start}")], &[])).expect("a part").plan;
        let found: BTreeSet<usize> = part.nodes().iter().map(|node| node.id.as_str()[1..].parse().expect("a number")).collect();
        prop_assert_eq!(&found, &expect);
        prop_assert_eq!(part.control_edges().len(), pairs.iter().filter(|(_, to, _)| expect.contains(to)).count());
        prop_assert_eq!(part.nodes().len() + reduce(&plan, &selection(&[], &[&format!("+s{start}")])).map_or(0, |rest| rest.plan.nodes().len()), 9);
    }
}
