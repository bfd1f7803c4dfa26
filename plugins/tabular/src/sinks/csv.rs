//! `csv_sink`: a table as one CSV file.

use std::sync::Arc;

use polars::io::ExternalCompression;
use polars::prelude::*;
use pype_plugin::prelude::*;

use super::file::{self, FileSink, Format};
use crate::options::{Compression, IfExists, one_byte};

pub(crate) struct CsvSink(FileSink);

/// Where and how to write.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file. Its folders are made as needed.
    #[schemars(extend("format" = "path"))]
    output_path: String,
    /// The character between fields; `tab` for a tab.
    #[serde(default = "comma")]
    delimiter: String,
    /// Whether the first line names the columns.
    #[serde(default = "yes")]
    header: bool,
    /// The text that stands for null.
    #[serde(default)]
    null_value: String,
    /// The character around fields that need it.
    #[serde(default = "double_quote")]
    quote: String,
    /// Which fields are quoted.
    #[serde(default)]
    quote_style: Quoting,
    /// How the file is compressed.
    #[serde(default)]
    compression: Compression,
    /// Begin the file with a byte order mark, which some spreadsheets want.
    #[serde(default)]
    bom: bool,
    /// What to do when the file exists.
    #[serde(default)]
    if_exists: IfExists,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Quoting {
    /// Those that hold a delimiter, a quote or a line break.
    #[default]
    Necessary,
    /// All.
    Always,
    /// All that are not numbers.
    NonNumeric,
    /// None, even if the file cannot be read back then.
    Never,
}

impl Sink for CsvSink {
    const NAME: &'static str = "csv_sink";
    const DESCRIPTION: &'static str = "Writes a table to a CSV file";
    const CATEGORY: &'static str = "File Sinks";
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn outputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        file::written(&config.output_path).map(Some)
    }

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        let serialize = SerializeOptions {
            separator: one_byte("delimiter", &config.delimiter)?,
            quote_char: one_byte("quote", &config.quote)?,
            null: config.null_value.as_str().into(),
            quote_style: config.quote_style.into(),
            ..Default::default()
        };
        let options = CsvWriterOptions {
            include_bom: config.bom,
            include_header: config.header,
            compression: config.compression.into(),
            // The name is the user's business.
            check_extension: false,
            serialize_options: Arc::new(serialize),
            ..Default::default()
        };
        FileSink::open(config.output_path, config.if_exists, Format::Csv(options), ctx).await.map(Self)
    }

    async fn write(&mut self, inputs: Inputs, ctx: &Context) -> Result<()> {
        self.0.write(inputs, ctx).await
    }

    async fn commit(&mut self, ctx: &Context) -> Result<Vec<Commit>> {
        self.0.commit(ctx).await
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        self.0.close(ctx).await
    }
}

impl From<Quoting> for QuoteStyle {
    fn from(quoting: Quoting) -> Self {
        match quoting {
            Quoting::Necessary => Self::Necessary,
            Quoting::Always => Self::Always,
            Quoting::NonNumeric => Self::NonNumeric,
            Quoting::Never => Self::Never,
        }
    }
}

impl From<Compression> for ExternalCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Uncompressed,
            Compression::Gzip => Self::Gzip { level: None },
            Compression::Zstd => Self::Zstd { level: None },
        }
    }
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
