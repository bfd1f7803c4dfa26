//! Columns that a config names: checked against what the input has, with the near ones suggested.

use polars::prelude::*;
use polars_plan::utils::expr_to_leaf_column_names_iter;
use pype_plugin::prelude::*;

use crate::suggest;

/// Checks that `schema` has every column of `names`, which the option `option` lists.
pub(crate) fn require<'a>(option: &str, names: impl IntoIterator<Item = &'a str>, schema: &Schema) -> Result<()> {
    let unknown: Vec<&str> = names.into_iter().filter(|name| !schema.contains(name)).collect();
    match unknown.first() {
        None => Ok(()),
        Some(first) => Err(unknown_column(option, &unknown, first, schema)),
    }
}

/// Checks that `schema` has every column that `expr`, read from the option `option`, refers to.
pub(crate) fn require_in(option: &str, expr: &Expr, schema: &Schema) -> Result<()> {
    let names: Vec<PlSmallStr> = expr_to_leaf_column_names_iter(expr).collect();
    require(option, names.iter().map(PlSmallStr::as_str).filter(|name| *name != "*"), schema)
}

/// A polars column of exactly that name: `col` alone would read `*` and `^…$` as patterns.
pub(crate) fn exact(name: &str) -> Expr {
    Expr::Column(name.into())
}

/// [`exact`] for each of `names`.
pub(crate) fn all_exact(names: &[String]) -> Vec<Expr> {
    names.iter().map(|name| exact(name)).collect()
}

/// Those columns, as a selector.
pub(crate) fn selector(names: &[String]) -> Selector {
    by_name(names.iter().map(String::as_str), true, false)
}

fn unknown_column(option: &str, unknown: &[&str], first: &str, schema: &Schema) -> Error {
    let plural = if unknown.len() == 1 { "" } else { "s" };
    let error = Error::new(
        ErrorKind::Config,
        "unknown-column",
        format!("`{option}`: unknown column{plural} {}; available: {}", quoted(unknown), available(schema)),
    );
    match suggest::nearest(first, schema.iter_names().map(PlSmallStr::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn available(schema: &Schema) -> String {
    const SHOWN: usize = 40;
    let shown = schema.iter_names().take(SHOWN).map(PlSmallStr::as_str).collect::<Vec<_>>().join(", ");
    match schema.len() {
        0 => "none".into(),
        n if n > SHOWN => format!("{shown} and {} more", n - SHOWN),
        _ => shown,
    }
}
