//! `pype test`: runs flows on rows of a test, and compares what comes to their sinks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use pype_core::catalog::ModuleKind;
use pype_core::flow::plan::Plan;
use pype_core::name::NodeId;
use pype_core::run::event::RunEvent;
use pype_core::run::scheduler::Verdict;
use pype_core::suggest;
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::registry::RegistryChoice;
use super::render::{Failure, Style, diagnostics, shown};
use super::run::{SecretsArgs, runtime, tested_job};
use crate::artifact::{Kept, ParquetRows, kept_rows, read_items};
use crate::prepare::{Given, PrepareError, prepare};
use crate::run::{self, Mocks};

/// Runs the tests of flows: `*.test.yaml` beside them, with mocked sources and captured sinks.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype test                       all *.test.yaml below this folder
  pype test flows/months          those of one flow
  pype test --update              writes what came to the sinks to the files that the tests expect it in

A test file:
  flow: flow.yaml
  tests:
    - name: late flights are counted
      context: {longer_than: 10}                 # over the flow's context file
      sources: {flights: {data: [{origin: JFK, hour: 6, dep_delay: 12.0}]}}
      sinks: {save: [{origin: JFK, hour: 6, flights: 1, mean_delay: 12.0}]}
    - name: without its file the flow fails
      verdict: failed                            # succeeded, if it says nothing
      failures: {flights: not-found}             # the modules that fail, and their error codes

Rows may stand in a file: `data: rows.ndjson` or `rows.parquet`. A source that is not named runs itself; no sink writes.")]
pub(crate) struct TestArgs {
    /// Test files, flows, or folders to look for tests in.
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Write what came to the files that the tests expect it in.
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    registry: RegistryChoice,
    #[command(flatten)]
    secrets: SecretsArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    flow: Option<PathBuf>,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Which context file.
    environment: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Value>,
    #[serde(default)]
    sources: BTreeMap<String, BTreeMap<String, Rows>>,
    /// By sink; in a loop `save#0`.
    #[serde(default)]
    sinks: BTreeMap<String, Rows>,
    #[serde(default = "succeeded")]
    verdict: Verdict,
    #[serde(default)]
    failures: BTreeMap<String, String>,
    /// Whether rows may come in another order.
    #[serde(default)]
    any_order: bool,
}

fn succeeded() -> Verdict {
    Verdict::Succeeded
}

/// Rows in the test itself or in a file beside it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rows {
    Here(Vec<Value>),
    File(PathBuf),
}

pub(crate) fn test(args: &TestArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let files = files(&args.paths)?;
    if files.is_empty() {
        let hint = "write `flow.test.yaml` beside `flow.yaml`; `pype test --help` shows one";
        return Err(Failure::invalid("no-tests", "there are no *.test.yaml files there").hint(hint));
    }
    // One for all: a library holds on to the first that it gets.
    let runtime = runtime()?;
    let (mut passed, mut failed) = (0, 0);
    for path in &files {
        let file = read(path)?;
        let flow = path.parent().unwrap_or(Path::new(".")).join(file.flow.clone().unwrap_or_else(|| beside(path)));
        for case in &file.tests {
            let problems = Run { args, file: path, flow: &flow, case, runtime: &runtime }.run()?;
            let verdict = if problems.is_empty() { "ok" } else { "FAILED" };
            writeln!(out, "{} … {}: {verdict}", shown(path), case.name)?;
            for problem in &problems {
                writeln!(out, "  {}", problem.replace('\n', "\n  "))?;
            }
            if problems.is_empty() { passed += 1 } else { failed += 1 }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// The test files among and below `paths`, in alphabetical order.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            look_through(path, &mut found)?;
        } else if is_test(path) {
            found.push(path.clone());
        } else {
            found.push(path.with_extension("test.yaml"));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn look_through(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |cause| Failure::invalid("io", format!("cannot read `{}`: {cause}", folder.display()));
    for entry in fs::read_dir(folder).map_err(unreadable)?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_hidden = name.to_str().is_none_or(|name| name.starts_with('.') || name == "target" || name == "runs");
        if path.is_dir() && !path.is_symlink() && !is_hidden {
            look_through(&path, found)?;
        } else if is_test(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_test(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".test.yaml"))
}

/// `flow.yaml` for `flow.test.yaml`.
fn beside(test: &Path) -> PathBuf {
    let name = test.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    PathBuf::from(name.replace(".test.yaml", ".yaml"))
}

fn read(path: &Path) -> Result<TestFile, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|cause| Failure::invalid("io", format!("cannot read `{}`: {cause}", shown(path))))?;
    parse(&text).map_err(|error| {
        let message = format!("{}: {error}", shown(path));
        Failure::invalid("bad-test", message).hint("`pype test --help` shows what a test file holds")
    })
}

/// `yes` and `n` are text, as in flows.
fn parse(text: &str) -> Result<TestFile, serde_yaml::Error> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { strict_booleans: true })
}

struct Run<'a> {
    args: &'a TestArgs,
    file: &'a Path,
    flow: &'a Path,
    case: &'a Case,
    runtime: &'a Runtime,
}

impl Run<'_> {
    /// What is not as it was expected.
    fn run(&self) -> Result<Vec<String>, Failure> {
        let given = Given {
            registry: self.args.registry.registry.clone(),
            environment: self.case.environment.clone(),
            set: self.case.context.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        };
        let prepared = match prepare(self.flow, &given) {
            Ok(prepared) => prepared,
            Err(PrepareError::Invalid(found)) => return Ok(vec![diagnostics(&found, Style::Plain)]),
            Err(error) => return Err(error.into()),
        };
        let unknown = self.unknown_names(&prepared.plan);
        if !unknown.is_empty() {
            return Ok(unknown);
        }
        let folder = tempfile::tempdir().map_err(|cause| Failure::invalid("io", cause.to_string()))?;
        let mocks = Arc::new(Mocks::new(self.sources()?));
        let failures: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let heard = failures.clone();
        let observer: run::Observer = Arc::new(move |event| {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                RunEvent::NodeFailed { node, item, error } => drop(heard.insert(item.name(node.as_str()), error)),
                // A retry went better.
                RunEvent::NodeFinished { node, item, .. } => drop(heard.remove(&item.name(node.as_str()))),
                _ => {}
            }
        });
        let job =
            tested_job(prepared, folder.path(), observer, mocks.clone(), self.runtime, self.args.secrets.origin())?;
        let outcome = self.runtime.block_on(run::run(Arc::new(job), CancellationToken::new()));
        let failures = failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut problems = self.compare_end(outcome.verdict(), &failures);
        if problems.is_empty() {
            problems = self.compare_rows(&mocks.captured())?;
        }
        Ok(problems)
    }

    /// A slip in a name must not make a test that tests nothing.
    fn unknown_names(&self, plan: &Plan) -> Vec<String> {
        let of_kind = |kind: ModuleKind| -> Vec<&str> {
            plan.nodes().iter().filter(|node| node.entry.kind == kind).map(|node| node.id.as_str()).collect()
        };
        let (sources, sinks) = (of_kind(ModuleKind::Source), of_kind(ModuleKind::Sink));
        let all: Vec<&str> = plan.nodes().iter().map(|node| node.id.as_str()).collect();
        let plain = |name: &str| name.split('#').next().unwrap_or(name).to_owned();
        let mut problems = Vec::new();
        let mut check = |what: &str, names: Vec<String>, known: &[&str]| {
            for name in names.into_iter().filter(|name| !known.contains(&name.as_str())) {
                let help = suggest::nearest(&name, known.iter().copied());
                let help = help.map_or_else(
                    || format!("there are {}", known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                problems.push(format!("the flow has no {what} `{name}`: {help}"));
            }
        };
        check("source", self.case.sources.keys().cloned().collect(), &sources);
        check("sink", self.case.sinks.keys().map(|name| plain(name)).collect(), &sinks);
        check("module", self.case.failures.keys().map(|name| plain(name)).collect(), &all);
        for (node, ports) in &self.case.sources {
            let Some(found) = plan.nodes().iter().find(|one| one.id.as_str() == node) else { continue };
            let unknown = ports.keys().filter(|port| found.entry.output_port(port).is_none());
            problems.extend(unknown.map(|port| format!("`{node}` has no output port `{port}`")));
        }
        problems
    }

    fn sources(&self) -> Result<BTreeMap<NodeId, BTreeMap<String, Kept>>, Failure> {
        let mut sources = BTreeMap::new();
        for (node, ports) in &self.case.sources {
            let mut kept = BTreeMap::new();
            for (port, rows) in ports {
                let rows = self.kept(rows).map_err(|error| {
                    Failure::from(&error).place(format!("{}: the rows of `{node}.{port}`", shown(self.file)))
                })?;
                kept.insert(port.clone(), rows);
            }
            let id = node.parse().map_err(|_| Failure::invalid("bad-test", format!("`{node}` is no id")))?;
            sources.insert(id, kept);
        }
        Ok(sources)
    }

    fn kept(&self, rows: &Rows) -> pype_plugin::Result<Kept> {
        match rows {
            Rows::Here(rows) => kept_rows(rows),
            Rows::File(path) if path.extension().is_some_and(|extension| extension == "parquet") => {
                Ok(Kept::File(ParquetRows::open(&self.beside(path))?))
            }
            Rows::File(path) => kept_rows(&read_items(&self.beside(path))?),
        }
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new(".")).join(path)
    }

    fn compare_end(&self, verdict: Verdict, failures: &BTreeMap<String, Value>) -> Vec<String> {
        let mut problems = Vec::new();
        let code = |error: &Value| error["code"].as_str().unwrap_or("failed").to_owned();
        for (node, expected) in &self.case.failures {
            match failures.get(node).map(code) {
                Some(found) if found == *expected => {}
                Some(found) => problems.push(format!("`{node}` failed with `{found}`, not `{expected}`")),
                None => problems.push(format!("`{node}` did not fail")),
            }
        }
        if verdict != self.case.verdict {
            problems.push(format!("the run {verdict:?}, and should have {:?}", self.case.verdict).to_lowercase());
            let unexpected = failures.iter().filter(|(node, _)| !self.case.failures.contains_key(*node));
            problems.extend(unexpected.map(|(node, error)| {
                format!("`{node}` failed ({}): {}", code(error), error["message"].as_str().unwrap_or_default())
            }));
        }
        problems
    }

    fn compare_rows(&self, captured: &BTreeMap<String, Vec<Value>>) -> Result<Vec<String>, Failure> {
        let mut problems = Vec::new();
        for (sink, rows) in &self.case.sinks {
            let Some(found) = captured.get(sink) else {
                problems.push(format!("nothing came to `{sink}`"));
                continue;
            };
            let expected = match rows {
                Rows::Here(rows) => rows.clone(),
                Rows::File(path) => {
                    let path = self.beside(path);
                    if self.args.update {
                        crate::artifact::write_items(found, &path).map_err(|error| Failure::from(&error))?;
                    }
                    read_items(&path)
                        .map_err(|error| Failure::from(&error).hint("`pype test --update` writes what comes now"))?
                }
            };
            problems.extend(self.difference(sink, &expected, found));
        }
        Ok(problems)
    }

    fn difference(&self, sink: &str, expected: &[Value], found: &[Value]) -> Option<String> {
        let (mut expected, mut found) = (expected.to_vec(), found.to_vec());
        if self.case.any_order {
            expected.sort_by_key(ToString::to_string);
            found.sort_by_key(ToString::to_string);
        }
        let at = expected.iter().zip(&found).position(|(one, other)| !same(one, other));
        let row = |rows: &[Value], at: usize| rows.get(at).map_or_else(|| "no row".to_owned(), ToString::to_string);
        let at = at.or_else(|| (expected.len() != found.len()).then_some(expected.len().min(found.len())))?;
        Some(format!(
            "`{sink}` got {} rows, {} were expected; the first that differs is row {}:\n- {}\n+ {}",
            found.len(),
            expected.len(),
            at + 1,
            row(&expected, at),
            row(&found, at)
        ))
    }
}

/// Numbers that are the same but for the last digits of a sum are the same.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(x), Some(y)) if one.is_f64() || other.is_f64() => (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
            _ => one == other,
        },
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_same = |(key, value): (&String, &Value)| other.get(key).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(is_same)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_the_same_whatever_the_order_of_their_columns_but_not_of_other_columns() {
        assert!(same(&json!({"a": 1, "b": 0.3}), &json!({"b": 0.1 + 0.2, "a": 1.0})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(!same(&json!({"a": "1"}), &json!({"a": 1})));
        assert!(!same(&json!(5_000_000_001_i64), &json!(5_000_000_003_i64)));
    }

    #[test]
    fn a_typo_in_a_test_file_is_an_error() {
        let refused = parse("tests:\n  - name: x\n    sink: {}\n").map(|_| ());
        let message = refused.expect_err("`sink` is no key").to_string();
        assert!(message.contains("sink") && message.contains('3'), "{message}");
    }
}
