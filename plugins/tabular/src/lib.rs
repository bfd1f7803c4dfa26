//! The bundled table modules of pype, on polars: CSV, Parquet and JSON in and out, and SQL-shaped steps between.
//!
//! Neighbouring modules of this library hand a polars plan along instead of rows. A sink then executes the whole sub
//! flow as one streaming query, with filters and projections pushed down into the file scan. So a module's `run`
//! resolves its plan's schema, where an unknown column is an error at its own node, and executes nothing; the
//! exceptions are globals that somebody reads, and checks that must count first. In eager mode the host executes what each
//! module hands on.
//!
//! | room | what it does |
//! |---|---|
//! | [`sources`] | files to plans: globs, encodings, schemas, bad rows |
//! | [`mods`] | plans to plans |
//! | [`sinks`] | a plan to one atomic file |
//! | [`solos`] | what is done without a table: listing files |
//! | [`sql`], [`columns`], [`dtype`], [`options`] | what configs say: expressions, columns, types, shared values |
//! | [`query`], [`failure`] | running plans; polars' errors in the user's terms |

mod columns;
mod dtype;
mod failure;
mod mods;
mod options;
mod query;
mod sinks;
mod solos;
mod sources;
mod sql;
mod suggest;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

use mods::aggregate::AggregateMod;
use mods::check::CheckMod;
use mods::derive::DeriveMod;
use mods::distinct::DistinctMod;
use mods::filter::FilterMod;
use mods::join::JoinMod;
use mods::label_filter::LabelFilter;
use mods::select::SelectMod;
use mods::sort::SortMod;
use mods::sql::SqlMod;
use mods::union::UnionMod;
use sinks::csv::CsvSink;
use sinks::json::JsonSink;
use sinks::parquet::ParquetSink;
use solos::list_files::ListFilesSolo;
use sources::csv::CsvSource;
use sources::json::JsonSource;
use sources::parquet::ParquetSource;

export_plugin! {
    sources: [CsvSource, ParquetSource, JsonSource],
    mods: [
        FilterMod, LabelFilter, SelectMod, DeriveMod, JoinMod, AggregateMod, SortMod, DistinctMod, UnionMod, SqlMod, CheckMod,
    ],
    sinks: [CsvSink, ParquetSink, JsonSink],
    solos: [ListFilesSolo],
}
