//! The texts of edges: `a.out - b.in` and `a (order|condition) b`.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::spec::{Condition, ControlEdge, DataEdge, Order, PortRef, Valve};
use crate::diagnostic::{Diagnostic, Position, Span};
use crate::document::{Source, Spanned};
use crate::form::fields::bad_name;
use crate::name::NameError;
use crate::suggest;
use crate::template::expression_error;

const DATA_FORM: &str = "write `id.port - id.port`";
const CONTROL_FORM: &str = "write `id (order|condition) id`, as in `load (1|ok) report`";

/// Takes every text that [`data_edge`] reads, and no other: a regular expression of JSON Schema.
pub(super) const DATA_PATTERN: &str = concat!(
    r"^\s*[a-zA-Z][a-zA-Z0-9_]{0,63}\s*\.\s*[a-zA-Z][a-zA-Z0-9_]{0,63}",
    r"\s*-\s*[a-zA-Z][a-zA-Z0-9_]{0,63}\s*\.\s*[a-zA-Z][a-zA-Z0-9_]{0,63}\s*$"
);
/// Takes every text that [`control_edge`] reads. Of expressions it knows only that a word alone is none.
pub(super) const CONTROL_PATTERN: &str = concat!(
    r"^\s*[a-zA-Z][a-zA-Z0-9_]{0,63}\s*\(\s*(?:[lL][aA][sS][tT]|\+?0*[1-9][0-9]{0,9})\s*\|\s*",
    r"(?:ok|error|done|start|true|false|[a-zA-Z]*(?:[^a-zA-Z\s]|\s+[^\s)])[\s\S]*)?",
    r"\s*\)\s*[a-zA-Z][a-zA-Z0-9_]{0,63}\s*$"
);

/// Reads `source_csv.data - transform_data.input`.
pub(super) fn data_edge(source: &Source, text: &Spanned<String>) -> Result<DataEdge, Vec<Diagnostic>> {
    let malformed = |what: &str| {
        let message = format!("`{}` is not a data edge: {what}", text.value);
        vec![source.error("bad-edge", text.span, message).help(DATA_FORM)]
    };
    let mut ends = text.value.split('-');
    let (Some(from), Some(to), None) = (ends.next(), ends.next(), ends.next()) else {
        return Err(malformed("it needs one ` - ` between two ports"));
    };
    let (Some(from), Some(to)) = (split_port(from), split_port(to)) else {
        return Err(malformed("each end is a module id, a point and a port"));
    };
    both(port_ref(source, text, from), port_ref(source, text, to)).map(|(from, to)| DataEdge { from, to })
}

/// Reads `source_csv (1|ok) output_parquet`.
pub(super) fn control_edge(source: &Source, text: &Spanned<String>) -> Result<ControlEdge, Vec<Diagnostic>> {
    let malformed = |what: &str| {
        let message = format!("`{}` is not a control edge: {what}", text.value);
        vec![source.error("bad-edge", text.span, message).help(CONTROL_FORM)]
    };
    // A condition may hold parentheses, ids cannot: the valve is all from the first to the last.
    let (Some(open), Some(close)) = (text.value.find('('), text.value.rfind(')')) else {
        return Err(malformed("it has no valve `(order|condition)`"));
    };
    if close < open {
        return Err(malformed("its parentheses are the wrong way round"));
    }
    let (from, to) = (text.value[..open].trim(), text.value[close + 1..].trim());
    if from.is_empty() || to.is_empty() {
        return Err(malformed("it needs a module id on either side of the valve"));
    }
    let inner = &text.value[open + 1..close];
    let span = source.span_of_part(text, &text.value[open..=close]);
    let ends = both(name(source, text, from), name(source, text, to));
    let valve = valve(source, &Spanned::new(inner.to_owned(), span)).map_err(|error| vec![error]);
    let ((from, to), valve) = both(ends, valve)?;
    Ok(ControlEdge { from, valve: Spanned::new(valve, span), to })
}

/// What is wrong with a name, and what it must look like.
fn valve(source: &Source, text: &Spanned<String>) -> Result<Valve, Diagnostic> {
    let bad = |message: String| source.error("bad-valve", text.span, message);
    let (order, condition) = text.value.split_once('|').ok_or_else(|| {
        bad(format!("the valve `({})` has no `|` between order and condition", text.value)).help(CONTROL_FORM)
    })?;
    Ok(Valve { order: self::order(order.trim(), &bad)?, condition: self::condition(condition.trim(), &bad)? })
}

fn order(text: &str, bad: &impl Fn(String) -> Diagnostic) -> Result<Order, Diagnostic> {
    const FORM: &str = "an order is `1`, `2`, … or `Last`";
    if text.eq_ignore_ascii_case("last") {
        return Ok(Order::Last);
    }
    let number: u32 = text.parse().map_err(|_| bad(format!("`{text}` is not an order")).help(FORM))?;
    NonZeroU32::new(number)
        .map(Order::Nth)
        .ok_or_else(|| bad("order 0 belongs to data edges".to_owned()).help("orders of control edges start at 1"))
}

/// The condition of a plan on disk.
pub(super) fn condition_of(text: &str) -> Result<Condition, String> {
    let nowhere = Source::new("", "");
    let bad = |message| nowhere.error("bad-valve", Span { start: Position::START, end: Position::START }, message);
    condition(text.trim(), &bad).map_err(|error| error.message)
}

fn condition(text: &str, bad: &impl Fn(String) -> Diagnostic) -> Result<Condition, Diagnostic> {
    match text {
        "" | "ok" => return Ok(Condition::Ok),
        "error" => return Ok(Condition::Error),
        "done" => return Ok(Condition::Done),
        "start" => return Ok(Condition::Start { detach: false }),
        "start detach" => return Ok(Condition::Start { detach: true }),
        _ => {}
    }
    if let Some(rest) = text.strip_prefix("iterate") {
        return iterate(rest.trim_start()).ok_or_else(|| {
            bad(format!("`{text}` is not a loop"))
                .help("write `iterate:NAME`, or `iterate*K:NAME` for K items at a time")
        });
    }
    if text.chars().all(|c| c.is_ascii_alphabetic()) && !matches!(text, "true" | "false") {
        let words = ["ok", "error", "done", "start"];
        return Err(bad(format!("`{text}` is not a condition")).help_if(suggest::help(
            text,
            words,
            "write an expression or one of",
        )));
    }
    match expression_error(text) {
        None => Ok(Condition::When(text.to_owned())),
        Some(error) => Err(bad(format!("the condition `{text}` is malformed: {error}"))),
    }
}

/// `:NAME` or `*K:NAME`.
fn iterate(text: &str) -> Option<Condition> {
    let (parallel, over) = text.split_once(':')?;
    let parallel = match parallel.trim() {
        "" => NonZeroU32::MIN,
        count => count.strip_prefix('*')?.trim().parse().ok()?,
    };
    let over = over.trim();
    let is_name = !over.is_empty() && over.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| Condition::Iterate { over: over.to_owned(), parallel })
}

fn split_port(end: &str) -> Option<(&str, &str)> {
    let (node, port) = end.trim().split_once('.')?;
    (!node.is_empty() && !port.is_empty()).then_some((node.trim(), port.trim()))
}

fn port_ref(source: &Source, text: &Spanned<String>, (node, port): (&str, &str)) -> Result<PortRef, Vec<Diagnostic>> {
    both(name(source, text, node), name(source, text, port)).map(|(node, port)| PortRef { node, port })
}

/// A name from `part`, a slice of `text`.
fn name<T>(source: &Source, text: &Spanned<String>, part: &str) -> Result<Spanned<T>, Vec<Diagnostic>>
where
    T: FromStr<Err = NameError>,
{
    let span = source.span_of_part(text, part);
    match part.parse() {
        Ok(name) => Ok(Spanned::new(name, span)),
        Err(error) => Err(vec![bad_name(source, span, &error)]),
    }
}

/// Both, or all that is wrong with either.
fn both<A, B>(
    first: Result<A, Vec<Diagnostic>>,
    second: Result<B, Vec<Diagnostic>>,
) -> Result<(A, B), Vec<Diagnostic>> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(mut first), Err(second)) => {
            first.extend(second);
            Err(first)
        }
        (Err(one), Ok(_)) | (Ok(_), Err(one)) => Err(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> Result<ControlEdge, Vec<Diagnostic>> {
        let source = Source::new("flow.yaml", text);
        let span = Span { start: Position::START, end: Position::START.after(text) };
        control_edge(&source, &Spanned::new(text.to_owned(), span))
    }

    fn condition_of(text: &str) -> Result<Condition, String> {
        control(&format!("a (1|{text}) b"))
            .map(|edge| edge.valve.value.condition)
            .map_err(|errors| errors[0].message.clone())
    }

    #[test]
    fn every_condition_of_the_language_is_recognised() {
        assert_eq!(condition_of(""), Ok(Condition::Ok));
        assert_eq!(condition_of(" ok "), Ok(Condition::Ok));
        assert_eq!(condition_of("error"), Ok(Condition::Error));
        assert_eq!(condition_of("done"), Ok(Condition::Done));
        assert_eq!(condition_of("start detach"), Ok(Condition::Start { detach: true }));
        let parallel = NonZeroU32::new(4).expect("4 is not 0");
        assert_eq!(condition_of("iterate*4:files"), Ok(Condition::Iterate { over: "files".into(), parallel }));
        assert_eq!(
            condition_of("(a__rows > 1) and (context.x | length) == 2"),
            Ok(Condition::When("(a__rows > 1) and (context.x | length) == 2".into()))
        );
        assert_eq!(condition_of("eror"), Err("`eror` is not a condition".into()));
        assert!(condition_of("iterate*0:x").is_err());
        assert!(condition_of("a > ").is_err());
    }

    #[test]
    fn orders_start_at_one() {
        let order = |text: &str| control(&format!("a ({text}|) b")).map(|edge| edge.valve.value.order);
        assert_eq!(order("Last"), Ok(Order::Last));
        assert_eq!(order("2"), Ok(Order::Nth(NonZeroU32::new(2).expect("2 is not 0"))));
        for wrong in ["0", "-1", "x", "", "1.5"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_parts_of_an_edge_know_their_place() {
        let text = "in.in - in2.in";
        let source = Source::new("flow.yaml", text);
        let span = Span { start: Position::START, end: Position::START.after(text) };
        let edge = data_edge(&source, &Spanned::new(text.to_owned(), span)).expect("well formed");
        let column = |span: Span| span.start.column;
        assert_eq!(column(edge.from.port.span), 4);
        assert_eq!(column(edge.to.node.span), 9);
        assert_eq!(column(edge.to.port.span), 13);
    }
}
