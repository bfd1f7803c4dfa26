//! What the three sinks share: one streaming query into an atomic file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use polars::io::utils::file::Writable;
use polars::lazy::dsl::{FileWriteFormat, SinkDestination, SinkTarget, SpecialEq, UnifiedSinkArgs};
use polars::prelude::*;
use pype_plugin::prelude::*;

use super::atomic::{AtomicFile, discard};
use super::json::ArrayWriter;
use super::writer::{Tally, TallyingWriter};
use crate::options::{Compression, IfExists};
use crate::{dtype, failure, query};

/// What the bytes in the file mean.
#[derive(Clone)]
pub(crate) enum Format {
    Parquet(ParquetWriteOptions),
    Csv(CsvWriterOptions),
    JsonLines(NDJsonWriterOptions),
    JsonArray(Compression),
}

impl Format {
    /// Refuses columns that the format has no form for, where polars would panic.
    fn must_take(&self, schema: &Schema) -> Result<()> {
        match self {
            Self::Parquet(_) | Self::Csv(_) => Ok(()),
            Self::JsonLines(_) | Self::JsonArray(_) => match schema.iter().find(|(_, dtype)| has_bytes(dtype)) {
                None => Ok(()),
                Some((name, dtype)) => {
                    let message = format!("JSON has no form for the column `{name}`, which is {}", dtype::name(dtype));
                    let hint = "leave it out or cast it with a `select_mod`, or write Parquet";
                    Err(Error::new(ErrorKind::Config, "unwritable-column", message).hint(hint))
                }
            },
        }
    }
}

fn has_bytes(dtype: &DataType) -> bool {
    match dtype {
        DataType::Binary | DataType::BinaryOffset => true,
        DataType::List(inner) | DataType::Array(inner, _) => has_bytes(inner),
        DataType::Struct(fields) => fields.iter().any(|field| has_bytes(field.dtype())),
        _ => false,
    }
}

/// A sink into one file. Each write is one query; its commit shows the file.
pub(crate) struct FileSink {
    path: PathBuf,
    if_exists: IfExists,
    format: Format,
    /// Not here while a write has it.
    file: Option<AtomicFile>,
    /// What `close` removes, whoever has the file then: a write that was cancelled may still run.
    temporary: Option<PathBuf>,
    rows: Option<u64>,
}

impl FileSink {
    /// Creates the temporary file, so that a folder one may not write to is an error before anything is read.
    pub(crate) async fn open(path: String, if_exists: IfExists, format: Format, ctx: &Context) -> Result<Self> {
        let path = PathBuf::from(path);
        let target = path.clone();
        let file = ctx.run_blocking(move || AtomicFile::create(&target, if_exists)).await?;
        let temporary = Some(file.temporary().to_owned());
        Ok(Self { path, if_exists, format, file: Some(file), temporary, rows: None })
    }

    pub(crate) async fn write(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<()> {
        let input = inputs.take("input")?.into_lazy().await?;
        if self.rows.is_some() {
            let message = "a file sink takes one write for each commit";
            return Err(Error::new(ErrorKind::Internal, "written-twice", message));
        }
        let tally = Tally::new(ctx);
        let (format, counted) = (self.format.clone(), tally.clone());
        let file = match self.file.take() {
            Some(file) => file,
            None => self.create(ctx).await?,
        };
        let file = ctx
            .run_blocking(move || {
                stream(input, &file, format, &counted)?;
                Ok(file)
            })
            .await?;
        self.file = Some(file);
        self.rows = Some(tally.rows());
        Ok(())
    }

    pub(crate) async fn commit(&mut self, ctx: &Context) -> Result<Vec<Commit>> {
        let (Some(file), Some(rows)) = (self.file.take(), self.rows.take()) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "nothing-written",
                "nothing was written since the last commit",
            ));
        };
        let if_exists = self.if_exists;
        let uri = uri(file.target());
        let bytes = ctx.run_blocking(move || file.commit(if_exists)).await?;
        self.temporary = None;
        Ok(vec![Commit { rows: Some(rows), bytes: Some(bytes), uri: Some(uri) }])
    }

    /// Removes what was not committed.
    pub(crate) async fn close(&mut self, ctx: &Context) -> Result<()> {
        let (file, temporary) = (self.file.take(), self.temporary.take());
        ctx.run_blocking(move || {
            drop(file);
            if let Some(temporary) = temporary {
                discard(&temporary);
            }
            Ok(())
        })
        .await
    }

    /// A new temporary file, for a write after a commit.
    async fn create(&mut self, ctx: &Context) -> Result<AtomicFile> {
        let (path, if_exists) = (self.path.clone(), self.if_exists);
        let file = ctx.run_blocking(move || AtomicFile::create(&path, if_exists)).await?;
        self.temporary = Some(file.temporary().to_owned());
        Ok(file)
    }
}

/// The file that a sink to `path` has written, if it is there.
pub(crate) fn written(path: &str) -> Result<Vec<Resource>> {
    match Resource::file(path) {
        Ok(file) => Ok(vec![file]),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Runs the query into the temporary file.
fn stream(input: LazyFrame, file: &AtomicFile, format: Format, tally: &Tally) -> Result<()> {
    let (input, schema) = query::resolve(input)?;
    format.must_take(&schema)?;
    let plan = input.clone();
    let (format, target) = destination(file, format, tally)?;
    let sink =
        counting(input, tally.clone()).sink(SinkDestination::File { target }, format, UnifiedSinkArgs::default());
    let done = sink.and_then(|query| query.collect_with_engine(Engine::Streaming));
    done.map(drop).map_err(|error| failure::of_query(&plan, &error))
}

/// What polars is told to write, and into which open file. It gets a handle and no path: a query that failed or was
/// cancelled may still be at work in the background, and would make a file that was just removed anew.
fn destination(file: &AtomicFile, format: Format, tally: &Tally) -> Result<(FileWriteFormat, SinkTarget)> {
    let handle = file.handle()?;
    let (format, writable) = match format {
        Format::Parquet(options) => (FileWriteFormat::Parquet(Arc::new(options)), Writable::Local(handle)),
        Format::Csv(options) => (FileWriteFormat::Csv(options), Writable::Local(handle)),
        Format::JsonLines(options) => (FileWriteFormat::NDJson(options), Writable::Local(handle)),
        // An array, which polars cannot write, goes through a writer of ours.
        Format::JsonArray(compression) => {
            let array = ArrayWriter::new(TallyingWriter::new(handle, tally.clone()), compression)?;
            (FileWriteFormat::NDJson(NDJsonWriterOptions::default()), Writable::Dyn(Box::new(array)))
        }
    };
    Ok((format, SinkTarget::Dyn(SpecialEq::new(Arc::new(Mutex::new(Some(writable)))))))
}

/// Counts the rows of each morsel as it passes, and ends the query once the run is cancelled. It stands right before
/// the sink, where it blocks no pushdown.
fn counting(input: LazyFrame, tally: Tally) -> LazyFrame {
    let count = move |morsel: DataFrame| {
        tally.add_rows(morsel.height() as u64)?;
        Ok(morsel)
    };
    input.map(count, AllowedOptimizations::STREAMING, None, Some("count rows"))
}

fn uri(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
