//! `json_source`: JSON lines, or files of one JSON array each, as a table.
//!
//! JSON lines are scanned lazily. An array is not a row format: it is read whole.

use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::Path;

use polars::lazy::frame::{LazyFileListReader, LazyFrame};
use polars::prelude::*;
use pype_plugin::prelude::*;
use serde::de::IgnoredAny;

use super::csv::read;
use super::decode;
use super::files::{Files, cannot_read};
use crate::options::Named;
use crate::{columns, dtype, failure};

pub(crate) struct JsonSource {
    config: Config,
    types: Vec<(String, DataType)>,
}

/// Which files, and how they are read.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file, or a pattern for several. gzip and zstd are recognised by content.
    #[schemars(extend("format" = "path"))]
    file_path: String,
    /// What is in the files. By default their first character tells: an array begins with `[`.
    #[serde(default)]
    format: Shape,
    /// Types of columns by name, instead of inferred ones.
    #[serde(default)]
    schema: Named<String>,
    /// How many rows the types are inferred from. null: all.
    #[serde(default = "infer_default")]
    infer_schema_length: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Shape {
    /// Look at the first character.
    #[default]
    Auto,
    /// One object a line.
    Ndjson,
    /// One array of objects a file.
    Json,
}

impl Source for JsonSource {
    const NAME: &'static str = "json_source";
    const DESCRIPTION: &'static str = "Reads files of JSON lines or of one JSON array";
    const CATEGORY: &'static str = "File Sources";
    const GLOBALS: &'static [&'static str] = &["row_count", "file_size"];
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let types = config.schema.0.iter().map(|(name, text)| Ok((name.clone(), dtype::parse(text)?)));
        let types = types.collect::<Result<_>>()?;
        Ok(Self { config, types })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let (config, types) = (self.config.clone(), self.types.clone());
        let (eager, counted) = (ctx.eager(), ctx.wants_global("row_count"));
        let (data, rows, bytes) = ctx
            .run_blocking(move || {
                let files = Files::find(&config.file_path)?;
                let types = types.into_iter().map(|(name, dtype)| Field::new(name.into(), dtype)).collect();
                let plan = Reading { files: &files, types, infer: config.infer_schema_length }.plan(config.format)?;
                let (data, rows) = read(plan, eager, counted)?;
                Ok((data, rows, files.bytes))
            })
            .await?;
        ctx.set_global("file_size", bytes)?;
        if let Some(rows) = rows {
            ctx.set_global("row_count", rows)?;
        }
        Ok(Outputs::one("data", data))
    }
}

struct Reading<'a> {
    files: &'a Files,
    types: Schema,
    infer: Option<NonZeroUsize>,
}

impl Reading<'_> {
    fn plan(&self, shape: Shape) -> Result<LazyFrame> {
        let array = match shape {
            Shape::Json => true,
            Shape::Ndjson => false,
            Shape::Auto => begins_with_bracket(&self.files.paths[0])?,
        };
        let mut plan = if array { self.arrays()? } else { self.lines()? };
        let schema = plan.collect_schema().map_err(|error| self.explain(array, &error))?;
        columns::require("schema", self.types.iter_names().map(PlSmallStr::as_str), &schema)?;
        Ok(plan)
    }

    fn lines(&self) -> Result<LazyFrame> {
        LazyJsonLineReader::new_paths(self.files.scan_paths()?)
            .with_infer_schema_length(self.infer)
            .with_schema_overwrite((!self.types.is_empty()).then(|| Arc::new(self.types.clone())))
            .finish()
            .map_err(|error| failure::of_plan(&error))
    }

    fn arrays(&self) -> Result<LazyFrame> {
        let tables = self.files.paths.iter().map(|path| self.array(path).map(IntoLazy::lazy));
        let tables: Vec<LazyFrame> = tables.collect::<Result<_>>()?;
        let args = UnionArgs { to_supertypes: true, ..Default::default() };
        concat_lf_diagonal(tables, args).map_err(|error| failure::of_plan(&error))
    }

    fn array(&self, path: &Path) -> Result<DataFrame> {
        let mut bytes = Vec::new();
        decode::open(path)?.read_to_end(&mut bytes).map_err(|error| cannot_read(path, &error))?;
        // polars parses in place and says little about what is wrong; this says where.
        serde_json::from_slice::<IgnoredAny>(without_mark(&bytes)).map_err(|error| {
            let message = format!("{}:{}: not JSON: {error}", path.display(), error.line());
            Error::new(ErrorKind::Data, "bad-json", message)
        })?;
        if without_mark(&bytes).iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"[]") {
            return Ok(DataFrame::empty_with_schema(&self.types));
        }
        JsonReader::new(io::Cursor::new(bytes))
            .with_json_format(JsonFormat::Json)
            .infer_schema_len(self.infer)
            .with_schema_overwrite(&self.types)
            .finish()
            .map_err(|error| unreadable(path, &error))
    }

    /// Looks for the first line that is not JSON when polars could not tell the columns.
    fn explain(&self, array: bool, error: &PolarsError) -> Error {
        let bad_line = || self.files.paths.iter().find_map(|path| first_bad_line(path));
        let located = if array { None } else { bad_line() };
        located.unwrap_or_else(|| unreadable(&self.files.paths[0], error))
    }
}

/// The first line of a file of JSON lines that is not JSON.
pub(crate) fn first_bad_line(path: &Path) -> Option<Error> {
    let lines = BufReader::new(decode::open(path).ok()?).split(b'\n');
    for (index, line) in lines.enumerate() {
        let line = line.ok()?;
        let text = without_mark(&line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
            let reason = error.to_string();
            let reason = reason.split(" at line").next().unwrap_or(&reason);
            let message = format!("{}:{}: not JSON: {reason} at column {}", path.display(), index + 1, error.column());
            return Some(Error::new(ErrorKind::Data, "bad-json", message));
        }
    }
    None
}

fn begins_with_bracket(path: &Path) -> Result<bool> {
    let mut begin = Vec::new();
    decode::open(path)?.take(4096).read_to_end(&mut begin).map_err(|error| cannot_read(path, &error))?;
    Ok(without_mark(&begin).trim_ascii_start().starts_with(b"["))
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

fn unreadable(path: &Path, error: &PolarsError) -> Error {
    let message = format!("cannot read `{}` as JSON: {}", path.display(), failure::message(error));
    Error::new(ErrorKind::Data, "unreadable-json", message)
}

fn infer_default() -> Option<NonZeroUsize> {
    NonZeroUsize::new(1000)
}
