//! A text that two outputs share only if they hold the same table: rows, types, a checksum and both ends of each column.

use std::path::Path;
use std::process::Command;

use polars::prelude::*;

use crate::Result;

/// The digest of a Parquet file, taken by another process of this program.
///
/// Linux counts a parent's peak memory towards a child that it makes by `vfork`, so the measuring process reads no table.
pub(crate) fn of(output: &Path) -> Result<String> {
    let child = Command::new(std::env::current_exe()?).arg("digest").arg(output).output()?;
    if !child.status.success() {
        return Err(String::from_utf8_lossy(&child.stderr).trim().into());
    }
    Ok(String::from_utf8(child.stdout)?)
}

pub(crate) fn print(output: &Path) -> Result<()> {
    let mut frame = LazyFrame::scan_parquet(PlRefPath::try_from_path(output)?, ScanArgsParquet::default())?;
    let schema = frame.collect_schema()?;
    let mut measures = vec![len().alias("rows")];
    for (name, dtype) in schema.iter() {
        let column = col(name.clone());
        measures.extend([
            checksum(column.clone(), dtype).sum().alias(format!("{name} {dtype} sum")),
            column.clone().first().alias(format!("{name} first")),
            column.last().alias(format!("{name} last")),
        ]);
    }
    let digest = frame.select(measures).collect_with_engine(Engine::Streaming)?.unwrap_single();
    for column in digest.columns() {
        println!("{}: {}", column.name(), shown(&column.get(0)?));
    }
    Ok(())
}

/// The lines in which two digests differ.
pub(crate) fn difference(expected: &str, found: &str) -> String {
    let (expected, found) = (expected.lines().collect::<Vec<_>>(), found.lines().collect::<Vec<_>>());
    let only = |mark: char, lines: &[&str], others: &[&str]| {
        let missing = lines.iter().filter(|line| !others.contains(line));
        missing.map(|line| format!("  {mark} {line}\n")).collect::<String>()
    };
    only('-', &expected, &found) + &only('+', &found, &expected)
}

/// Rows of a digest.
pub(crate) fn rows(digest: &str) -> &str {
    digest.lines().find_map(|line| line.strip_prefix("rows: ")).unwrap_or("unknown")
}

/// Something to add up that does not depend on the order of adding: TPC-H's decimals have at most four places, a
/// product of two of them included, so floats become whole ten-thousandths.
fn checksum(column: Expr, dtype: &DataType) -> Expr {
    match dtype {
        DataType::String => column.str().len_bytes().cast(DataType::Int64),
        DataType::Float64 => ten_thousandths(column),
        _ => column.to_physical().cast(DataType::Int64),
    }
}

fn ten_thousandths(column: Expr) -> Expr {
    (column * lit(10_000.0)).round(0, RoundMode::HalfAwayFromZero).cast(DataType::Int64)
}

fn shown(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Float64(value) => format!("{value:.4}"),
        other => other.str_value().into_owned(),
    }
}
