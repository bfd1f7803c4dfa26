//! Each source: what it reads, and what it says about what it cannot read.

use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::json;

use super::*;
use crate::mods::select::SelectMod;
use crate::sinks::csv::CsvSink;
use crate::sinks::parquet::ParquetSink;
use crate::sources::csv::CsvSource;
use crate::sources::json::JsonSource;
use crate::sources::parquet::ParquetSource;
use crate::testing::{Folder, folder};

/// A source over a file of that content, with more configs, in both modes.
fn read<S: Source>(folder: &Folder, name: &str, content: impl AsRef<[u8]>, config: Value) -> Done {
    let path = folder.write(name, content);
    open::<S>(folder, &path, config)
}

fn open<S: Source>(folder: &Folder, path: &str, mut config: Value) -> Done {
    config["file_path"] = json!(path);
    let scratch = folder.path().join("scratch");
    testing::source::<S>(config).facts(|facts| facts.temp_dir = scratch).run()
}

/// As `read`, in a folder of that name, which must live as long as somebody reads the frames.
fn csv(name: &str, content: impl AsRef<[u8]>, config: Value) -> (Done, Folder) {
    let folder = folder(name);
    (read::<CsvSource>(&folder, "in.csv", content, config), folder)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn csv_reads_text_in_many_shapes() {
    let latin = b"name\nC\xe9line\n";
    let utf16: Vec<u8> = "\u{feff}name\nCéline\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, content, config, expect) in [
        ("plain", b"a,b\n1,x\n2,y\n".to_vec(), json!({}), "a:int,b:str\n1,x\n2,y"),
        ("no-break-at-end", b"a\n1".to_vec(), json!({}), "a:int\n1"),
        ("windows", b"a,b\r\n1,x\r\n".to_vec(), json!({}), "a:int,b:str\n1,x"),
        ("mark", "\u{feff}a\n1\n".into(), json!({}), "a:int\n1"),
        ("header-only", b"a,b\n".to_vec(), json!({}), "a:str,b:str"),
        ("header-only-typed", b"a,b\n".to_vec(), json!({"schema": {"a": "int"}}), "a:int,b:str"),
        ("no-header", b"1,x\n".to_vec(), json!({"header": false}), "column_1:int,column_2:str\n1,x"),
        ("named", b"1,x\n".to_vec(), json!({"header": false, "columns": ["a", "b"]}), "a:int,b:str\n1,x"),
        ("quoted", b"\"a b\",c\n\"x,\ny\",1\n".to_vec(), json!({}), "a b:str,c:int\nx,\ny,1"),
        ("tabs", b"a\tb\n1\t2\n".to_vec(), json!({"delimiter": "tab"}), "a:int,b:int\n1,2"),
        ("nulls", b"a,b\nNA,-\n1,x\n".to_vec(), json!({"null_values": ["NA", "-"]}), "a:int,b:str\n∅,∅\n1,x"),
        ("comments", b"# c\na\n#d\n1\n".to_vec(), json!({"comment_prefix": "#"}), "a:int\n1"),
        ("skipped", b"title\na\n1\n".to_vec(), json!({"skip_rows": 1}), "a:int\n1"),
        ("text", b"a\n01\n".to_vec(), json!({"infer_schema_length": 0}), "a:str\n01"),
        ("dates", b"d\n2024-02-29\n".to_vec(), json!({"try_parse_dates": true}), "d:date\n2024-02-29"),
        (
            "typed",
            b"a,b,c\n1,2.50,2024-01-01\n".to_vec(),
            json!({"schema": {"a": "str", "b": "decimal(6,2)", "c": "date"}}),
            "a:str,b:decimal(6,2),c:date\n1,2.50,2024-01-01",
        ),
        (
            "times",
            b"t,w\n12:30:00,2024-01-01 10:00:00\n".to_vec(),
            json!({"schema": {"t": "time", "w": "datetime"}}),
            "t:time,w:datetime\n12:30:00.000000000,2024-01-01T10:00:00.000000",
        ),
        ("german", b"a;b\n1,5;x\n".to_vec(), json!({"delimiter": ";", "decimal_comma": true}), "a:float,b:str\n1.5,x"),
        ("latin", latin.to_vec(), json!({"encoding": "latin1"}), "name:str\nCéline"),
        ("lossy", latin.to_vec(), json!({"encoding": "utf8-lossy"}), "name:str\nC\u{fffd}line"),
        ("utf16", utf16, json!({"encoding": "utf-16"}), "name:str\nCéline"),
        ("gzip", gzip("a\n1\n2\n"), json!({}), "a:int\n1\n2"),
        ("zstd", zstd::encode_all(&b"a\n1\n"[..], 3).expect("in memory"), json!({}), "a:int\n1"),
        (
            "gzip-latin",
            {
                let mut e = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                e.write_all(latin).expect("in memory");
                e.finish().expect("in memory")
            },
            json!({"encoding": "windows-1252"}),
            "name:str\nCéline",
        ),
        ("short-rows", b"a,b\n1\n2,x\n".to_vec(), json!({}), "a:int,b:str\n1,∅\n2,x"),
        ("unicode", "größe,名前\n1,ぺ\n".into(), json!({}), "größe:int,名前:str\n1,ぺ"),
    ] {
        let (mut done, _folder) = csv(&format!("csv-{name}"), &content, config);
        assert_eq!(output(&mut done, "data"), expect, "{name}");
        assert_eq!(done.globals["file_size"], content.len(), "{name}");
        assert_eq!(output(&mut done, "rejected"), "file:str,line:int,column:str,reason:str,raw:str");
    }
}

#[test]
fn csv_reads_all_files_of_a_pattern() {
    let folder = folder("csv-glob");
    folder.write("b.csv", "a\n2\n");
    folder.write("a.csv", "a\n1\n");
    let mut done = open::<CsvSource>(&folder, &folder.file("*.csv"), json!({"file_column": "from"}));
    let (a, b) = (folder.file("a.csv"), folder.file("b.csv"));
    assert_eq!(output(&mut done, "data"), format!("a:int,from:str\n1,{a}\n2,{b}"));
    assert_eq!(done.globals["file_size"], 8);
    let config = json!({"file_column": "from", "encoding": "latin1", "bad_rows": "skip"});
    let mut done = open::<CsvSource>(&folder, &folder.file("*.csv"), config);
    assert_eq!(output(&mut done, "data"), format!("a:int,from:str\n1,{a}\n2,{b}"), "copies name their originals");
}

#[test]
fn csv_counts_rows_only_when_somebody_asks() {
    let folder = folder("csv-count");
    let config = json!({"file_path": folder.write("in.csv", "a\n1\n2\n")});
    assert!(!testing::source::<CsvSource>(config.clone()).run().globals.contains_key("row_count"));
    let asked =
        testing::source::<CsvSource>(config.clone()).facts(|facts| facts.wanted_globals = vec!["Row_Count".into()]);
    assert_eq!(asked.run().globals["row_count"], 2);
}

#[test]
fn csv_refuses_with_a_reason() {
    for (name, content, config, expect) in [
        ("empty", "", json!({}), "in.csv` is empty"),
        ("unknown-type", "a\n1\n", json!({"schema": {"a": "strng"}}), "unknown column type `strng`"),
        (
            "unknown-column",
            "age\n1\n",
            json!({"schema": {"agee": "int"}}),
            "`schema`: unknown column `agee`; available: age",
        ),
        ("unknown-encoding", "a\n1\n", json!({"encoding": "utf-88"}), "unknown encoding `utf-88`"),
        ("columns", "1,2\n", json!({"header": false, "columns": ["a", "a"]}), "`columns` names `a` twice"),
        ("delimiter", "a\n1\n", json!({"delimiter": ",,"}), "`delimiter` must be one ASCII character"),
        ("unknown-key", "a\n1\n", json!({"delimeter": ","}), "delimeter"),
    ] {
        let (_, message, _) = refusal(csv(&format!("csv-refuses-{name}"), content, config).0);
        assert!(message.contains(expect), "{name}: {message}");
    }
    let folder = folder("csv-refuses-path");
    let (kind, message, _) = refusal(open::<CsvSource>(&folder, &folder.file("none.csv"), json!({})));
    assert_eq!(kind, ErrorKind::NotFound, "{message}");
}

/// Content, its first bad row as the error names it, and the reason.
fn bad_files() -> Vec<(&'static str, Vec<u8>, Value, u64, &'static str)> {
    let plain = || json!({"infer_schema_length": 2});
    vec![
        ("value", b"a,b\n1,x\n2,y\nabc,z\n4,w\n".to_vec(), plain(), 4, "column `a`: cannot read `abc` as int"),
        (
            "after-long-field",
            b"a,b\n1,\"x\nx\"\n2,y\nabc,z\n".to_vec(),
            plain(),
            5,
            "column `a`: cannot read `abc` as int",
        ),
        ("fields", b"a,b\n1,x\n2,y\n3,z,extra\n4,w\n".to_vec(), plain(), 4, "3 fields, but there are 2 columns"),
        ("encoding", b"a,b\n1,x\n2,y\n3,C\xe9line\n".to_vec(), plain(), 4, "column `b`: `C\u{fffd}line` is not UTF-8"),
        ("quote", b"a,b\n1,x\n2,y\n3,\"z\n4,w\n".to_vec(), plain(), 4, "a quote that opens nothing or is never closed"),
        (
            "inch",
            b"a,b\n1,x\n2,y\n3,5\" pipe\n4,w\n".to_vec(),
            plain(),
            4,
            "a quote that opens nothing or is never closed",
        ),
        (
            "date",
            b"d\n2024-01-01\n2024-13-01\n".to_vec(),
            json!({"schema": {"d": "date"}}),
            3,
            "column `d`: cannot read `2024-13-01` as date",
        ),
        (
            "decimal",
            b"p\n1.25\nfree\n".to_vec(),
            json!({"schema": {"p": "decimal(8,2)"}}),
            3,
            "column `p`: cannot read `free` as decimal(8,2)",
        ),
        (
            "bool",
            b"p\ntrue\nmaybe\n".to_vec(),
            json!({"schema": {"p": "bool"}}),
            3,
            "column `p`: cannot read `maybe` as bool",
        ),
        (
            "time",
            b"p\n10:00:00\nnoon\n".to_vec(),
            json!({"schema": {"p": "time"}}),
            3,
            "column `p`: cannot read `noon` as time",
        ),
        ("gzip", gzip("a\n1\n2\nabc\n"), plain(), 4, "column `a`: cannot read `abc` as int"),
    ]
}

/// What becomes of a source's rows in a sink; the source's own failure, if it failed before.
fn into_sink(mut done: Done, folder: &Folder) -> Done {
    if done.result.is_err() {
        return done;
    }
    let sink = testing::sink::<CsvSink>(json!({"output_path": folder.file("out.csv")}));
    sink.input("input", done.output("data")).run()
}

#[test]
fn a_bad_row_is_an_error_with_file_and_line() {
    for (name, content, config, line, reason) in bad_files() {
        let (done, _folder) = csv(&format!("bad-{name}"), content, config);
        let folder = folder(&format!("bad-out-{name}"));
        let (kind, message, hint) = refusal(into_sink(done, &folder));
        assert_eq!(kind, ErrorKind::Data, "{name}: {message}");
        assert!(message.ends_with(&format!("in.csv:{line}: {reason}")), "{name}: {message}");
        assert!(hint.contains("bad_rows"), "{name}: {hint}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "{name}: nothing may be left");
    }
}

#[test]
fn no_row_vanishes_behind_a_stray_quote() {
    let text = "a,b\n1,x\n2,5\" pipe\n3,6\" tube\n4,w\n";
    for eager in [false, true] {
        for content in [text.as_bytes().to_vec(), gzip(text)] {
            let folder = folder(&format!("quotes-{eager}"));
            let config = json!({"file_path": folder.write("in.csv", content)});
            let mut done = testing::source::<CsvSource>(config).facts(|facts| facts.eager = eager).run();
            if done.result.is_ok() {
                let narrow = testing::module::<SelectMod>(json!({"columns": ["a"]}));
                done = narrow.input("input", done.output("data")).run();
            }
            let (_, message, _) = refusal(done);
            assert!(message.ends_with("in.csv:3: a quote that opens nothing or is never closed"), "{message}");
        }
    }
    let paired = "a,b\n1,\"x\ny\"\n2,\"5\"\" pipe\"\n3,6\"\"\n";
    assert_eq!(csv("quotes-paired", paired, json!({})).0.result, Ok(()));
    let unquoted = csv("quotes-none", text, json!({"quote": ""}));
    assert_eq!(unquoted.0.result, Ok(()));
}

#[test]
fn a_text_cut_off_in_a_quote_is_an_error() {
    let folder = folder("cut-off");
    for eager in [false, true] {
        let config = json!({"file_path": folder.write("in.csv", "a,b\n1,x\n2,\""), "null_values": ["NA"]});
        let done = testing::source::<CsvSource>(config).facts(|facts| facts.eager = eager).run();
        let (_, message, _) = refusal(done);
        assert!(message.ends_with("in.csv:3: a quote that opens nothing or is never closed"), "{message}");
    }
}

#[test]
fn files_without_a_good_row_give_none() {
    let config = json!({"header": false, "schema": {"column_1": "int"}, "file_column": "from", "bad_rows": "reject"});
    let (mut done, _folder) = csv("all-bad", "x\ny\n", config.clone());
    assert_eq!(output(&mut done, "data"), "column_1:int,from:str");
    assert_eq!(output(&mut done, "rejected").lines().count(), 3);
    let folder = folder("some-bad");
    folder.write("a.csv", "x\n");
    let good = folder.write("b.csv", "1\n");
    let mut done = open::<CsvSource>(&folder, &folder.file("*.csv"), config);
    assert_eq!(output(&mut done, "data"), format!("column_1:int,from:str\n1,{good}"));
    let (mut done, _folder) = csv("all-bad-header", "a\nx\n", json!({"schema": {"a": "int"}, "bad_rows": "skip"}));
    assert_eq!(output(&mut done, "data"), "a:int");
}

#[test]
fn two_sources_of_one_file_keep_their_options() {
    for bad_rows in ["error", "skip"] {
        let folder = folder(&format!("csv-twice-{bad_rows}"));
        let read = |comma: bool| {
            let config = json!({"delimiter": ";", "decimal_comma": comma, "bad_rows": bad_rows});
            let frame = read::<CsvSource>(&folder, "in.csv", "a\n1,5\n", config).output("data");
            testing::block_on(frame.into_lazy()).expect("a plan")
        };
        let both = read(true).cross_join(read(false), Some("_text".into()));
        assert_eq!(table(Frame::from(both)), "a:float,a_text:str\n1.5,1,5");
    }
}

#[test]
fn a_file_of_other_columns_is_named() {
    for (name, second, expect) in [
        ("lacks", "a\n3\n", "b.csv` lacks the column `b` of `"),
        ("more", "a,b,c\n3,y,4\n", "b.csv` has the column `c`, which is not in `"),
        ("order", "b,a\ny,3\n", "b.csv` has, in another order, the columns of `"),
    ] {
        for bad_rows in ["error", "reject"] {
            let folder = folder(&format!("csv-columns-{name}-{bad_rows}"));
            folder.write("a.csv", "a,b\n1,x\n");
            folder.write("b.csv", second);
            let done = open::<CsvSource>(&folder, &folder.file("*.csv"), json!({"bad_rows": bad_rows}));
            let (kind, message, _) = refusal(done);
            assert_eq!(kind, ErrorKind::Data, "{message}");
            assert!(message.contains(expect) && message.ends_with("a.csv`"), "{message}");
        }
    }
}

#[test]
fn a_cancelled_run_stops_going_through_files() {
    let folder = folder("csv-cancelled");
    let path = folder.write("in.csv", "a\n\"x\"\n");
    let scratch = folder.path().join("scratch");
    for config in [json!({}), json!({"bad_rows": "skip"}), json!({"encoding": "latin1"})] {
        let mut config = config;
        config["file_path"] = json!(path);
        let test = testing::source::<CsvSource>(config).facts(|facts| facts.temp_dir = scratch.clone());
        assert_eq!(refusal(test.cancelled().run()).0, ErrorKind::Cancelled);
    }
    for content in ["[{\"a\":1}]", "{\"a\":1}\n", "\u{feff}{\"a\":1}\n"] {
        for bad_rows in ["error", "skip"] {
            let path = folder.write("in.json", content);
            let test = testing::source::<JsonSource>(json!({"file_path": path, "bad_rows": bad_rows}));
            let test = test.facts(|facts| facts.temp_dir = scratch.clone());
            assert_eq!(refusal(test.cancelled().run()).0, ErrorKind::Cancelled, "{content}");
        }
    }
}

#[test]
fn a_bad_row_of_a_transcoded_file_is_named_by_the_original() {
    let content = b"a,b\n1,\xe9\nabc,\xe9\n".to_vec();
    let config = json!({"encoding": "latin1", "infer_schema_length": 1, "bad_rows": "reject"});
    let (mut done, _folder) = csv("bad-latin", content, config);
    let rejected = output(&mut done, "rejected");
    assert!(rejected.contains("in.csv,3,a,cannot read `abc` as int,abc,é"), "{rejected}");
}

#[test]
fn bad_rows_are_rejected_or_skipped_when_asked() {
    for (name, content, mut config, line, reason) in bad_files() {
        config["bad_rows"] = json!("reject");
        let (mut done, _folder) = csv(&format!("reject-{name}"), content.clone(), config.clone());
        let rejected = output(&mut done, "rejected");
        let mut lines = rejected.lines();
        assert_eq!(lines.next(), Some("file:str,line:int,column:str,reason:str,raw:str"), "{name}");
        let row = lines.next().unwrap_or_default();
        let (column, reason) =
            reason.strip_prefix("column `").and_then(|rest| rest.split_once("`: ")).unwrap_or(("∅", reason));
        assert!(row.contains(&format!("in.csv,{line},{column},{reason}")), "{name}: {row}");
        assert_eq!(done.globals["rejected_count"], 1, "{name}: {rejected}");
        let kept = output(&mut done, "data");

        config["bad_rows"] = json!("skip");
        let (mut done, _folder) = csv(&format!("skip-{name}"), content, config);
        assert_eq!(output(&mut done, "data"), kept, "{name}");
        assert_eq!(output(&mut done, "rejected").lines().count(), 1, "{name}");
        assert!(done.log.iter().any(|line| line.contains("WARN 1 bad rows of")), "{name}: {:?}", done.log);
    }
    let (mut done, _folder) =
        csv("reject-kept", "a,b\n1,x\n2,y\nabc,z\n4,w\n", json!({"infer_schema_length": 2, "bad_rows": "reject"}));
    assert_eq!(output(&mut done, "data"), "a:int,b:str\n1,x\n2,y\n4,w");
}

#[test]
fn many_bad_rows_among_many_are_all_found() {
    let mut text = String::from("n,s\n");
    for row in 0..20_000 {
        let bad = row % 97 == 96;
        text += &format!("{},\"line\nbreak {row}\"\n", if bad { "x".to_owned() } else { row.to_string() });
    }
    let (mut done, _folder) = csv("reject-many", text, json!({"infer_schema_length": 50, "bad_rows": "reject"}));
    assert_eq!(done.globals["rejected_count"], 206);
    let rejected = testing::block_on(done.output("rejected").collect()).expect("readable");
    let lines: Vec<i64> = rejected.column("line").expect("line").i64().expect("int").into_no_null_iter().collect();
    assert_eq!(lines[..2], [2 * 96 + 2, 2 * 193 + 2]);
    assert_eq!(testing::block_on(done.output("data").collect()).expect("readable").height(), 20_000 - 206);
}

#[test]
fn json_is_read_as_lines_or_array() {
    let folder = folder("json");
    for (name, content, config, expect) in [
        ("lines", "{\"a\":1,\"b\":\"x\"}\n{\"a\":2}\n".into(), json!({}), "a:int,b:str\n1,x\n2,∅"),
        ("array", " [{\"a\":1},{\"a\":2.5}]".into(), json!({}), "a:float\n1.0\n2.5"),
        ("empty-array", "[ ]".into(), json!({}), ""),
        ("empty-typed-array", "[]\n".into(), json!({"schema": {"a": "int"}}), "a:int"),
        ("typed", "{\"a\":1}\n".into(), json!({"schema": {"a": "float"}}), "a:float\n1.0"),
        ("gzip", gzip("{\"a\":1}\n"), json!({}), "a:int\n1"),
        ("gzip-array", gzip("[{\"a\":1}]"), json!({}), "a:int\n1"),
    ] {
        let content: Vec<u8> = content;
        let mut done = read::<JsonSource>(&folder, name, &content, config);
        assert_eq!(output(&mut done, "data"), expect, "{name}");
        assert_eq!(done.globals["file_size"], content.len(), "{name}");
    }
}

#[test]
fn json_that_is_none_is_named_by_its_line() {
    let folder = folder("json-bad");
    for (name, content, expect) in [
        ("lines", "{\"a\":1}\n{\"a\":\n", "lines:2: not JSON: EOF while parsing a value"),
        ("array", "[{\"a\":1},\n{]", "array:2: not JSON:"),
        ("empty", "", "is empty"),
    ] {
        let (kind, message, _) = refusal(read::<JsonSource>(&folder, name, content, json!({})));
        assert_eq!(kind, ErrorKind::Data, "{name}: {message}");
        assert!(message.contains(expect), "{name}: {message}");
    }
    let late = "{\"a\":1}\n".repeat(2000) + "{\"a\":oops}\n";
    for infer in [json!(null), json!(10)] {
        let done = read::<JsonSource>(&folder, "late", &late, json!({"infer_schema_length": infer}));
        let (_, message, _) = refusal(into_sink(done, &folder));
        assert!(message.contains("late:2001: not JSON"), "{message}");
    }
}

#[test]
fn bad_rows_of_json_are_rejected_or_skipped_when_asked() {
    let lines = "{\"a\":1}\noops\n[1]\n\n{\"a\":\"x\"}\n{\"a\":300}\n{\"a\":2}\n";
    let array = "[{\"a\": 1}, 7,\n{\"a\": \"x\"}, {\"a\": 300}, {\"a\": 2}]";
    let refused = "conversion from `i64` to `i8` failed";
    for (name, content, config, good, bad) in [
        (
            "lines",
            lines,
            json!({}),
            "a:int8\n1\n2",
            vec![
                "2,∅,not JSON: expected value at column 1,oops".to_owned(),
                "3,∅,not a JSON object,[1]".to_owned(),
                "5,a,cannot read `x` as int,{\"a\":\"x\"}".to_owned(),
                format!("6,∅,{refused}"),
            ],
        ),
        (
            "array",
            array,
            json!({}),
            "a:int8\n1\n2",
            vec![
                "2,∅,not a JSON object,7".to_owned(),
                "3,a,cannot read `x` as int,{\"a\":\"x\"}".to_owned(),
                format!("4,∅,{refused}"),
            ],
        ),
        ("none-bad", "{\"a\":1}\n", json!({}), "a:int8\n1", vec![]),
        ("none-good", "oops\n", json!({}), "a:int8", vec!["1,∅,not JSON: expected value at column 1,oops".to_owned()]),
        ("none-fits", "{\"a\":300}\n", json!({}), "a:int8", vec![format!("1,∅,{refused}")]),
    ] {
        let folder = folder(&format!("json-reject-{name}"));
        let mut config: serde_json::Value = config;
        config["schema"] = json!({"a": "int8"});
        config["bad_rows"] = json!("reject");
        let mut done = read::<JsonSource>(&folder, name, content, config.clone());
        assert_eq!(output(&mut done, "data"), good, "{name}");
        let rejected = output(&mut done, "rejected");
        let found: Vec<&str> = rejected.lines().skip(1).collect();
        assert_eq!(found.len(), bad.len(), "{name}: {rejected}");
        for (found, bad) in found.iter().zip(&bad) {
            assert!(found.contains(&format!("{name},{bad}")), "{name}: {found}");
        }
        assert_eq!(done.globals["rejected_count"], bad.len(), "{name}");
        config["bad_rows"] = json!("skip");
        let mut done = read::<JsonSource>(&folder, name, content, config);
        assert_eq!(output(&mut done, "data"), good, "{name}");
        assert_eq!(output(&mut done, "rejected").lines().count(), 1, "{name}");
    }
}

#[test]
fn json_keeps_every_field_of_every_file() {
    let folder = folder("json-fields");
    folder.write("a.json", "{\"a\":1}\n".repeat(1500) + "{\"a\":2,\"late\":true}\n");
    folder.write("b.json", "[{\"a\": 2.5, \"other\": \"x\"}]");
    folder.write("c.json", " \n");
    let config = json!({"schema": {"absent": "date"}});
    let mut done = open::<JsonSource>(&folder, &folder.file("*.json"), config);
    let rows = output(&mut done, "data");
    let lines: Vec<&str> = rows.lines().collect();
    assert_eq!(lines[0], "a:float,late:bool,other:str,absent:date");
    assert_eq!(lines[1..2], ["1.0,∅,∅,∅"]);
    assert_eq!(lines[1501..], ["2.0,true,∅,∅", "2.5,∅,x,∅"]);
    assert!(done.log.iter().any(|line| line.contains("no row has `absent`")), "{:?}", done.log);
}

#[test]
fn json_values_are_read_as_declared_or_refused() {
    for (dtype, value, expect) in [
        ("int8", "-7", "-7"),
        ("uint16", "65535", "65535"),
        ("uint64", "18446744073709551615", "18446744073709551615"),
        ("float", "2", "2.0"),
        ("decimal(8,2)", "1.25", "1.25"),
        ("decimal(8,2)", "\"1.25\"", "1.25"),
        ("date", "\"2024-02-29\"", "2024-02-29"),
        ("time", "\"10:00:00\"", "10:00:00.000000000"),
        ("datetime", "\"2024-01-01 10:00:00\"", "2024-01-01T10:00:00.000000"),
        ("category", "\"x\"", "x"),
        ("str", "7", "7"),
        ("int", "2.7", "column `a`: cannot read `2.7` as int"),
        ("int", "true", "column `a`: cannot read `true` as int"),
        ("int", "9223372036854775808", "column `a`: cannot read `9223372036854775808` as int"),
        ("int8", "2.5", "column `a`: cannot read `2.5` as int"),
        ("int8", "300", "conversion from `i64` to `i8` failed"),
        ("uint8", "-1", "conversion from `i64` to `u8` failed"),
        ("bool", "1", "column `a`: cannot read `1` as bool"),
        ("date", "\"2024-13-01\"", "column `a`: cannot read `2024-13-01` as date"),
        ("datetime", "\"soon\"", "column `a`: cannot read `soon` as datetime"),
        ("decimal(8,2)", "\"free\"", "conversion from `str` to `decimal[8,2]` failed"),
        ("time", "\"noon\"", "conversion from `str` to `time` failed"),
    ] {
        for (name, content, place) in [
            ("lines", format!("{{\"a\":null}}\n{{\"a\":{value}}}\n"), "lines:2: "),
            ("array", format!("[{{\"a\": null}},\n\n{{\"a\": {value}}}]"), "array, element 2: "),
        ] {
            let folder = folder(&format!("json-typed-{name}"));
            let mut done = read::<JsonSource>(&folder, name, content, json!({"schema": {"a": dtype}}));
            let frame = done.output("data");
            match testing::block_on(frame.collect()) {
                Ok(rows) => {
                    let rows = table(Frame::from(rows));
                    let read: Vec<&str> = rows.lines().skip(1).collect();
                    assert_eq!(read, ["∅", expect], "{name} {dtype} {value}");
                }
                Err(error) => {
                    let message = error.to_string();
                    let located = !expect.starts_with("column") || message.contains(place);
                    assert!(message.contains(expect) && located, "{name} {dtype} {value}: {message}");
                }
            }
        }
    }
}

#[test]
fn json_of_mixed_values_is_widened_and_never_altered() {
    let folder = folder("json-mixed");
    let long = "{\"a\":1},".repeat(1500);
    for (name, content, expect) in [
        ("float-late", format!("[{long}{{\"a\":2.5}}]"), "2.5"),
        ("text-late", format!("[{long}{{\"a\":\"x\"}}]"), "x"),
        ("marked-array", "\u{feff}[{\"a\":1}]".into(), "1"),
        ("marked-lines", "\u{feff}{\"a\":1}\n".into(), "1"),
        ("object", "{\"a\":\n1}".into(), "1"),
    ] {
        let config = if name == "object" { json!({"format": "json"}) } else { json!({}) };
        let mut done = read::<JsonSource>(&folder, name, content, config);
        assert_eq!(output(&mut done, "data").lines().last(), Some(expect), "{name}");
    }
    let done = read::<JsonSource>(&folder, "bool-late", format!("[{long}{{\"a\":true}}]"), json!({}));
    let (kind, message, hint) = refusal(into_sink(done, &folder));
    assert_eq!(kind, ErrorKind::Data);
    assert!(message.ends_with("bool-late, element 1501: column `a`: cannot read `true` as int"), "{message}");
    assert!(hint.contains("`schema`"), "{hint}");
    let done = read::<JsonSource>(&folder, "no-object", "[{\"a\":1}, 7]", json!({}));
    let (_, message, _) = refusal(into_sink(done, &folder));
    assert!(message.ends_with("no-object, element 2: not a JSON object"), "{message}");
}

#[test]
fn parquet_is_read_back() {
    let folder = folder("parquet-source");
    let path = folder.file("t.parquet");
    let table = rows("a,b\n1,x\n2,\n");
    let wrote = testing::sink::<ParquetSink>(json!({"output_path": path})).input("input", Frame::from(table)).run();
    assert_eq!(wrote.result, Ok(()));
    let mut done = open::<ParquetSource>(&folder, &folder.file("*.parquet"), json!({}));
    assert_eq!(output(&mut done, "data"), "a:int,b:str\n1,x\n2,∅");
    let asked = testing::source::<ParquetSource>(json!({"file_path": path}))
        .facts(|facts| facts.wanted_globals = vec!["row_count".into()]);
    assert_eq!(asked.run().globals["row_count"], 2);
    let (kind, message, _) = refusal(read::<ParquetSource>(&folder, "text.parquet", "not parquet at all", json!({})));
    assert_eq!(kind, ErrorKind::Data);
    assert!(message.contains("text.parquet` as Parquet"), "{message}");
}
