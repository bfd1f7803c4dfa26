//! From the config to polars' scan.

use std::path::{Path, PathBuf};

use polars::lazy::frame::LazyFileListReader;
use polars::prelude::*;
use polars_plan::dsl::FileScanIR;
use polars_plan::plans::{ArenaLpIter, IR};
use pype_plugin::prelude::*;

use super::Config;
use crate::options::one_byte;
use crate::sources::decode::{self, Encoding};
use crate::sources::files::{Files, empty};
use crate::{columns, dtype, failure, query};

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
        if let Some(twice) = config.columns.as_deref().and_then(first_twin) {
            let message = format!("`columns` names `{twice}` twice");
            return Err(
                Error::new(ErrorKind::Config, "duplicate-column", message).hint("each column needs its own name")
            );
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
        // Resolved here, so that the plan keeps its own file info: in one query polars shares what it finds out about
        // a file among all scans of it that are not resolved, whatever their options.
        query::resolve(self.plan(files, &types)?).map(|(plan, _)| plan)
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
            (PolarsError::NoData(_), [path]) => empty(&decode::original(path)),
            (_, [path]) => unreadable(path, error),
            (_, paths) => self.odd_one_out(paths).unwrap_or_else(|| {
                let message = format!("cannot read {} files as one table: {}", paths.len(), failure::message(error));
                Error::new(ErrorKind::Data, "unreadable-csv", message)
            }),
        }
    }

    /// Of several files, the first one that cannot be read, or whose columns are not those of the first.
    fn odd_one_out(&self, paths: &[PathBuf]) -> Option<Error> {
        let mut first: Option<(&Path, SchemaRef)> = None;
        for path in paths {
            let columns = match self.columns_of(path) {
                Ok(columns) => columns,
                Err(error) => return Some(error),
            };
            let (first_path, first_columns) = first.get_or_insert_with(|| (path, columns.clone()));
            if let Some(difference) = difference(first_columns, &columns) {
                let (first_path, path) = (decode::original(first_path), decode::original(path));
                let message = format!("`{}` {difference} `{}`", path.display(), first_path.display());
                let hint = "give each kind of file its own source, and put a `union_mod` behind them";
                return Some(Error::new(ErrorKind::Data, "schema-mismatch", message).hint(hint));
            }
        }
        None
    }

    /// The columns of one file, as text.
    fn columns_of(&self, path: &Path) -> Result<SchemaRef> {
        let (file, as_text) = (Files { paths: vec![path.to_owned()], bytes: 0 }, Some(0));
        let reading = Self { infer_schema_length: as_text, ..self.clone() };
        let columns = reading.plan(&file, &[])?.collect_schema();
        columns.map_err(|error| self.explain(&file, &error))
    }
}

fn unreadable(path: &Path, error: &PolarsError) -> Error {
    let path = decode::original(path);
    let message = format!("cannot read the columns of `{}`: {}", path.display(), failure::message(error));
    Error::new(ErrorKind::Data, "unreadable-csv", message)
}

/// How other columns differ from the first file's, as the middle of a sentence.
fn difference(first: &Schema, other: &Schema) -> Option<String> {
    if let Some(name) = first.iter_names().find(|name| !other.contains(name)) {
        return Some(format!("lacks the column `{name}` of"));
    }
    if let Some(name) = other.iter_names().find(|name| !first.contains(name)) {
        return Some(format!("has the column `{name}`, which is not in"));
    }
    let same_order = first.iter_names().eq(other.iter_names());
    (!same_order).then(|| "has, in another order, the columns of".into())
}

fn first_twin(names: &[String]) -> Option<&str> {
    let twin = |(index, name)| names[..index].contains(name).then_some(name.as_str());
    names.iter().enumerate().find_map(twin)
}

/// The options of the plan's one scan.
pub(super) fn options_of(plan: &LazyFrame) -> Result<CsvReadOptions> {
    let plan = plan.clone().to_alp().map_err(|error| failure::of_plan(&error))?;
    let options = plan.lp_arena.iter(plan.lp_top).find_map(|(_, node)| match node {
        IR::Scan { scan_type, .. } => match scan_type.as_ref() {
            FileScanIR::Csv { options } => Some(options.as_ref().clone()),
            _ => None,
        },
        _ => None,
    });
    options.ok_or_else(|| Error::new(ErrorKind::Internal, "no-scan", "the plan reads no CSV file"))
}
