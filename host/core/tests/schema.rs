//! The schema of flow documents: it takes what loading takes, and refuses what loading refuses for its shape.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use pype_core::catalog::Catalog;
use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::document::{Source, parse};
use pype_core::flow::load::load;
use pype_core::flow::schema::{schema, schema_with};
use pype_core::name::{Date, FlowName, NodeId, Version};
use serde_json::{Value, json};

use common::{catalog, context, each_change, folder, places, yaml_files};

static PLAIN: LazyLock<Validator> = LazyLock::new(|| validator(&schema()));
static WITH_MODULES: LazyLock<Validator> = LazyLock::new(|| validator(&schema_with(catalog())));

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("it is a schema")
}

fn document(path: &Path) -> Value {
    let source = Source::new(path, fs::read_to_string(path).expect("a flow can be read"));
    parse(&source).unwrap_or_else(|found| panic!("{found}")).value.to_json()
}

fn good() -> Vec<PathBuf> {
    let mut paths = yaml_files(&folder().join("flows"));
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("good-")));
    assert!(paths.len() > 8);
    paths
}

#[track_caller]
fn takes(validator: &Validator, document: &Value, what: &str) {
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

#[test]
fn good_flows_fit() {
    for path in good() {
        let document = document(&path);
        takes(&PLAIN, &document, &path.display().to_string());
        takes(&WITH_MODULES, &document, &path.display().to_string());
    }
}

#[test]
fn the_examples_of_the_repository_fit_the_bundled_modules() {
    let root = folder().join("../../..");
    let registry = root.join("registry/modules.json");
    let text = fs::read_to_string(&registry).expect("the registry is committed");
    let (bundled, problems) = pype_core::catalog::parse_registry(&registry, &text);
    assert_eq!(problems, []);
    let flow_schema = validator(&schema_with(&bundled));
    let pipeline_schema = validator(&pype_core::pipeline::schema_with(&bundled));
    let stream_schema = validator(&pype_core::stream::schema_with(&bundled));
    let folders = fs::read_dir(root.join("flows")).expect("there are examples");
    let mut examples: Vec<PathBuf> = folders.flat_map(|folder| yaml_files(&folder.expect("an entry").path())).collect();
    examples.retain(|path| !path.to_string_lossy().ends_with(".test.yaml"));
    assert!(!examples.is_empty());
    for path in examples {
        let document = document(&path);
        let declares = |kind| document.get(kind).is_some();
        let schema = if declares("pipeline") {
            &pipeline_schema
        } else if declares("stream") {
            &stream_schema
        } else {
            &flow_schema
        };
        takes(schema, &document, &path.display().to_string());
    }
}

/// What schemas can say: of other findings they know nothing.
const SHAPE: [&str; 12] = [
    "bad-edge",
    "bad-name",
    "missing-config",
    "missing-key",
    "no-modules",
    "out-of-range",
    "unknown-config",
    "unknown-key",
    "unknown-module",
    "unknown-value",
    "wrong-kind",
    "wrong-type",
];

fn loaded(document: &Value, catalog: &Catalog) -> Diagnostics {
    load(&Source::new("flow.yaml", document.to_string()), catalog, &context()).1
}

/// Does loading refuse it for its shape, and does the schema? Both must say the same.
fn agree(document: &Value, what: &str) {
    let found = loaded(document, catalog());
    let fits = WITH_MODULES.is_valid(document);
    if !found.has_errors() {
        takes(&WITH_MODULES, document, what);
    }
    // A pattern cannot count the days of a month.
    let shape = |one: &Diagnostic| SHAPE.contains(&one.code) && !one.message.ends_with("is not a date");
    if found.iter().any(shape) {
        assert!(!fits, "{what}: the schema takes what is refused:\n{found}");
    }
}

#[test]
fn broken_flows_are_refused_as_loading_refuses_them() {
    let mut refused = 0;
    for path in yaml_files(&folder().join("flows")) {
        let source = Source::new(&path, fs::read_to_string(&path).unwrap_or_default());
        let Ok(tree) = parse(&source) else { continue };
        let document = tree.value.to_json();
        // What comes of its template is of the wrong type, and that no schema sees.
        if path.ends_with("template-of-the-wrong-type.yaml") {
            continue;
        }
        agree(&document, &path.display().to_string());
        refused += usize::from(!WITH_MODULES.is_valid(&document));
    }
    assert!(refused > 30, "only {refused}");
}

/// A flow with every key there is.
fn full() -> Value {
    json!({
        "flow": {"name": "full", "version": "1.0.0", "authors": ["me"], "created": "2025-01-15", "desc": "x", "labels": {"a": 1}},
        "settings": {"timeout": 10, "retries": 1, "fail_strategy": "halt", "execution_mode": "dask", "threads": 2},
        "modules": [
            {
                "id": "in", "name": "csv_source", "labels": {"b": null}, "misc": {"checkpoint": false, "join": "all", "isolation": "none"},
                "configs": {"required": {"file_path": "a.csv"}, "optional": {"skip_rows": 1, "columns": ["a"]}}
            },
            {
                "id": "out", "name": "parquet_sink",
                "configs": {"required": {"output_path": "b"}, "optional": {"options": {"level": 3}}}
            },
            {"id": "last", "name": "notify_solo", "configs": {"required": {"message": "hello"}}}
        ],
        "connections": {"data": ["in.data - out.input"], "control": ["out (1|ok) last"]}
    })
}

#[test]
fn whatever_is_changed_schema_and_loading_agree() {
    let full = full();
    takes(&WITH_MODULES, &full, "the full flow");
    assert!(!loaded(&full, catalog()).has_errors(), "{}", loaded(&full, catalog()));
    let mut all = Vec::new();
    places(&full, "", &mut all);
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(2),
        json!(2.0),
        json!(2.5),
        json!(5000),
        json!(""),
        json!("x"),
        json!("all"),
        json!("9 lives"),
        json!("{{context.count}}"),
        json!([]),
        json!(["x"]),
        json!([1]),
        json!({}),
        json!({"x": 1}),
        json!({"level": "{{context.count}}"}),
        json!("2025-02-11"),
        json!("a.b - c.d"),
        json!("a (1|foo) b"),
    ];
    each_change(&full, &all, &others, agree);
}

#[test]
fn parameters_may_stand_in_either_section_and_hold_templates() {
    let with = |configs: Value| {
        let mut flow = full();
        flow["modules"][0]["configs"] = configs;
        WITH_MODULES.is_valid(&flow)
    };
    assert!(with(json!({"optional": {"file_path": "a", "skip_rows": "{{context.n}}"}})));
    assert!(with(json!({"required": {"file_path": "a", "columns": "{{context.columns}}"}, "optional": null})));
    assert!(with(json!({"required": {"file_path": "a", "columns": ["{{context.column}}", "b"]}})));
    assert!(!with(json!({"optional": {"skip_rows": 1}})));
    assert!(!with(json!({"required": {"file_path": "a", "skip_rows": "many"}})));
    assert!(!with(json!({"required": {"file_path": "a", "colums": []}})));
}

#[test]
fn definitions_of_a_module_stay_its_own() {
    let (catalog, problems) = pype_core::catalog::parse_registry(
        Path::new("modules.json"),
        &json!({"tree_mod": {"module_path": "x", "type": "solo", "config_schema": {
            "required": {"tree": {"schema": {
                "$ref": "#/$defs/Node",
                "$defs": {"Node": {
                    "type": "object",
                    "properties": {"size": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}},
                    "additionalProperties": false
                }}
            }}},
            "optional": {"broken": {"schema": {"type": "nonsense"}}}
        }}})
        .to_string(),
    );
    assert_eq!(problems, []);
    let schema = validator(&schema_with(&catalog));
    let fits = |tree: Value| {
        let mut flow = full();
        let configs = json!({"required": {"tree": tree}, "optional": {"broken": 1}});
        flow["modules"] = json!([{"id": "a", "name": "tree_mod", "configs": configs}]);
        schema.is_valid(&flow)
    };
    assert!(fits(json!({"size": 1, "next": {"size": "{{context.n}}", "next": "{{context.tree}}"}})));
    assert!(!fits(json!({"size": 1, "next": {"size": "x"}})));
    assert!(!fits(json!({"size": 1, "next": {"sise": 1}})));
}

fn fits(pattern: &str, text: &str) -> bool {
    validator(&json!({ "pattern": pattern })).is_valid(&json!(text))
}

proptest! {
    #[test]
    fn patterns_take_what_names_are(text in "[a-zA-Z0-9_.é -]{0,6}|[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,10}|[a-z][a-z0-9_-]{60,130}") {
        prop_assert_eq!(fits(NodeId::PATTERN, &text), text.parse::<NodeId>().is_ok());
        prop_assert_eq!(fits(FlowName::PATTERN, &text), text.parse::<FlowName>().is_ok());
        prop_assert_eq!(fits(Version::PATTERN, &text), text.parse::<Version>().is_ok());
    }

    #[test]
    fn the_pattern_of_dates_takes_every_date(text in "[0-9]{4}-[0-1][0-9]-[0-3][0-9]|[0-9-]{0,11}") {
        prop_assert!(fits(Date::PATTERN, &text) || text.parse::<Date>().is_err());
        let longer = text + "x";
        prop_assert!(!fits(Date::PATTERN, &longer));
    }

    #[test]
    fn the_patterns_of_edges_take_every_edge(
        data in " ?[a-c_1]{1,3} ?[.]? ?[a-c1]{0,2} ?-? ?[a-c]{0,2}[.]?[a-c]{0,2} ?",
        control in " ?[a-c_1]{1,3} ?[(]?(Last|last|[0-9]|[+]1|10|x)?[|]?(ok|error|done|start|start detach|iterate:x|iterate[*]3:x|a__b > 1|(a) and (b)|a in b|not a|foo|true|[(]a[)]|[a-c ().|]{0,6})[)]? ?[a-c]{0,3} ?",
    ) {
        prop_assert_eq!(fits_edge("data", &data), reads_edge("data", &data), "{:?}", data);
        prop_assert!(fits_edge("control", &control) || !reads_edge("control", &control), "{:?}", control);
    }
}

fn with_edge(section: &str, edge: &str) -> Value {
    let mut flow = full();
    flow["connections"] = json!({section: [edge]});
    flow
}

fn fits_edge(section: &str, edge: &str) -> bool {
    PLAIN.is_valid(&with_edge(section, edge))
}

fn reads_edge(section: &str, edge: &str) -> bool {
    !loaded(&with_edge(section, edge), catalog())
        .iter()
        .any(|one| ["bad-edge", "bad-name", "bad-valve"].contains(&one.code))
}

#[test]
fn malformed_edges_do_not_fit() {
    for edge in
        ["a b", "a (1) b", "a (0|) b", "a (x|) b", "a (1|foo) b", "(1|) b", "a (1|", "a (1.5|ok) b", "1a (1|ok) b"]
    {
        assert!(!fits_edge("control", edge) && !reads_edge("control", edge), "{edge}");
    }
    for edge in ["a", "a - b", "a.b - c", "a.b - c.d - e.f", "a.b.c - d.e", "a.in* - b.c"] {
        assert!(!fits_edge("data", edge) && !reads_edge("data", edge), "{edge}");
    }
}
