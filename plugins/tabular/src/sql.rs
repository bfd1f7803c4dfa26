//! SQL text from a flow, made into polars expressions and queries over the given tables, and nothing else.
//!
//! polars' SQL can open files (`read_csv('/etc/passwd')`), also from a subquery inside an expression. A flow's SQL
//! is about its inputs only, so the text is parsed here first, by the same parser, and anything that names a file or
//! is not a plain query is refused before polars sees it.

use std::ops::ControlFlow;

use polars::prelude::*;
use polars::sql::{SQLContext, sql_expr};
use pype_plugin::prelude::*;
use sqlparser::ast::{Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserOptions};

use crate::failure;

/// Reads `text`, the value of the option `option`, as one SQL expression over columns.
pub(crate) fn expression(option: &str, text: &str) -> Result<Expr> {
    let refused = |reason: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Config, "bad-expression", format!("`{option}`: cannot read `{text}`: {reason}"))
    };
    let item =
        parser(text).and_then(|mut parser| parser.parse_select_item()).map_err(|error| refused(&plain(&error)))?;
    if let ControlFlow::Break(reason) = item.visit(&mut OnlyColumns) {
        return Err(refused(&reason));
    }
    sql_expr(text).map_err(|error| refused(&failure::message(&error)))
}

/// Runs `query`, one SELECT, over `tables` and nothing else.
pub(crate) fn query(query: &str, tables: &[(String, LazyFrame)]) -> Result<LazyFrame> {
    check_query(query)?;
    let mut context = SQLContext::new();
    for (name, frame) in tables {
        context.register(name, frame.clone());
    }
    context.execute(query).map_err(|error| {
        let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
        bad_query(&failure::message(&error)).hint(format!("tables: {}", names.join(", ")))
    })
}

/// Refuses what is not one SELECT over tables, before any input is there.
pub(crate) fn check_query(query: &str) -> Result<()> {
    let statements =
        parser(query).and_then(|mut parser| parser.parse_statements()).map_err(|error| bad_query(&plain(&error)))?;
    let [statement @ Statement::Query(_)] = statements.as_slice() else {
        return Err(bad_query("expected exactly one SELECT statement"));
    };
    match statement.visit(&mut OnlyTables) {
        ControlFlow::Break(reason) => Err(bad_query(&reason)),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn parser(text: &str) -> std::result::Result<Parser<'static>, sqlparser::parser::ParserError> {
    // The options polars itself parses with.
    let options = ParserOptions { trailing_commas: true, ..Default::default() };
    Parser::new(&GenericDialect).with_options(options).try_with_sql(text)
}

/// The parser's message without its "sql parser error:" prefix.
fn plain(error: &sqlparser::parser::ParserError) -> String {
    let text = error.to_string();
    text.strip_prefix("sql parser error: ").unwrap_or(&text).to_owned()
}

fn bad_query(reason: &str) -> Error {
    Error::new(ErrorKind::Config, "bad-query", format!("`query`: {reason}"))
}

/// Lets an expression through when it holds no subquery.
struct OnlyColumns;

impl Visitor for OnlyColumns {
    type Break = String;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        ControlFlow::Break("a subquery is not allowed here; use `sql_mod`".into())
    }
}

/// Lets a query through when its tables are names, derived tables or literals, not functions that open files.
struct OnlyTables;

impl Visitor for OnlyTables {
    type Break = String;

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<String> {
        match table {
            TableFactor::Table { args: None, .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(format!("`{other}` is not allowed; a query reads its input ports only")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<impl Sized>) -> String {
        result.err().expect("must be refused").to_string()
    }

    #[test]
    fn expressions_are_read() {
        for text in ["age > 18", "\"unit price\" * 2 AS double", "x IN (1, 2)", "LOWER(name) LIKE 'a%'", "COUNT(*)"] {
            if let Err(error) = expression("condition", text) {
                panic!("{text}: {error}");
            }
        }
    }

    #[test]
    fn a_broken_expression_names_its_option_and_its_text() {
        for text in ["age >", "age > 18 18", "nosuch(age)", "SELECT 1", ""] {
            let message = message(expression("condition", text));
            assert!(message.contains("`condition`: cannot read"), "{text}: {message}");
        }
    }

    #[test]
    fn no_sql_opens_a_file() {
        let hidden = "(SELECT a FROM read_csv('/etc/passwd'))";
        assert!(message(expression("condition", hidden)).contains("subquery"));
        for text in [
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT (SELECT a FROM read_parquet('x')) FROM input",
            "WITH t AS (SELECT * FROM read_json('x')) SELECT * FROM t",
            "SELECT * FROM input JOIN TABLE(read_csv('x')) ON 1 = 1",
            "SELECT * FROM input UNION SELECT * FROM read_csv('x')",
        ] {
            let message = message(check_query(text));
            assert!(message.contains("is not allowed"), "{text}: {message}");
        }
        for text in ["DROP TABLE input", "SELECT 1; SELECT 2", "CREATE TABLE t AS SELECT * FROM input", ""] {
            assert!(message(check_query(text)).contains("one SELECT"), "{text}");
        }
    }
}
