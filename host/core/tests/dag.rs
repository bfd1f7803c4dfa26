//! Build files: an old one still reads, a later one is refused, a pair that does not belong together too.

mod common;

use common::folder;
use pype_core::document::Source;
use pype_core::flow::dag::{ArtifactError, from_artifacts, to_artifacts};
use pype_core::flow::plan::Plan;
use pype_core::flow::spec::ExecutionMode;

/// Written by the first version of the format; never to be changed.
fn old_files() -> (String, String) {
    let read = |name: &str| std::fs::read_to_string(folder().join("v1").join(name)).expect("the old file can be read");
    (read("old_dag.json"), read("old_execution_metadata.json"))
}

fn read(dag: &str, execution: &str) -> Result<Plan, ArtifactError> {
    from_artifacts(dag, execution, Source::new("old.yaml", ""))
}

#[track_caller]
fn refuses(dag: &str, execution: &str, expect: &str) {
    let error = read(dag, execution).expect_err("it must be refused");
    assert_eq!(error.to_string(), expect);
}

#[test]
fn files_of_version_1_read() {
    let (dag, execution) = old_files();
    let plan = read(&dag, &execution).expect("version 1 reads");
    assert_eq!(plan.name.as_str(), "old");
    assert_eq!(plan.settings.execution_mode, ExecutionMode::Lazy);
    let sub_flows: Vec<Vec<&str>> =
        plan.sub_flows().iter().map(|one| one.nodes.iter().map(|node| node.as_str()).collect()).collect();
    assert_eq!(sub_flows, [vec!["load", "save"], vec!["say"]]);
    let load = &plan.nodes()[0];
    assert_eq!(load.wanted_globals.iter().collect::<Vec<_>>(), ["row_count"]);
    assert_eq!(load.entry.sha256.as_deref().map(str::len), Some(64));
    let say = plan.nodes().last().expect("it has nodes");
    assert_eq!(say.spans.value("/message").map(|span| span.start.line), Some(22));
    assert_eq!(say.spans.value("/elsewhere").map(|span| span.start.line), Some(20));
}

#[test]
fn what_is_read_is_written_again_as_it_was() {
    let (dag, execution) = old_files();
    let files = to_artifacts(&read(&dag, &execution).expect("version 1 reads"));
    assert_eq!(format!("{:#}\n", files.dag), dag);
    assert_eq!(format!("{:#}\n", files.execution), execution);
}

#[test]
fn later_versions_and_strangers_are_refused() {
    let (dag, execution) = old_files();
    let newer = |text: &str| text.replace("\"format_version\": 1", "\"format_version\": 2");
    refuses(
        &newer(&dag),
        &execution,
        "the dag has format version 2, this pype reads up to 1: build the flow again, or use a newer pype",
    );
    refuses(
        &dag,
        &newer(&execution),
        "the execution metadata has format version 2, this pype reads up to 1: build the flow again, or use a newer pype",
    );
    refuses(&execution, &dag, "the dag says its format is `pype-execution`, not `pype-dag`");
    refuses("{", &execution, "the dag is malformed");
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (dag, execution) = old_files();
    let other = execution.replace("\"version\": \"1.0.0\"", "\"version\": \"1.0.1\"");
    let apart = "the dag and the execution metadata do not belong together: ";
    refuses(&dag, &other, &format!("{apart}flow names or versions differ; build the flow again"));
    let cut = dag.replace("load.data - save.input", "load.data - load.data");
    refuses(&cut, &execution, "the dag is inconsistent: data goes in a circle through `load`; build the flow again");
    let fewer = dag.replacen("\"load.data - save.input\"", "", 1);
    refuses(&fewer, &execution, &format!("{apart}sub flows differ; build the flow again"));
    let unknown = execution.replace("\"to\": \"say\"", "\"to\": \"nobody\"");
    refuses(
        &dag,
        &unknown,
        "the dag is inconsistent: an edge names `nobody`, which is not there; build the flow again",
    );
}
