//! Each sink: the file, its commit, and that nothing is left of a failure.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::sinks::csv::CsvSink;
use crate::sinks::json::JsonSink;
use crate::sinks::parquet::ParquetSink;
use crate::sources::decode;
use crate::testing::folder;

const TABLE: &str = "a,b\n1,x\n2,\n3,\"y,\nz\"\n";

fn write<S: Sink>(path: &str, mut config: Value, input: LazyFrame) -> Done {
    config["output_path"] = json!(path);
    testing::sink::<S>(config).input("input", Frame::from(input)).run()
}

/// Writes the table and gives the file's text, decompressed.
fn text<S: Sink>(path: &str, config: Value, input: &str) -> String {
    let done = write::<S>(path, config, rows(input));
    assert_eq!(done.result, Ok(()));
    let height = testing::block_on(async { rows(input).collect() }).expect("readable").height() as u64;
    let bytes = fs::metadata(path).expect("the file").len();
    let expect = Commit { rows: Some(height), bytes: Some(bytes), uri: Some(path.into()) };
    assert_eq!(done.commits, [expect]);
    let mut text = String::new();
    decode::open(Path::new(path)).expect("readable").read_to_string(&mut text).expect("UTF-8");
    text
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn csv_is_written_as_asked() {
    let folder = folder("csv-sink");
    let path = folder.file("deep/er/out.csv");
    for (config, expect) in [
        (json!({}), "a,b\n1,x\n2,\n3,\"y,\nz\"\n"),
        (json!({"delimiter": "tab", "null_value": "NA"}), "a\tb\n1\tx\n2\tNA\n3\t\"y,\nz\"\n"),
        (json!({"header": false, "quote_style": "always"}), "\"1\",\"x\"\n\"2\",\"\"\n\"3\",\"y,\nz\"\n"),
        (json!({"compression": "gzip"}), "a,b\n1,x\n2,\n3,\"y,\nz\"\n"),
        (json!({"compression": "zstd", "bom": true}), "\u{feff}a,b\n1,x\n2,\n3,\"y,\nz\"\n"),
    ] {
        assert_eq!(text::<CsvSink>(&path, config.clone(), TABLE), expect, "{config}");
    }
    assert_eq!(text::<CsvSink>(&path, json!({}), "a,b\n"), "a,b\n", "an empty table has its header");
    assert_eq!(names(&folder.path().join("deep/er")), ["out.csv"]);
}

#[test]
fn json_is_written_as_lines_or_array() {
    let folder = folder("json-sink");
    let path = folder.file("out.json");
    let lines = "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n{\"a\":3,\"b\":\"y,\\nz\"}\n";
    let array = format!("[\n{}\n]\n", lines.trim_end().replace("}\n", "},\n"));
    for compression in ["none", "gzip", "zstd"] {
        assert_eq!(text::<JsonSink>(&path, json!({"compression": compression}), TABLE), lines, "{compression}");
        let config = json!({"format": "json", "compression": compression});
        assert_eq!(text::<JsonSink>(&path, config, TABLE), array, "{compression}");
    }
    assert_eq!(text::<JsonSink>(&path, json!({"format": "json"}), "a\n"), "[]\n");
}

#[test]
fn json_refuses_what_it_has_no_form_for() {
    let folder = folder("json-sink-bytes");
    let bytes = || col("a").cast(DataType::Binary).alias("raw");
    for column in [bytes(), as_struct(vec![col("b"), bytes()]).alias("raw")] {
        for format in ["ndjson", "json"] {
            let input = rows("a,b\nx,1\n").select([column.clone()]);
            let done = write::<JsonSink>(&folder.file("out.json"), json!({"format": format}), input);
            let (kind, message, _) = refusal(done);
            assert_eq!(kind, ErrorKind::Config, "{message}");
            assert!(message.contains("no form for the column `raw`"), "{message}");
        }
    }
    let input = rows("a,t\n1.25,10:00:00\n").select([
        col("a").cast(DataType::Decimal(8, 2)),
        col("t").cast(DataType::String),
        col("a").cast(DataType::Int8).alias("i"),
    ]);
    assert_eq!(write::<JsonSink>(&folder.file("out.json"), json!({}), input).result, Ok(()));
    assert_eq!(names(folder.path()), ["out.json"]);
}

#[test]
fn parquet_is_written_with_each_codec() {
    let folder = folder("parquet-sink");
    for (codec, level) in
        [("zstd", Some(3)), ("gzip", Some(6)), ("brotli", Some(2)), ("snappy", None), ("lz4", None), ("none", None)]
    {
        let path = folder.file(&format!("{codec}.parquet"));
        let done = write::<ParquetSink>(&path, json!({"compression": codec, "compression_level": level}), rows(TABLE));
        assert_eq!(done.result, Ok(()), "{codec}");
        assert_eq!(done.commits[0].rows, Some(3));
        let file = fs::File::open(&path).expect("the file");
        let back = ParquetReader::new(file).finish().expect("readable");
        assert_eq!(table(Frame::from(back)), table(Frame::from(rows(TABLE))), "{codec}");
    }
    for config in [json!({"compression": "snappy", "compression_level": 3}), json!({"compression_level": 99})] {
        let (kind, message, _) = refusal(write::<ParquetSink>(&folder.file("x"), config, rows(TABLE)));
        assert_eq!(kind, ErrorKind::Config);
        assert!(message.contains("compression_level"), "{message}");
    }
    assert_eq!(write::<ParquetSink>(&folder.file("empty"), json!({}), rows("a,b\n")).commits[0].rows, Some(0));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = folder("sink-fails");
    let path = folder.write("out.parquet", "old");
    let bad = rows("a\nx\n").select([col("a").strict_cast(DataType::Int64)]);
    let (kind, message, _) = refusal(write::<ParquetSink>(&path, json!({}), bad));
    assert_eq!(kind, ErrorKind::Data, "{message}");
    assert!(message.contains("conversion from `str` to `i64` failed"), "{message}");
    assert_eq!(fs::read(&path).expect("the file"), b"old");
    assert_eq!(names(folder.path()), ["out.parquet"]);
}

#[test]
fn a_cancelled_write_says_so_and_leaves_nothing() {
    let folder = folder("sink-cancelled");
    for name in ["out.parquet", "out.csv", "out.json"] {
        let config = json!({"output_path": folder.file(name)});
        let test = match name {
            "out.parquet" => testing::sink::<ParquetSink>(config),
            "out.csv" => testing::sink::<CsvSink>(config),
            _ => testing::sink::<JsonSink>(config),
        };
        let (kind, message, _) = refusal(test.input("input", Frame::from(rows(TABLE))).cancelled().run());
        assert_eq!(kind, ErrorKind::Cancelled, "{name}: {message}");
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn an_existing_file_can_be_kept() {
    let folder = folder("sink-exists");
    let path = folder.write("out.csv", "old");
    let (_, message, hint) = refusal(write::<CsvSink>(&path, json!({"if_exists": "fail"}), rows(TABLE)));
    assert!(message.contains("exists already") && hint.contains("replace"), "{message} {hint}");
    assert_eq!(fs::read(&path).expect("the file"), b"old");
}
