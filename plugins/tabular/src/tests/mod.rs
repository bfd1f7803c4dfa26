//! Whole modules, run in process through the same vtables as the host runs them.

mod label_filter;
mod mods;
mod resources;
mod sinks;
mod solos;
mod sources;

use polars::prelude::*;
use pype_plugin::prelude::*;
use pype_plugin::testing::{self, Done};
use serde_json::Value;

use crate::dtype;

/// A table as text: names with types, then rows; null is `∅`.
fn table(frame: Frame) -> String {
    let mut rows = testing::block_on(frame.collect()).expect("the frame can be read");
    let head: Vec<String> =
        rows.schema().iter().map(|(name, dtype)| format!("{name}:{}", dtype::name(dtype))).collect();
    let mut text = Vec::new();
    let writer = CsvWriter::new(&mut text).include_header(false).with_null_value("∅".into());
    writer.with_quote_style(QuoteStyle::Never).finish(&mut rows).expect("a flat table");
    let body = String::from_utf8(text).expect("UTF-8");
    [head.join(","), body].join("\n").trim_end().to_owned()
}

/// The table at a port.
fn output(done: &mut Done, port: &str) -> String {
    table(done.output(port))
}

/// What a module answered that must fail: kind, message, hint.
fn refusal(done: Done) -> (ErrorKind, String, String) {
    let error = done.result.expect_err("the module must fail");
    (error.kind, error.to_string(), error.hint.clone().unwrap_or_default())
}

/// A table from CSV text, as the source would read it.
fn rows(text: &str) -> LazyFrame {
    let options = CsvReadOptions::default().map_parse_options(|parse| parse.with_try_parse_dates(true));
    let reader = options.into_reader_with_file_handle(std::io::Cursor::new(text.to_owned()));
    reader.finish().expect("the test's own table").lazy()
}

/// A mod's output for one input.
fn run<M: Mod>(config: Value, input: &str) -> Done {
    testing::module::<M>(config).input("input", Frame::from(rows(input))).run()
}

/// Checks a mod with one input and one output, lazily and eagerly.
fn check<M: Mod>(config: Value, input: &str, expect: &str) {
    let expect = expect.trim();
    assert_eq!(output(&mut run::<M>(config.clone(), input), "output"), expect, "lazy {config}");
    let eager = testing::module::<M>(config.clone()).input("input", Frame::from(rows(input)));
    let mut done = eager.facts(|facts| facts.eager = true).run();
    assert_eq!(output(&mut done, "output"), expect, "eager {config}");
}
