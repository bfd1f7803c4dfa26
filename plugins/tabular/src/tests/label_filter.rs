//! `label_filter`: rows chosen as the rules of labels say, whatever the types of their columns.

use proptest::prelude::*;
use pype_core::label::{Interval, Literal, Ordered, Rule, label};
use serde_json::{Map, json};

use super::*;
use crate::mods::label_filter::LabelFilter;

const ORDERS: &str = "id,tier,size,beta,day\n1,gold,3,true,2024-01-05\n2,silver,,false,2024-02-01\n3,,5,,\n";

/// The ids of the rows at both ports.
fn sides(rule: Value, input: LazyFrame) -> (String, String) {
    let mut done = testing::module::<LabelFilter>(json!({"rule": rule})).input("input", Frame::from(input)).run();
    let mut ids = |port: &str| {
        let table = testing::block_on(done.output(port).collect()).unwrap_or_else(|error| panic!("{port}: {error}"));
        let ids = table.column("id").expect("it has ids").cast(&DataType::Int64).expect("ids are numbers");
        ids.i64().expect("int").into_no_null_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
    };
    (ids("output"), ids("rejected"))
}

#[test]
fn rows_that_meet_the_rule_pass_and_the_others_are_at_the_second_port() {
    for (rule, kept, rejected) in [
        (json!("tier = gold"), "1", "2 3"),
        (json!("tier != gold"), "2 3", "1"),
        (json!("not tier = gold"), "2 3", "1"),
        (json!("tier in (gold, silver) and not beta"), "2", "1 3"),
        (json!("tier = null or size > 2.5"), "1 3", "2"),
        (json!("size between [3, 5)"), "1", "2 3"),
        (json!("size not between 3 and 4"), "2 3", "1"),
        (json!("day >= 2024-02-01"), "2", "1 3"),
        (json!("tier exists and not nothing exists"), "1 2 3", ""),
        (json!("nothing != x and nothing not in (x)"), "1 2 3", ""),
        (json!("nothing = x or nothing < 3 or nothing"), "", "1 2 3"),
        (json!("size = gold or tier > 3 or beta = 1"), "", "1 2 3"),
        (json!({"any": [{"match": {"key": "beta", "op": "EQ", "value": true}}, {"not": "size exists"}]}), "1", "2 3"),
        (json!({"all": []}), "1 2 3", ""),
    ] {
        assert_eq!(sides(rule.clone(), rows(ORDERS)), (kept.to_owned(), rejected.to_owned()), "{rule}");
    }
    check::<LabelFilter>(json!({"rule": "size > 3"}), "a,size\n1,3\n2,4\n", "a:int,size:int\n2,4");
}

#[test]
fn cells_of_all_types_are_the_labels_that_they_look_like() {
    let input = df!(
        "id" => [1, 2, 3],
        "f" => [f64::NAN, f64::INFINITY, 2.5],
        "small" => [1_i32, 2, 3],
        "large" => [u64::MAX, 0, 9_007_199_254_740_993],
        "list" => [Series::new("".into(), [1]), Series::new("".into(), [2]), Series::new("".into(), [3])],
        "state" => ["new", "paid", "new"],
    )
    .expect("a table")
    .lazy()
    .with_columns([
        col("state").cast(DataType::from_categories(Categories::global())),
        col("small").cast(DataType::Int128).alias("wide"),
        col("small").cast(DataType::Decimal(10, 2)).alias("price"),
        col("small").cast(DataType::Int8).alias("tiny"),
        lit(NULL).alias("nothing"),
    ]);
    for (rule, kept) in [
        // NaN equals nothing and stands nowhere.
        ("f > 2", "2 3"),
        ("f = 2.5 or f < 0", "3"),
        ("f != 2.5", "1 2"),
        ("f not between 0 and 3", "1 2"),
        ("small >= 2.5", "3"),
        ("small in (1.0, 3, x, 2.5)", "1 3"),
        ("tiny < 9223372036854775807 and tiny > -300", "1 2 3"),
        ("wide = 2 or wide in (3, 4)", "2 3"),
        ("price <= 2", "1 2"),
        // Beyond 2^53, where a float could not tell them apart.
        ("large = 9007199254740993", "3"),
        ("large = 9007199254740992.0 or large < 0", ""),
        ("large > 9007199254740992.0", "1 3"),
        ("large > 9223372036854775807", "1"),
        ("large >= -1.5", "1 2 3"),
        ("state = new", "1 3"),
        ("state > new", "2"),
        ("state in (paid, gone)", "2"),
        ("list = 1 or list > 0 or list = null", ""),
        ("list exists and list != 1", "1 2 3"),
        ("nothing = null and nothing != 3 and not nothing", "1 2 3"),
    ] {
        assert_eq!(sides(json!(rule), input.clone()).0, kept, "{rule}");
    }
}

#[test]
fn a_rule_that_is_wrong_is_refused_before_any_row_is_read() {
    for (rule, expect) in [
        (json!("tier lke gold"), "`lke` is not an operator"),
        (
            json!({"all": ["beta", {"match": {"key": "tier", "op": "eqq", "value": 1}}]}),
            "`all[1].match.op`: `eqq` is not an operator (did you mean `eq`?)",
        ),
        (json!({"match": {"key": "a", "op": "in", "value": 1}}), "`match`: `in` takes `values`, not `value`"),
        (json!(3), "a rule must be a mapping or a text"),
    ] {
        let done =
            testing::module::<LabelFilter>(json!({"rule": rule})).input("input", Frame::from(rows(ORDERS))).run();
        let (kind, message, _) = refusal(done);
        assert_eq!(kind, ErrorKind::Config, "{message}");
        assert!(message.contains(expect), "{message}");
    }
}

#[test]
fn a_label_that_is_nearly_a_column_is_told() {
    let done = run::<LabelFilter>(json!({"rule": "tir = gold and not quality"}), ORDERS);
    let told: Vec<_> = done.log.iter().filter(|line| line.starts_with("WARN")).collect();
    assert!(matches!(told.as_slice(), [one] if one.contains("did you mean `tier`?")), "{told:?}");
}

/// One row of the generated table.
#[derive(Clone, Debug)]
struct Row {
    int: Option<i64>,
    unsigned: Option<u64>,
    float: Option<f64>,
    text: Option<String>,
    flag: Option<bool>,
}

impl Row {
    fn labels(&self) -> Map<String, Value> {
        let labels = json!({
            "int": self.int, "unsigned": self.unsigned, "float": self.float, "text": self.text, "flag": self.flag
        });
        labels.as_object().expect("a mapping").clone()
    }
}

fn table(rows: &[Row]) -> LazyFrame {
    let ids: Vec<u32> = (0..).take(rows.len()).collect();
    df!(
        "id" => ids,
        "int" => rows.iter().map(|row| row.int).collect::<Vec<_>>(),
        "unsigned" => rows.iter().map(|row| row.unsigned).collect::<Vec<_>>(),
        "float" => rows.iter().map(|row| row.float).collect::<Vec<_>>(),
        "text" => rows.iter().map(|row| row.text.clone()).collect::<Vec<_>>(),
        "flag" => rows.iter().map(|row| row.flag).collect::<Vec<_>>(),
    )
    .expect("a table")
    .lazy()
}

/// Where whole numbers and floats part: around 2^53, at the ends of 64 bits.
const EDGES: [i64; 8] = [0, 1, 3, -1, (1 << 53) - 1, (1 << 53) + 1, i64::MAX, i64::MIN];

fn row() -> impl Strategy<Value = Row> {
    let int = prop::option::of(prop::sample::select(EDGES.to_vec()));
    let unsigned = prop::option::of(prop::sample::select(vec![0, 1, (1 << 53) + 1, 1 << 63, u64::MAX]));
    let float = prop::option::of(prop::sample::select(floats()));
    (int, unsigned, float, prop::option::of(text()), any::<Option<bool>>())
        .prop_map(|(int, unsigned, float, text, flag)| Row { int, unsigned, float, text, flag })
}

fn floats() -> Vec<f64> {
    vec![0.0, -0.0, 1.0, 2.5, -0.5, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, -1e300, 1e300]
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "1", "a", "b", "ab", "é", "\u{10000}", "\u{ffff}"]).prop_map(str::to_owned)
}

fn ordered() -> impl Strategy<Value = Ordered> {
    prop_oneof![
        prop::sample::select(EDGES.to_vec()).prop_map(Ordered::Int),
        prop::sample::select(floats()).prop_map(Ordered::Float),
        text().prop_map(Ordered::Text),
    ]
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![1 => Just(Literal::Null), 1 => any::<bool>().prop_map(Literal::Bool), 4 => ordered().prop_map(Literal::Ordered)]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["int", "unsigned", "float", "text", "flag", "missing"])
}

fn bound() -> impl Strategy<Value = std::ops::Bound<Ordered>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    prop_oneof![ordered().prop_map(Included), ordered().prop_map(Excluded), Just(Unbounded)]
}

fn test() -> impl Strategy<Value = Rule> {
    let interval = || (bound(), bound()).prop_filter_map("a range", |(low, high)| Interval::new(low, high).ok());
    prop_oneof![
        (key(), literal()).prop_map(|(key, value)| label(key).eq(value)),
        (key(), literal()).prop_map(|(key, value)| label(key).ne(value)),
        (key(), ordered()).prop_map(|(key, limit)| label(key).gt(limit)),
        (key(), ordered()).prop_map(|(key, limit)| label(key).gte(limit)),
        (key(), ordered()).prop_map(|(key, limit)| label(key).lt(limit)),
        (key(), ordered()).prop_map(|(key, limit)| label(key).lte(limit)),
        (key(), prop::collection::vec(literal(), 0..4)).prop_map(|(key, values)| label(key).is_in(values)),
        (key(), prop::collection::vec(literal(), 0..4)).prop_map(|(key, values)| label(key).not_in(values)),
        (key(), interval()).prop_map(|(key, interval)| label(key).within(interval)),
        (key(), interval()).prop_map(|(key, interval)| label(key).not_within(interval)),
        key().prop_map(|key| label(key).exists()),
        key().prop_map(|key| label(key).is_set()),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    test().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Rule::all),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Rule::any),
            inner.prop_map(|rule| !rule),
        ]
    })
}

proptest! {
    #[test]
    fn the_rows_are_those_that_the_rules_own_library_chooses(rule in rule(), rows in prop::collection::vec(row(), 1..12)) {
        let (kept, rejected) = sides(serde_json::to_value(&rule).expect("a rule can be written"), table(&rows));
        let ids = |met: bool| {
            let chosen = rows.iter().enumerate().filter(|(_, row)| rule.matches(&row.labels()) == met);
            chosen.map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(" ")
        };
        prop_assert_eq!((kept, rejected), (ids(true), ids(false)), "{}", rule);
    }
}
