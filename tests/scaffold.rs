//! What `pype new-module` and `pype init` write works as generated.

use pype_tests::{Sandbox, artefacts, cargo_in, repository};

/// Makes a module outside the repository, runs its own test, builds, registers, and looks at it.
fn new_module(kind: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let name = format!("my_{kind}");
    let sdk = repository().join("plugin-api");
    sandbox.ok(&["new-module", &name, "--kind", kind, "--pype-plugin", sdk.to_str().expect("text")]);
    for command in ["test", "build"] {
        cargo_in(&sandbox.path(&name), &[command, "--release", "--quiet"], &artefacts().join("../scaffold"), &[]);
    }
    let library = artefacts().join(format!("../scaffold/release/lib{name}.so"));
    sandbox.register(&library);
    assert!(sandbox.ok(&["list-modules"]).out.contains(&name));
    let described = sandbox.ok(&["describe", &name]).out;
    assert!(described.contains(kind), "{described}");
    (sandbox, name)
}

fn rows(sandbox: &Sandbox) -> String {
    sandbox.write("rows.csv", "id,name\n1,a\n2,b\n3,c\n");
    "  - {id: rows, name: csv_source, configs: {required: {file_path: rows.csv}}}\n".to_owned()
}

#[test]
fn a_new_source_runs_in_a_flow() {
    let (sandbox, name) = new_module("source");
    let modules = format!(
        "modules:\n  - {{id: mine, name: {name}, configs: {{required: {{rows: 3}}}}}}\n  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out.csv}}}}}}\n"
    );
    sandbox.flow("own", &format!("{modules}connections: {{data: [mine.data - out.input]}}\n"));
    sandbox.ok(&["run", "own.yaml"]);
    assert!(sandbox.read("out.csv").lines().count() > 1);
}

#[test]
fn a_new_mod_runs_in_a_flow() {
    let (sandbox, name) = new_module("mod");
    let modules = format!(
        "modules:\n{}  - {{id: mine, name: {name}, configs: {{required: {{rows: 2}}}}}}\n  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out.csv}}}}}}\n",
        rows(&sandbox)
    );
    sandbox
        .flow("own", &format!("{modules}connections: {{data: [rows.data - mine.input, mine.output - out.input]}}\n"));
    sandbox.ok(&["run", "own.yaml"]);
    assert_eq!(sandbox.read("out.csv"), "id,name\n1,a\n2,b\n");
}

#[test]
fn a_new_sink_runs_in_a_flow() {
    let (sandbox, name) = new_module("sink");
    let modules = format!(
        "modules:\n{}  - {{id: mine, name: {name}, configs: {{required: {{output_path: counted.txt}}}}}}\n",
        rows(&sandbox)
    );
    sandbox.flow("own", &format!("{modules}connections: {{data: [rows.data - mine.input]}}\n"));
    sandbox.ok(&["run", "own.yaml"]);
    assert!(sandbox.path("counted.txt").exists());
}

#[test]
fn a_new_solo_runs_in_a_flow() {
    let (sandbox, name) = new_module("solo");
    sandbox.flow("own", &format!("modules:\n  - {{id: mine, name: {name}, configs: {{required: {{whom: world}}}}}}\n"));
    sandbox.ok(&["run", "own.yaml"]);
}

#[test]
fn a_new_stage_runs_in_a_pipeline() {
    let (sandbox, name) = new_module("execute");
    let pipeline = format!(
        "pipeline: {{name: own, version: 1.0.0}}\ncontext: {{version: '1', fields: {{name: str?}}}}\nstages:\n  - execute: {name}\n    configs: {{whom: world}}\n"
    );
    sandbox.write("own.yaml", &pipeline);
    assert_eq!(sandbox.ok(&["run", "own.yaml"]).out, "{\"greeting\":\"hello, world\"}\n");
}

#[test]
fn a_new_queue_keeps_the_contract_and_takes_jobs() {
    let (sandbox, name) = new_module("dispatch");
    let pipeline = format!(
        "pipeline: {{name: own, version: 1.0.0}}\ncontext: {{version: '1', fields: {{}}}}\nstages:\n  - dispatch: {name}\n    configs: {{name: jobs}}\n  - {{execute: set_fields, configs: {{set: {{done: true}}}}}}\n"
    );
    sandbox.write("own.yaml", &pipeline);
    let done = sandbox.ok(&["run", "own.yaml", "--wait"]);
    assert!(done.out.contains("\"done\":true"), "{}", done.out);
}

#[test]
fn a_new_project_runs() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["init", "hello"]);
    sandbox.ok(&["validate", "hello/flows/hello/flow.yaml"]);
    sandbox.ok(&["run", "hello/flows/hello/flow.yaml"]);
    let printed = sandbox.ok(&["schema", "flow", "--registry", "hello/registry/modules.json"]).out;
    assert_eq!(printed, sandbox.read("hello/.pype/flow.schema.json"), "the registry has no modules of its own");
}
