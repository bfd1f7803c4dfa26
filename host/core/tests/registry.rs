//! Registry files: whole ones, broken ones, and those with one bad entry.

mod common;

use std::path::Path;

use common::catalog;
use pype_core::catalog::{ModuleKind, parse_registry, registry_to_json};

#[track_caller]
fn check(text: &str, names: &[&str], problems: &[&str]) {
    let (catalog, found) = parse_registry(Path::new("modules.json"), text);
    assert_eq!(catalog.names().collect::<Vec<_>>(), names);
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), problems);
}

#[test]
fn a_bad_entry_is_reported_and_the_rest_load() {
    check(
        r#"{
  "_metadata": {"made": "by hand"},
  "good_source": {"module_path": "x.so", "type": "source"},
  "no_path": {
    "type": "mod"
  },
  "odd_kind": {"module_path": "x.so", "type": "filter"},
  "bad-name": {"module_path": "x.so", "type": "mod"},
  "bad_digest": {"module_path": "x.so", "type": "mod", "sha256": "abc"},
  "not_an_entry": 3
}"#,
        &["good_source"],
        &[
            "modules.json:4:14: error: the entry `no_path` is invalid: missing field `module_path`",
            "modules.json:7:54: error: the entry `odd_kind` is invalid: unknown variant `filter`, expected one of \
             `source`, `mod`, `sink`, `solo`, `execute`, `dispatch`",
            "modules.json:8:15: error: `bad-name` is not a module name: a letter, then letters, digits and `_`, 64 at most",
            "modules.json:9:17: error: the entry `bad_digest` is invalid: its `sha256` is not 64 hexadecimal digits",
            "modules.json:10:19: error: the entry `not_an_entry` is invalid: invalid type: integer `3`, expected struct \
             ModuleEntry",
        ],
    );
}

#[test]
fn what_is_no_registry_says_where() {
    check("{", &[], &["modules.json:1:1: error: the registry is malformed: EOF while parsing an object"]);
    check(
        "{\n  \"a\": {\"module_path\": \"x.so\", }\n}",
        &[],
        &["modules.json:2:32: error: the registry is malformed: key must be a string"],
    );
    check(
        "[]",
        &[],
        &[
            "modules.json:1:1: error: the registry is malformed: invalid type: sequence, expected an object with an entry \
           for each module",
        ],
    );
    check("{}", &[], &[]);
    check("", &[], &[]);
    check(" \n", &[], &[]);
}

#[test]
fn of_two_namesakes_the_later_counts() {
    let good = r#"{"module_path": "x.so", "type": "solo"}"#;
    check(
        &format!("{{\n\"a\": {good},\n\"a\": {good}\n}}"),
        &["a"],
        &["modules.json:3:6: error: `a` stands here a second time; this one counts"],
    );
    check(
        &format!("{{\n\"a\": {good},\n\"b\": {good},\n\"a\": 3\n}}"),
        &["b"],
        &["modules.json:4:6: error: the entry `a` is invalid: invalid type: integer `3`, expected struct ModuleEntry"],
    );
}

#[test]
fn writing_and_reading_loses_nothing() {
    let catalog = catalog();
    let text = registry_to_json(catalog);
    let (back, problems) = parse_registry(Path::new("modules.json"), &text);
    assert_eq!(problems, []);
    assert_eq!(&back, catalog);
    assert_eq!(registry_to_json(&back), text);
}

#[test]
fn keys_of_a_later_pype_are_kept() {
    let text = r#"{"a": {"module_path": "x.so", "type": "solo", "stars": 5}}"#;
    let (catalog, _) = parse_registry(Path::new("modules.json"), text);
    assert!(registry_to_json(&catalog).contains("\"stars\": 5"));
}

#[test]
fn modules_are_found_and_suggested() {
    let catalog = catalog();
    assert_eq!(catalog.get("csv_source").map(|entry| entry.kind), Some(ModuleKind::Source));
    assert_eq!(catalog.suggest("csv_sorce"), Some("csv_source"));
    assert_eq!(catalog.suggest("kafka"), None);
    let union = catalog.get("union_mod").expect("it is in the catalog");
    assert_eq!(union.input_port("in_left"), Some("in*"));
    assert_eq!(union.input_port("input"), None);
    let source = catalog.get("csv_source").expect("it is in the catalog");
    assert_eq!(source.global("ROW_COUNT"), Some("row_count"));
}
