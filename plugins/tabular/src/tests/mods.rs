//! Each mod: its output, its errors.

use serde_json::json;

use super::*;
use crate::mods::aggregate::AggregateMod;
use crate::mods::check::CheckMod;
use crate::mods::derive::DeriveMod;
use crate::mods::distinct::DistinctMod;
use crate::mods::filter::FilterMod;
use crate::mods::join::JoinMod;
use crate::mods::select::SelectMod;
use crate::mods::sort::SortMod;
use crate::mods::sql::SqlMod;
use crate::mods::union::UnionMod;

const PEOPLE: &str = "name,age,city\nAda,36,London\nBob,12,\nCéline,51,Paris\n";

#[test]
fn filter_keeps_what_the_condition_holds_for() {
    check::<FilterMod>(
        json!({"condition": "age > 18"}),
        PEOPLE,
        "name:str,age:int,city:str\nAda,36,London\nCéline,51,Paris",
    );
    check::<FilterMod>(
        json!({"condition": "city IS NULL AND name LIKE 'B%'"}),
        PEOPLE,
        "name:str,age:int,city:str\nBob,12,∅",
    );
    check::<FilterMod>(json!({"condition": "age > 100"}), PEOPLE, "name:str,age:int,city:str");
    check::<FilterMod>(
        json!({"condition": "\"größe in m\" >= 1.5"}),
        "größe in m\n1.4\n1.6\n",
        "größe in m:float\n1.6",
    );
}

#[test]
fn filter_names_the_column_it_does_not_find() {
    let (kind, message, hint) = refusal(run::<FilterMod>(json!({"condition": "agee > 18"}), PEOPLE));
    assert_eq!(kind, ErrorKind::Config);
    assert_eq!(message, "`condition`: unknown column `agee`; available: name, age, city");
    assert_eq!(hint, "did you mean `age`?");
}

#[test]
fn filter_refuses_what_is_no_condition() {
    for (condition, expect) in [
        ("age >", "cannot read `age >`"),
        ("nosuch(age) > 1", "nosuch"),
        ("age > (SELECT MAX(x) FROM read_csv('/etc/passwd'))", "subquery"),
        ("age", "boolean"),
    ] {
        let (kind, message, _) = refusal(run::<FilterMod>(json!({"condition": condition}), PEOPLE));
        assert_eq!(kind, ErrorKind::Config, "{condition}: {message}");
        assert!(message.to_lowercase().contains(expect), "{condition}: {message}");
    }
    let (kind, message, _) = refusal(run::<FilterMod>(json!({"condition": "age > 1", "conditon": 1}), PEOPLE));
    assert_eq!(kind, ErrorKind::Config);
    assert!(message.contains("conditon"), "{message}");
}

#[test]
fn select_chooses_orders_renames_and_casts() {
    let config = json!({"columns": ["city", "age"], "rename": {"age": "years"}, "cast": {"age": "float"}});
    check::<SelectMod>(config, PEOPLE, "city:str,years:float\nLondon,36.0\n∅,12.0\nParis,51.0");
    check::<SelectMod>(json!({"exclude": ["city"]}), PEOPLE, "name:str,age:int\nAda,36\nBob,12\nCéline,51");
    check::<SelectMod>(json!({"columns": ["^n.*$"]}), "^n.*$,nb\n1,2\n", "^n.*$:int\n1");
    for (config, expect) in [
        (json!({"columns": ["agee"]}), "`columns`: unknown column `agee`"),
        (json!({"exclude": ["age"], "rename": {"age": "x"}}), "`rename`: unknown column `age`"),
        (json!({"rename": {"age": "name"}}), "two columns would be named `name`"),
        (json!({"cast": {"age": "strng"}}), "unknown column type `strng`"),
    ] {
        let (_, message, _) = refusal(run::<SelectMod>(config, PEOPLE));
        assert!(message.contains(expect), "{message}");
    }
}

#[test]
fn derive_computes_in_order() {
    let config = json!({"columns": {"months": "age * 12", "old": "months > 400", "age": "age + 1"}});
    let expect = "name:str,age:int,city:str,months:int,old:bool\nAda,37,London,432,true\nBob,13,∅,144,false\nCéline,52,Paris,612,true";
    check::<DeriveMod>(config, PEOPLE, expect);
    let (_, message, _) = refusal(run::<DeriveMod>(json!({"columns": {"x": "y + 1"}}), PEOPLE));
    assert!(message.starts_with("`columns.x`: unknown column `y`"), "{message}");
}

#[test]
fn sort_orders_and_limits() {
    let input = "k,v\nb,1\na,\nb,3\na,2\n";
    check::<SortMod>(json!({"by": ["k", "v"]}), input, "k:str,v:int\na,∅\na,2\nb,1\nb,3");
    let descending = json!({"by": [{"column": "v", "descending": true, "nulls_last": true}], "limit": 2});
    check::<SortMod>(descending, input, "k:str,v:int\nb,3\na,2");
    for (by, expect) in [
        (json!([]), "`by` names no column"),
        (json!([{"column": "v", "descnding": true}]), "descnding"),
        (json!([{"descending": true}]), "missing field `column`"),
        (json!([7]), "expected a column's name, or a mapping with `column`"),
    ] {
        let (_, message, _) = refusal(run::<SortMod>(json!({ "by": by }), input));
        assert!(message.contains(expect), "{message}");
    }
}

#[test]
fn distinct_keeps_one_of_each() {
    let input = "k,v\na,1\na,1\nb,2\na,3\n";
    check::<DistinctMod>(json!({"keep_order": true}), input, "k:str,v:int\na,1\nb,2\na,3");
    check::<DistinctMod>(json!({"columns": ["k"], "keep": "last", "keep_order": true}), input, "k:str,v:int\nb,2\na,3");
    check::<DistinctMod>(json!({"columns": ["k"], "keep": "none"}), input, "k:str,v:int\nb,2");
    let (kind, message, _) = refusal(run::<DistinctMod>(json!({"columns": []}), input));
    assert_eq!(kind, ErrorKind::Config);
    assert!(message.contains("`columns` names no column"), "{message}");
}

#[test]
fn aggregate_groups() {
    let input = "k,v\na,1\nb,2\na,4\n";
    let config = json!({"group_by": ["k"], "aggregates": {"n": "COUNT(*)", "mean": "AVG(v)"}, "keep_order": true});
    check::<AggregateMod>(config, input, "k:str,n:uint32,mean:float\na,2,2.5\nb,1,2.0");
    check::<AggregateMod>(json!({"aggregates": {"total": "SUM(v)"}}), input, "total:int\n7");
    check::<AggregateMod>(json!({"group_by": ["k"], "aggregates": {}, "keep_order": true}), input, "k:str\na\nb");
    let (_, message, _) = refusal(run::<AggregateMod>(json!({"group_by": ["kk"], "aggregates": {}}), input));
    assert!(message.contains("`group_by`: unknown column `kk`"), "{message}");
}

#[test]
fn aggregate_takes_aggregates_only() {
    for group_by in [json!([]), json!(["k"])] {
        let aggregate = |text: &str| {
            run::<AggregateMod>(json!({"group_by": group_by, "aggregates": {"x": text}}), "k,v\na,1\nb,2\na,4\n").result
        };
        for text in [
            "COUNT(*)",
            "COUNT(DISTINCT v)",
            "ROUND(AVG(v) * 2, 1)",
            "SUM(v * 2) / SUM(v)",
            "CASE WHEN MAX(v) > 1 THEN 'many' ELSE 'few' END",
            "MEDIAN(v)",
            "STDDEV(v)",
            "FIRST(v)",
            "7",
        ] {
            assert_eq!(aggregate(text), Ok(()), "{text}");
        }
        for text in ["v", "v + 1", "v - AVG(v)", "UPPER(k)"] {
            let error = aggregate(text).expect_err(text);
            assert_eq!(error.to_string(), format!("`aggregates.x`: `{text}` is not an aggregate"));
        }
    }
}

fn join(config: serde_json::Value) -> Done {
    let left = Frame::from(rows("id,v\n1,a\n2,b\n3,c\n"));
    let right = Frame::from(rows("id,v,w\n2,x,20\n3,y,30\n4,z,40\n"));
    testing::module::<JoinMod>(config).input("left", left).input("right", right).run()
}

#[test]
fn join_matches_keys() {
    for (how, expect) in [
        ("inner", "id:int,v:str,v_right:str,w:int\n2,b,x,20\n3,c,y,30"),
        ("left", "id:int,v:str,v_right:str,w:int\n1,a,∅,∅\n2,b,x,20\n3,c,y,30"),
        ("semi", "id:int,v:str\n2,b\n3,c"),
        ("anti", "id:int,v:str\n1,a"),
    ] {
        let mut done = join(json!({"on": ["id"], "how": how, "keep_order": true}));
        assert_eq!(output(&mut done, "output"), expect, "{how}");
    }
    for (config, expect) in [
        (json!({}), "give the key columns"),
        (json!({"on": ["id"], "left_on": ["id"]}), "not both"),
        (json!({"left_on": ["id"], "right_on": ["id", "v"]}), "as many columns"),
        (json!({"on": ["idd"]}), "`left_on`: unknown column `idd`"),
        (json!({"left_on": ["id"], "right_on": ["v"]}), "datatypes of join keys don't match"),
    ] {
        let (kind, message, _) = refusal(join(config));
        assert_eq!(kind, ErrorKind::Config, "{message}");
        assert!(message.contains(expect), "{message}");
    }
}

#[test]
fn union_appends_in_the_order_of_the_edges() {
    let unite = |config, second: &str| {
        let first = Frame::from(rows("a,b\n1,x\n"));
        testing::module::<UnionMod>(config).input("in2", first).input("in1", Frame::from(rows(second))).run()
    };
    assert_eq!(output(&mut unite(json!({}), "b,a\ny,2\n"), "output"), "a:int,b:str\n1,x\n2,y");
    let any = json!({"columns": "any"});
    assert_eq!(output(&mut unite(any, "a,c\n2,3\n"), "output"), "a:int,b:str,c:int\n1,x,∅\n2,∅,3");
    let widen = json!({"widen_types": true});
    assert_eq!(output(&mut unite(widen, "a,b\n2.5,y\n"), "output"), "a:float,b:str\n1.0,x\n2.5,y");
    let (kind, message, hint) = refusal(unite(json!({"columns": "any"}), "a,c\nx,3\n"));
    assert_eq!(kind, ErrorKind::Config);
    assert_eq!(message, "the tables at `in2` and `in1` differ: `a` is int in the first and str in the second");
    assert!(hint.contains("widen_types"), "{hint}");
    for (second, expect) in
        [("a,c\n2,3\n", "`b` is only in the first"), ("a,b\n2.5,y\n", "`a` is int in the first and float")]
    {
        let (_, message, _) = refusal(unite(json!({}), second));
        assert!(message.contains(expect), "{message}");
    }
}

#[test]
fn sql_queries_its_ports() {
    let query = |query: &str| {
        testing::module::<SqlMod>(json!({ "query": query }))
            .input("input", Frame::from(rows(PEOPLE)))
            .input("in_visits", Frame::from(rows("name,n\nAda,3\nAda,4\n")))
            .run()
    };
    let joined = "SELECT p.name, SUM(v.n) AS n FROM input p JOIN visits v ON p.name = v.name GROUP BY p.name";
    assert_eq!(output(&mut query(joined), "output"), "name:str,n:int\nAda,7");
    for (text, expect) in [
        ("SELECT agee FROM input", "agee"),
        ("SELECT * FROM nowhere", "'nowhere' was not found"),
        ("SELECT * FROM read_csv('/etc/passwd')", "is not allowed"),
        ("DELETE FROM input", "one SELECT"),
        ("SELEC 1", "SELEC"),
    ] {
        let (kind, message, _) = refusal(query(text));
        assert_eq!(kind, ErrorKind::Config, "{text}: {message}");
        assert!(message.contains(expect), "{text}: {message}");
    }
}

#[test]
fn sql_refuses_ports_of_one_name() {
    let test = testing::module::<SqlMod>(json!({"query": "SELECT * FROM in2"}));
    let done = test.input("in_in2", Frame::from(rows("a\n1\n"))).input("in2", Frame::from(rows("a\n2\n"))).run();
    let (kind, message, _) = refusal(done);
    assert_eq!(kind, ErrorKind::Config);
    assert_eq!(message, "the ports `in2` and `in_in2` are both the table `in2`");
}

const ORDERS: &str = "id,amount,state,day\n1,10,new,2024-01-01\n2,-5,paid,2024-02-01\n2,7,lost,2030-01-01\n,,,\n";

fn rules() -> serde_json::Value {
    json!([
        {"name": "positive", "check": "amount > 0"},
        {"not_null": "id"},
        {"unique": ["id"]},
        {"range": {"column": "day", "max": "2029-12-31"}},
        {"accepted_values": {"column": "state", "values": ["new", "paid"]}},
        {"matches": {"column": "state", "pattern": "^[a-z]+$"}},
    ])
}

#[test]
fn check_fails_with_counts_and_an_example() {
    let (kind, message, hint) = refusal(run::<CheckMod>(json!({"rules": rules()}), ORDERS));
    assert_eq!(kind, ErrorKind::Data);
    assert!(
        message.starts_with("5 rules failed: `positive`: 1 of 4 rows fail, the first is row 2 {amount: -5}; "),
        "{message}"
    );
    for expect in [
        "`not_null(id)`: 1 of 4",
        "`unique(id)`: 1 of 4 rows fail, the first is row 3 {id: 2}",
        "`range(day)`: 1 of 4",
        "`accepted_values(state)`: 1 of 4",
    ] {
        assert!(message.contains(expect), "{expect}: {message}");
    }
    assert!(hint.contains("reject"), "{hint}");
    let table = json!({"rules": [{"min_rows": 5}, {"max_rows": 3}]});
    let (_, message, _) = refusal(run::<CheckMod>(table, ORDERS));
    assert_eq!(
        message,
        "2 rules failed: `min_rows(5)`: 4 rows, expected at least 5; `max_rows(3)`: 4 rows, expected at most 3"
    );
}

#[test]
fn check_rejects_rows() {
    let mut done = run::<CheckMod>(json!({"rules": rules(), "on_fail": "reject"}), ORDERS);
    assert_eq!(output(&mut done, "output"), "id:int,amount:int,state:str,day:date\n1,10,new,2024-01-01");
    let rejected = output(&mut done, "rejected");
    let expect = "id:int,amount:int,state:str,day:date,failed_rules:str\n\
        2,-5,paid,2024-02-01,positive\n\
        2,7,lost,2030-01-01,unique(id), range(day), accepted_values(state)\n\
        ∅,∅,∅,∅,not_null(id)";
    assert_eq!(rejected, expect);
}

#[test]
fn check_warns_and_passes_rows_on() {
    let config = json!({"rules": [{"name": "positive", "check": "amount > 0", "on_fail": "warn"}, {"min_rows": 1}]});
    let mut done = run::<CheckMod>(config, ORDERS);
    assert_eq!(output(&mut done, "output").lines().count(), 5);
    assert_eq!(output(&mut done, "rejected"), "id:int,amount:int,state:str,day:date,failed_rules:str");
    assert!(done.log.iter().any(|line| line.starts_with("WARN check failed: `positive`: 1 of 4")), "{:?}", done.log);
    assert_eq!((&done.globals["row_count"], &done.globals["failed_count"]), (&json!(4), &json!(1)));
}

#[test]
fn check_keeps_every_row_of_an_unordered_input() {
    let keys: String = (0..5000).map(|row| format!("{},{row}\n", row % 50)).collect();
    // A join without `keep_order` promises no order, and may give another one each time it runs.
    let values: String = (0..5000).map(|row| format!("{row}\n")).collect();
    let unordered = rows(&format!("k,v\n{keys}")).join_builder().with(rows(&format!("v\n{values}"))).on([col("v")]);
    let unordered = unordered.how(JoinType::Inner).maintain_order(MaintainOrderJoin::None).finish();
    let config = json!({"rules": [{"unique": "k"}], "on_fail": "reject"});
    let mut done = testing::module::<CheckMod>(config).input("input", Frame::from(unordered)).run();
    let values = |done: &mut Done, port| -> Vec<i64> {
        let frame = testing::block_on(done.output(port).collect()).expect("readable");
        frame.column("v").expect("v").i64().expect("int").into_no_null_iter().collect()
    };
    let (mut all, rejected) = (values(&mut done, "output"), values(&mut done, "rejected"));
    assert_eq!((all.len(), rejected.len()), (50, 4950));
    all.extend(rejected);
    all.sort_unstable();
    assert!(all.into_iter().eq(0..5000), "each row is on exactly one side");
}

#[test]
fn check_numbers_rows_beside_any_column() {
    let config = json!({"rules": [{"check": "\"row\" > 1"}]});
    let (_, message, _) = refusal(run::<CheckMod>(config, "row,row_\n5,1\n1,2\n"));
    assert!(message.contains("the first is row 2 {row: 1}"), "{message}");
}

#[test]
fn check_adds_no_column_over_another() {
    let check =
        |on_fail| run::<CheckMod>(json!({"rules": [{"not_null": "a"}], "on_fail": on_fail}), "a,failed_rules\n1,x\n");
    let (kind, message, hint) = refusal(check("reject"));
    assert_eq!(kind, ErrorKind::Config, "{message}");
    assert!(message.contains("`failed_rules` already") && hint.contains("rename"), "{message} {hint}");
    assert_eq!(output(&mut check("fail"), "output"), "a:int,failed_rules:str\n1,x", "nothing is rejected here");
}

#[test]
fn check_refuses_rules_that_make_no_sense() {
    for (rule, expect) in [
        (json!({"check": "amount"}), "`rules.amount`: `check` must be a condition, found int"),
        (json!({"name": "", "check": "amount > 0"}), "has an empty `name`"),
        (json!({"name": "x"}), "the rule `x` has no check"),
        (json!({"min_rows": 1, "max_rows": 2}), "more than one check"),
        (json!({"min_rows": 1, "on_fail": "reject"}), "has no rows to reject"),
        (json!({"range": {"column": "id"}}), "neither `min` nor `max`"),
        (json!({"not_null": "idd"}), "unknown column `idd`"),
        (json!({"check": "id >"}), "cannot read"),
        (json!({"matches": {"column": "state", "pattern": "(a"}}), "has a pattern that cannot be read"),
    ] {
        let (kind, message, _) = refusal(run::<CheckMod>(json!({"rules": [rule]}), ORDERS));
        assert_eq!(kind, ErrorKind::Config, "{message}");
        assert!(message.contains(expect), "{expect}: {message}");
    }
}
