//! What polars reports, told in the user's terms: a kind, one paragraph, and for a bad row its file and line.

use std::io;

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::sources::locate;

/// Marks the i/o error a reader or writer of ours returns once the run is cancelled, so that it is known when it comes back.
pub(crate) const CANCELLED: &str = "the run was cancelled";

/// The error for a failed resolution of a plan: what the flow asks for does not fit its data's columns.
pub(crate) fn of_plan(error: &PolarsError) -> Error {
    let (kind, code) = match kind(error) {
        ErrorKind::Data => (ErrorKind::Config, "invalid-plan"),
        other => (other, code(error)),
    };
    Error::new(kind, code, message(error))
}

/// The error for a query that failed while it ran. `lazy` is the query's plan: when it reads text files, the
/// row that polars could not read is looked for in them.
pub(crate) fn of_query(lazy: &LazyFrame, error: &PolarsError) -> Error {
    if is_cancelled(error) {
        return Error::cancelled();
    }
    if matches!(kind(error), ErrorKind::Data)
        && let Some(located) = locate::first_bad_row(lazy)
    {
        return located;
    }
    Error::new(kind(error), code(error), message(error))
}

/// The first paragraph of polars' message: what follows is its plan, or advice for Python.
pub(crate) fn message(error: &PolarsError) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    first.trim().replace('\n', " ")
}

fn is_cancelled(error: &PolarsError) -> bool {
    matches!(error, PolarsError::IO { error, .. } if error.to_string().contains(CANCELLED))
        || error.to_string().starts_with(CANCELLED)
}

fn kind(error: &PolarsError) -> ErrorKind {
    match error {
        PolarsError::ColumnNotFound(_)
        | PolarsError::SchemaFieldNotFound(_)
        | PolarsError::StructFieldNotFound(_)
        | PolarsError::SQLInterface(_)
        | PolarsError::SQLSyntax(_) => ErrorKind::Config,
        PolarsError::IO { error, .. } if error.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
        PolarsError::IO { .. } => ErrorKind::Io,
        PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } => kind(error),
        PolarsError::AssertionError(_)
        | PolarsError::ComputeError(_)
        | PolarsError::Duplicate(_)
        | PolarsError::InvalidOperation(_)
        | PolarsError::NoData(_)
        | PolarsError::OutOfBounds(_)
        | PolarsError::SchemaMismatch(_)
        | PolarsError::ShapeMismatch(_)
        | PolarsError::StringCacheMismatch(_) => ErrorKind::Data,
    }
}

fn code(error: &PolarsError) -> &'static str {
    match error {
        PolarsError::ColumnNotFound(_) | PolarsError::SchemaFieldNotFound(_) => "unknown-column",
        PolarsError::StructFieldNotFound(_) => "unknown-field",
        PolarsError::SQLInterface(_) | PolarsError::SQLSyntax(_) => "bad-sql",
        PolarsError::IO { .. } => "io",
        PolarsError::NoData(_) => "no-data",
        PolarsError::Duplicate(_) => "duplicate",
        PolarsError::SchemaMismatch(_) => "schema-mismatch",
        PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } => code(error),
        PolarsError::AssertionError(_)
        | PolarsError::ComputeError(_)
        | PolarsError::InvalidOperation(_)
        | PolarsError::OutOfBounds(_)
        | PolarsError::ShapeMismatch(_)
        | PolarsError::StringCacheMismatch(_) => "query-failed",
    }
}
