//! `csv_source`: CSV files as a table.
//!
//! By default a bad row is an error: polars reads the files at full speed, and only when it has failed does
//! [`first_bad_row`] go through them again for the file, line and column. Stray quotes alone are looked for before, by
//! [`quotes`], for polars may lose rows over them instead of failing. With `bad_rows: skip` or `reject` the files are
//! gone through first ([`salvage`]), and polars reads what is left. Both ask polars itself, through [`triage`],
//! whether it can read a row, so the two never disagree with it or with each other.

mod quotes;
mod records;
mod salvage;
mod scan;
mod triage;

use std::ops::ControlFlow;
use std::path::Path;

use polars::prelude::*;
use pype_plugin::prelude::*;
use records::Text;
use scan::Reading;
use triage::{BadRow, Judge};

use crate::options::Named;
use crate::sources::bad_rows::BadRows;
use crate::sources::files::{self, Files};
use crate::sources::{Read, decode};

pub(crate) struct CsvSource {
    reading: Reading,
    config: Config,
}

/// Which files, and how their text is read.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file, or a pattern for several: `data/2013-*.csv`. gzip and zstd are recognised by content.
    #[schemars(extend("format" = "path"))]
    file_path: String,
    /// The text's encoding: `utf-8`, `utf8-lossy` (bad bytes become �), or any label of the WHATWG standard, such as
    /// `latin1`, `windows-1252`, `utf-16`, `shift_jis`.
    #[serde(default = "utf_8")]
    encoding: String,
    /// The character between fields; `tab` for a tab.
    #[serde(default = "comma")]
    delimiter: String,
    /// The character around fields that hold delimiters or line breaks. Empty: there is none.
    #[serde(default = "double_quote")]
    quote: String,
    /// Whether the first row names the columns. Without it they are `column_1`, `column_2`, …
    #[serde(default = "yes")]
    header: bool,
    /// Names for the columns, instead of the header's or of `column_1`, ….
    columns: Option<Vec<String>>,
    /// Types of columns by name, instead of inferred ones: `{id: str, price: decimal(10,2), day: date}`.
    #[serde(default)]
    schema: Named<String>,
    /// Texts that mean null, besides the empty field: `[NA, "-"]`.
    #[serde(default)]
    null_values: Vec<String>,
    /// Rows to leave out before the header.
    #[serde(default)]
    skip_rows: usize,
    /// Lines that begin with this are comments.
    comment_prefix: Option<String>,
    /// How many rows the types are inferred from. 0: every column is text. null: the whole file is read for it.
    #[serde(default = "infer_default")]
    infer_schema_length: Option<usize>,
    /// Whether text that looks like dates and times in all inferred rows becomes dates and times.
    #[serde(default)]
    try_parse_dates: bool,
    /// Whether the decimal separator is a comma.
    #[serde(default)]
    decimal_comma: bool,
    /// Adds a column of this name with the path of the file that a row comes from.
    file_column: Option<String>,
    /// What to do with a row that has too many fields, a value that is not of its column's type, a stray quote or
    /// broken text. A row with too few fields is not bad: what is missing is null. A blank line is a row of nulls. `error`
    /// looks at what is read: a value in a column that the flow leaves out, or a field too many behind the last one it
    /// reads, stops a run in eager mode only. `skip` and `reject` always look at whole rows.
    #[serde(default)]
    bad_rows: BadRows,
}

impl Source for CsvSource {
    const NAME: &'static str = "csv_source";
    const DESCRIPTION: &'static str = "Reads CSV files";
    const CATEGORY: &'static str = "File Sources";
    const OUTPUTS: &'static [&'static str] = &["data", "rejected"];
    const GLOBALS: &'static [&'static str] = &["row_count", "file_size", "rejected_count"];
    const PACKAGES: &'static [&'static str] = &["polars", "encoding_rs"];
    type Config = Config;

    async fn inputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        files::resources(&config.file_path).map(Some)
    }

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { reading: Reading::new(&config)?, config })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let (reading, config) = (self.reading.clone(), self.config.clone());
        let counted = ctx.wants_global("row_count");
        let (folder, cancel) = (ctx.temp_dir().to_owned(), ctx.cancellation());
        let read = ctx
            .run_blocking(move || {
                let stored = Files::find(&config.file_path)?;
                let readable = decode::to_utf8(&stored, &reading.encoding, &folder, &cancel)?;
                let plan = reading.scan(&readable)?;
                let (plan, rejected) = match config.bad_rows.bin(&folder)? {
                    None => {
                        quotes::must_pair(&readable, &scan::options_of(&plan)?, &cancel)?;
                        (plan, None)
                    }
                    Some(bin) => {
                        let salvaged = salvage::salvage(&reading, &readable, plan, bin, &folder, &cancel)?;
                        (salvaged.plan, Some(salvaged.rejected))
                    }
                };
                Read::of(plan, rejected, counted, stored.bytes)
            })
            .await?;
        read.give(ctx, &self.config.file_path)
    }
}

/// The first row of a file that polars cannot read with these options, as an error. `projection` names the columns
/// that the query reads; none means all.
pub(super) fn first_bad_row(
    path: &Path,
    options: &CsvReadOptions,
    schema: SchemaRef,
    projection: Option<&[PlSmallStr]>,
) -> Option<Error> {
    let mut judge = Judge::new(options, schema, projection).ok()?;
    let mut text = Text::new(decode::open(path).ok()?, options);
    let mut first = None;
    let looked = judge.bad_rows(&mut text, None, |row| {
        first = Some(bad_row(path, &row));
        Ok(ControlFlow::Break(()))
    });
    // A file that cannot be read to its end has told nothing; the query's own error stands.
    looked.ok().and(first)
}

fn bad_row(path: &Path, row: &BadRow) -> Error {
    let column = row.column.as_ref().map_or_else(String::new, |column| format!("column `{column}`: "));
    let message = format!("{}:{}: {column}{}", decode::original(path).display(), row.line, row.reason);
    Error::new(ErrorKind::Data, "bad-row", message).hint(
        "give the column a type in `schema`, list the text in `null_values`, or set `bad_rows` to `skip` or `reject`",
    )
}

fn utf_8() -> String {
    "utf-8".into()
}

fn comma() -> String {
    ",".into()
}

fn double_quote() -> String {
    "\"".into()
}

fn yes() -> bool {
    true
}

fn infer_default() -> Option<usize> {
    Some(1000)
}
