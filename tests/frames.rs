//! Frames between plugins that share no data engine: polars, another polars, arrow-rs, and none at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType as ArrowType, Field, Fields, Schema};
use polars::prelude::*;
use pype::loader::Loader;
use pype::observe::log::{Filter, Format, start};
use pype::run::LibraryServices;
use pype_plugin::host::{LibraryFacts, NodeFacts, adopt_runtime};
use pype_plugin::{ArrowArray, ArrowSchema, Error, Frame, Producer};
use pype_tests::{Sandbox, plugin};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A host in this process.
struct Host {
    runtime: Runtime,
    loader: Loader<LibraryServices>,
    services: Arc<LibraryServices>,
}

/// One for all tests: plugins live as long as the process, and so does the runtime that they are given.
static HOST: LazyLock<Host> = LazyLock::new(Host::new);

impl Host {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        adopt_runtime(runtime.handle().clone());
        let (log, _writer) = start(Filter::default(), Format::Text, |_| {});
        let services = Arc::new(LibraryServices::new(log));
        let loader = Loader::new(services.clone(), LibraryFacts::default()).expect("a cache");
        Self { runtime, loader, services }
    }

    /// What `module` makes of `frame`.
    fn through(&self, library: &Path, module: &str, configs: &Value, frame: impl Into<Frame>) -> Frame {
        let library = self.loader.load(library, None).expect("the library loads").library;
        let frame = frame.into();
        self.runtime.block_on(async {
            let facts = NodeFacts::default();
            let opened = library.open(module, configs, &facts, self.services.clone());
            let instance = opened.await.expect("the module opens");
            let mut outputs = instance.run(vec![("input".to_owned(), frame)]).await.expect("the module runs");
            instance.close().await.expect("the module closes");
            outputs.remove(0).1
        })
    }

    fn numbered(&self, frame: impl Into<Frame>) -> Frame {
        self.through(&plugin("arrow_frames"), "number_rows_mod", &json!({"column": "n"}), frame)
    }

    fn tail(&self, frame: impl Into<Frame>) -> Frame {
        self.through(&plugin("other_polars"), "tail_mod", &json!({"rows": 1000}), frame)
    }

    fn collected(&self, frame: Frame) -> DataFrame {
        self.runtime.block_on(frame.collect()).expect("polars reads it")
    }
}

#[test]
fn four_plugins_with_four_data_engines_make_one_flow() {
    let sandbox = Sandbox::new();
    for name in ["raw_frames", "arrow_frames", "other_polars"] {
        sandbox.register(&plugin(name));
    }
    sandbox.write("in.csv", "name,age\nAnn,31\nBob,17\nCy,19\nDee,45\n");
    for mode in ["eager", "lazy"] {
        let flow = format!(
            "
settings: {{execution_mode: {mode}}}
modules:
  - {{id: in, name: csv_source, configs: {{required: {{file_path: in.csv}}}}}}
  - {{id: adults, name: filter_mod, configs: {{required: {{condition: age > 18}}}}}}
  - {{id: none, name: count_rows_mod}}
  - {{id: arrow, name: number_rows_mod, configs: {{required: {{column: n}}}}}}
  - {{id: other, name: tail_mod, configs: {{required: {{rows: 2}}}}}}
  - {{id: more, name: derive_mod, configs: {{required: {{columns: {{half: age / 2}}}}}}}}
  - {{id: out, name: json_sink, configs: {{required: {{output_path: out.json}}, optional: {{format: json}}}}}}
connections:
  data: [in.data - adults.input, adults.output - none.input, none.output - arrow.input, arrow.output - other.input,
    other.output - more.input, more.output - out.input]
"
        );
        sandbox.flow("four", &flow);
        sandbox.ok(&["run", "four.yaml"]);
        let rows: Value = serde_json::from_str(&sandbox.read("out.json")).expect("an array");
        let expect = json!([
            {"name": "Cy", "age": 19, "n": 1, "half": 9.5},
            {"name": "Dee", "age": 45, "n": 2, "half": 22.5},
        ]);
        assert_eq!(rows, expect, "{mode}");
    }
}

/// Three rows, the middle one null, of each type that Arrow has a standard format for.
fn every_type() -> DataFrame {
    let base = df! {
        "number" => [Some(1_i64), None, Some(3)],
        "text" => [Some("a"), None, Some("b")],
    };
    let number = |name: &str, dtype: DataType| col("number").cast(dtype).alias(name);
    let text = |name: &str, dtype: DataType| col("text").cast(dtype).alias(name);
    let berlin = TimeZone::opt_try_new(Some("Europe/Berlin")).expect("a time zone");
    let frozen = FrozenCategories::new(["b", "a", "c"]).expect("each once");
    let frame = base.expect("columns of one length").lazy().with_columns([
        number("bool", DataType::Boolean),
        number("i8", DataType::Int8),
        number("i16", DataType::Int16),
        number("i32", DataType::Int32),
        number("u8", DataType::UInt8),
        number("u16", DataType::UInt16),
        number("u32", DataType::UInt32),
        number("u64", DataType::UInt64),
        number("f32", DataType::Float32),
        number("f64", DataType::Float64),
        number("decimal", DataType::Decimal(20, 3)),
        number("date", DataType::Date),
        number("time", DataType::Time),
        number("ms", DataType::Datetime(TimeUnit::Milliseconds, None)),
        number("us", DataType::Datetime(TimeUnit::Microseconds, None)),
        number("ns in Berlin", DataType::Datetime(TimeUnit::Nanoseconds, berlin)),
        number("duration", DataType::Duration(TimeUnit::Microseconds)),
        text("binary", DataType::Binary),
        text("category", DataType::from_categories(Categories::global())),
        text("enum", DataType::from_frozen_categories(frozen)),
        as_struct(vec![col("number"), col("text")]).alias("struct"),
        lit(NULL).alias("null"),
    ]);
    let mut frame = frame.collect().expect("the casts hold");
    let lists = pairs();
    let array = lists.cast(&DataType::Array(Box::new(DataType::Int64), 2)).expect("pairs");
    for column in [lists, array.with_name("array".into())] {
        frame.with_column(column.into()).expect("three rows");
    }
    frame
}

fn pairs() -> Series {
    let pair = |of: [i64; 2]| Some(Series::new("".into(), of));
    let lists: ListChunked = [pair([1, 2]), None, pair([5, 6])].into_iter().collect();
    lists.with_name("list".into()).into_series()
}

/// The bundled library.
fn tabular() -> PathBuf {
    pype_tests::binary().with_file_name("libpype_tabular.so")
}

#[track_caller]
fn same(found: &DataFrame, expect: &DataFrame) {
    assert_eq!(found.schema(), expect.schema());
    for (found, expect) in found.columns().iter().zip(expect.columns()) {
        let equal = found.as_materialized_series().equals_missing(expect.as_materialized_series());
        assert!(equal, "{}: {found:?} is not {expect:?}", expect.name());
    }
}

#[test]
fn every_type_survives_arrow_rs_and_no_engine_and_empty_frames_do_too() {
    let host = &*HOST;
    let raw = plugin("raw_frames");
    for given in [every_type(), every_type().clear()] {
        let passed = host.through(&raw, "count_rows_mod", &json!({}), given.clone());
        same(&host.collected(passed), &given);
        let numbered = host.collected(host.numbered(given.clone()));
        assert_eq!(numbered.column("n").expect("added").len(), given.height());
        same(&numbered.drop("n").expect("it was there"), &given);
    }
}

#[test]
fn what_both_know_survives_another_polars() {
    let host = &*HOST;
    // The older one was built with the types of its default features only.
    let given = every_type().select(["number", "text", "bool", "i32", "u32", "u64", "f32", "f64", "list", "null"]);
    let given = given.expect("they are there");
    same(&host.collected(host.tail(given.clone())), &given);
    same(&host.collected(host.tail(given.clear())), &given.clear());
}

/// Rows that are in a Parquet file, which goes with the frame. They come from there or not at all.
struct InParquet {
    schema: SchemaRef,
    file: tempfile::TempPath,
}

impl InParquet {
    fn new(mut rows: DataFrame) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        ParquetWriter::new(&mut file).finish(&mut rows).expect("written");
        Self { schema: rows.schema().clone(), file: file.into_temp_path() }
    }
}

impl Producer for InParquet {
    async fn schema(&mut self) -> Result<ArrowSchema, Error> {
        Frame::from(DataFrame::empty_with_schema(&self.schema)).schema().await
    }

    async fn next(&mut self) -> Result<Option<ArrowArray>, Error> {
        panic!("nobody needs the stream")
    }

    fn parquet(&self) -> Option<PathBuf> {
        Some(self.file.to_path_buf())
    }
}

#[test]
fn rows_in_a_parquet_file_are_scanned_there_and_come_out_the_same() {
    let host = &*HOST;
    for given in [every_type(), every_type().clear()] {
        let frame = Frame::new(InParquet::new(given.clone()));
        let file = frame.parquet().expect("it says so");
        let query = host.runtime.block_on(frame.into_lazy()).expect("polars scans it");
        assert!(!file.exists(), "the frame has gone, and the file with it");
        for query in [query.clone(), query] {
            same(&query.collect().expect("polars reads it"), &given);
        }
        let kept = host.through(
            &tabular(),
            "filter_mod",
            &json!({"condition": "true"}),
            Frame::new(InParquet::new(given.clone())),
        );
        same(&host.collected(kept), &given);
    }
}

#[test]
fn rows_without_columns_are_counted() {
    let host = &*HOST;
    let nothing = DataFrame::empty_with_height(5);
    let numbered = host.collected(host.numbered(nothing));
    same(&numbered, &df! { "n" => 0_i64..5 }.expect("one column"));
    let passed = host.through(&plugin("raw_frames"), "count_rows_mod", &json!({}), DataFrame::empty_with_height(5));
    assert_eq!(host.collected(passed).shape(), (5, 0));
}

/// What only arrow-rs knows: maps, dictionaries, metadata of fields and of the schema.
fn annotated() -> RecordBatch {
    let note = |text: &str| HashMap::from([("note".to_owned(), text.to_owned())]);
    let words: DictionaryArray<arrow_array::types::Int16Type> = vec!["x", "y", "x"].into_iter().collect();
    let entries = StructArray::from(vec![
        (
            Arc::new(Field::new("keys", ArrowType::Utf8, false)),
            Arc::new(StringArray::from(vec!["a", "b", "c"])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("values", ArrowType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        ),
    ]);
    let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let maps = MapArray::new(entry, OffsetBuffer::from_lengths([1, 0, 2]), entries, None, false);
    let fields: Fields = vec![
        Field::new("id", ArrowType::Int64, false).with_metadata(note("the key")),
        Field::new("word", words.data_type().clone(), true),
        Field::new("map", maps.data_type().clone(), true).with_metadata(note("nested")),
    ]
    .into();
    let schema = Arc::new(Schema::new_with_metadata(fields, note("of the schema")));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2, 3])), Arc::new(words), Arc::new(maps)];
    RecordBatch::try_new(schema, columns).expect("columns of one length")
}

#[test]
fn metadata_and_types_that_only_arrow_knows_are_kept() {
    let host = &*HOST;
    let given = annotated();
    let raw = plugin("raw_frames");
    let frame = || Frame::from_record_batches(given.schema(), [given.clone()]);
    let passed = host.through(&raw, "count_rows_mod", &json!({}), frame());
    let numbered = host.numbered(passed);
    let (schema, batch) = host.runtime.block_on(async {
        let schema = numbered.arrow_schema().await.expect("a schema");
        let batch = numbered.next_record_batch(&schema).await.expect("readable").expect("a batch");
        (schema, batch)
    });
    assert_eq!(schema.metadata(), given.schema().metadata());
    assert_eq!(schema.fields()[..3], given.schema().fields()[..]);
    assert_eq!(batch.columns()[..3], given.columns()[..]);
}
