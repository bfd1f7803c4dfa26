//! The tree form, read from a document: all that is wrong with it at once.

use super::MAX_DEPTH;
use super::interval::{Interval, bound};
use super::operator::{Operand, Operator, Test};
use super::rule::Rule;
use super::text::TextError;
use super::value::{Literal, Ordered};
use crate::diagnostic::{Diagnostics, Span};
use crate::document::{Node, Source, Spanned};
use crate::suggest;

const BRANCHES: [&str; 4] = ["all", "any", "not", "match"];
const MATCH_KEYS: [&str; 5] = ["key", "op", "value", "values", "range"];
const OPERANDS: [&str; 3] = ["value", "values", "range"];
const BRANCH_HELP: &str = "a rule is one of `all: […]`, `any: […]`, `not: {…}`, `match: {key, op, …}`";

type Entries = [(Spanned<String>, Spanned<Node>)];

pub(super) fn read(source: &Source, node: &Spanned<Node>) -> Result<Rule, Diagnostics> {
    let mut reader = Reader { source, found: Diagnostics::new() };
    let root = Path(String::new());
    let rule = reader.rule(node, &root);
    if rule.as_ref().is_some_and(|rule| rule.depth() > MAX_DEPTH) {
        reader.error(
            "too-deep",
            node.span,
            &root,
            &format!("the rule is nested more than {MAX_DEPTH} levels deep"),
            "",
        );
    }
    match rule {
        Some(rule) if reader.found.is_empty() => Ok(rule),
        Some(_) | None => Err(reader.found),
    }
}

/// Where something stands in a rule: `all[1].match.op`. Empty for the rule itself.
struct Path(String);

impl Path {
    fn key(&self, key: &str) -> Path {
        let dot = if self.0.is_empty() { "" } else { "." };
        Path(format!("{}{dot}{key}", self.0))
    }

    fn item(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }
}

struct Reader<'a> {
    source: &'a Source,
    found: Diagnostics,
}

impl Reader<'_> {
    fn rule(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Rule> {
        match &node.value {
            Node::Map(entries) => self.branch(entries, node.span, path),
            Node::Str(text) => self.text_form(text, node.span, path),
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Seq(_) => {
                self.wrong_type(node, path, "a rule must be a mapping or a text", BRANCH_HELP)
            }
        }
    }

    /// Reads every branch that is there: a rule that has two may be wrong in both.
    fn branch(&mut self, entries: &Entries, span: Span, path: &Path) -> Option<Rule> {
        let branches: Vec<_> = entries.iter().filter(|(key, _)| BRANCHES.contains(&key.value.as_str())).collect();
        self.stray_branch_keys(entries, path);
        if entries.is_empty() {
            self.error("missing-key", Span::at(span.start), path, "a rule is missing here", BRANCH_HELP);
        }
        if let [(first, _), (second, _), ..] = branches[..] {
            let message = format!("a rule cannot have `{}` and `{}` side by side", first.value, second.value);
            self.error("several-branches", second.span, path, &message, "put both into the list of an `all` or `any`");
        }
        let mut rules: Vec<_> =
            branches.into_iter().map(|(key, node)| self.one_branch(key, node, &path.key(&key.value))).collect();
        rules.pop().flatten()
    }

    fn one_branch(&mut self, key: &Spanned<String>, node: &Spanned<Node>, path: &Path) -> Option<Rule> {
        match key.value.as_str() {
            "all" => self.rules(node, path).map(Rule::all),
            "any" => self.rules(node, path).map(Rule::any),
            "not" => self.rule(node, path).map(|rule| !rule),
            _ => self.matched(node, path),
        }
    }

    fn stray_branch_keys(&mut self, entries: &Entries, path: &Path) {
        for (key, _) in entries.iter().filter(|(key, _)| !BRANCHES.contains(&key.value.as_str())) {
            let help = if MATCH_KEYS.contains(&key.value.as_str()) {
                format!("`{}` belongs into a `match: {{key, op, …}}`", key.value)
            } else {
                suggest::nearest(&key.value, BRANCHES)
                    .map_or_else(|| BRANCH_HELP.to_owned(), |name| format!("did you mean `{name}`?"))
            };
            self.error("unknown-key", key.span, path, &format!("a rule has no key `{}`", key.value), &help);
        }
    }

    fn rules(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Vec<Rule>> {
        let Node::Seq(items) = &node.value else {
            return self.wrong_type(node, path, "the rules must be a list", "");
        };
        self.each(items, path, Self::rule)
    }

    /// All of the items, or none after reading each.
    fn each<T>(
        &mut self,
        items: &[Spanned<Node>],
        path: &Path,
        read: fn(&mut Self, &Spanned<Node>, &Path) -> Option<T>,
    ) -> Option<Vec<T>> {
        let read: Vec<_> = items.iter().enumerate().map(|(index, item)| read(self, item, &path.item(index))).collect();
        read.into_iter().collect()
    }

    fn text_form(&mut self, text: &str, span: Span, path: &Path) -> Option<Rule> {
        let scalar = Spanned::new(text.to_owned(), span);
        match scalar.value.parse() {
            Ok(rule) => Some(rule),
            Err(TextError { span: within, message, help }) => {
                let part = &scalar.value[within.start.offset..within.end.offset];
                let place = self.source.span_of_part(&scalar, part);
                self.error("bad-rule", place, path, &message, help.as_deref().unwrap_or_default());
                None
            }
        }
    }

    fn matched(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Rule> {
        let Node::Map(entries) = &node.value else {
            return self.wrong_type(
                node,
                path,
                "it must be a mapping",
                "write `match: {key: tier, op: eq, value: gold}`",
            );
        };
        self.unknown_keys(entries, &MATCH_KEYS, "a match", path);
        let key = self.required(entries, node.span, "key", path).and_then(|key| self.key(key, &path.key("key")));
        let operator = self.required(entries, node.span, "op", path).and_then(|op| self.operator(op, &path.key("op")));
        let test = match operator {
            Some(operator) => self.test(operator, entries, node.span, path),
            None => self.operands_of_unknown(entries, path),
        };
        Some(Rule::of(key?, test?))
    }

    fn required<'n>(&mut self, entries: &'n Entries, span: Span, key: &str, path: &Path) -> Option<&'n Spanned<Node>> {
        let found = entry(entries, key);
        if found.is_none() {
            self.error("missing-key", Span::at(span.start), path, &format!("the key `{key}` is missing"), "");
        }
        found
    }

    fn key(&mut self, node: &Spanned<Node>, path: &Path) -> Option<String> {
        match &node.value {
            Node::Str(key) => Some(key.clone()),
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Seq(_) | Node::Map(_) => {
                self.wrong_type(node, path, "the key of a label must be text", "")
            }
        }
    }

    fn operator(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Operator> {
        let Node::Str(name) = &node.value else {
            return self.wrong_type(node, path, "an operator must be text", "");
        };
        let operator = Operator::of_name(name);
        if operator.is_none() {
            let known = Operator::ALL.into_iter().map(Operator::name);
            let help = match Operator::of_sign(name) {
                Some(meant) => format!("write `{}`", meant.name()),
                None => suggest::help(name, known, "the operators are").unwrap_or_default(),
            };
            self.error("unknown-operator", node.span, path, &format!("`{name}` is not an operator"), &help);
        }
        operator
    }

    fn test(&mut self, operator: Operator, entries: &Entries, span: Span, path: &Path) -> Option<Test> {
        let operand = operator.operand();
        let stray = self.stray_operands(operator, operand.key(), entries, path);
        let given = operand.key().and_then(|key| Some((entry(entries, key)?, path.key(key))));
        match (operand, given) {
            (Operand::Nothing(test), _) => Some(test),
            (Operand::Value(test), Some((node, path))) => self.literal(node, &path).map(test),
            (Operand::Ordered(test), Some((node, path))) => self.ordered(node, &path).map(test),
            (Operand::Values(test), Some((node, path))) => self.literals(node, &path).map(test),
            (Operand::Range(test), Some((node, path))) => self.range(node, &path).map(test),
            (operand @ (Operand::Value(_) | Operand::Ordered(_) | Operand::Values(_) | Operand::Range(_)), None) => {
                if !stray {
                    let key = operand.key().unwrap_or_default();
                    let message = format!("`{}` needs the key `{key}`", operator.name());
                    self.error("missing-key", Span::at(span.start), path, &message, "");
                }
                None
            }
        }
    }

    /// Reports the operands that the operator does not take, and whether there are any.
    fn stray_operands(
        &mut self,
        operator: Operator,
        taken: Option<&'static str>,
        entries: &Entries,
        path: &Path,
    ) -> bool {
        let is_stray = |key: &str| OPERANDS.contains(&key) && Some(key) != taken;
        let stray: Vec<_> = entries.iter().filter(|(key, _)| is_stray(&key.value)).collect();
        for (key, _) in &stray {
            let takes = taken.map_or("nothing".to_owned(), |key| format!("`{key}`"));
            let message = format!("`{}` takes {takes}, not `{}`", operator.name(), key.value);
            self.error("wrong-operand", key.span, path, &message, "");
        }
        !stray.is_empty()
    }

    /// The operands of an operator that nobody knows can be wrong in themselves.
    fn operands_of_unknown(&mut self, entries: &Entries, path: &Path) -> Option<Test> {
        if let Some(node) = entry(entries, "value") {
            self.literal(node, &path.key("value"));
        }
        if let Some(node) = entry(entries, "values") {
            self.literals(node, &path.key("values"));
        }
        if let Some(node) = entry(entries, "range") {
            self.range(node, &path.key("range"));
        }
        None
    }

    fn literals(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Vec<Literal>> {
        let Node::Seq(items) = &node.value else {
            return self.wrong_type(node, path, "the values must be a list", "");
        };
        self.each(items, path, Self::literal)
    }

    fn literal(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Literal> {
        match &node.value {
            Node::Null => Some(Literal::Null),
            Node::Bool(value) => Some(Literal::Bool(*value)),
            Node::Int(_) | Node::Float(_) | Node::Str(_) => self.ordered(node, path).map(Literal::Ordered),
            Node::Seq(_) => {
                let help = "`in` and `notin` compare with the list under `values`";
                self.wrong_type(node, path, "the value must be plain", help)
            }
            Node::Map(_) => self.wrong_type(node, path, "the value must be plain", ""),
        }
    }

    fn ordered(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Ordered> {
        match &node.value {
            Node::Int(number) => Some(Ordered::Int(*number)),
            Node::Float(number) if number.is_finite() => Some(Ordered::Float(*number)),
            Node::Float(number) => {
                let message = format!("`{number}` is not finite, and no label is");
                self.error("not-finite", node.span, path, &message, "");
                None
            }
            Node::Str(text) => Some(Ordered::Text(text.clone())),
            Node::Null | Node::Bool(_) | Node::Seq(_) | Node::Map(_) => {
                self.wrong_type(node, path, "a number or text is needed here", "")
            }
        }
    }

    fn range(&mut self, node: &Spanned<Node>, path: &Path) -> Option<Interval> {
        const FORM: &str = "write `range: {low: 1, high: 5}`";
        let Node::Map(entries) = &node.value else {
            return self.wrong_type(node, path, "a range must be a mapping", FORM);
        };
        self.unknown_keys(entries, &["low", "high", "inclusive"], "a range", path);
        let low = self.limit(entry(entries, "low"), &path.key("low"));
        let high = self.limit(entry(entries, "high"), &path.key("high"));
        let inclusive = self.inclusive(entry(entries, "inclusive"), &path.key("inclusive"));
        let (low, high, inclusive) = (low?, high?, inclusive?);
        match Interval::new(bound(low, inclusive.0), bound(high, inclusive.1)) {
            Ok(interval) => Some(interval),
            Err(why) => {
                self.error("bad-range", node.span, path, &why.to_string(), "");
                None
            }
        }
    }

    /// `Some(None)` for a bound that is open: null or not there.
    fn limit(&mut self, node: Option<&Spanned<Node>>, path: &Path) -> Option<Option<Ordered>> {
        match node {
            None | Some(Spanned { value: Node::Null, .. }) => Some(None),
            Some(node) => self.ordered(node, path).map(Some),
        }
    }

    /// For the low bound and the high one.
    fn inclusive(&mut self, node: Option<&Spanned<Node>>, path: &Path) -> Option<(bool, bool)> {
        let Some(node) = node else { return Some((true, true)) };
        let Node::Map(entries) = &node.value else {
            return self.boolean(node, path).map(|both| (both, both));
        };
        self.unknown_keys(entries, &["low", "high"], "`inclusive`", path);
        let low = entry(entries, "low").map_or(Some(true), |node| self.boolean(node, &path.key("low")));
        let high = entry(entries, "high").map_or(Some(true), |node| self.boolean(node, &path.key("high")));
        Some((low?, high?))
    }

    fn unknown_keys(&mut self, entries: &Entries, known: &[&str], what: &str, path: &Path) {
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            let help = suggest::help(&key.value, known.iter().copied(), "known keys").unwrap_or_default();
            self.error("unknown-key", key.span, path, &format!("{what} has no key `{}`", key.value), &help);
        }
    }

    fn boolean(&mut self, node: &Spanned<Node>, path: &Path) -> Option<bool> {
        match &node.value {
            Node::Bool(value) => Some(*value),
            Node::Null | Node::Int(_) | Node::Float(_) | Node::Str(_) | Node::Seq(_) | Node::Map(_) => {
                self.wrong_type(node, path, "it must be true or false", "")
            }
        }
    }

    fn wrong_type<T>(&mut self, node: &Spanned<Node>, path: &Path, wanted: &str, help: &str) -> Option<T> {
        self.error("wrong-type", node.span, path, &format!("{wanted}, not {}", node.value.kind()), help);
        None
    }

    fn error(&mut self, code: &'static str, span: Span, path: &Path, message: &str, help: &str) {
        let message = match path.0.as_str() {
            "" => message.to_owned(),
            path => format!("`{path}`: {message}"),
        };
        let help = Some(help.to_owned()).filter(|help| !help.is_empty());
        self.found.push(self.source.error(code, span, message).help_if(help));
    }
}

fn entry<'n>(entries: &'n Entries, key: &str) -> Option<&'n Spanned<Node>> {
    entries.iter().find(|(given, _)| given.value == key).map(|(_, node)| node)
}
