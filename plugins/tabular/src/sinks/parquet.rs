//! `parquet_sink`: a table as one Parquet file.

use polars::prelude::*;
use polars_parquet::write::{BrotliLevel, GzipLevel, ZstdLevel};
use pype_plugin::prelude::*;

use super::file::{self, FileSink, Format};
use crate::options::IfExists;

pub(crate) struct ParquetSink(FileSink);

/// Where and how to write.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file. Its folders are made as needed.
    #[schemars(extend("format" = "path"))]
    output_path: String,
    /// How pages are compressed.
    #[serde(default)]
    compression: Codec,
    /// The codec's level: 1 to 22 for zstd, 0 to 9 for gzip, 0 to 11 for brotli. Its default when absent.
    compression_level: Option<u8>,
    /// Rows in a row group. About 120,000 when absent.
    row_group_rows: Option<usize>,
    /// What to do when the file exists.
    #[serde(default)]
    if_exists: IfExists,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Codec {
    /// Zstandard.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// gzip.
    Gzip,
    /// Brotli.
    Brotli,
    /// LZ4.
    Lz4,
    /// Not at all.
    None,
}

impl Sink for ParquetSink {
    const NAME: &'static str = "parquet_sink";
    const DESCRIPTION: &'static str = "Writes a table to a Parquet file";
    const CATEGORY: &'static str = "File Sinks";
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn outputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        file::written(&config.output_path).map(Some)
    }

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        let options = ParquetWriteOptions {
            compression: config.compression.with_level(config.compression_level)?,
            row_group_size: config.row_group_rows,
            ..Default::default()
        };
        FileSink::open(config.output_path, config.if_exists, Format::Parquet(options), ctx).await.map(Self)
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

impl Codec {
    fn with_level(self, level: Option<u8>) -> Result<ParquetCompression> {
        let bad_level = |error: PolarsError| {
            Error::new(
                ErrorKind::Config,
                "bad-option",
                format!("`compression_level`: {}", crate::failure::message(&error)),
            )
        };
        Ok(match (self, level) {
            (Self::Zstd, Some(level)) => {
                ParquetCompression::Zstd(Some(ZstdLevel::try_new(level.into()).map_err(bad_level)?))
            }
            (Self::Gzip, Some(level)) => ParquetCompression::Gzip(Some(GzipLevel::try_new(level).map_err(bad_level)?)),
            (Self::Brotli, Some(level)) => {
                ParquetCompression::Brotli(Some(BrotliLevel::try_new(level.into()).map_err(bad_level)?))
            }
            (Self::Zstd, None) => ParquetCompression::Zstd(None),
            (Self::Gzip, None) => ParquetCompression::Gzip(None),
            (Self::Brotli, None) => ParquetCompression::Brotli(None),
            (Self::Snappy, None) => ParquetCompression::Snappy,
            (Self::Lz4, None) => ParquetCompression::Lz4Raw,
            (Self::None, None) => ParquetCompression::Uncompressed,
            (Self::Snappy | Self::Lz4 | Self::None, Some(_)) => {
                let message = "`compression_level` is for zstd, gzip and brotli";
                return Err(Error::new(ErrorKind::Config, "bad-option", message));
            }
        })
    }
}
