//! The text form: `tier in (gold, silver) and not beta and size >= 3`.

use std::fmt;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::str::FromStr;

use super::MAX_DEPTH;
use super::interval::{Interval, bound};
use super::operator::{Operand, Operator, Test};
use super::rule::Rule;
use super::token::{Fault, Kind, Token, is_reserved, literal, tokens};
use super::value::{Literal, Ordered};
use crate::diagnostic::{Diagnostic, Position, Span};
use crate::suggest;

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// Where in the text.
    pub span: Span,
    /// What is wrong there.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl TextError {
    /// The same as a finding in `file`, or in the argument of that name.
    #[must_use]
    pub fn into_diagnostic(self, file: impl Into<PathBuf>) -> Diagnostic {
        Diagnostic::error("bad-rule", file, self.message).at(self.span).help_if(self.help)
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.span.start.line > 1 {
            write!(f, "line {}, ", self.span.start.line)?;
        }
        write!(f, "column {}: {}", self.span.start.column, self.message)
    }
}

impl std::error::Error for TextError {}

impl FromStr for Rule {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        parse(text).map_err(|fault| {
            let start = Position::START.after(&text[..fault.at.start]);
            let span = Span { start, end: start.after(&text[fault.at]) };
            TextError { span, message: fault.message, help: fault.help }
        })
    }
}

fn parse(text: &str) -> Result<Rule, Fault> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    if let Kind::End = parser.peek().kind {
        return Err(Fault::new(0..0, "the rule is empty").help("`true` is the rule that is always met"));
    }
    let rule = parser.disjunction()?;
    if !matches!(parser.peek().kind, Kind::End) {
        return Err(parser.unexpected("`and`, `or` or the end of the rule"));
    }
    if rule.depth() > MAX_DEPTH {
        return Err(too_deep(0..text.len()));
    }
    Ok(rule)
}

fn too_deep(at: Range<usize>) -> Fault {
    Fault::new(at, format!("the rule is nested more than {MAX_DEPTH} levels deep"))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn disjunction(&mut self) -> Result<Rule, Fault> {
        let mut rules = vec![self.conjunction()?];
        while self.takes_word("or") {
            rules.push(self.conjunction()?);
        }
        Ok(Rule::any(rules))
    }

    fn conjunction(&mut self) -> Result<Rule, Fault> {
        let mut rules = vec![self.term()?];
        while self.takes_word("and") {
            rules.push(self.term()?);
        }
        Ok(Rule::all(rules))
    }

    fn term(&mut self) -> Result<Rule, Fault> {
        if self.takes_word("not") {
            return self.deeper(Self::term).map(|rule| !rule);
        }
        if self.takes_sign("(") {
            let rule = self.deeper(Self::disjunction)?;
            return self.closed(")", "`and`, `or` or `)`").map(|()| rule);
        }
        if self.takes_word("true") {
            return Ok(Rule::all([]));
        }
        if self.takes_word("false") {
            return Ok(Rule::any([]));
        }
        let key = self.key()?;
        self.test(key)
    }

    /// One `not` or parenthesis further in.
    fn deeper(&mut self, read: fn(&mut Self) -> Result<Rule, Fault>) -> Result<Rule, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep(self.peek().at.clone()));
        }
        self.depth += 1;
        let rule = read(self);
        self.depth -= 1;
        rule
    }

    fn key(&mut self) -> Result<String, Fault> {
        let token = self.peek();
        let key = match &token.kind {
            Kind::Quoted(text) => text.clone(),
            Kind::Word(word) if is_reserved(word) => {
                let message = format!("the key of a label is missing before `{word}`");
                return Err(
                    Fault::new(token.at.clone(), message).help(format!("quote it if it is the key: `\"{word}\"`"))
                );
            }
            Kind::Word(word) => match literal(word) {
                Ok(Literal::Ordered(Ordered::Text(text))) => text,
                Ok(_) | Err(_) => {
                    let message = format!("`{word}` is a value, not the key of a label");
                    let help = "write the key first, as in `size > 3`, and quote a key that looks like a value";
                    return Err(Fault::new(token.at.clone(), message).help(help));
                }
            },
            Kind::Sign(_) | Kind::End => return Err(self.unexpected("the key of a label")),
        };
        self.next += 1;
        Ok(key)
    }

    /// What follows a key: an operator with its operand, or nothing.
    fn test(&mut self, key: String) -> Result<Rule, Fault> {
        if self.takes_word("not") {
            return self.negated(key);
        }
        let operator = match &self.peek().kind {
            Kind::Sign(sign) => Operator::of_sign(sign),
            Kind::Word(word) => Operator::of_name(word),
            Kind::Quoted(_) | Kind::End => None,
        };
        if let Some(operator) = operator {
            self.next += 1;
            return Ok(Rule::of(key, self.operand(operator)?));
        }
        match &self.peek().kind {
            Kind::Word(word) if !["and", "or"].iter().any(|end| end.eq_ignore_ascii_case(word)) => {
                Err(self.unknown_operator(word))
            }
            Kind::Quoted(_) => Err(self.unexpected("an operator")),
            Kind::Word(_) | Kind::Sign(_) | Kind::End => Ok(Rule::is_set(key)),
        }
    }

    /// `not in`, `not between`, `not exists`.
    fn negated(&mut self, key: String) -> Result<Rule, Fault> {
        if self.takes_word("in") {
            return Ok(Rule::of(key, self.operand(Operator::NotIn)?));
        }
        if self.takes_word("between") {
            return Ok(Rule::of(key, self.operand(Operator::NotBetween)?));
        }
        if self.takes_word("exists") {
            return Ok(!Rule::of(key, Test::Exists));
        }
        Err(self.unexpected("`in`, `between` or `exists` after a key and `not`"))
    }

    fn operand(&mut self, operator: Operator) -> Result<Test, Fault> {
        match operator.operand() {
            Operand::Value(test) => self.value().map(test),
            Operand::Ordered(test) => self.ordered(operator).map(test),
            Operand::Values(test) => self.values(operator).map(test),
            Operand::Range(test) => self.range(operator).map(test),
            Operand::Nothing(test) => Ok(test),
        }
    }

    fn value(&mut self) -> Result<Literal, Fault> {
        let token = self.peek();
        let value = match &token.kind {
            Kind::Quoted(text) => Literal::from(text.as_str()),
            Kind::Word(word) if ["and", "or", "not"].iter().any(|link| link.eq_ignore_ascii_case(word)) => {
                let message = format!("a value is missing before `{word}`");
                return Err(
                    Fault::new(token.at.clone(), message).help(format!("quote it if it is the value: `\"{word}\"`"))
                );
            }
            Kind::Word(word) => literal(word).map_err(|why| {
                Fault::new(token.at.clone(), format!("`{word}` {why}"))
                    .help("write a number in decimal digits, quote a text")
            })?,
            Kind::Sign(_) | Kind::End => return Err(self.unexpected("a value")),
        };
        self.next += 1;
        Ok(value)
    }

    fn ordered(&mut self, operator: Operator) -> Result<Ordered, Fault> {
        let token = self.next;
        match self.value()? {
            Literal::Ordered(value) => Ok(value),
            Literal::Null | Literal::Bool(_) => {
                let at = self.tokens[token].at.clone();
                let message = format!(
                    "`{}` compares numbers or texts, and `{}` is neither",
                    operator.in_text(),
                    &self.text[at.clone()]
                );
                Err(Fault::new(at, message))
            }
        }
    }

    /// `(gold, silver)`, also in brackets.
    fn values(&mut self, operator: Operator) -> Result<Vec<Literal>, Fault> {
        let close = match self.takes_opening() {
            Some("[") => "]",
            Some(_) => ")",
            None => {
                let form = format!("`{} (…, …)`", operator.in_text());
                return Err(self.unexpected("a list in parentheses").help(format!("write {form}")));
            }
        };
        let mut values = Vec::new();
        if self.takes_sign(close) {
            return Ok(values);
        }
        loop {
            values.push(self.value()?);
            if !self.takes_sign(",") {
                return self.closed(close, &format!("`,` or `{close}`")).map(|()| values);
            }
        }
    }

    /// `1 and 5`, both inclusive; or with parentheses for a bound that is left out, `[1, 5)`.
    fn range(&mut self, operator: Operator) -> Result<Interval, Fault> {
        let start = self.peek().at.start;
        let (low, high) = match self.takes_opening() {
            None => {
                let low = self.limit(operator, true)?;
                if !self.takes_word("and") {
                    return Err(self.unexpected("`and` and the upper bound"));
                }
                (low, self.limit(operator, true)?)
            }
            Some(opening) => {
                let low = self.limit(operator, opening == "[")?;
                self.closed(",", "`,` and the upper bound")?;
                let upper = self.limit_value(operator)?;
                let inclusive = self.takes_sign("]");
                if !inclusive {
                    self.closed(")", "`]` or `)`")?;
                }
                (low, bound(upper, inclusive))
            }
        };
        let end = self.tokens[self.next - 1].at.end;
        Interval::new(low, high).map_err(|why| Fault::new(start..end, why.to_string()))
    }

    fn limit(&mut self, operator: Operator, inclusive: bool) -> Result<Bound<Ordered>, Fault> {
        self.limit_value(operator).map(|value| bound(value, inclusive))
    }

    /// None for `null`, an open bound.
    fn limit_value(&mut self, operator: Operator) -> Result<Option<Ordered>, Fault> {
        if self.takes_word("null") {
            return Ok(None);
        }
        self.ordered(operator).map(Some)
    }

    fn takes_opening(&mut self) -> Option<&'static str> {
        ["(", "["].into_iter().find(|sign| self.takes_sign(sign))
    }

    fn closed(&mut self, sign: &str, expected: &str) -> Result<(), Fault> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek().kind, Kind::Word(given) if given.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek().kind, Kind::Sign(given) if given == sign);
        self.next += usize::from(found);
        found
    }

    /// The token that is next. `End` is never taken, so there is one.
    fn peek(&self) -> &Token<'a> {
        &self.tokens[self.next]
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let at = self.peek().at.clone();
        match &self.text[at.clone()] {
            "" => Fault::new(at, format!("the rule ends where {expected} is expected")),
            found => Fault::new(at, format!("`{found}` stands where {expected} is expected")),
        }
    }

    fn unknown_operator(&self, word: &str) -> Fault {
        let names = Operator::ALL.into_iter().map(Operator::name).chain(["and", "or", "not"]);
        let help = suggest::nearest(word, names).map_or_else(
            || "write `=`, `!=`, `<`, `>=`, `in (…)`, `between … and …`, `exists`, `and` or `or`".to_owned(),
            |name| format!("did you mean `{name}`?"),
        );
        Fault::new(self.peek().at.clone(), format!("`{word}` is not an operator")).help(help)
    }
}
