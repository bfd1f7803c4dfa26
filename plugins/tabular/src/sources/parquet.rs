//! `parquet_source`: Parquet files as a table.

use std::fs::File;
use std::path::Path;

use polars::prelude::*;
use pype_plugin::prelude::*;

use super::announce;
use super::files::{self, Files, cannot_read};
use super::read;
use crate::failure;

pub(crate) struct ParquetSource {
    config: Config,
}

/// Which files to read.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file, or a pattern for several: `data/year=*/*.parquet`.
    #[schemars(extend("format" = "path"))]
    file_path: String,
    /// Whether folders named `key=value` give columns.
    #[serde(default)]
    hive_partitioning: bool,
    /// Whether a column that some of the files do not have is null in their rows. Otherwise that is an error.
    #[serde(default)]
    allow_missing_columns: bool,
    /// Adds a column of this name with the path of the file that a row comes from.
    file_column: Option<String>,
}

impl Source for ParquetSource {
    const NAME: &'static str = "parquet_source";
    const DESCRIPTION: &'static str = "Reads Parquet files";
    const CATEGORY: &'static str = "File Sources";
    const GLOBALS: &'static [&'static str] = &["row_count", "file_size"];
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn inputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        files::resources(&config.file_path).map(Some)
    }

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { config })
    }

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let (config, counted) = (self.config.clone(), ctx.wants_global("row_count"));
        let (data, rows, bytes) = ctx
            .run_blocking(move || {
                let files = Files::find(&config.file_path)?;
                let (data, rows) = read(scan(&files, &config)?, false)?;
                let rows = match rows {
                    None if counted => Some(rows_in_footers(&files)?),
                    known => known,
                };
                Ok((data, rows, files.bytes))
            })
            .await?;
        announce(ctx, bytes, rows)?;
        Ok(Outputs::one("data", data))
    }
}

fn scan(files: &Files, config: &Config) -> Result<LazyFrame> {
    let hive_options = if config.hive_partitioning { HiveOptions::new_enabled() } else { HiveOptions::new_disabled() };
    let args = ScanArgsParquet {
        glob: false,
        hive_options,
        allow_missing_columns: config.allow_missing_columns,
        include_file_paths: config.file_column.as_deref().map(PlSmallStr::from),
        ..Default::default()
    };
    let plan = LazyFrame::scan_parquet_files(files.scan_paths()?, args);
    let resolved = plan.and_then(|mut plan| plan.collect_schema().map(|_| plan));
    resolved.map_err(|error| unreadable(&files.paths[0], &error))
}

fn rows_in_footers(files: &Files) -> Result<u64> {
    files.paths.iter().try_fold(0, |sum, path| {
        let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        let rows = ParquetReader::new(file).num_rows().map_err(|error| unreadable(path, &error))?;
        Ok(sum + rows as u64)
    })
}

fn unreadable(path: &Path, error: &PolarsError) -> Error {
    let message = format!("cannot read `{}` as Parquet: {}", path.display(), failure::message(error));
    Error::new(ErrorKind::Data, "unreadable-parquet", message)
}
