//! Rules: on the command line over modules of the registry and parts of a flow, and in a flow over rows.

use pype_tests::Sandbox;

#[test]
fn modules_are_listed_by_a_rule_over_their_labels() {
    let sandbox = Sandbox::new();
    let listed = |rule: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&sandbox.ok(&["list-modules", "--json", "--select", rule]).out).expect("JSON");
        json.as_object().expect("a mapping").keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed("type = sink and library = pype_tabular"), "csv_sink json_sink parquet_sink");
    assert_eq!(listed("output.rejected and global.failed_count"), "check_mod");
    assert_eq!(listed("name = nothing"), "");
    let text = sandbox.ok(&["list-modules", "--select", "name in (csv_source, csv_sink)"]).out;
    assert!(text.contains("\n2 of "), "{text}");
    let done = sandbox.pype(&["list-modules", "--select", "type = mod or catgory lke Rows"]);
    done.fails(20, &["`lke` is not an operator", "--select:1:23", "^^^"]);
}

/// Three sub flows, one after the other.
const CHAIN: &str = "
modules:
  - {id: a, name: csv_source, configs: {required: {file_path: a.csv}}, labels: {tier: gold}}
  - {id: a_out, name: csv_sink, configs: {required: {output_path: b.csv}}}
  - {id: b, name: csv_source, configs: {required: {file_path: b.csv}}}
  - {id: b_out, name: csv_sink, configs: {required: {output_path: c.csv}}}
  - {id: c, name: csv_source, configs: {required: {file_path: c.csv}}, labels: {tier: gold}}
  - {id: c_out, name: csv_sink, configs: {required: {output_path: d.csv}}}
connections:
  data: [a.data - a_out.input, b.data - b_out.input, c.data - c_out.input]
  control: [a_out (1|ok) b, b_out (1|a__row_count > 0) c]
";

fn chain() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "n\n1\n");
    sandbox.flow("chain", CHAIN);
    sandbox
}

#[test]
fn a_selected_part_runs_and_the_rest_is_told() {
    let sandbox = chain();
    let done = sandbox.ok(&["run", "chain.yaml", "--select", "+b_out"]);
    assert!(done.out.contains("1 sub flow was not selected: c\nchain succeeded"), "{}", done.out);
    assert!(sandbox.path("c.csv").exists() && !sandbox.path("d.csv").exists());

    // What runs decides the exit code: without `a`, nothing reads the file that is gone.
    std::fs::remove_file(sandbox.path("a.csv")).expect("removed");
    let done = sandbox.ok(&["run", "chain.yaml", "--select", "tier = gold", "--exclude", "a"]);
    assert!(done.out.contains("2 sub flows were not selected: a, b\n"), "{}", done.out);
    assert!(done.err.contains("`c` runs in any case"), "{}", done.err);
    assert_eq!(sandbox.read("d.csv"), "n\n1\n");

    let events = sandbox.ok(&["run", "chain.yaml", "--json", "--select", "b"]).out;
    assert!(events.lines().next().is_some_and(|line| line.contains(r#""not_selected":["a","c"]"#)), "{events}");
    sandbox.ok(&["build", "chain.yaml"]);
    sandbox.ok(&["run", "jobs/chain", "--select", "b"]);
}

#[test]
fn what_cannot_be_selected_is_refused_with_a_way_out() {
    let sandbox = chain();
    let validate = |arguments: &[&str]| sandbox.pype(&[&["validate", "chain.yaml"], arguments].concat());
    assert!(validate(&["--select", "b+"]).out.is_empty(), "the condition of `b_out` reads a global of `a`");
    validate(&["--select", "b+"]).fails(20, &["`b_out` reads `a__row_count`", "--select +b_out"]);
    validate(&["--select", "b_uot"]).fails(20, &["`b_uot` is no module", "did you mean `b_out`?"]);
    validate(&["--exclude", "true"]).fails(20, &["nothing is selected", "a, a_out; b, b_out; c, c_out"]);
    validate(&["--select", "a", "--exclude", "+tier ="]).fails(20, &["--exclude:1:8", "the rule ends"]);
    let done = validate(&["--select", "a+", "--exclude", "c"]);
    assert_eq!(done.out, "chain.yaml is valid: 4 modules in 2 sub flows, 1 not selected\n");
}

#[test]
fn a_rule_over_rows_is_checked_before_it_runs_and_parts_the_rows() {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "n,tier\n1,gold\n2,\n3,silver\n");
    let flow = |rule: &str| {
        format!(
            "
modules:
  - {{id: a, name: csv_source, configs: {{required: {{file_path: a.csv}}}}}}
  - {{id: chosen, name: label_filter, configs: {{required: {{rule: {rule}}}}}}}
  - {{id: good, name: csv_sink, configs: {{required: {{output_path: good.csv}}}}}}
  - {{id: rest, name: csv_sink, configs: {{required: {{output_path: rest.csv}}}}}}
connections: {{data: [a.data - chosen.input, chosen.output - good.input, chosen.rejected - rest.input]}}
"
        )
    };
    sandbox.flow("rows", &flow("{any: [tier = gold, {match: {key: n, op: gte, value: 2.5}}]}"));
    sandbox.ok(&["run", "rows.yaml"]);
    assert_eq!(sandbox.read("good.csv"), "n,tier\n1,gold\n3,silver\n");
    assert_eq!(sandbox.read("rest.csv"), "n,tier\n2,\n");
    sandbox.flow("rows", &flow("{any: [tier = gold, {match: {key: n, op: gtee, value: 2.5}}]}"));
    sandbox
        .pype(&["validate", "rows.yaml"])
        .fails(20, &["\"gtee\" is not a value of `rule.any.1.match.op`", "gte, lt"]);
    sandbox.flow("rows", &flow("tier lke gold"));
    sandbox.pype(&["run", "rows.yaml"]).fails(30, &["chosen (label_filter)", "`lke` is not an operator"]);
}
