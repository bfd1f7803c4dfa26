//! Where the values of a tree stand, by JSON pointer.

use std::collections::BTreeMap;

use super::{Node, Spanned};
use crate::diagnostic::Span;

/// The places of all values below one node. A pointer that is not there answers with its nearest
/// ancestor that is, so an error about a value that a schema invented still has a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanMap {
    root: Option<Span>,
    values: BTreeMap<String, Span>,
    keys: BTreeMap<String, Span>,
}

impl SpanMap {
    /// The places of `node` and all below it.
    #[must_use]
    pub fn of(node: &Spanned<Node>) -> Self {
        let mut map = SpanMap::rooted(node.span);
        map.insert_below("", &node.value);
        map
    }

    /// A map that answers every question with one place.
    #[must_use]
    pub fn rooted(root: Span) -> Self {
        SpanMap { root: Some(root), ..SpanMap::default() }
    }

    /// The place that stands for the whole.
    #[must_use]
    pub fn root(&self) -> Option<Span> {
        self.root
    }

    /// The place of the value at `pointer`.
    #[must_use]
    pub fn value(&self, pointer: &str) -> Option<Span> {
        nearest(&self.values, pointer).or(self.root)
    }

    /// The place of the key at `pointer`, or else of its value.
    #[must_use]
    pub fn key(&self, pointer: &str) -> Option<Span> {
        self.keys.get(pointer).copied().or_else(|| self.value(pointer))
    }

    /// Sets the place of one value.
    pub fn insert(&mut self, pointer: impl Into<String>, span: Span) {
        self.values.insert(pointer.into(), span);
    }

    /// Adds an entry of a mapping, and all below it, under `/key`.
    pub(crate) fn insert_entry(&mut self, key: &Spanned<String>, value: &Spanned<Node>) {
        self.insert_child("", key, value);
    }

    fn insert_child(&mut self, parent: &str, key: &Spanned<String>, value: &Spanned<Node>) {
        let pointer = child(parent, &key.value);
        self.keys.insert(pointer.clone(), key.span);
        self.values.insert(pointer.clone(), value.span);
        self.insert_below(&pointer, &value.value);
    }

    fn insert_below(&mut self, pointer: &str, node: &Node) {
        match node {
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Str(_) => {}
            Node::Seq(items) => {
                for (index, item) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{index}");
                    self.values.insert(pointer.clone(), item.span);
                    self.insert_below(&pointer, &item.value);
                }
            }
            Node::Map(entries) => {
                for (key, item) in entries {
                    self.insert_child(pointer, key, item);
                }
            }
        }
    }
}

/// The pointer of an entry of the object at `parent` (RFC 6901).
pub(crate) fn child(parent: &str, key: &str) -> String {
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn nearest(values: &BTreeMap<String, Span>, pointer: &str) -> Option<Span> {
    let mut pointer = pointer;
    loop {
        if let Some(span) = values.get(pointer) {
            return Some(*span);
        }
        pointer = &pointer[..pointer.rfind('/')?];
    }
}
