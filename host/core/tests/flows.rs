//! The flow cases: each `tests/flows/NAME.yaml` beside the exact findings it must give, `NAME.expected`.
//!
//! A case whose name starts with `good-` must also make a plan; its two build files are in `NAME.dag.json`. To accept
//! what the code says now: `UPDATE_EXPECTED=1 cargo test -p pype-core --test flows`, and read the diff.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use pype_core::diagnostic::Diagnostics;
use pype_core::document::Source;
use pype_core::flow::dag::{from_artifacts, to_artifacts};
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::Plan;
use serde_json::json;

use common::{catalog, context, folder, rendered, yaml_files};

#[test]
fn every_case_gives_its_findings() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for path in yaml_files(&folder().join("flows")) {
        cases += 1;
        let case = Case::read(&path);
        case.check(&mut wrong);
    }
    assert!(cases > 60, "only {cases} cases were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Case {
    name: String,
    source: Source,
    expected: PathBuf,
    dag: PathBuf,
}

impl Case {
    fn read(path: &Path) -> Case {
        let name = path.file_stem().expect("a case has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a case can be read");
        Case {
            source: Source::new(format!("{name}.yaml"), text),
            expected: path.with_extension("expected"),
            dag: path.with_extension("dag.json"),
            name,
        }
    }

    fn check(&self, wrong: &mut Vec<String>) {
        let (planned, found) = self.run();
        self.compare(&self.expected, &rendered(&found), wrong);
        if planned.is_some() != self.name.starts_with("good-") {
            wrong.push(format!("{}: planned: {}", self.name, planned.is_some()));
        }
        if let Some(plan) = planned {
            self.compare(&self.dag, &self.artifacts(&plan), wrong);
        }
    }

    fn run(&self) -> (Option<Plan>, Diagnostics) {
        match load_and_plan(&self.source, catalog(), &context()) {
            Ok((plan, warnings)) => (Some(plan), warnings),
            Err(found) => (None, found),
        }
    }

    /// The build files; on the way, that reading them gives a plan which writes the same.
    fn artifacts(&self, plan: &Plan) -> String {
        let files = to_artifacts(plan);
        let (dag, execution) = (files.dag.to_string(), files.execution.to_string());
        let back = from_artifacts(&dag, &execution, self.source.clone()).expect("what was built reads back");
        assert_eq!(to_artifacts(&back), files, "{}", self.name);
        format!("{:#}\n", json!({"dag": files.dag, "execution": files.execution}))
    }

    fn compare(&self, path: &Path, text: &str, wrong: &mut Vec<String>) {
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(path, text).expect("the expectation can be written");
            return;
        }
        let expected = fs::read_to_string(path).unwrap_or_default();
        if expected != text {
            wrong.push(format!("=== {}\n--- expected\n{expected}--- found\n{text}", path.display()));
        }
    }
}
