//! What several test files need: the catalog of `catalog.json`, flows made of solos, and findings as text.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pype_core::catalog::{Catalog, parse_registry};
use pype_core::diagnostic::{Diagnostic, Diagnostics, Severity};
use pype_core::document::Source;
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::{Plan, SubFlowId};
use pype_core::template::Context;
use serde_json::{Value, json};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

pub(crate) fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(read_catalog);
    &CATALOG
}

fn read_catalog() -> Catalog {
    let path = folder().join("catalog.json");
    let text = fs::read_to_string(&path).expect("the catalog can be read");
    let (catalog, problems) = parse_registry(&path, &text);
    assert_eq!(problems, []);
    catalog
}

/// The plan of solos with these ids and control edges (`a (1|ok) b`).
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn plan_of_solos(settings: &str, ids: &[String], control: &[String]) -> Plan {
    plan_of_joined_solos(settings, ids, control, &[])
}

/// The same, where some solos say how edges that lead to them join.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn plan_of_joined_solos(settings: &str, ids: &[String], control: &[String], joins: &[(&str, &str)]) -> Plan {
    let misc = |id: &str| {
        let join = joins.iter().find(|(of, _)| *of == id);
        join.map(|(_, join)| format!(", misc: {{join: {join}}}")).unwrap_or_default()
    };
    let module = |id: &String| {
        format!("  - {{id: {id}, name: notify_solo, configs: {{required: {{message: hello}}}}{}}}\n", misc(id))
    };
    let modules: String = ids.iter().map(module).collect();
    let control: String = control.iter().map(|edge| format!("    - {edge}\n")).collect();
    let text = format!(
        "flow: {{name: solos, version: 1.0.0, authors: [tester], created: 2025-01-15}}\n\
         settings: {settings}\nmodules:\n{modules}connections:\n  control:\n{control}"
    );
    let planned = load_and_plan(&Source::new("solos.yaml", text), catalog(), &Context::new());
    planned.unwrap_or_else(|found| panic!("{found}")).0
}

/// The sub flow of a solo.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn sub_flow(plan: &Plan, id: &str) -> SubFlowId {
    let found = plan.sub_flows().iter().find(|sub_flow| sub_flow.name().as_str() == id);
    found.expect("the plan has a solo of this id").id
}

/// Findings as the files of cases have them.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
pub(crate) fn rendered(found: &Diagnostics) -> String {
    found.iter().map(one).collect()
}

#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
fn one(found: &Diagnostic) -> String {
    let place = found.span.map_or(String::new(), |span| format!("{}:{}:", span.start.line, span.start.column));
    let severity = match found.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let help = found.help.as_ref().map_or(String::new(), |help| format!("  help: {help}\n"));
    format!("{}:{place} {severity}[{}]: {}\n{help}", found.file.display(), found.code, found.message)
}

/// The YAML files of a folder, sorted.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
pub(crate) fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths
}

/// The context of `context.json`.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
pub(crate) fn context() -> Context {
    let path = folder().join("context.json");
    let text = fs::read_to_string(&path).expect("the context can be read");
    Context::from_json(&Source::new(path, text)).expect("the context is one")
}

/// The JSON pointers of all values.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
pub(crate) fn places(value: &Value, pointer: &str, all: &mut Vec<String>) {
    all.push(pointer.to_owned());
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, one)| places(one, &format!("{pointer}/{key}"), all)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, one)| places(one, &format!("{pointer}/{index}"), all));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Gives `on` each change of a document, and what it is: another value at each of the places, a key more, a key less.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one has such cases")]
pub(crate) fn each_change(full: &Value, places: &[String], others: &[Value], on: impl Fn(&Value, &str)) {
    for pointer in places {
        for other in others {
            let mut changed = full.clone();
            *changed.pointer_mut(pointer).expect("a place") = other.clone();
            on(&changed, &format!("{pointer} = {other}"));
        }
        let mut changed = full.clone();
        if let Some(entries) = changed.pointer_mut(pointer).and_then(Value::as_object_mut) {
            entries.insert("stranger".to_owned(), json!(1));
            on(&changed, &format!("{pointer}/stranger"));
        }
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        let mut changed = full.clone();
        if let Some(entries) = changed.pointer_mut(parent).and_then(Value::as_object_mut) {
            entries.remove(key);
            on(&changed, &format!("without {pointer}"));
        }
    }
}
