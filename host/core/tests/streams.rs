//! The stream cases: each `tests/streams/NAME.yaml` beside the exact findings it must give, `NAME.txt`; where there are
//! none, there is no such file.
//!
//! A case whose name starts with `good-` must also make a plan, which is in `NAME.plan.json`, and its picture in `NAME.mmd`. To accept what the code says
//! now: `UPDATE_EXPECTED=1 cargo test -p pype-core --test streams`, and read the diff.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jsonschema::Validator;
use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::document::{Source, parse};
use pype_core::graph::Graph;
use pype_core::pipeline;
use pype_core::stream::control::Acknowledge;
use pype_core::stream::plan::{Handle, Plan};
use pype_core::stream::{load_and_plan, schema, schema_with};
use serde_json::{Value, json};

use common::{catalog, context, each_change, folder, places, rendered, yaml_files};

#[test]
fn every_case_gives_its_findings() {
    let mut wrong = Vec::new();
    let cases = yaml_files(&folder().join("streams"));
    for path in &cases {
        Case::read(path).check(&mut wrong);
    }
    assert!(cases.len() > 20, "only {} cases were found", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Case {
    name: String,
    source: Source,
    path: PathBuf,
}

impl Case {
    fn read(path: &Path) -> Case {
        let name = path.file_stem().expect("a case has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a case can be read");
        Case { source: Source::new(format!("{name}.yaml"), text), path: path.to_owned(), name }
    }

    fn check(&self, wrong: &mut Vec<String>) {
        let (planned, found) = self.run();
        self.compare("txt", &rendered(&found), wrong);
        if planned.is_some() != self.name.starts_with("good-") {
            wrong.push(format!("{}: planned: {}", self.name, planned.is_some()));
        }
        if let Some(plan) = planned {
            self.compare("mmd", &Graph::of_stream(&plan, Some(&upload())).mermaid(), wrong);
            let plan = serde_json::to_value(plan).expect("a plan is JSON");
            self.compare("plan.json", &format!("{plan:#}\n"), wrong);
        }
    }

    fn run(&self) -> (Option<Plan>, Diagnostics) {
        match load_and_plan(&self.source, catalog(), &context()) {
            Ok((plan, warnings)) => (Some(plan), warnings),
            Err(found) => (None, found),
        }
    }

    fn compare(&self, extension: &str, text: &str, wrong: &mut Vec<String>) {
        let path = self.path.with_extension(extension);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            update(&path, text);
            return;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != text {
            wrong.push(format!("=== {}\n--- expected\n{expected}--- found\n{text}", path.display()));
        }
    }
}

fn update(path: &Path, text: &str) {
    if !text.is_empty() {
        fs::write(path, text).expect("the expectation can be written");
    } else if path.exists() {
        fs::remove_file(path).expect("the expectation can be removed");
    }
}

/// A pipeline, in whose place each stream is drawn that hands its records to one.
fn upload() -> pipeline::plan::Plan {
    let path = folder().join("pipelines/good-upload.yaml");
    let source = Source::new("good-upload.yaml", fs::read_to_string(path).expect("a case can be read"));
    pipeline::load_and_plan(&source, catalog(), &context()).expect("it is good").0
}

fn plan_of(name: &str) -> Plan {
    let (plan, found) = Case::read(&folder().join("streams").join(name).with_extension("yaml")).run();
    plan.unwrap_or_else(|| panic!("{found}"))
}

#[test]
fn a_plan_says_how_its_records_are_handled() {
    let plan = plan_of("good-everything");
    let options = plan.options(Acknowledge::Position, 7).expect("it handles records one by one");
    assert_eq!((options.limits.running.get(), options.limits.admitted.get()), (100, 100));
    assert_eq!((options.retry.attempts.get(), options.dead_letters, options.seed), (1, true, 7));
    assert!(plan_of("good-batches").options(Acknowledge::Position, 7).is_none());
}

#[test]
fn delays_double_and_their_jitter_is_in_milliseconds() {
    let retry = plan_of("good-orders").retry;
    let delay = |attempt, random| retry.delay(attempt, random).map(|delay| delay.as_millis());
    assert_eq!(
        [delay(1, 0.0), delay(2, 0.5), delay(3, 1.0), delay(4, 0.0)],
        [Some(1000), Some(2100), Some(4200), None]
    );
}

#[test]
fn the_path_of_a_pipeline_knows_its_place() {
    let plan = plan_of("good-orders");
    let Handle::Pipeline(handle) = &plan.handle else { panic!("it runs a pipeline") };
    assert_eq!((handle.path.value.as_str(), plan.document.slice(handle.path.span)), ("charge.yaml", "charge.yaml"));
}

#[test]
fn a_batch_is_a_flow_that_begins_with_its_records() {
    let plan = plan_of("good-batches");
    let Handle::Batch(batch) = &plan.handle else { panic!("it handles batches") };
    assert_eq!(batch.flow.sub_flows().len(), 1);
    let source = &batch.flow.nodes()[0];
    assert_eq!((source.id.as_str(), source.entry.output_ports.as_slice()), ("source", &["records".to_owned()][..]));
    assert_eq!(batch.flow.outputs_of(&source.id).count(), 2);
}

static PLAIN: LazyLock<Validator> = LazyLock::new(|| validator(&schema()));
static WITH_MODULES: LazyLock<Validator> = LazyLock::new(|| validator(&schema_with(catalog())));

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("it is a schema")
}

/// What schemas can say: of other findings they know nothing.
const SHAPE: [&str; 9] = [
    "bad-handle",
    "bad-name",
    "bounded-source",
    "missing-config",
    "missing-key",
    "out-of-range",
    "unknown-config",
    "unknown-key",
    "unknown-value",
];

/// Does loading refuse it for its shape, and does the schema? Both must say the same.
#[track_caller]
fn agree(document: &Value, what: &str) {
    let source = Source::new("stream.yaml", document.to_string());
    let found = load_and_plan(&source, catalog(), &context()).map_or_else(|found| found, |(_, warnings)| warnings);
    let errors: Vec<String> =
        WITH_MODULES.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if !found.has_errors() {
        assert!(errors.is_empty() && PLAIN.is_valid(document), "{what}: {errors:#?}");
    }
    // That a delay exceeds its bound takes two numbers to see.
    let shape = |one: &Diagnostic| SHAPE.contains(&one.code) && !one.message.contains("which is more than");
    if found.iter().any(shape) {
        assert!(!errors.is_empty(), "{what}: the schema takes what is refused:\n{found}");
    }
}

#[test]
fn the_schema_takes_what_loading_takes() {
    for path in yaml_files(&folder().join("streams")) {
        let case = Case::read(&path);
        let document = parse(&case.source).unwrap_or_else(|found| panic!("{found}")).value.to_json();
        agree(&document, &case.name);
    }
}

#[test]
fn whatever_is_changed_schema_and_loading_agree() {
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(2),
        json!(2.5),
        json!(""),
        json!("x"),
        json!("key"),
        json!("5s"),
        json!("64MiB"),
        json!("127.0.0.1:80"),
        json!("kafka_source"),
        json!("csv_source"),
        json!("json_decode"),
        json!("9 lives"),
        json!("{{context.min_age}}"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
    ];
    for name in ["good-everything", "good-batches"] {
        let full = Case::read(&folder().join("streams").join(name).with_extension("yaml"));
        let full = parse(&full.source).unwrap_or_else(|found| panic!("{found}")).value.to_json();
        let mut all = Vec::new();
        places(&full, "", &mut all);
        each_change(&full, &all, &others, agree);
    }
}
