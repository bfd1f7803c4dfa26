//! `json_source`: JSON lines, or files of one JSON array each, as a table.
//!
//! Both are scanned lazily as lines; [`array`] makes an array lines first. polars has a reader of arrays, but where a
//! value does not fit its column that one reads another value, or null, without a word; the reader of lines fails.
//!
//! The columns are looked for in all rows of all files before the scan: polars would look at the first file only, and
//! leave a field out that it has not met there.

mod array;
mod bad_line;
mod salvage;

use std::io::{self, BufReader, Read as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub(super) use bad_line::first_bad_line;
use polars::lazy::frame::LazyFileListReader;
use polars::prelude::*;
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::Read;
use super::bad_rows::BadRows;
use super::decode::{self, UntilCancelled};
use super::files::{self, Files, cannot_read, scan_path};
use crate::options::Named;
use crate::{columns, dtype, failure, query};

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
    /// Types of columns by name, instead of inferred ones. A column that no row has is null. A time is `10:00:00`, with or
    /// without a fraction. Numbers are read as 64-bit floats on their way to a decimal: write longer ones as text.
    #[serde(default)]
    schema: Named<String>,
    /// How many rows of each file the columns and their types are inferred from. null: all, which reads the files twice.
    /// With a number, a field that no row before it has is not read.
    #[serde(default)]
    infer_schema_length: Option<NonZeroUsize>,
    /// What to do with a line that holds no object, or a row with a value that is not of its column's type. In an array
    /// rows are counted instead of lines; one that is no JSON is an error as a whole.
    #[serde(default)]
    bad_rows: BadRows,
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
    const OUTPUTS: &'static [&'static str] = &["data", "rejected"];
    const GLOBALS: &'static [&'static str] = &["row_count", "file_size", "rejected_count"];
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn inputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        files::resources(&config.file_path).map(Some)
    }

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        let types = config.schema.0.iter().map(|(name, text)| Ok((name.clone(), dtype::parse(text)?)));
        let types = types.collect::<Result<_>>()?;
        Ok(Self { config, types })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let (config, types) = (self.config.clone(), self.types.clone());
        let counted = ctx.wants_global("row_count");
        let (folder, cancel) = (ctx.temp_dir().to_owned(), ctx.cancellation());
        let read = ctx
            .run_blocking(move || {
                let files = Files::find(&config.file_path)?;
                let types = types.into_iter().map(|(name, dtype)| Field::new(name.into(), dtype)).collect();
                let lines = Preparing { shape: config.format, folder: &folder, cancel: &cancel }.all(&files)?;
                let reading = Reading { lines, types, infer: config.infer_schema_length, cancel: &cancel };
                let (plan, rejected) = match config.bad_rows.bin(&folder)? {
                    None => (reading.plan()?, None),
                    Some(bin) => {
                        let (plan, rejected) = salvage::salvage(reading, bin, &folder)?;
                        (plan, Some(rejected))
                    }
                };
                Read::of(plan, rejected, counted, files.bytes)
            })
            .await?;
        read.give(ctx, &self.config.file_path)
    }
}

/// From the files as they are to files of JSON lines.
struct Preparing<'a> {
    shape: Shape,
    folder: &'a Path,
    cancel: &'a CancelToken,
}

impl Preparing<'_> {
    /// The files that have a row: themselves where they are lines already, else what stands in for them.
    fn all(&self, files: &Files) -> Result<Vec<PathBuf>> {
        files.paths.iter().filter_map(|path| self.one(path).transpose()).collect()
    }

    fn one(&self, path: &Path) -> Result<Option<PathBuf>> {
        let begin = Beginning::of(path)?;
        let is_array = match self.shape {
            Shape::Json => true,
            Shape::Ndjson => false,
            Shape::Auto => begin.first == Some(b'['),
        };
        match begin {
            _ if is_array => array::as_lines(path, self.folder, self.cancel),
            Beginning { first: None, .. } => Ok(None),
            // polars takes the mark for part of the first line.
            Beginning { marked: true, .. } => decode::copy_unmarked(path, self.folder, self.cancel).map(Some),
            Beginning { .. } => Ok(Some(path.to_owned())),
        }
    }
}

/// What a file's text begins with.
struct Beginning {
    /// Whether there is a byte order mark.
    marked: bool,
    /// The first character that is no space.
    first: Option<u8>,
}

impl Beginning {
    fn of(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| cannot_read(path, &error);
        let (text, marked) = decode::open_unmarked(path)?;
        for byte in BufReader::new(text).bytes() {
            let byte = byte.map_err(failed)?;
            if !byte.is_ascii_whitespace() {
                return Ok(Self { marked, first: Some(byte) });
            }
        }
        Ok(Self { marked, first: None })
    }
}

struct Reading<'a> {
    lines: Vec<PathBuf>,
    types: Schema,
    infer: Option<NonZeroUsize>,
    cancel: &'a CancelToken,
}

impl Reading<'_> {
    /// The scan of the lines, its schema resolved.
    fn plan(&self) -> Result<LazyFrame> {
        if self.lines.is_empty() {
            return Ok(DataFrame::empty_with_schema(&self.types).lazy());
        }
        self.plan_of(self.with_declared(self.inferred()?))
    }

    /// The same where the columns are known, as polars is to read them.
    fn plan_of(&self, schema: Schema) -> Result<LazyFrame> {
        let plan = LazyJsonLineReader::new_paths(self.lines.iter().map(|path| scan_path(path)).collect::<Result<_>>()?)
            .with_schema(Some(Arc::new(schema)))
            .finish()
            .map_err(|error| failure::of_plan(&error))?;
        query::resolve(self.cast(plan)).map(|(plan, _)| plan)
    }

    /// From the types that polars reads to those that were declared.
    fn cast(&self, plan: LazyFrame) -> LazyFrame {
        let casts = self.types.iter().filter(|(_, dtype)| read_as(dtype) != **dtype);
        let casts: Vec<Expr> = casts.map(|(name, dtype)| cast(name, dtype)).collect();
        if casts.is_empty() { plan } else { plan.with_columns(casts) }
    }

    /// The columns of all files; one that has several types among them gets one that holds them all.
    fn inferred(&self) -> Result<Schema> {
        let tables = self.lines.iter().map(|path| Ok(DataFrame::empty_with_schema(&self.inferred_from(path)?).lazy()));
        let args = UnionArgs { to_supertypes: true, ..Default::default() };
        let together = concat_lf_diagonal(tables.collect::<Result<Vec<_>>>()?, args);
        let schema = together.and_then(|mut plan| plan.collect_schema());
        schema.map(Arc::unwrap_or_clone).map_err(|error| unreadable(&self.lines[0], &error))
    }

    fn inferred_from(&self, path: &Path) -> Result<Schema> {
        let mut text = BufReader::new(UntilCancelled { text: decode::open(path)?, cancel: self.cancel });
        polars::io::ndjson::infer_schema(&mut text, self.infer).map_err(|error| {
            if self.cancel.is_cancelled() {
                return Error::cancelled();
            }
            // Lines that are not JSON objects; polars does not say which.
            first_bad_line(path, &Schema::default()).unwrap_or_else(|| unreadable(path, &error))
        })
    }

    /// `schema` with the declared columns as polars is to read them.
    fn with_declared(&self, mut schema: Schema) -> Schema {
        for (name, dtype) in self.types.iter() {
            if !schema.contains(name) {
                tracing::warn!("`schema`: no row has `{name}`, so it is null");
            }
            schema.with_column(name.clone(), read_as(dtype));
        }
        schema
    }
}

/// The type polars reads a column of type `dtype` as, before it is cast. Its reader of lines panics at small integers and
/// times, and refuses decimals.
fn read_as(dtype: &DataType) -> DataType {
    match dtype {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int64,
        DataType::Time | DataType::Decimal(..) | DataType::Categorical(..) => DataType::String,
        other => other.clone(),
    }
}

/// The cast from there to `dtype`. A value that does not fit is an error.
fn cast(name: &str, dtype: &DataType) -> Expr {
    let column = columns::exact(name);
    match dtype {
        // polars has no cast from text to a time; without a format it would take the first value's for all.
        DataType::Time => {
            let format = Some("%H:%M:%S%.f".into());
            column.str().to_time(StrptimeOptions { format, ..Default::default() })
        }
        other => column.strict_cast(other.clone()),
    }
}

fn unreadable(path: &Path, error: &PolarsError) -> Error {
    let message = format!("cannot read `{}` as JSON: {}", decode::original(path).display(), failure::message(error));
    Error::new(ErrorKind::Data, "unreadable-json", message)
}
