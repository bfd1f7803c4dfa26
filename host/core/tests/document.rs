//! What YAML texts become.

use std::fmt::Write as _;

use pype_core::document::{Source, parse};
use serde_json::{Value, json};

fn parsed(text: &str) -> Result<Value, String> {
    let tree = parse(&Source::new("d.yaml", text)).map_err(|found| {
        let all = found.iter().map(|one| format!("{one} [{}]", one.code));
        all.collect::<Vec<_>>().join("\n")
    })?;
    Ok(tree.value.to_json())
}

#[track_caller]
fn gives(text: &str, expect: Value) {
    assert_eq!(parsed(text), Ok(expect), "{text}");
}

#[track_caller]
fn refuses(text: &str, expect: &str) {
    assert_eq!(parsed(text), Err(expect.to_owned()), "{text}");
}

#[test]
fn numbers_keep_their_value() {
    gives("[0, -0, 7, -12, 0.5, 1e3, 9223372036854775807]", json!([0, 0, 7, -12, 0.5, 1000.0, i64::MAX]));
    gives("[007, 01234, -007, +01, '7']", json!(["007", "01234", "-007", "+01", "7"]));
    gives("a: &zip 01234\nb: *zip\n", json!({"a": "01234", "b": "01234"}));
    refuses(
        "a: 123456789012345678901\nb: 18446744073709551615\nc: -9223372036854775809\n",
        "d.yaml:1:4: error: the number 123456789012345678901 is too large for 64 bits [number-too-large]\n\
         d.yaml:2:4: error: the number 18446744073709551615 is too large for 64 bits [number-too-large]\n\
         d.yaml:3:4: error: the number -9223372036854775809 is too large for 64 bits [number-too-large]",
    );
    refuses(
        "[.nan, -.inf, 1e999]",
        "d.yaml:1:2: error: `.nan` is no finite number [number-not-finite]\n\
         d.yaml:1:8: error: `-.inf` is no finite number [number-not-finite]\n\
         d.yaml:1:15: error: `1e999` is no finite number [number-not-finite]",
    );
}

#[test]
fn keys_are_as_they_are_written() {
    gives("a: &m {1: x, true: y, 1.50: z}\nb: *m\n", {
        let entries = json!({"1": "x", "true": "y", "1.50": "z"});
        json!({"a": entries, "b": entries})
    });
    refuses("{1: a, \"1\": b}", "d.yaml:1:8: error: the key `1` is given twice [duplicate-key]");
}

#[test]
fn a_merge_key_adds_what_is_not_given() {
    gives(
        "base: &base {a: 1, 2: x}\nmore:\n  <<: *base\n  a: 3\n",
        json!({"base": {"a": 1, "2": "x"}, "more": {"a": 3, "2": "x"}}),
    );
    gives("a: {<<: [{x: 1}, {x: 2, y: 2}]}", json!({"a": {"x": 1, "y": 2}}));
}

#[test]
fn an_unknown_tag_is_not_ignored() {
    refuses("password: !vault db/pw\n", "d.yaml:1:18: error: the tag `!vault` is not known [unknown-tag]");
    refuses("a: !env {b: c}\n", "d.yaml:1:9: error: the tag `!env` is not known [unknown-tag]");
    gives("[!!str 1, !!int \"2\"]", json!(["1", 2]));
}

#[test]
fn a_flow_of_ten_thousand_modules_is_a_document() {
    let mut text = String::from("defaults: &defaults {required: {path: x}}\nmodules:\n");
    for number in 0..10_000 {
        writeln!(text, "  - {{id: m{number}, name: n, misc: {{a: 1, b: 2}}, configs: *defaults}}")
            .expect("it is a string");
    }
    let tree = parsed(&text).expect("it is large, and honest");
    assert_eq!(tree["modules"].as_array().map(Vec::len), Some(10_000));
}

#[test]
fn limits_say_what_they_limit() {
    let found = parsed(&format!("a: &a x\nb: [{}]\n", "*a,".repeat(50_001)));
    let expect = "d.yaml:2:150005: error: the document has more than 50000 `*` aliases [too-large]";
    assert_eq!(found, Err(expect.to_owned()));
}
