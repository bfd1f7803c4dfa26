//! Reads the entries of one mapping: each at most once, each of the right type, none unknown.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::{Content, Form, Key};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Node, Source, Spanned, whole_number};
use crate::name::NameError;
use crate::suggest;

type Entries = [(Spanned<String>, Spanned<Node>)];

/// The entries of a mapping, while they are read.
pub(crate) struct Fields<'a> {
    source: &'a Source,
    form: &'static Form,
    span: Span,
    entries: &'a Entries,
    /// The keys that were asked for: in the end, all that the form has.
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The entries of `node`, which has this form.
    pub(crate) fn of(
        source: &'a Source,
        node: &'a Spanned<Node>,
        form: &'static Form,
        found: &mut Diagnostics,
    ) -> Option<Self> {
        let Node::Map(entries) = &node.value else {
            let message = format!("{} must be a mapping, not {}", form.what, node.value.kind());
            found.push(source.error("wrong-type", node.span, message));
            return None;
        };
        Some(Self { source, form, span: node.span, entries, asked: Vec::new() })
    }

    /// The value of a key that must be there.
    pub(crate) fn required(&mut self, key: &'static str, found: &mut Diagnostics) -> Option<&'a Spanned<Node>> {
        let node = self.get(key, true);
        if node.is_none() {
            let message = format!("{} needs the key `{key}`", self.form.what);
            found.push(self.source.error("missing-key", Span::at(self.span.start), message));
        }
        node
    }

    /// The value of a key, if it is there and not empty.
    pub(crate) fn optional(&mut self, key: &'static str) -> Option<&'a Spanned<Node>> {
        self.get(key, false)
    }

    fn get(&mut self, key: &'static str, required: bool) -> Option<&'a Spanned<Node>> {
        let has = self.form.key(key).is_some_and(|key| key.required == required);
        debug_assert!(has, "the form of {} has no such key `{key}`", self.form.what);
        self.asked.push(key);
        let node = self.entries.iter().find(|(given, _)| given.value == key).map(|(_, node)| node);
        node.filter(|node| node.value != Node::Null)
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self, found: &mut Diagnostics) {
        let known = self.form.keys.iter().map(|key| key.name);
        debug_assert!(known.clone().all(|key| self.asked.contains(&key)), "a key of {} is not read", self.form.what);
        for (key, _) in self.entries.iter().filter(|(key, _)| self.form.key(&key.value).is_none()) {
            let help = suggest::help(&key.value, known.clone(), "known keys");
            let message = format!("{} has no key `{}`", self.form.what, key.value);
            found.push(self.source.error("unknown-key", key.span, message).help_if(help));
        }
    }

    /// A text that is a name of some sort. A number such as `1.0` is shown as written.
    pub(crate) fn name<T: FromStr<Err = NameError>>(
        &self,
        node: &Spanned<Node>,
        key: &str,
        found: &mut Diagnostics,
    ) -> Option<T> {
        let text = match &node.value {
            Node::Str(text) => text.clone(),
            Node::Int(_) | Node::Float(_) => self.source.slice(node.span).to_owned(),
            Node::Null | Node::Bool(_) | Node::Seq(_) | Node::Map(_) => {
                self.wrong_type(node, key, "text", found);
                return None;
            }
        };
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                found.push(bad_name(self.source, node.span, &error));
                None
            }
        }
    }

    pub(crate) fn text(&self, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<String> {
        let Node::Str(text) = &node.value else {
            self.wrong_type(node, key, "text", found);
            return None;
        };
        Some(text.clone())
    }

    pub(crate) fn texts(&self, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<Vec<String>> {
        self.list(node, key, found)?.iter().map(|item| self.text(item, key, found)).collect()
    }

    pub(crate) fn list(
        &self,
        node: &'a Spanned<Node>,
        key: &str,
        found: &mut Diagnostics,
    ) -> Option<&'a [Spanned<Node>]> {
        list(self.source, node, key, found)
    }

    pub(crate) fn mapping(&self, node: &'a Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<&'a Entries> {
        let Node::Map(entries) = &node.value else {
            self.wrong_type(node, key, "a mapping", found);
            return None;
        };
        Some(entries)
    }

    /// A number between the bounds that the form has.
    pub(crate) fn number(&self, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<f64> {
        let Some(Key { value: Content::Number(low, high), .. }) = self.form.key(key) else {
            unreachable!("the form says that `{key}` is a number, and between which");
        };
        let number = match node.value {
            #[allow(
                clippy::cast_precision_loss,
                reason = "no bound is so far out that a whole number would lose digits"
            )]
            Node::Int(number) => number as f64,
            Node::Float(number) => number,
            Node::Null | Node::Bool(_) | Node::Str(_) | Node::Seq(_) | Node::Map(_) => {
                self.wrong_type(node, key, &format!("a number from {low} to {high}"), found);
                return None;
            }
        };
        self.within(node, key, number, (*low, *high), found)
    }

    fn within<N: PartialOrd + Display>(
        &self,
        node: &Spanned<Node>,
        key: &str,
        number: N,
        (low, high): (N, N),
        found: &mut Diagnostics,
    ) -> Option<N> {
        if (&low..=&high).contains(&&number) {
            return Some(number);
        }
        let message = format!("`{key}` must be {low} to {high}, not {number}");
        found.push(self.source.error("out-of-range", node.span, message));
        None
    }

    /// A whole number, `1e3` and `10.0` too: as in configs.
    pub(crate) fn integer(&self, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<i64> {
        let Some(Key { value: Content::Integer(low, high), .. }) = self.form.key(key) else {
            unreachable!("the form says that `{key}` is a whole number, and between which");
        };
        let number = match node.value {
            Node::Int(number) => Some(number),
            Node::Float(number) => whole_number(number),
            Node::Null | Node::Bool(_) | Node::Str(_) | Node::Seq(_) | Node::Map(_) => None,
        };
        let Some(number) = number else {
            self.wrong_type(node, key, "a whole number", found);
            return None;
        };
        self.within(node, key, number, (*low, *high), found)
    }

    pub(crate) fn boolean(&self, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<Spanned<bool>> {
        let Node::Bool(value) = node.value else {
            self.wrong_type(node, key, "true or false", found);
            return None;
        };
        Some(Spanned::new(value, node.span))
    }

    pub(crate) fn choice<T: Copy>(
        &self,
        node: &Spanned<Node>,
        key: &str,
        choices: &[(&str, T)],
        found: &mut Diagnostics,
    ) -> Option<T> {
        let text = self.text(node, key, found)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let names = choices.iter().map(|(name, _)| *name);
            let help = suggest::help(&text, names, "it is one of");
            let message = format!("`{text}` is not a value of `{key}`");
            found.push(self.source.error("unknown-value", node.span, message).help_if(help));
        }
        chosen
    }

    /// Names and plain values, under `labels`.
    pub(crate) fn labels(&mut self, found: &mut Diagnostics) -> Map<String, Value> {
        let Some(node) = self.optional("labels") else { return Map::new() };
        let Some(entries) = self.mapping(node, "labels", found) else { return Map::new() };
        for (key, value) in entries {
            if matches!(value.value, Node::Seq(_) | Node::Map(_)) {
                self.wrong_type(value, &key.value, "a plain value", found);
            }
        }
        entries.iter().map(|(key, value)| (key.value.clone(), value.value.to_json())).collect()
    }

    pub(crate) fn wrong_type(&self, node: &Spanned<Node>, key: &str, wanted: &str, found: &mut Diagnostics) {
        wrong_type(self.source, node, key, wanted, found);
    }
}

/// The items of a list.
pub(crate) fn list<'a>(
    source: &Source,
    node: &'a Spanned<Node>,
    key: &str,
    found: &mut Diagnostics,
) -> Option<&'a [Spanned<Node>]> {
    let Node::Seq(items) = &node.value else {
        wrong_type(source, node, key, "a list", found);
        return None;
    };
    Some(items)
}

fn wrong_type(source: &Source, node: &Spanned<Node>, key: &str, wanted: &str, found: &mut Diagnostics) {
    let message = format!("`{key}` must be {wanted}, not {}", node.value.kind());
    found.push(source.error("wrong-type", node.span, message));
}

/// That a text is not a name.
pub(crate) fn bad_name(source: &Source, span: Span, error: &NameError) -> Diagnostic {
    let message = format!("`{}` is not a {}", error.given, error.what);
    source.error("bad-name", span, message).help(format!("a {} is {}", error.what, error.rule))
}
