//! What templates become, and what they may not.

use std::path::Path;
use std::sync::Arc;

use pype_core::document::{Source, SpanMap, parse};
use pype_core::template::{
    Context, Globals, Iteration, References, Scope, SecretUse, check, condition, render, render_sealed, secrets,
};
use serde_json::{Value, json};

const CONTEXT: &str = r#"{"n": 3, "x": 1.5, "on": true, "name": "a b", "cols": ["a", "b"], "db": {"host": "h", "port": 1},
    "nothing": null, "z": {"b": 1, "a": 2}}"#;

/// The value under `v:` in a document, rendered with everything a run has; or the findings.
fn rendered(text: &str) -> Result<Value, String> {
    rendered_in(text, None)
}

/// The same in a loop.
fn rendered_in(text: &str, iter: Option<&Iteration>) -> Result<Value, String> {
    let source = Source::new("t.yaml", format!("v: {text}\n"));
    let tree = parse(&source).map_err(|found| found.to_string())?;
    with_scope(iter, |scope| {
        let value = render(&tree.value.to_json(), &SpanMap::of(&tree), scope, &source);
        value.map(|value| value["v"].clone()).map_err(|found| found.to_string())
    })
}

fn with_scope<T>(iter: Option<&Iteration>, then: impl FnOnce(&Scope<'_>) -> T) -> T {
    let context = context();
    let mut globals = Globals::new();
    globals.set("Load", "Row_Count", json!(7)).expect("set once");
    let env = |name: &str| (name == "HOME").then(|| "/home".to_owned());
    let secret = |name: &str| (name == "db.password").then(|| "hunter2".to_owned());
    then(&Scope { context: &context, env: &env, globals: &globals, iter, secret: &secret })
}

/// The second turn of a loop over tables, in the third of a loop over days.
fn turn() -> Iteration {
    let outer = Iteration { item: json!("2025-01-17"), index: 2, outer: None };
    let item = json!({"table": "orders", "keys": ["id"], "comment": null});
    Iteration { item, index: 1, outer: Some(Arc::new(outer)) }
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
fn a_secret_is_a_text() {
    gives(r#""{{ secret.db.password }}""#, json!("hunter2"));
    gives(r#""{{context.name}}:{{secret.db.password}}@{{ env.HOME }}""#, json!("a b:hunter2@/home"));
    gives(r#""{{ secret.db.password | length }}""#, json!(7));
    gives(r#""{{ secret.ftp.password | default('none') }}""#, json!("none"));
}

#[test]
fn a_missing_secret_is_named() {
    refuses(r#""x {{ secret.db.pasword }}""#, "t.yaml:1:10: error: the secret `db.pasword` is not there");
    refuses(r#""{{ secret.db }}""#, "t.yaml:1:8: error: the secret `db` is not there");
    refuses(r#""{{ secret['db'].password }}""#, "t.yaml:1:8: error: secrets are only asked by name");
    refuses(r#""{{ secret }}""#, "t.yaml:1:8: error: secrets are only asked by name");
}

#[test]
fn no_finding_holds_a_secret() {
    for template in [
        "{{ secret.db.password | int }}",
        "{{ secret.db.password + 1 }}",
        "{{ context[secret.db.password] }}",
        "{{ secret.db.password | nothing_of_this_name }}",
        "{{ [1] | map(secret.db.password) | list }}",
        "{{ 1 | round(secret.db.password) }}",
        "{{ secret.db.password() }}",
        "{{ secret.db.password.x }}",
        "{{ {}[secret.db.password].x }}",
        "{% include secret.db.password %}",
    ] {
        let found = rendered(&format!("\"{template}\"")).expect_err("it must be refused");
        assert!(!found.contains("hunter2"), "{template}: {found}");
    }
}

#[test]
fn a_sealed_leaf_changes_with_all_that_it_is_made_of() {
    let value =
        json!(["{{ context.n }}", "{{ context.name }}:{{ secret.db.password }}", {"k": "{{ secret.db.password }}"}]);
    let sealed = with_scope(None, |scope| {
        render_sealed(&value, &SpanMap::default(), scope, &Source::new("", ""), &|filled| {
            format!("sealed {}", filled.as_str().map_or(0, str::len)).into()
        })
    });
    assert_eq!(sealed, Ok(json!([3, "sealed 11", {"k": "sealed 7"}])));
}

#[test]
fn the_secrets_of_a_value_are_found_with_their_places() {
    let source = Source::new(
        "t.yaml",
        "a: \"{{ secret.db.user }}:{{ secret.db.password }}\"\nb: [\"{{ secret.x | default('') }}\"]\n",
    );
    let tree = parse(&source).expect("it is YAML");
    let found = secrets(&tree.value.to_json(), &SpanMap::of(&tree), &source);
    let place = |one: &SecretUse| one.span.map(|span| (span.start.line, span.start.column));
    let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), place(one), one.optional)).collect();
    let expected = [("db.password", Some((1, 29)), false), ("db.user", Some((1, 8)), false), ("x", Some((2, 9)), true)];
    assert_eq!(found, expected);
}

#[test]
fn a_turn_of_a_loop_is_named() {
    let turn = turn();
    let gives = |text: &str, expect: Value| assert_eq!(rendered_in(text, Some(&turn)), Ok(expect), "{text}");
    gives(r#""{{ iter.item.table }}_{{ iter.index }}.csv""#, json!("orders_1.csv"));
    gives(r#""{{ iter.item.keys }}""#, json!(["id"]));
    gives(r#""{{ iter.item.keys[0] }}""#, json!("id"));
    gives(r#""{{ iter.index + 1 }}""#, json!(2));
    gives(r#""{{ iter.item.comment }}""#, Value::Null);
    gives(r#""{{ iter.outer.item }}/{{ iter.outer.index }}""#, json!("2025-01-17/2"));
    gives(r#""{{ iter.item.where | default('1 = 1') }}""#, json!("1 = 1"));
}

#[test]
fn a_turn_that_is_not_there_is_an_error_at_its_place() {
    let turn = turn();
    let refuses = |text: &str, expect: &str| {
        let found = rendered_in(text, Some(&turn)).expect_err("it must be refused");
        assert_eq!(found.trim_end(), expect, "{text}");
    };
    refuses(r#""x {{ iter.item.tabel }}""#, "t.yaml:1:10: error: `iter.item` has no `tabel`");
    refuses(r#""{{ iter.outer.item.x }}""#, "t.yaml:1:8: error: `iter.outer.item` has no `x`");
    refuses(
        r#""{{ iter.outer.outer.index }}""#,
        "t.yaml:1:8: error: `iter.outer.outer.index` stands for nothing: only 2 loops are around this module",
    );
    refuses(r#""{{ iter.itme }}""#, "t.yaml:1:8: error: `iter.itme` is not a name that templates know");
    refuses(r#""{{ iter }}""#, "t.yaml:1:8: error: `iter` is not a name that templates know");
    refuses(
        r#""{{ 'a' ~ iter.item.comment }}""#,
        "t.yaml:1:14: error: `~` would make a text of `iter.item.comment`, which holds `null`",
    );
    let found = rendered(r#""{{ iter.item }}""#);
    let expect = "t.yaml:1:8: error: `iter.item` stands for nothing: no loop leads to this module\n";
    assert_eq!(found, Err(expect.to_owned()));
}

#[test]
fn names_say_how_many_loops_they_need() {
    let loops = |text: &str| References::of_text(text).map(|references| references.loops());
    assert_eq!(loops("{{ context.n }}"), Ok(0));
    assert_eq!(loops("{{ iter.item }}"), Ok(1));
    assert_eq!(loops("{{ iter.index }} {{ iter.outer.item.x }}"), Ok(2));
}

#[test]
fn a_condition_knows_the_loop_and_no_secret() {
    let turn = turn();
    let holds = |expression: &str| with_scope(Some(&turn), |scope| condition(expression, scope));
    assert_eq!(holds("iter.index == 1 and context.on"), Ok(true));
    assert_eq!(holds("iter.item.table == 'x'"), Ok(false));
    assert_eq!(holds("iter.index"), Err("it gives 1, which is neither true nor false".to_owned()));
    assert_eq!(holds("secret.db.password == 'hunter2'"), Err("the secret `db.password` is not there".to_owned()));
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
