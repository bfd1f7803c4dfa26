//! Rules over labels: what they mean, how they are written, what is refused.

use std::ops::Bound;

use proptest::prelude::*;
use pype_core::diagnostic::{Diagnostics, Position, Span};
use pype_core::document::{Node, Source, Spanned, parse};
use pype_core::label::{Interval, IntervalError, Literal, Ordered, Rule, label, select};
use serde_json::{Map, Value, json};

fn read(yaml: &str) -> Result<Rule, Diagnostics> {
    let source = Source::new("rule.yaml", yaml);
    Rule::read(&source, &parse(&source)?)
}

fn rule(yaml: &str) -> Rule {
    read(yaml).unwrap_or_else(|found| panic!("{yaml}\n{found}"))
}

fn text(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn labels(of: Value) -> Map<String, Value> {
    let Value::Object(labels) = of else { panic!("labels are a mapping") };
    labels
}

/// A match of the label `x`, in YAML, met by labels or not.
#[track_caller]
fn check(operator: &str, of: Value, expect: bool) {
    let given = rule(&format!("match: {{key: x, {operator}}}"));
    assert_eq!(given.matches(&labels(of.clone())), expect, "{operator} over {of}");
}

/// The findings of a rule in YAML, each with its help.
#[track_caller]
fn refuses(yaml: &str, expect: &[&str]) {
    let found = read(yaml).expect_err("it must be refused");
    let found: Vec<String> = found
        .iter()
        .map(|one| match &one.help {
            Some(help) => format!("{one} ({help})"),
            None => one.to_string(),
        })
        .collect();
    assert_eq!(found, expect, "{yaml}");
}

#[track_caller]
fn refuses_text(given: &str, expect: &str) {
    let error = given.parse::<Rule>().expect_err("it must be refused");
    let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    assert_eq!(format!("{error}{help}"), expect, "{given}");
}

/// The three ways to write a rule give the same.
#[track_caller]
fn same(built: Rule, written: &str, yaml: &str) {
    assert_eq!(built, text(written));
    assert_eq!(built, rule(yaml));
    assert_eq!(built.to_string(), written);
}

// The table of disco-tools.

#[test]
fn a_missing_key_fails_the_positive_operators() {
    for operator in [
        "op: eq, value: 1",
        "op: gt, value: 1",
        "op: gte, value: 1",
        "op: lt, value: 1",
        "op: lte, value: 1",
        "op: in, values: [1, null]",
        "op: between, range: {low: 1}",
        "op: exists",
    ] {
        check(operator, json!({"y": 1}), false);
    }
}

#[test]
fn a_missing_key_passes_the_negative_operators() {
    for operator in ["op: ne, value: 1", "op: notin, values: [1, null]", "op: notbetween, range: {low: 1}"] {
        check(operator, json!({"y": 1}), true);
    }
}

#[test]
fn null_exists_and_equals_null_and_what_is_missing_does_not() {
    check("op: exists", json!({"x": null}), true);
    check("op: eq, value: null", json!({"x": null}), true);
    check("op: eq, value: null", json!({}), false);
    check("op: ne, value: null", json!({"x": null}), false);
    check("op: ne, value: null", json!({}), true);
    check("op: in, values: [null]", json!({"x": null}), true);
}

#[test]
fn all_of_nothing_is_met_and_any_of_nothing_is_not() {
    assert!(rule("all: []").matches(&Map::new()));
    assert!(!rule("any: []").matches(&Map::new()));
    same(Rule::all([]), "true", "all: []");
    same(Rule::any([]), "false", "any: []");
}

#[test]
fn a_boolean_never_equals_a_number() {
    check("op: eq, value: 1", json!({"x": true}), false);
    check("op: eq, value: true", json!({"x": 1}), false);
    check("op: eq, value: 0", json!({"x": false}), false);
    check("op: in, values: [1, 0]", json!({"x": true}), false);
    check("op: between, range: {low: 0, high: 1}", json!({"x": true}), false);
    check("op: eq, value: true", json!({"x": true}), true);
}

#[test]
fn numbers_equal_by_value() {
    check("op: eq, value: 1", json!({"x": 1.0}), true);
    check("op: eq, value: 1.0", json!({"x": 1}), true);
    check("op: in, values: [1]", json!({"x": 1.0}), true);
    check("op: eq, value: 1.5", json!({"x": 1}), false);
    check("op: eq, value: 1", json!({"x": "1"}), false);
    check("op: eq, value: 0.0", json!({"x": -0.0}), true);
}

#[test]
fn large_numbers_are_not_rounded_to_compare() {
    check("op: eq, value: 9007199254740993", json!({"x": 9_007_199_254_740_992_f64}), false);
    check("op: gt, value: 9007199254740992.0", json!({"x": 9_007_199_254_740_993_i64}), true);
    check("op: gt, value: 9223372036854775807", json!({"x": u64::MAX}), true);
    check("op: lt, value: 1.0e+300", json!({"x": u64::MAX}), true);
    check("op: gt, value: -1.0e+300", json!({"x": i64::MIN}), true);
    check("op: lt, value: -0.5", json!({"x": -1}), true);
    check("op: lt, value: -0.5", json!({"x": 0}), false);
}

#[test]
fn ranges_are_inclusive_unless_told_otherwise_and_null_is_open() {
    let met = |range: &str| -> Vec<i64> {
        let given = rule(&format!("match: {{key: x, op: between, range: {range}}}"));
        (0..=6).filter(|x| given.matches(&labels(json!({ "x": x })))).collect()
    };
    assert_eq!(met("{low: 1, high: 5}"), [1, 2, 3, 4, 5]);
    assert_eq!(met("{low: 1, high: 5, inclusive: true}"), [1, 2, 3, 4, 5]);
    assert_eq!(met("{low: 1, high: 5, inclusive: false}"), [2, 3, 4]);
    assert_eq!(met("{low: 1, high: 5, inclusive: {low: false, high: true}}"), [2, 3, 4, 5]);
    assert_eq!(met("{low: 1, high: 5, inclusive: {high: false}}"), [1, 2, 3, 4]);
    assert_eq!(met("{low: 5, high: null}"), [5, 6]);
    assert_eq!(met("{low: null, high: 1, inclusive: false}"), [0]);
    assert_eq!(met("{high: 1}"), [0, 1]);
    check("op: notbetween, range: {low: 1, high: 5}", json!({"x": 6}), true);
    check("op: notbetween, range: {low: 1, high: 5}", json!({"x": 5}), false);
    check("op: between, range: {low: a, high: c}", json!({"x": "bz"}), true);
}

#[test]
fn operators_are_read_however_they_are_cased() {
    check("op: EQ, value: 1", json!({"x": 1}), true);
    check("op: NotIn, values: [1]", json!({"x": 2}), true);
    assert_eq!(text("x IN (1) AND NOT y Exists"), text("x in (1) and not y exists"));
}

// The faults of disco-tools.

#[test]
fn a_type_mismatch_is_not_met_and_never_a_crash() {
    let others = [json!("a"), json!(null), json!(true), json!([1, 2]), json!({"low": 1})];
    for label in others {
        for operator in ["gt", "gte", "lt", "lte"] {
            check(&format!("op: {operator}, value: 1"), json!({"x": label}), false);
        }
        check("op: eq, value: 1", json!({"x": label}), false);
        check("op: in, values: [1, 2.5]", json!({"x": label}), false);
        check("op: between, range: {low: 1, high: 5}", json!({"x": label}), false);
        check("op: between, range: {low: 1}", json!({"x": label}), false);
        check("op: ne, value: 1", json!({"x": label}), true);
        check("op: notin, values: [1, 2.5]", json!({"x": label}), true);
        check("op: notbetween, range: {low: 1, high: 5}", json!({"x": label}), true);
    }
    check("op: gt, value: a", json!({"x": 1}), false);
    check("op: lt, value: a", json!({"x": 1}), false);
}

#[test]
fn a_mismatch_in_mid_stream_does_not_end_the_selection() {
    let items: Vec<_> = [json!(2), json!("a"), json!(null), json!(3)].map(|x| labels(json!({ "x": x }))).into();
    let kept: Vec<_> = select(&items, &text("x > 1"), |item| item).map(|item| item["x"].clone()).collect();
    assert_eq!(kept, [json!(2), json!(3)]);
}

#[test]
fn nan_never_passes_between() {
    let open = |low: f64| Interval::new(Bound::Included(Ordered::Float(low)), Bound::Unbounded);
    assert_eq!(open(f64::NAN), Err(IntervalError::Empty));
    for given in [label("x").between(f64::NAN, 5.0), label("x").between(0.0, f64::NAN), label("x").gt(f64::NAN)] {
        assert!(!given.matches(&labels(json!({"x": 3}))));
    }
    // serde_json has no NaN: a label that was one is null.
    let every_number = Interval::new(Bound::Included(f64::MIN.into()), Bound::Unbounded).expect("it has a bound");
    assert!(!label("x").within(every_number).matches(&labels(json!({"x": f64::NAN}))));
    // YAML's `.nan` is refused as the document is parsed, and here if it comes another way.
    let found = read("match: {key: x, op: between, range: {low: .nan}}").expect_err("it must be refused");
    assert!(found.to_string().starts_with("rule.yaml:1:43: error: "), "{found}");
    let range = mapping("low", Node::Float(f64::NAN));
    let Node::Map(mut entries) = mapping("key", Node::Str("x".into())).value else { panic!("it is a mapping") };
    for (key, value) in [("op", Node::Str("between".into())), ("range", range.value)] {
        entries.push((placed(key.to_owned()), placed(value)));
    }
    let found = Rule::read(&Source::new("rule.yaml", ""), &mapping("match", Node::Map(entries)));
    let found = found.expect_err("it must be refused").to_string();
    assert_eq!(found, "rule.yaml:1:1: error: `match.range.low`: `NaN` is not finite, and no label is\n");
    refuses_text(
        "x between .nan and 5",
        "column 11: `.nan` is not finite, and no label is (write a number in decimal digits, quote a text)",
    );
}

fn mapping(key: &str, value: Node) -> Spanned<Node> {
    placed(Node::Map(vec![(placed(key.to_owned()), placed(value))]))
}

fn placed<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::at(Position::START))
}

#[test]
fn all_and_any_together_are_refused() {
    refuses(
        "all: [{match: {key: a, op: exist}}]\nany: [{match: {key: b, op: exists}}]\n",
        &[
            "rule.yaml:1:28: error: `all[0].match.op`: `exist` is not an operator (did you mean `exists`?)",
            "rule.yaml:2:1: error: a rule cannot have `all` and `any` side by side (put both into the list of an `all` or \
             `any`)",
        ],
    );
}

#[test]
fn a_missing_operand_is_an_error_at_load() {
    refuses("match: {key: x, op: eq}", &["rule.yaml:1:8: error: `match`: `eq` needs the key `value`"]);
    refuses("match: {key: x, op: in}", &["rule.yaml:1:8: error: `match`: `in` needs the key `values`"]);
    refuses("match: {key: x, op: between}", &["rule.yaml:1:8: error: `match`: `between` needs the key `range`"]);
    refuses(
        "match: {}",
        &[
            "rule.yaml:1:8: error: `match`: the key `key` is missing",
            "rule.yaml:1:8: error: `match`: the key `op` is missing",
        ],
    );
}

#[test]
fn between_without_a_bound_is_an_error() {
    let expect = "error: `match.range`: a range needs a bound, and both are open";
    refuses("match: {key: x, op: between, range: {}}", &[&format!("rule.yaml:1:37: {expect}")]);
    refuses("match: {key: x, op: between, range: {low: null, high: ~}}", &[&format!("rule.yaml:1:37: {expect}")]);
    refuses_text("x between null and null", "column 11: a range needs a bound, and both are open");
    assert_eq!(Interval::new(Bound::Unbounded, Bound::Unbounded), Err(IntervalError::NoBound));
}

// What is wrong with a tree.

#[test]
fn every_mistake_is_reported_at_once_with_its_path() {
    let yaml = "\
all:
  - match: {key: tier, op: eqq, value: [gold]}
  - match: {key: 5, op: in, value: gold}
  - not:
      any:
        - match: {key: age, op: between, range: {low: 5, hihg: 1}}
        - match: {key: age, op: gt, value: true}
  - matches: {}
  - key: beta
  - tier in gold
  - 3
  - {}
  - match: {key: x, op: lt, valeu: 3, value: 2}
";
    let branches = "a rule is one of `all: […]`, `any: […]`, `not: {…}`, `match: {key, op, …}`";
    refuses(
        yaml,
        &[
            "rule.yaml:2:28: error: `all[0].match.op`: `eqq` is not an operator (did you mean `eq`?)",
            "rule.yaml:2:40: error: `all[0].match.value`: the value must be plain, not a list (`in` and `notin` compare \
             with the list under `values`)",
            "rule.yaml:3:18: error: `all[1].match.key`: the key of a label must be text, not a whole number",
            "rule.yaml:3:29: error: `all[1].match`: `in` takes `values`, not `value`",
            "rule.yaml:6:58: error: `all[2].not.any[0].match.range`: a range has no key `hihg` (did you mean `high`?)",
            "rule.yaml:7:44: error: `all[2].not.any[1].match.value`: a number or text is needed here, not a \
             boolean",
            "rule.yaml:8:5: error: `all[3]`: a rule has no key `matches` (did you mean `match`?)",
            "rule.yaml:9:5: error: `all[4]`: a rule has no key `key` (`key` belongs into a `match: {key, op, …}`)",
            "rule.yaml:10:13: error: `all[5]`: `gold` stands where a list in parentheses is expected (write `in (…, …)`)",
            &format!(
                "rule.yaml:11:5: error: `all[6]`: a rule must be a mapping or a text, not a whole number ({branches})"
            ),
            &format!("rule.yaml:12:5: error: `all[7]`: a rule is missing here ({branches})"),
            "rule.yaml:13:29: error: `all[8].match`: a match has no key `valeu` (did you mean `value`?)",
        ],
    );
}

#[test]
fn ranges_that_hold_nothing_or_mix_kinds_are_refused() {
    let range = |range: &str, expect: &str| {
        refuses(&format!("match: {{key: x, op: between, range: {range}}}"), &[&format!("rule.yaml:1:{expect}")]);
    };
    range("{low: 5, high: 1}", "37: error: `match.range`: nothing lies between these bounds");
    range("{low: 5, high: 5, inclusive: false}", "37: error: `match.range`: nothing lies between these bounds");
    range("{low: 5, high: b}", "37: error: `match.range`: one bound is a number and the other a text");
    range("{low: 5, inclusive: 3}", "57: error: `match.range.inclusive`: it must be true or false, not a whole number");
    range(
        "{low: 5, inclusive: {lo: false}}",
        "58: error: `match.range.inclusive`: `inclusive` has no key `lo` (known keys: `low`, `high`)",
    );
    range(
        "[1, 5]",
        "37: error: `match.range`: a range must be a mapping, not a list (write `range: {low: 1, high: 5}`)",
    );
    range("{low: null, high: true}", "55: error: `match.range.high`: a number or text is needed here, not a boolean");
}

#[test]
fn a_sign_is_answered_with_the_operator_it_stands_for() {
    refuses(
        "match: {key: x, op: \">=\", value: 1}",
        &["rule.yaml:1:21: error: `match.op`: `>=` is not an operator (write `gte`)"],
    );
    refuses(
        "match: {key: x, op: exists, value: 1}",
        &["rule.yaml:1:29: error: `match`: `exists` takes nothing, not `value`"],
    );
    refuses("all: {a: 1}", &["rule.yaml:1:6: error: `all`: the rules must be a list, not a mapping"]);
}

#[test]
fn serde_refuses_what_the_document_reader_refuses() {
    let refuses = |given: Value, expect: &str| {
        let error = serde_json::from_value::<Rule>(given).expect_err("it must be refused");
        assert_eq!(error.to_string(), expect);
    };
    refuses(
        json!({"all": [{"match": {"key": "x", "op": "eqq", "value": 1}}, {"match": {"key": "x", "op": "gt"}}]}),
        "`all[0].match.op`: `eqq` is not an operator (did you mean `eq`?); `all[1].match`: `gt` needs the key `value`",
    );
    refuses(
        json!({"match": {"key": "x", "op": "eq", "value": u64::MAX}}),
        "`18446744073709551615` is larger than 64 signed bits hold",
    );
    let twice = serde_json::from_str::<Rule>(r#"{"all": [], "all": []}"#).expect_err("it must be refused");
    assert!(twice.to_string().starts_with("the key `all` is given twice"));
}

#[test]
fn a_rule_that_cannot_be_written_says_so() {
    let error = serde_json::to_string(&label("x").lt(f64::INFINITY)).expect_err("JSON has no infinity");
    assert_eq!(error.to_string(), "a rule with `inf` cannot be written");
    assert!(label("x").lt(f64::INFINITY).to_string().parse::<Rule>().is_err());
}

#[test]
fn nesting_is_limited() {
    let nested = |levels: usize| format!("{}a exists{}", "(".repeat(levels), ")".repeat(levels));
    assert_eq!(text(&nested(48)), label("a").exists());
    refuses_text(&nested(49), "column 50: the rule is nested more than 48 levels deep");
    refuses_text(&"(".repeat(100_000), "column 50: the rule is nested more than 48 levels deep");
    let alternating = format!("{}a = 1{}", "a = 1 or b = 2 and (".repeat(40), ")".repeat(40));
    refuses_text(&alternating, "column 1: the rule is nested more than 48 levels deep");
    let deep = (0..60).fold(json!({"match": {"key": "a", "op": "exists"}}), |rule, level| match level % 2 {
        0 => json!({"all": [rule, {"all": [rule_of_b()]}]}),
        _ => json!({"any": [rule, rule_of_b()]}),
    });
    let error = serde_json::from_value::<Rule>(deep).expect_err("it is too deep");
    assert_eq!(error.to_string(), "the rule is nested more than 48 levels deep");
}

fn rule_of_b() -> Value {
    json!({"match": {"key": "b", "op": "exists"}})
}

// The text form.

#[test]
fn the_text_form_is_the_tree() {
    same(
        label("tier").is_in(["gold", "silver"])
            & !label("beta").is_set()
            & label("size").gte(3)
            & label("age").between(1, 5),
        "tier in (gold, silver) and not beta and size >= 3 and age between 1 and 5",
        "all:
  - match: {key: tier, op: in, values: [gold, silver]}
  - not: {all: [{match: {key: beta, op: exists}}, {match: {key: beta, op: notin, values: [null, false]}}]}
  - match: {key: size, op: gte, value: 3}
  - match: {key: age, op: between, range: {low: 1, high: 5}}
",
    );
    same(
        label("tier").eq("gold") & !label("beta").exists()
            | label("owner").ne("a b") & (label("x").lt(1.0) | label("y").lte(-2)),
        "tier = gold and not beta exists or owner != \"a b\" and (x < 1.0 or y <= -2)",
        "any:
  - all: [{match: {key: tier, op: eq, value: gold}}, {not: {match: {key: beta, op: exists}}}]
  - all:
      - match: {key: owner, op: ne, value: a b}
      - any: [{match: {key: x, op: lt, value: 1.0}}, {match: {key: y, op: lte, value: -2}}]
",
    );
}

#[test]
fn a_text_may_stand_in_the_tree() {
    assert_eq!(rule("tier = gold"), label("tier").eq("gold"));
    assert_eq!(rule("any: [tier = gold, {not: beta}]"), label("tier").eq("gold") | !label("beta").is_set());
}

#[test]
fn a_key_alone_is_met_unless_false_null_or_missing() {
    let beta = text("beta");
    for (value, expect) in [
        (json!({"beta": true}), true),
        (json!({"beta": "yes"}), true),
        (json!({"beta": 0}), true),
        (json!({"beta": ""}), true),
        (json!({"beta": false}), false),
        (json!({"beta": null}), false),
        (json!({}), false),
    ] {
        assert_eq!(beta.matches(&labels(value.clone())), expect, "{value}");
        assert_eq!(text("not beta").matches(&labels(value.clone())), !expect, "{value}");
    }
    assert_eq!(text("a and not beta or c").to_string(), "a and not beta or c");
    assert_eq!(text("not (a and b)").to_string(), "not (a and b)");
}

#[test]
fn ranges_in_text() {
    let range = |range: &str| format!("match: {{key: x, op: between, range: {range}}}");
    for (written, yaml) in [
        ("x between 1 and 5", "{low: 1, high: 5}"),
        ("x between [1, 5)", "{low: 1, high: 5, inclusive: {high: false}}"),
        ("x between (1, 5]", "{low: 1, high: 5, inclusive: {low: false}}"),
        ("x between (1, 5)", "{low: 1, high: 5, inclusive: false}"),
        ("x between 1 and null", "{low: 1}"),
        ("x between [null, 5.5)", "{high: 5.5, inclusive: false}"),
    ] {
        assert_eq!(text(written), rule(&range(yaml)), "{written}");
        assert_eq!(text(written).to_string(), written);
    }
    assert_eq!(text("x not between 1 and 5 and y"), text("(x notbetween [1, 5]) and (y)"));
}

#[test]
fn other_spellings_of_the_same() {
    for (one, other) in [
        ("x == 1", "x eq 1"),
        ("x != 1", "x ne 1"),
        ("x>=1", "x gte 1"),
        ("x<-1", "x lt -1"),
        ("x not in [1, 2]", "x NOTIN (1,2)"),
        ("x not exists", "not x exists"),
        ("not not x = 1", "x = 1"),
        ("x = 'it''s'", r#"x = "it's""#),
        ("x\n  = 1", "x = 1"),
    ] {
        assert_eq!(text(one), text(other), "{one}");
    }
    assert!(text("x in ()").to_string() == "x in ()");
}

#[test]
fn words_mean_what_they_mean_in_yaml() {
    for word in [
        "gold",
        "true",
        "True",
        "NULL",
        "null",
        "False",
        "5",
        "+5",
        "-5",
        "5.",
        ".5",
        "-.5e-3",
        "1e5",
        "1.e3",
        "1.2.0",
        "2024-01-01",
        "yes",
        "nan",
        "inf",
        "a/b",
        "1:30",
        "a.b@c",
        "0_8x",
        "9223372036854775807",
        "-9223372036854775808",
    ] {
        assert_eq!(text(&format!("x = {word}")), rule(&format!("match: {{key: x, op: eq, value: {word}}}")), "{word}");
    }
    refuses_text(
        "x = 0x10",
        "column 5: `0x10` may be a number or a text (write a number in decimal digits, quote a text)",
    );
    refuses_text(
        "x = 1_000",
        "column 5: `1_000` may be a number or a text (write a number in decimal digits, quote a text)",
    );
    refuses_text(
        "x = 12345678901234567890",
        "column 5: `12345678901234567890` is larger than 64 signed bits hold (write a number in decimal digits, quote a \
         text)",
    );
    refuses_text(
        "x = 1e999",
        "column 5: `1e999` is too large for a number (write a number in decimal digits, quote a text)",
    );
}

#[test]
fn mistakes_in_a_text_have_their_column() {
    let key_help = "write the key first, as in `size > 3`, and quote a key that looks like a value";
    for (given, expect) in [
        ("", "column 1: the rule is empty (`true` is the rule that is always met)"),
        ("  ", "column 1: the rule is empty (`true` is the rule that is always met)"),
        ("tier in (gold", "column 14: the rule ends where `,` or `)` is expected"),
        ("tier in (gold silver)", "column 15: `silver` stands where `,` or `)` is expected"),
        ("tier in gold", "column 9: `gold` stands where a list in parentheses is expected (write `in (…, …)`)"),
        ("tier betwen 1 and 5", "column 6: `betwen` is not an operator (did you mean `between`?)"),
        ("tier = gold adn beta", "column 13: `adn` stands where `and`, `or` or the end of the rule is expected"),
        (
            "tier gold",
            "column 6: `gold` is not an operator (write `=`, `!=`, `<`, `>=`, `in (…)`, `between … and …`, `exists`, \
             `and` or `or`)",
        ),
        ("é = ü && x", "column 7: `&&` is not a sign of rules (write `and`)"),
        ("!beta", "column 1: `!` is not a sign of rules (write `not`)"),
        ("x = ", "column 5: the rule ends where a value is expected"),
        ("x = and y", "column 5: a value is missing before `and` (quote it if it is the value: `\"and\"`)"),
        ("and y", "column 1: the key of a label is missing before `and` (quote it if it is the key: `\"and\"`)"),
        ("3 < size", &format!("column 1: `3` is a value, not the key of a label ({key_help})")),
        ("x > true", "column 5: `>` compares numbers or texts, and `true` is neither"),
        ("x between 1", "column 12: the rule ends where `and` and the upper bound is expected"),
        ("x between 5 and 1", "column 11: nothing lies between these bounds"),
        ("x between (1, 5", "column 16: the rule ends where `]` or `)` is expected"),
        ("x = \"abc", "column 5: this quote is never closed"),
        (
            r#"x = "a\d""#,
            "column 7: `\\d` is not an escape (the escapes are `\\\"`, `\\'`, `\\\\`, `\\n`, `\\t` and `\\r`; in single \
             quotes there are none)",
        ),
        ("(x = 1", "column 7: the rule ends where `and`, `or` or `)` is expected"),
        ("x = 1)", "column 6: `)` stands where `and`, `or` or the end of the rule is expected"),
        ("x not y", "column 7: `y` stands where `in`, `between` or `exists` after a key and `not` is expected"),
        ("x = a;b", "column 6: `;` has no meaning here (quote a text that holds it)"),
        ("a = 1\nor b ~ 2", "line 2, column 6: `~` has no meaning here (quote a text that holds it)"),
        ("x \"y\"", "column 3: `\"y\"` stands where an operator is expected"),
        ("true = 1", "column 6: `=` stands where `and`, `or` or the end of the rule is expected"),
    ] {
        refuses_text(given, expect);
    }
    let error = "x =".parse::<Rule>().expect_err("it must be refused");
    assert_eq!(
        error.into_diagnostic("--select").to_string(),
        "--select:1:4: error: the rule ends where a value is expected"
    );
}

#[test]
fn text_that_would_be_read_as_something_else_is_quoted() {
    for value in ["true", "Null", "1", "1.0", "and", "IN", "", "a b", "it's", "0x1f", ".inf", "1_0", "\\\"\n\t\r"] {
        let given = label(value).eq(value) | label("x").eq(value);
        assert_eq!(text(&given.to_string()), given);
    }
    assert_eq!(label("in").eq("true").to_string(), r#""in" = "true""#);
}

// Builders.

#[test]
fn nodes_of_the_same_kind_are_flattened() {
    let [a, b, c] = ["a", "b", "c"].map(|key| label(key).exists());
    let flat =
        rule("all: [{match: {key: a, op: exists}}, {match: {key: b, op: exists}}, {match: {key: c, op: exists}}]");
    assert_eq!(a.clone() & b.clone() & c.clone(), flat);
    assert_eq!(a.clone() & (b.clone() & c.clone()), flat);
    assert_eq!(Rule::all([a.clone(), Rule::all([b.clone(), Rule::all([c.clone()])])]), flat);
    assert_eq!((a.clone() | b.clone()) | c.clone(), Rule::any([a.clone(), b.clone() | c.clone()]));
    assert_eq!(
        serde_json::to_value(a.clone() | b.clone() | c.clone()).map(|it| it["any"].as_array().map(Vec::len)).ok(),
        Some(Some(3))
    );
    assert_ne!(a.clone() & (b.clone() | c.clone()), a.clone() & b | c);
    assert_eq!(!!a.clone(), a);
}

#[test]
fn literals_of_every_kind_build() {
    let given =
        label("x").is_in([Literal::Null, true.into(), 1.into(), 2_u32.into(), 3_i64.into(), 0.5.into(), "a".into()]);
    assert_eq!(given.to_string(), "x in (null, true, 1, 2, 3, 0.5, a)");
    assert_eq!(label("x").not_in([String::from("b")]).to_string(), "x not in (b)");
    let below = Interval::new(Bound::Unbounded, Bound::Excluded(5.into())).expect("it has a bound");
    assert_eq!(label("x").not_within(below).to_string(), "x not between [null, 5)");
    assert!(!label("x").between(5, 1).matches(&labels(json!({"x": 3}))));
    assert!(!label("x").between(1, "z").matches(&labels(json!({"x": 3}))));
}

// Selection.

#[test]
fn selection_takes_no_more_items_than_it_needs() {
    let mut taken = 0;
    let items = (0..).map(|x| labels(json!({ "x": x }))).inspect(|_| taken += 1);
    let given = text("x >= 3");
    let first: Vec<_> = select(items, &given, |item| item).take(2).map(|item| item["x"].clone()).collect();
    assert_eq!(first, [json!(3), json!(4)]);
    assert_eq!(taken, 5);

    let mut taken = 0;
    let items = std::iter::repeat_with(|| {
        taken += 1;
        Map::new()
    });
    drop(select(items, &given, |item| item));
    assert_eq!(taken, 0);
}

// Properties, over rules as JSON that any user could write.

fn texts() -> impl Strategy<Value = String> {
    let tricky = [
        "gold",
        "a b",
        "",
        "true",
        "Null",
        "1",
        "1.0",
        "it's",
        "say \"x\"",
        "\\",
        "or",
        "IN",
        "é",
        "0x1f",
        "1_000",
        ".inf",
        "a\nb",
        "2024-01-01",
        "1e5",
        "-",
        "a/b:c",
        "#x",
        "{{",
        "~",
    ];
    prop_oneof![3 => proptest::sample::select(tricky.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,4}"]
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-c]", 1 => texts()]
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3_i64..4).prop_map(Value::from),
        (-6_i32..7).prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        Just(json!(1e300)),
        Just(json!(1e-7)),
    ]
}

fn ordered() -> impl Strategy<Value = Value> {
    prop_oneof![2 => numbers(), 1 => texts().prop_map(Value::from)]
}

fn plain() -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(Value::Null), 1 => any::<bool>().prop_map(Value::from), 4 => ordered()]
}

fn ranges() -> impl Strategy<Value = Value> {
    let inclusive = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (any::<bool>(), any::<bool>()).prop_map(|(low, high)| json!({"low": low, "high": high})),
        any::<bool>().prop_map(|high| json!({ "high": high })),
    ];
    let bounds = prop_oneof![
        (0_i64..3, 1..3).prop_map(|(low, size)| json!({"low": low, "high": low + i64::from(size)})),
        (-4_i32..3).prop_map(|low| json!({"low": f64::from(low) / 2.0, "high": null})),
        texts().prop_map(|high| json!({ "high": high })),
        texts().prop_map(|low| json!({"low": low, "high": format!("{low}z")})),
    ];
    (bounds, proptest::option::of(inclusive)).prop_map(|(mut range, inclusive)| {
        if let Some(inclusive) = inclusive {
            range["inclusive"] = inclusive;
        }
        range
    })
}

fn tests() -> impl Strategy<Value = Value> {
    let tests = prop_oneof![
        (proptest::sample::select(vec!["eq", "NE"]), plain()).prop_map(|(op, value)| json!({"op": op, "value": value})),
        (proptest::sample::select(vec!["gt", "gte", "Lt", "lte"]), ordered())
            .prop_map(|(op, value)| json!({"op": op, "value": value})),
        (proptest::sample::select(vec!["in", "NotIn"]), proptest::collection::vec(plain(), 0..4))
            .prop_map(|(op, values)| json!({"op": op, "values": values})),
        (proptest::sample::select(vec!["between", "notbetween"]), ranges())
            .prop_map(|(op, range)| json!({"op": op, "range": range})),
        Just(json!({"op": "exists"})),
        Just(json!({"op": "notin", "values": [null, false]})),
    ];
    (keys(), tests).prop_map(|(key, mut test)| {
        test["key"] = Value::from(key);
        json!({ "match": test })
    })
}

/// Two tests that a key alone stands for, as they come out of the text form.
fn key_alone() -> impl Strategy<Value = Value> {
    keys().prop_map(|key| {
        json!({"all": [
            {"match": {"key": key, "op": "exists"}},
            {"match": {"key": key, "op": "notin", "values": [null, false]}},
        ]})
    })
}

fn trees() -> impl Strategy<Value = Value> {
    prop_oneof![4 => tests(), 1 => key_alone()].prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|rules| json!({ "all": rules })),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|rules| json!({ "any": rules })),
            inner.prop_map(|rule| json!({ "not": rule })),
        ]
    })
}

fn label_sets() -> impl Strategy<Value = Map<String, Value>> {
    let values = prop_oneof![8 => plain(), 1 => Just(json!([1])), 1 => Just(json!({"a": 1}))];
    proptest::collection::vec((keys(), values), 0..5).prop_map(|labels| labels.into_iter().collect())
}

/// What a tree means, word for word, without flattening.
fn naive(tree: &Value, labels: &Map<String, Value>) -> bool {
    let (branch, inner) = tree.as_object().and_then(|tree| tree.iter().next()).expect("it has one branch");
    let mut rules = inner.as_array().into_iter().flatten();
    match branch.as_str() {
        "all" => rules.all(|rule| naive(rule, labels)),
        "any" => rules.any(|rule| naive(rule, labels)),
        "not" => !naive(inner, labels),
        _ => naive_test(inner, labels.get(inner["key"].as_str().expect("a key is text"))),
    }
}

fn naive_test(test: &Value, label: Option<&Value>) -> bool {
    let op = test["op"].as_str().expect("an operator is text").to_lowercase();
    let Some(label) = label else { return ["ne", "notin", "notbetween"].contains(&op.as_str()) };
    let compared = |value: &Value| naive_order(label, value);
    let is_in = || test["values"].as_array().is_some_and(|values| values.iter().any(|value| naive_eq(label, value)));
    let within = || naive_within(&test["range"], label);
    match op.as_str() {
        "eq" => naive_eq(label, &test["value"]),
        "ne" => !naive_eq(label, &test["value"]),
        "gt" => compared(&test["value"]) == Some(1),
        "gte" => matches!(compared(&test["value"]), Some(0 | 1)),
        "lt" => compared(&test["value"]) == Some(-1),
        "lte" => matches!(compared(&test["value"]), Some(0 | -1)),
        "in" => is_in(),
        "notin" => !is_in(),
        "between" => within(),
        "notbetween" => !within(),
        _ => true,
    }
}

fn naive_eq(one: &Value, other: &Value) -> bool {
    naive_order(one, other) == Some(0) || (one == other && !one.is_array() && !one.is_object())
}

fn naive_order(one: &Value, other: &Value) -> Option<i32> {
    let sign = |less: bool, greater: bool| i32::from(greater) - i32::from(less);
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(sign(one < other, one > other)),
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64()?, other.as_f64()?);
            Some(sign(one < other, one > other))
        }
        _ => None,
    }
}

fn naive_within(range: &Value, label: &Value) -> bool {
    let inclusive = |side: &str| match range.get("inclusive") {
        None => true,
        Some(Value::Bool(both)) => *both,
        Some(sides) => sides.get(side).and_then(Value::as_bool).unwrap_or(true),
    };
    let side = |side: &str, beyond: i32| match range.get(side) {
        None | Some(Value::Null) => true,
        Some(bound) => {
            let order = naive_order(label, bound);
            order == Some(beyond) || (order == Some(0) && inclusive(side))
        }
    };
    side("low", 1) && side("high", -1)
}

/// Does it fit the schema of rules?
fn fits(rule: &Value) -> bool {
    static SCHEMA: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
        let nested = json!({"$ref": "#/$defs/Rule"});
        let schema = json!({"$ref": "#/$defs/Rule", "$defs": {"Rule": Rule::json_schema(&nested)}});
        jsonschema::draft202012::new(&schema).expect("it is a schema")
    });
    SCHEMA.is_valid(rule)
}

#[test]
fn the_schema_refuses_what_is_no_rule() {
    for wrong in [
        json!(1),
        json!({}),
        json!({"al": []}),
        json!({"all": [], "any": []}),
        json!({"all": {"match": {"key": "a", "op": "exists"}}}),
        json!({"not": {"all": [{"match": {"op": "exists"}}]}}),
        json!({"match": {"key": "a", "op": "eqq", "value": 1}}),
        json!({"match": {"key": "a", "op": "eq"}}),
        json!({"match": {"key": "a", "op": "eq", "value": [1]}}),
        json!({"match": {"key": "a", "op": "GT", "value": null}}),
        json!({"match": {"key": "a", "op": "in", "value": 1}}),
        json!({"match": {"key": "a", "op": "between", "range": {"from": 1}}}),
        json!({"match": {"key": "a", "op": "between", "range": {"low": true}}}),
        json!({"match": {"key": "a", "op": "exists", "of": 1}}),
    ] {
        assert!(!fits(&wrong), "{wrong}");
        assert!(serde_json::from_value::<Rule>(wrong.clone()).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_rule_is_met_as_its_tree_says(tree in trees(), labels in proptest::collection::vec(label_sets(), 4)) {
        let read = rule(&tree.to_string());
        for labels in &labels {
            prop_assert_eq!(read.matches(labels), naive(&tree, labels), "{} over {:?}", tree, labels);
        }
    }

    #[test]
    fn the_schema_takes_every_rule(tree in trees()) {
        let written = serde_json::to_value(rule(&tree.to_string())).expect("it can be written");
        prop_assert!(fits(&tree), "{}", tree);
        prop_assert!(fits(&written), "{}", written);
    }

    #[test]
    fn printed_text_parses_to_the_same_rule(tree in trees()) {
        let read = rule(&tree.to_string());
        prop_assert_eq!(text(&read.to_string()), read, "{}", tree);
    }

    #[test]
    fn the_tree_form_round_trips(tree in trees(), labels in label_sets()) {
        let read: Rule = serde_json::from_value(tree.clone()).expect("it is a rule");
        let written = serde_json::to_value(&read).expect("it can be written");
        prop_assert_eq!(naive(&written, &labels), naive(&tree, &labels));
        prop_assert_eq!(&rule(&written.to_string()), &read);
        prop_assert_eq!(serde_json::from_value::<Rule>(written).expect("it reads again"), read);
    }

    #[test]
    fn operators_of_rust_mean_what_they_say(one in trees(), other in trees(), labels in label_sets()) {
        let (one, other) = (rule(&one.to_string()), rule(&other.to_string()));
        let (of_one, of_other) = (one.matches(&labels), other.matches(&labels));
        prop_assert_eq!((one.clone() & other.clone()).matches(&labels), of_one && of_other);
        prop_assert_eq!((one.clone() | other).matches(&labels), of_one || of_other);
        prop_assert_eq!((!one).matches(&labels), !of_one);
    }

    #[test]
    fn no_text_crashes_the_parser(given in "[a-c0-9 ()\\[\\],=<>!'\"\\\\.é]{0,24}|(not |and |or |in |between |a |1 |\\( ?|\\) ?|, ){0,12}") {
        if let Ok(read) = given.parse::<Rule>() {
            prop_assert_eq!(text(&read.to_string()), read);
        }
    }
}
