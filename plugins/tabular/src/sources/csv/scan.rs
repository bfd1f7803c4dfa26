//! From the config to polars' scan.

use std::path::Path;

use polars::lazy::frame::LazyFileListReader;
use polars::prelude::*;
use pype_plugin::prelude::*;

use super::Config;
use crate::options::one_byte;
use crate::sources::decode::{self, Encoding};
use crate::sources::files::{Files, empty};
use crate::{columns, dtype, failure};

/// How text becomes rows: the config, checked.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) encoding: Encoding,
    delimiter: u8,
    quote: Option<u8>,
    header: bool,
    columns: Option<Vec<String>>,
    types: Vec<(String, DataType)>,
    null_values: Vec<PlSmallStr>,
    skip_rows: usize,
    comment_prefix: Option<String>,
    infer_schema_length: Option<usize>,
    try_parse_dates: bool,
    decimal_comma: bool,
    file_column: Option<String>,
}

impl Reading {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let quote = (!config.quote.is_empty()).then(|| one_byte("quote", &config.quote)).transpose()?;
        let types = config.schema.0.iter().map(|(name, text)| Ok((name.clone(), dtype::parse(text)?)));
        if config.comment_prefix.as_deref() == Some("") {
            return Err(Error::new(ErrorKind::Config, "bad-option", "`comment_prefix` is empty"));
        }
        Ok(Self {
            encoding: Encoding::named(&config.encoding)?,
            delimiter: one_byte("delimiter", &config.delimiter)?,
            quote,
            header: config.header,
            columns: config.columns.clone(),
            types: types.collect::<Result<_>>()?,
            null_values: config.null_values.iter().map(PlSmallStr::from).collect(),
            skip_rows: config.skip_rows,
            comment_prefix: config.comment_prefix.clone(),
            infer_schema_length: config.infer_schema_length,
            try_parse_dates: config.try_parse_dates,
            decimal_comma: config.decimal_comma,
            file_column: config.file_column.clone(),
        })
    }

    /// A scan of `files`, its schema resolved and checked.
    pub(super) fn scan(&self, files: &Files) -> Result<LazyFrame> {
        let mut plan = self.plan(files, &self.types)?;
        let schema = plan.collect_schema().map_err(|error| self.explain(files, &error))?;
        columns::require("schema", self.types.iter().map(|(name, _)| name.as_str()), &schema)?;
        Ok(plan)
    }

    /// A scan of `files` whose columns have these types, whatever the text looks like.
    pub(super) fn scan_as(&self, files: &Files, schema: &Schema) -> Result<LazyFrame> {
        let types: Vec<_> = schema.iter().map(|(name, dtype)| (name.to_string(), dtype.clone())).collect();
        self.plan(files, &types)
    }

    /// The column that holds a row's file, which is none of the file's own.
    pub(super) fn file_column(&self) -> Option<&str> {
        self.file_column.as_deref()
    }

    fn plan(&self, files: &Files, types: &[(String, DataType)]) -> Result<LazyFrame> {
        let types: Schema = types.iter().map(|(name, dtype)| Field::new(name.into(), dtype.clone())).collect();
        let null_values = (!self.null_values.is_empty()).then(|| NullValues::AllColumns(self.null_values.clone()));
        let mut reader = LazyCsvReader::new_paths(files.scan_paths()?)
            .with_glob(false)
            .with_encoding(self.encoding.of_polars())
            .with_separator(self.delimiter)
            .with_quote_char(self.quote)
            .with_has_header(self.header)
            .with_dtype_overwrite((!types.is_empty()).then(|| Arc::new(types)))
            .with_null_values(null_values)
            .with_skip_rows(self.skip_rows)
            .with_comment_prefix(self.comment_prefix.as_deref().map(PlSmallStr::from))
            .with_infer_schema_length(self.infer_schema_length)
            .with_try_parse_dates(self.try_parse_dates)
            .with_decimal_comma(self.decimal_comma)
            .with_include_file_paths(self.file_column.as_deref().map(PlSmallStr::from));
        if let Some(columns) = &self.columns {
            reader = reader.with_column_names_overwrite(columns.iter().map(PlSmallStr::from).collect());
        }
        let plan = reader.finish().map_err(|error| failure::of_plan(&error))?;
        Ok(match &self.file_column {
            Some(column) => decode::name_originals(plan, column, files),
            None => plan,
        })
    }

    /// The error for files whose schema polars could not tell.
    fn explain(&self, files: &Files, error: &PolarsError) -> Error {
        match (error, files.paths.as_slice()) {
            (PolarsError::NoData(_), [path]) => empty(path),
            _ => Error::new(
                ErrorKind::Data,
                "unreadable-csv",
                format!("cannot read the columns of {}: {}", name(&files.paths), failure::message(error)),
            ),
        }
    }
}

fn name(paths: &[impl AsRef<Path>]) -> String {
    match paths {
        [one] => format!("`{}`", one.as_ref().display()),
        many => format!("{} files", many.len()),
    }
}
