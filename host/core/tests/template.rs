//! What templates become, and what they may not.

use std::path::Path;

use pype_core::document::{Source, SpanMap, parse};
use pype_core::template::{Context, Globals, Scope, check, render};
use serde_json::{Value, json};

const CONTEXT: &str = r#"{"n": 3, "x": 1.5, "on": true, "name": "a b", "cols": ["a", "b"], "db": {"host": "h", "port": 1},
    "nothing": null, "z": {"b": 1, "a": 2}}"#;

/// The value under `v:` in a document, rendered with everything a run has; or the findings.
fn rendered(text: &str) -> Result<Value, String> {
    let source = Source::new("t.yaml", format!("v: {text}\n"));
    let tree = parse(&source).map_err(|found| found.to_string())?;
    let context = context();
    let mut globals = Globals::new();
    globals.set("Load", "Row_Count", json!(7)).expect("set once");
    let env = |name: &str| (name == "HOME").then(|| "/home".to_owned());
    let scope = Scope { context: &context, env: &env, globals: &globals };
    let value =
        render(&tree.value.to_json(), &SpanMap::of(&tree), &scope, &source).map_err(|found| found.to_string())?;
    Ok(value["v"].clone())
}

fn context() -> Context {
    Context::from_json(&Source::new(Path::new("c.json"), CONTEXT)).expect("it is one object")
}

#[track_caller]
fn gives(text: &str, expect: Value) {
    assert_eq!(rendered(text), Ok(expect), "{text}");
}

#[track_caller]
fn refuses(text: &str, expect: &str) {
    let found = rendered(text).expect_err("it must be refused");
    assert_eq!(found.trim_end(), expect, "{text}");
}

#[test]
fn a_sole_expression_keeps_its_type() {
    gives(r#""{{ context.n }}""#, json!(3));
    gives(r#""{{context.x}}""#, json!(1.5));
    gives(r#""{{ context.on }}""#, json!(true));
    gives(r#""{{ context.cols }}""#, json!(["a", "b"]));
    gives(r#""{{ context.nothing }}""#, Value::Null);
    gives(r#""{{ context.n + 1 }}""#, json!(4));
    gives(r#""{{- context.n -}}""#, json!(3));
    gives(r#""{{ context.n > 2 and context.on }}""#, json!(true));
    gives(r#"[1, "{{ context.n }}", {k: "{{ context.name }}"}]"#, json!([1, 3, {"k": "a b"}]));
}

#[test]
fn a_mapping_keeps_its_order() {
    let value = rendered(r#""{{ context.z }}""#).expect("it is there");
    assert_eq!(value.to_string(), r#"{"b":1,"a":2}"#);
}

#[test]
fn anything_else_becomes_text() {
    gives(r#""{{ context.n }}/{{ context.db.host }}""#, json!("3/h"));
    gives(r#"" {{ context.n }}""#, json!(" 3"));
    gives(r#""age > {{ context.n }}""#, json!("age > 3"));
    gives(r#""{% if context.on %}yes{% else %}no{% endif %}""#, json!("yes"));
    gives(r#""{{ context.cols | join(', ') }}""#, json!("a, b"));
    gives("|\n  {{ context.n }}\n  b\n", json!("3\nb\n"));
    gives(r#""<{{ context.name }}&""#, json!("<a b&"));
}

#[test]
fn what_is_no_template_stays() {
    gives("age > 18", json!("age > 18"));
    gives(r"'\d{2}#{3}'", json!(r"\d{2}#{3}"));
    gives("3", json!(3));
    gives(r#""{{ '{{' }} x""#, json!("{{ x"));
    gives(r#"{"{{ context.n }}": 1}"#, json!({"{{ context.n }}": 1}));
}

#[test]
fn globals_answer_however_they_are_cased() {
    gives(r#""{{ load__row_count }}""#, json!(7));
    gives(r#""{{ LOAD__ROW_COUNT * 2 }} rows""#, json!("14 rows"));
    gives(r#""{{ other__rows | default(0) }}""#, json!(0));
    refuses(r#""{{ load__rows }}""#, "t.yaml:1:8: error: `load__rows` has no value");
}

#[test]
fn the_environment_is_asked_by_name() {
    gives(r#""{{ env.HOME }}/x""#, json!("/home/x"));
    gives(r#""{{ env.PORT | default('80') }}""#, json!("80"));
    refuses(r#""{{ env.PORT }}""#, "t.yaml:1:8: error: `env.PORT` has no value");
}

#[test]
fn a_missing_name_is_an_error_at_its_place() {
    refuses(r#""{{ context.m }}""#, "t.yaml:1:8: error: the context has no `m`");
    refuses(r#""x {{ context.db.hots }}""#, "t.yaml:1:10: error: the context has no `db.hots`");
    refuses("|\n  a\n  {{ context.m }}\n", "t.yaml:3:6: error: the context has no `m`");
    refuses(r#""{{ context.m.k }}""#, "t.yaml:1:8: error: the context has no `m.k`");
    gives(r#""{{ context.m | default(5) }}""#, json!(5));
    gives(r#""{{ 'there' if context.m is defined else 'not' }}""#, json!("not"));
}

#[test]
fn a_missing_name_inside_a_value_is_an_error_too() {
    refuses(r#""{{ [context.m, 'b'] }}""#, "t.yaml:1:9: error: the context has no `m`");
    refuses(r#""{{ {'k': [context.m]} }}""#, "t.yaml:1:15: error: the context has no `m`");
    refuses(r#""x {{ [context.m] }}""#, "t.yaml:1:11: error: the context has no `m`");
    refuses(r#""{{ [load__rows, 1] }}""#, "t.yaml:1:9: error: `load__rows` has no value");
    refuses(
        r#""{{ [context['m']] }}""#,
        "t.yaml:1:4: error: the template `{{ [context['m']] }}` uses a name that has no value",
    );
    gives(r#""{{ [context.m | default('a'), 'b'] }}""#, json!(["a", "b"]));
}

#[test]
fn the_environment_is_asked_by_nothing_but_a_name() {
    refuses(r#""{{ env['HOME'] }}""#, "t.yaml:1:8: error: the environment is only asked by name");
    refuses(r#""{{ env }}""#, "t.yaml:1:8: error: the environment is only asked by name");
}

#[test]
fn null_never_becomes_a_text() {
    let refuses_null = |template: &str| {
        let reason = "cannot be filled in: `null` has no place in a text";
        refuses(&format!("\"{template}\""), &format!("t.yaml:1:4: error: the template `{template}` {reason}"));
    };
    refuses_null("x {{ context.nothing }}");
    refuses_null("x {{ [context.nothing] }}");
    refuses_null("x {{ {'k': none} }}");
    refuses_null("{{ [1, none] | join(',') }}");
    refuses_null("{{ [{'n': none}] | join(',', attribute='n') }}");
    refuses_null("{{ context.nothing | string }}");
    refuses_null("{{ context.nothing | upper }}");
    refuses_null("{{ '%s' | format(none) }}");
    refuses(
        r#""{{ 'a' ~ context.nothing }}""#,
        "t.yaml:1:14: error: `~` would make a text of `context.nothing`, which holds `null`",
    );
    gives(r#""~/x{{ 'y' if context.nothing is none }}""#, json!("~/xy"));
    gives(r#""{{ 'a' ~ context.n }}""#, json!("a3"));
    gives(r#""{{ [{'n': 1, 'm': none}] | join(',', attribute='n') }}""#, json!("1"));
    gives(r#""{{ context.name | upper }}""#, json!("A B"));
    gives(r#""{{ [context.nothing] }}""#, json!([null]));
}

#[test]
fn a_number_is_finite() {
    let reason = "cannot be filled in: a number in it is infinite, or is none at all";
    refuses(r#""{{ 1e308 * 10 }}""#, &format!("t.yaml:1:4: error: the template `{{{{ 1e308 * 10 }}}}` {reason}"));
    refuses(
        r#""{{ [1e308 * 10] }} x""#,
        &format!("t.yaml:1:4: error: the template `{{{{ [1e308 * 10] }}}} x` {reason}"),
    );
}

#[test]
fn no_template_runs_for_ever() {
    let endless = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
    refuses(
        &format!("\"{endless}\""),
        &format!("t.yaml:1:4: error: the template `{endless}` cannot be filled in: it takes more than 100000 steps"),
    );
    for long in ["{% for i in range(9000) %}{{ 'x' * 200 }}{% endfor %}", "{{ 'x' * 1800000 }}"] {
        let reason = "cannot be filled in: its text is longer than 1048576 bytes";
        refuses(&format!("\"{long}\""), &format!("t.yaml:1:4: error: the template `{long}` {reason}"));
    }
    let value = rendered(r#""{{ 'x' * 1048576 }}""#).expect("it is just short enough");
    assert_eq!(value.as_str().map(str::len), Some(1_048_576));
}

#[test]
fn secrets_are_not_filled_in_yet() {
    refuses(
        r#""{{ secret.db.password }}""#,
        "t.yaml:1:8: error: `secret.db.password`: secrets are not supported by this version of pype",
    );
}

#[test]
fn validation_fills_in_the_context_and_leaves_the_rest() {
    let text = r#"
a: "{{ context.n }}"
b: "{{ env.HOME }}/{{ context.name }}"
c: ["{{ load__row_count }}", "{{ context.on }}"]
"#;
    let source = Source::new("t.yaml", text);
    let tree = parse(&source).expect("it is YAML");
    let (checked, found) = check(&tree.value.to_json(), &SpanMap::of(&tree), &context(), &source);
    assert!(found.is_empty(), "{found}");
    let expected = json!({"a": 3, "b": "{{ env.HOME }}/{{ context.name }}", "c": ["{{ load__row_count }}", true]});
    assert_eq!(checked.value, expected);
    assert_eq!(checked.unresolved.into_iter().collect::<Vec<_>>(), ["/b", "/c/0"]);
    assert!(checked.references["/c/0"].globals.contains("load__row_count"));
}
