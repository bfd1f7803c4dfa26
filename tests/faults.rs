//! Each fault that was found in PYpeline, the ancestor of flows, as a test of ours.

use pype_tests::{Sandbox, plugin};

#[test]
fn a_run_whose_guarded_sub_flow_never_ran_says_so() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    let modules = "
modules:
  - {id: first, name: sleep_solo, configs: {required: {ms: 1}}}
  - {id: guarded, name: sleep_solo, configs: {required: {ms: 1}}}
connections: {control: [first (1|first__slept_ms > 5) guarded]}
";
    sandbox.flow("guarded", modules);
    let done = sandbox.ok(&["run", "guarded.yaml"]);
    assert!(done.out.contains("guarded") && done.out.contains("skipped"), "{}", done.out);
    assert!(done.out.contains("`first__slept_ms > 5` was false"), "{}", done.out);
}

#[test]
fn an_edge_with_a_condition_fires_when_it_is_true() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    let modules = "
modules:
  - {id: first, name: sleep_solo, configs: {required: {ms: 7}}}
  - {id: guarded, name: sleep_solo, configs: {required: {ms: 1}}}
connections: {control: [first (1|first__slept_ms > 5) guarded]}
";
    sandbox.flow("guarded", modules);
    let done = sandbox.ok(&["run", "guarded.yaml"]);
    assert!(done.err.contains("sub flow guarded: succeeded"), "{}", done.err);
}

fn loop_over_three() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("items.csv", "name,n\na,1\nb,2\nc,3\n");
    let modules = "
modules:
  - {id: items, name: csv_source, configs: {required: {file_path: items.csv}}}
  - {id: again, name: csv_source, configs: {required: {file_path: items.csv}}}
  - {id: one, name: filter_mod, configs: {required: {condition: 'n = {{ iter.item.n }}'}}}
  - {id: save, name: csv_sink, configs: {required: {output_path: 'out/{{ iter.index }}-{{ iter.item.name }}.csv'}}}
connections:
  data: [again.data - one.input, one.output - save.input]
  control: ['items (1|iterate:data) again']
";
    sandbox.flow("loop", modules);
    sandbox
}

#[test]
fn an_iterator_loops() {
    let sandbox = loop_over_three();
    let done = sandbox.ok(&["run", "loop.yaml"]);
    assert!(done.err.contains("loop over items.data: 3 items"), "{}", done.err);
}

#[test]
fn every_item_of_a_loop_survives_not_only_the_last() {
    let sandbox = loop_over_three();
    sandbox.ok(&["run", "loop.yaml"]);
    for (file, row) in [("out/0-a.csv", "a,1"), ("out/1-b.csv", "b,2"), ("out/2-c.csv", "c,3")] {
        assert_eq!(sandbox.read(file), format!("name,n\n{row}\n"));
    }
}

#[test]
fn an_empty_list_is_a_success() {
    let sandbox = loop_over_three();
    sandbox.write("items.csv", "name,n\n");
    let done = sandbox.ok(&["run", "loop.yaml"]);
    assert!(done.err.contains("loop over items.data: 0 items"), "{}", done.err);
}

#[test]
fn every_reader_of_a_fanned_out_output_gets_it_whole() {
    for mode in ["eager", "lazy"] {
        let sandbox = Sandbox::new();
        sandbox.write("in.csv", "n\n1\n2\n3\n");
        let modules = format!(
            "
settings: {{execution_mode: {mode}}}
modules:
  - {{id: in, name: csv_source, configs: {{required: {{file_path: in.csv}}}}}}
  - {{id: a, name: csv_sink, configs: {{required: {{output_path: a.csv}}}}}}
  - {{id: b, name: csv_sink, configs: {{required: {{output_path: b.csv}}}}}}
  - {{id: c, name: csv_sink, configs: {{required: {{output_path: c.csv}}}}}}
connections: {{data: [in.data - a.input, in.data - b.input, in.data - c.input]}}
"
        );
        sandbox.flow("fan", &modules);
        sandbox.ok(&["run", "fan.yaml"]);
        for file in ["a.csv", "b.csv", "c.csv"] {
            assert_eq!(sandbox.read(file), "n\n1\n2\n3\n", "{mode} {file}");
        }
    }
}

#[test]
fn a_context_variable_that_is_missing_is_an_error_at_its_line_and_never_the_text_none() {
    let sandbox = Sandbox::new();
    let modules = "
modules:
  - {id: in, name: csv_source, configs: {required: {file_path: 'in-{{ context.day }}.csv'}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - out.input]}
";
    sandbox.flow("missing", modules);
    sandbox.pype(&["run", "missing.yaml"]).fails(20, &["the context has no `day`", "missing.yaml:4:"]);
}

#[test]
fn a_failing_item_fails_the_loop_and_under_continue_the_others_run() {
    for (strategy, ran) in [("halt", false), ("continue", true)] {
        let sandbox = Sandbox::new();
        sandbox.write("items.csv", "name,n\na,1\nmissing,2\nc,3\n");
        for name in ["a", "c"] {
            sandbox.write(&format!("in-{name}.csv"), "x\n1\n");
        }
        let modules = format!(
            "
settings: {{fail_strategy: {strategy}, retries: 0}}
modules:
  - {{id: items, name: csv_source, configs: {{required: {{file_path: items.csv}}}}}}
  - {{id: in, name: csv_source, configs: {{required: {{file_path: 'in-{{{{ iter.item.name }}}}.csv'}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: 'out-{{{{ iter.item.name }}}}.csv'}}}}}}
connections: {{data: [in.data - out.input], control: ['items (1|iterate:data) in']}}
"
        );
        sandbox.flow("failing", &modules);
        let done = sandbox.pype(&["run", "failing.yaml"]);
        done.fails(30, &["1 of 3 items failed"]);
        assert!(done.out.contains("in#1"), "{}", done.out);
        assert_eq!(sandbox.path("out-c.csv").exists(), ran, "{strategy}");
    }
}

#[test]
fn loops_nest_and_see_the_items_around_them() {
    let sandbox = Sandbox::new();
    for (file, text) in [("outer.csv", "o\nx\ny\n"), ("inner.csv", "i\n1\n2\n"), ("in.csv", "n\n7\n")] {
        sandbox.write(file, text);
    }
    let modules = "
modules:
  - {id: outer, name: csv_source, configs: {required: {file_path: outer.csv}}}
  - {id: inner, name: csv_source, configs: {required: {file_path: inner.csv}}}
  - {id: in, name: csv_source, configs: {required: {file_path: in.csv}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: 'out/{{ iter.outer.item.o }}{{ iter.item.i }}.csv'}}}
connections:
  data: [in.data - out.input]
  control: ['outer (1|iterate*2:data) inner', 'inner (1|iterate*2:data) in']
";
    sandbox.flow("nested", modules);
    sandbox.ok(&["run", "nested.yaml"]);
    for file in ["x1", "x2", "y1", "y2"] {
        assert_eq!(sandbox.read(&format!("out/{file}.csv")), "n\n7\n");
    }
}

#[test]
fn a_loop_goes_over_a_list_that_a_module_announces() {
    let sandbox = Sandbox::new();
    sandbox.write("inbox/a.csv", "n\n1\n");
    sandbox.write("inbox/b.csv", "n\n2\n");
    let modules = "
modules:
  - {id: files, name: list_files_solo, configs: {required: {path: 'inbox/*.csv'}}}
  - {id: in, name: csv_source, configs: {required: {file_path: '{{ iter.item.path }}'}}}
  - {id: out, name: parquet_sink, configs: {required: {output_path: 'out/{{ iter.item.stem }}.parquet'}}}
connections: {data: [in.data - out.input], control: ['files (1|iterate:files) in']}
";
    sandbox.flow("files", modules);
    sandbox.ok(&["run", "files.yaml"]);
    assert!(sandbox.path("out/a.parquet").is_file() && sandbox.path("out/b.parquet").is_file());
}
