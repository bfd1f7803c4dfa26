//! What becomes of rows that cannot be read.
//!
//! Rejected rows go to a file in the run's temporary folder as they are found, so their number is not bounded by memory.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use polars::lazy::frame::LazyFileListReader;
use polars::prelude::*;
use pype_plugin::prelude::*;

use super::decode;
use super::files::scan_path;
use crate::failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BadRows {
    /// The run fails, naming file and line.
    #[default]
    Error,
    /// They are left out, counted in a warning and in the global `rejected_count`.
    Skip,
    /// As `skip`, and they go to the port `rejected` (file, line, column, reason, raw).
    Reject,
}

impl BadRows {
    /// Where they go; `None` if the first one ends the run.
    pub(super) fn bin(self, folder: &Path) -> Result<Option<Bin>> {
        match self {
            Self::Error => Ok(None),
            Self::Skip => Bin::new(None).map(Some),
            Self::Reject => Bin::new(Some(folder)).map(Some),
        }
    }
}

/// Sets the global that counts them, and says so if there are any.
pub(super) fn announce(ctx: &Context, rejected: u64, of: &str) -> Result<()> {
    ctx.set_global("rejected_count", rejected)?;
    if rejected > 0 {
        tracing::warn!("{rejected} bad rows of `{of}` were left out");
    }
    Ok(())
}

/// The bad rows: their number and, when they are kept, where they are.
pub(super) struct Rejected {
    pub(super) count: u64,
    kept: Option<PathBuf>,
}

/// No rejected row, with the columns they would have.
pub(super) fn none_rejected() -> LazyFrame {
    DataFrame::empty_with_schema(&rejected_schema()).lazy()
}

impl Rejected {
    /// The rows that were kept, as a table.
    pub(super) fn into_plan(self) -> Result<LazyFrame> {
        let Some(path) = self.kept.filter(|_| self.count > 0) else { return Ok(none_rejected()) };
        LazyCsvReader::new(scan_path(&path)?)
            .with_glob(false)
            .with_has_header(false)
            .with_schema(Some(Arc::new(rejected_schema())))
            .with_missing_is_null(true)
            .finish()
            .map_err(|error| failure::of_plan(&error))
    }
}

fn rejected_schema() -> Schema {
    Schema::from_iter([
        Field::new("file".into(), DataType::String),
        Field::new("line".into(), DataType::Int64),
        Field::new("column".into(), DataType::String),
        Field::new("reason".into(), DataType::String),
        Field::new("raw".into(), DataType::String),
    ])
}

/// Where bad rows go: a CSV file, or nowhere.
pub(super) struct Bin {
    count: u64,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Bin {
    fn new(folder: Option<&Path>) -> Result<Self> {
        let create = |folder: &Path| -> Result<_> {
            let path = decode::stand_in(Path::new("rejected rows"), folder)?;
            let file = BufWriter::new(File::create(&path)?);
            Ok((path, file))
        };
        Ok(Self { count: 0, file: folder.map(create).transpose()? })
    }

    /// `column` is the one whose value is to blame, if it is one alone.
    pub(super) fn throw(
        &mut self,
        file: &str,
        line: impl Display,
        column: Option<&str>,
        reason: &str,
        raw: &str,
    ) -> Result<()> {
        self.count += 1;
        let Some((_, rejected)) = &mut self.file else { return Ok(()) };
        let column = column.map_or_else(String::new, quoted);
        writeln!(rejected, "{},{line},{column},{},{}", quoted(file), quoted(reason), quoted(raw))?;
        Ok(())
    }

    pub(super) fn close(self) -> Result<Rejected> {
        let kept = self.file.map(|(path, mut file)| file.flush().map(|()| path)).transpose()?;
        Ok(Rejected { count: self.count, kept })
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
