//! Flows from the command line: the examples, the sample of the language, job folders, contexts, and what a user sees when
//! something is wrong.

use std::fs;

use pype_tests::{Sandbox, plugin, repository};

/// The language's sample, as it was given: only its two paths are ours.
const SAMPLE: &str = r#"
flow:
  name: sample_etl
  version: 1.0.0
  authors: ["developer"]
  created: "2025-01-15"

settings:
  timeout: 3600
  retries: 1
  fail_strategy: halt
  execution_mode: pandas
  threads: 8

modules:
  - id: source_csv
    name: csv_source
    configs:
      required:
        file_path: "input.csv"
      optional:
        encoding: "utf-8"

  - id: transform_data
    name: filter_mod
    configs:
      required:
        condition: "age > 18"

  - id: output_parquet
    name: parquet_sink
    configs:
      required:
        output_path: "output.parquet"

connections:
  data:
    - "source_csv.data - transform_data.input"
    - "transform_data.output - output_parquet.input"
  control:
    - "source_csv (1|) transform_data"
    - "transform_data (2|) output_parquet"
"#;

fn sample() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("flow.yaml", SAMPLE);
    sandbox.write("input.csv", "name,age\nAnn,31\nBob,18\nCy,19\n");
    sandbox
}

/// The rows of a Parquet file, through pype itself.
fn rows_of(sandbox: &Sandbox, parquet: &str) -> String {
    let modules = format!(
        "
modules:
  - {{id: in, name: parquet_source, configs: {{required: {{file_path: {parquet}}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: shown.csv}}}}}}
connections: {{data: [in.data - out.input]}}
"
    );
    sandbox.flow("show", &modules);
    sandbox.ok(&["run", "show.yaml"]);
    sandbox.read("shown.csv")
}

#[test]
fn the_sample_runs_and_its_idle_edges_are_told() {
    let sandbox = sample();
    let done = sandbox.ok(&["run", "flow.yaml"]);
    for text in [
        "this control edge does nothing: data already goes from `source_csv` to `transform_data`",
        "this control edge does nothing: data already goes from `transform_data` to `output_parquet`",
    ] {
        assert!(done.err.contains(text), "`{text}` is missing in:\n{}", done.err);
    }
    assert!(done.out.contains("output.parquet") && done.out.contains("2 rows"), "{}", done.out);
    assert_eq!(rows_of(&sandbox, "output.parquet"), "name,age\nAnn,31\nCy,19\n");
    assert_eq!(sandbox.pype(&["validate", "flow.yaml", "--deny-warnings"]).code, Some(10));
}

#[test]
fn a_job_folder_runs_without_the_registry_and_from_anywhere() {
    let sandbox = sample();
    sandbox.ok(&["build", "flow.yaml"]);
    for file in [
        "sample_etl.yaml",
        "sample_etl_dag.json",
        "sample_etl_execution_metadata.json",
        "context/sample_etl_default.json",
    ] {
        assert!(sandbox.path("jobs/sample_etl").join(file).is_file(), "{file}");
    }
    fs::remove_dir_all(sandbox.path("registry")).expect("removed");
    let job = sandbox.path("jobs/sample_etl");
    let mut command = sandbox.command(&["run", job.to_str().expect("text")]);
    let done = pype_tests::Done::of(command.current_dir("/").output().expect("runs"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(rows_of(&sandbox, "output.parquet"), "name,age\nAnn,31\nCy,19\n");
}

#[test]
fn the_flights_example_gives_what_another_engine_computed() {
    let sandbox = Sandbox::new();
    for file in ["flow.yaml", "data/flights.csv.gz", "data/weather.csv.gz", "data/airlines.csv", "data/airports.csv"] {
        let to = sandbox.path("flights").join(file);
        fs::create_dir_all(to.parent().expect("inside")).expect("made");
        fs::copy(repository().join("flows/flights").join(file), to).expect("copied");
    }
    let done = sandbox.ok(&["run", "flights/flow.yaml"]);
    assert!(done.out.contains("delays.parquet") && done.out.contains("delays.csv"), "{}", done.out);
    let expected = fs::read_to_string(repository().join("flows/flights/expected.csv")).expect("committed");
    assert_eq!(sandbox.read("flights/output/delays.csv"), expected);
}

#[test]
fn every_document_of_the_repository_is_valid() {
    let sandbox = Sandbox::new();
    let folders = fs::read_dir(repository().join("flows")).expect("readable");
    for folder in folders.map(|entry| entry.expect("readable").path()) {
        let documents = fs::read_dir(&folder).expect("readable").map(|entry| entry.expect("readable").path());
        let documents: Vec<String> = documents.map(|path| path.to_str().expect("text").to_owned()).collect();
        let is_document = |path: &&String| path.ends_with(".yaml") && !path.ends_with(".test.yaml");
        let documents: Vec<&String> = documents.iter().filter(is_document).collect();
        assert!(!documents.is_empty(), "{}", folder.display());
        for document in documents {
            sandbox.ok(&["validate", document, "--deny-warnings"]);
        }
    }
}

#[test]
fn every_flow_of_the_repository_passes_its_tests() {
    let flows = repository().join("flows");
    let done = Sandbox::new().ok(&["test", flows.to_str().expect("text")]);
    assert!(done.out.contains("0 failed"), "{}", done.out);
    for folder in fs::read_dir(&flows).expect("readable").map(|entry| entry.expect("an entry").path()) {
        let tests = folder.join("flow.test.yaml");
        assert!(tests.is_file() || !folder.join("flow.yaml").is_file(), "{} is missing", tests.display());
    }
}

#[test]
fn a_test_that_expects_something_else_fails_and_one_with_a_slip_in_it_too() {
    let sandbox = Sandbox::new();
    sandbox.write("in.csv", "n\n1\n2\n");
    let modules = "
modules:
  - {id: in, name: csv_source, configs: {required: {file_path: in.csv}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - out.input]}
";
    sandbox.flow("plain", modules);
    let check = |tests: &str, code: i32, says: &[&str]| {
        sandbox.write("plain.test.yaml", &format!("tests:\n  - {tests}\n"));
        let done = sandbox.pype(&["test"]);
        assert_eq!(done.code, Some(code), "{}{}", done.out, done.err);
        for text in says {
            assert!(
                done.out.contains(text) || done.err.contains(text),
                "`{text}` is missing in {}{}",
                done.out,
                done.err
            );
        }
        assert!(!sandbox.path("out.csv").exists(), "a test writes nothing");
    };
    check("{name: same, sinks: {out: [{n: 1}, {n: 2}]}}", 0, &["1 passed, 0 failed"]);
    check("{name: other, sinks: {out: [{n: 1}, {n: 3}]}}", 30, &["row 2", "- {\"n\":3}", "+ {\"n\":2}"]);
    check("{name: fewer, sinks: {out: [{n: 1}]}}", 30, &["got 2 rows, 1 were expected"]);
    check("{name: a slip, sinks: {outt: []}}", 30, &["no sink `outt`: did you mean `out`?"]);
    check("{name: a slip, sink: {out: []}}", 20, &["plain.test.yaml", "sink"]);
    check("{name: it should fail, verdict: failed}", 30, &["should have failed"]);
}

#[test]
fn context_comes_from_a_file_and_from_the_command_line() {
    let sandbox = Sandbox::new();
    sandbox.write("people.csv", "name,age\nAnn,31\nBob,18\nCy,19\n");
    sandbox.write("context/adults_prod.json", r#"{"age": 30, "out": {"dir": "prod"}}"#);
    sandbox.flow(
        "adults",
        r#"
modules:
  - {id: people, name: csv_source, configs: {required: {file_path: people.csv}}}
  - {id: adults, name: filter_mod, configs: {required: {condition: "age > {{context.age}}"}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: "{{context.out.dir}}/out.csv"}}}
connections: {data: [people.data - adults.input, adults.output - out.input]}
"#,
    );
    sandbox.ok(&["run", "adults.yaml", "--context", "prod"]);
    assert_eq!(sandbox.read("prod/out.csv"), "name,age\nAnn,31\n");
    sandbox.ok(&["run", "adults.yaml", "--context", "prod", "--set", "age=18", "--set", "out.dir=set"]);
    assert_eq!(sandbox.read("set/out.csv"), "name,age\nAnn,31\nCy,19\n");
    let done = sandbox.pype(&["run", "adults.yaml"]);
    done.fails(20, &["adults.yaml:5:77", "the context has no `age`", "the context has no `out.dir`"]);
    sandbox.pype(&["run", "adults.yaml", "--context", "nope"]).fails(20, &["no context `nope`", "adults_nope.json"]);
}

#[test]
fn a_global_of_one_sub_flow_is_read_in_a_later_one() {
    let sandbox = Sandbox::new();
    sandbox.write("people.csv", "name,age\nAnn,31\nBob,18\nCy,19\n");
    sandbox.flow(
        "count",
        r#"
modules:
  - {id: people, name: csv_source, configs: {required: {file_path: people.csv}}}
  - {id: copy, name: csv_sink, configs: {required: {output_path: copy.csv}}}
  - {id: again, name: csv_source, configs: {required: {file_path: copy.csv}}}
  - {id: counted, name: derive_mod, configs: {required: {columns: {total: "{{people__row_count}} + 0"}}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections:
  data: [people.data - copy.input, again.data - counted.input, counted.output - out.input]
  control: [copy (1|ok) again]
"#,
    );
    sandbox.ok(&["run", "count.yaml"]);
    assert!(sandbox.read("out.csv").starts_with("name,age,total\nAnn,31,3\n"), "{}", sandbox.read("out.csv"));
}

#[test]
fn a_typo_is_shown_with_its_line_and_the_word_that_was_meant() {
    let sandbox = sample();
    sandbox.write("flow.yaml", &SAMPLE.replace("filter_mod", "filtre_mod").replace("encoding:", "encodnig:"));
    let done = sandbox.pype(&["validate", "flow.yaml"]);
    done.fails(20, &["flow.yaml:25:", "did you mean `filter_mod`?", "name: filtre_mod", "did you mean `encoding`?"]);
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.pype(&["validate", "flow.yaml", "--json"]).out).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json[1]["code"], "unknown-module");
    assert_eq!(json[1]["span"]["start"]["line"], 25);
}

#[test]
fn a_failure_at_run_time_names_node_cause_and_place() {
    let sandbox = sample();
    fs::remove_file(sandbox.path("input.csv")).expect("removed");
    sandbox.write("output.parquet", "the old content");
    sandbox.pype(&["run", "flow.yaml"]).fails(30, &["source_csv", "input.csv"]);
    sandbox.write("input.csv", "name,age\nAnn,31\nBob,eighteen\n");
    let typed = SAMPLE.replace("encoding: \"utf-8\"", "schema: {name: str, age: int}");
    sandbox.write("flow.yaml", &typed);
    sandbox.pype(&["run", "flow.yaml"]).fails(30, &["input.csv:3", "eighteen"]);
    sandbox.write("flow.yaml", &SAMPLE.replace("age > 18", "aeg > 18"));
    sandbox.pype(&["run", "flow.yaml"]).fails(30, &["transform_data", "aeg"]);
    assert_eq!(sandbox.read("output.parquet"), "the old content");
}

#[test]
fn the_committed_registry_is_what_the_bundled_libraries_say() {
    let committed = fs::read_to_string(repository().join("registry/modules.json")).expect("committed");
    let sandbox = Sandbox::new();
    let binary = pype_tests::binary();
    for library in ["decode", "eventlog", "kafka", "nats", "postgres", "queues", "redis", "stages", "tabular"] {
        let library = binary.with_file_name(format!("libpype_{library}.so"));
        sandbox.ok(&["register-module", "--bundled", library.to_str().expect("text")]);
    }
    // A comparison of the whole would print both.
    let same = sandbox.read("registry/modules.json") == committed;
    assert!(same, "pype register-module --bundled --registry registry/modules.json target/release/libpype_*.so");
}

const HANDLED: &str = "
settings: {retries: 0}
modules:
  - {id: bad, name: panic_solo, configs: {required: {at: run}}}
  - {id: handler, name: sleep_solo, configs: {required: {ms: 1}}}
  - {id: next, name: sleep_solo, configs: {required: {ms: 1}}}
connections: {control: [bad (1|error) handler, bad (2|ok) next]}
";

#[test]
fn an_error_edge_handles_a_failure_which_is_told_and_counts_only_when_asked() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    sandbox.flow("handled", HANDLED);
    let done = sandbox.ok(&["run", "handled.yaml"]);
    for text in [
        "the plugin panicked: told to panic in run",
        "bad   failed, handled  it failed, which `handler` handles",
        "next  skipped          `bad` failed, which was handled",
        "handled succeeded",
    ] {
        assert!(done.out.contains(text), "`{text}` is missing in:\n{}", done.out);
    }
    assert_eq!(sandbox.pype(&["run", "handled.yaml", "--strict"]).code, Some(30));
}

#[test]
fn conditions_read_globals_and_what_cannot_be_decided_fails_the_run() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    sandbox.write("in.csv", "n\n1\n2\n3\n");
    let flow = |condition: &str| {
        format!(
            "
modules:
  - {{id: in, name: csv_source, configs: {{required: {{file_path: in.csv}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out.csv}}}}}}
  - {{id: many, name: sleep_solo, configs: {{required: {{ms: 1}}}}}}
  - {{id: few, name: sleep_solo, configs: {{required: {{ms: 1}}}}}}
connections:
  data: [in.data - out.input]
  control: ['in (1|in__row_count > context.limit) many', 'in (1|{condition}) few']
"
        )
    };
    sandbox.flow("rows", &flow("not (in__row_count > context.limit)"));
    let few = "few  skipped  `not (in__row_count > context.limit)` was false";
    assert!(sandbox.ok(&["run", "rows.yaml", "--set", "limit=2"]).out.contains(few));
    let many = "many  skipped  `in__row_count > context.limit` was false";
    assert!(sandbox.ok(&["run", "rows.yaml", "--set", "limit=3"]).out.contains(many));
    sandbox.flow("rows", &flow("in__row_count"));
    let done = sandbox.pype(&["run", "rows.yaml", "--set", "limit=3"]);
    assert_eq!(done.code, Some(30), "{}", done.out);
    assert!(done.out.contains("it gives 3, which is neither true nor false"), "{}", done.out);
}
