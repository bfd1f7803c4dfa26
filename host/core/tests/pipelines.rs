//! The pipeline cases: each `tests/pipelines/NAME.yaml` beside the exact findings it must give, `NAME.txt`; where there
//! are none, there is no such file.
//!
//! A case whose name starts with `good-` must also make a plan, which is in `NAME.plan.json` and drawn in `NAME.mmd`. To
//! accept what the code says now: `UPDATE_EXPECTED=1 cargo test -p pype-core --test pipelines`, and read the diff.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jsonschema::Validator;
use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::document::{Source, parse};
use pype_core::graph::{Graph, chain};
use pype_core::name::PipelineName;
use pype_core::pipeline::context::{Context, Field};
use pype_core::pipeline::envelope::{Envelope, ResumeError};
use pype_core::pipeline::plan::{NotAPlan, Parts, Plan, Stage};
use pype_core::pipeline::{load_and_plan, schema, schema_with};
use serde_json::{Value, json};

use common::{catalog, context, each_change, folder, places, rendered, yaml_files};

#[test]
fn every_case_gives_its_findings() {
    let mut wrong = Vec::new();
    let cases = cases();
    for path in &cases {
        Case::read(path).check(&mut wrong);
    }
    assert!(cases.len() > 18, "only {} cases were found", cases.len());
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
            self.compare("plan.json", &described(&plan), wrong);
            self.compare("mmd", &Graph::of_pipeline(&plan).mermaid(), wrong);
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

/// The plan, and what it says about its parts.
fn described(plan: &Plan) -> String {
    let ids = |stages: &[Stage]| stages.iter().map(|stage| stage.id.to_string()).collect::<Vec<_>>();
    let described = json!({
        "plan": plan,
        "chain": chain(plan),
        "before": ids(plan.before()),
        "dispatch": plan.dispatch().map(|stage| &stage.id),
        "after": ids(plan.after()),
        "signature": plan.signature(),
    });
    format!("{described:#}\n")
}

fn cases() -> Vec<PathBuf> {
    yaml_files(&folder().join("pipelines"))
}

fn plan_of(name: &str) -> Plan {
    let (plan, found) = Case::read(&folder().join("pipelines").join(name).with_extension("yaml")).run();
    plan.unwrap_or_else(|| panic!("{found}"))
}

fn changed(plan: &Plan, change: impl FnOnce(&mut Parts)) -> Result<Plan, NotAPlan> {
    let mut parts = Parts {
        name: plan.name().clone(),
        version: plan.version().clone(),
        about: plan.about().clone(),
        context: plan.context().clone(),
        stages: plan.stages().to_vec(),
        dead_letter: plan.dead_letter().cloned(),
        large: plan.large().cloned(),
        settings: plan.settings(),
        source: plan.source().clone(),
    };
    change(&mut parts);
    Plan::new(parts)
}

#[test]
fn stages_that_are_no_pipeline_make_no_plan() {
    let plan = plan_of("good-upload");
    let refused = |change: fn(&mut Parts)| changed(&plan, change).map_err(|error| error.to_string()).err();
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|parts| parts.stages.clear()).as_deref(), Some("a pipeline needs a stage"));
    let twice = refused(|parts| parts.stages.push(parts.stages[0].clone()));
    assert_eq!(twice.as_deref(), Some("the id `logging` is given twice"));
    let second = refused(|parts| {
        let mut second = parts.stages[1].clone();
        second.id = "second".parse().expect("an id");
        parts.stages.push(second);
    });
    let message = "`second` is a second dispatch: `schedule_job` hands the rest to the background";
    assert_eq!(second.as_deref(), Some(message));
    let queue = refused(|parts| parts.dead_letter = Some(parts.stages.remove(1)));
    assert_eq!(queue.as_deref(), Some("`schedule_job` cannot be a stage here: its module is a dispatch"));
}

fn given(plan: &Plan) -> Context {
    let content = json!({"base64": "AP8="});
    let given = json!({"file_path": "uploads/a.txt", "file_content": content, "job_type": "fastapi"});
    let mut context = Context::from_json(plan.context(), given).expect("it fits");
    context.set(plan.context(), "etag", json!("of a stage").into()).expect("it is not declared");
    context
}

#[test]
fn a_job_is_resumed_behind_the_dispatch_with_its_context() {
    let plan = plan_of("good-upload");
    let context = given(&plan);
    let mut sent = Envelope::of(&plan, &context, 1);
    assert_eq!((sent.stage, sent.shard), (2, Some(868)));
    sent.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let received = Envelope::decode(&sent.encode()).expect("it is an envelope");
    assert_eq!(received, sent);
    let (stage, resumed) = received.resume(&plan).expect("it is this plan's");
    assert_eq!(plan.stages()[stage].id.as_str(), "storage_write");
    assert_eq!(resumed.get("file_content").and_then(Field::as_bytes), Some(&[0, 255][..]));
    assert_eq!(resumed.get("etag"), context.get("etag"));
}

#[test]
fn a_job_is_resumed_where_the_background_is_the_same() {
    let plan = plan_of("good-upload");
    let sent = || Envelope::of(&plan, &given(&plan), 1);
    let resumed = |plan: &Plan| sent().resume(plan).map(|(stage, _)| stage);

    let caller = changed(&plan, |parts| drop(parts.stages.remove(0))).expect("a plan");
    assert_eq!(resumed(&caller), Ok(1));

    let background = changed(&plan, |parts| parts.stages[2].id = "store".parse().expect("an id")).expect("a plan");
    let refused = resumed(&background).map_err(|error| error.to_string());
    let message = "the job was made for `upload` 1.0.0, whose stages after the dispatch are others than those of 1.0.0";
    assert_eq!(refused, Err(message.to_owned()));

    let name: PipelineName = "other".parse().expect("a name");
    let other = changed(&plan, |parts| parts.name = name.clone()).expect("a plan");
    assert_eq!(resumed(&other), Err(ResumeError::OtherPipeline { found: plan.name().clone(), expected: name }));

    let later = changed(&plan, |parts| parts.context.version = "1.1".parse().expect("a version")).expect("a plan");
    let refused = resumed(&later).map_err(|error| error.to_string());
    let message = "the context has version `1.0`: this pipeline has `1.1`, and no migration leads there";
    assert_eq!(refused, Err(message.to_owned()));
}

#[test]
fn pictures_show_the_boundary() {
    let graph = Graph::of_pipeline(&plan_of("good-upload"));
    for picture in [graph.svg(), graph.html(), graph.dot(), graph.mermaid()] {
        for shown in ["in the caller", "in the background", "async boundary", "local · dispatch", "dead letter"] {
            assert!(picture.contains(shown), "{shown}: {picture}");
        }
    }
}

static PLAIN: LazyLock<Validator> = LazyLock::new(|| validator(&schema()));
static WITH_MODULES: LazyLock<Validator> = LazyLock::new(|| validator(&schema_with(catalog())));

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("it is a schema")
}

/// What schemas can say: of other findings they know nothing.
const SHAPE: [&str; 11] = [
    "bad-name",
    "bad-stage",
    "missing-config",
    "missing-key",
    "no-stages",
    "out-of-range",
    "unknown-config",
    "unknown-key",
    "unknown-module",
    "unknown-value",
    "wrong-kind",
];

/// Does loading refuse it for its shape, and does the schema? Both must say the same.
#[track_caller]
fn agree(document: &Value, what: &str) {
    let source = Source::new("pipeline.yaml", document.to_string());
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
    for path in cases() {
        let case = Case::read(&path);
        let document = parse(&case.source).unwrap_or_else(|found| panic!("{found}")).value.to_json();
        agree(&document, &case.name);
    }
}

#[test]
fn whatever_is_changed_schema_and_loading_agree() {
    let full = Case::read(&folder().join("pipelines/good-everything.yaml"));
    let full = parse(&full.source).unwrap_or_else(|found| panic!("{found}")).value.to_json();
    let mut all = Vec::new();
    places(&full, "", &mut all);
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(2),
        json!(2.5),
        json!(""),
        json!("x"),
        json!("local"),
        json!("logging"),
        json!("schedule_job"),
        json!("9 lives"),
        json!("{{context.min_age}}"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
        json!({"queue": "local"}),
        json!({"url": "{{context.folder}}"}),
    ];
    each_change(&full, &all, &others, agree);
}
