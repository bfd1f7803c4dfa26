//! How documents are read, whatever they declare: by tables that say which mappings there are, their keys, and what
//! stands under each.
//!
//! A kind of document has its own tables. [`fields`] reads by them, [`schema`] writes them as JSON Schema for editors:
//! neither knows a key, a name or a bound that the other does not. [`configs`] checks what a module is told, and
//! [`parameters`] describes that.

pub(crate) mod configs;
pub(crate) mod fields;
pub(crate) mod ids;
pub(crate) mod meta;
pub(crate) mod parameters;
pub(crate) mod schema;

/// A mapping of the document.
#[derive(Debug)]
pub(crate) struct Form {
    /// What messages call it.
    pub(crate) what: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
    /// Its keys, in the order that people write them in.
    pub(crate) keys: &'static [Key],
}

/// One key of a mapping.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Must it be there? One that need not may also be empty.
    pub(crate) required: bool,
    pub(crate) value: Content,
    /// What it is for.
    pub(crate) about: &'static str,
}

/// What stands under a key.
#[derive(Debug)]
pub(crate) enum Content {
    /// A text of this pattern.
    Name(&'static str),
    Text,
    Texts,
    /// A list of texts of this pattern, and what each says.
    Patterned(&'static str, &'static str),
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A number from the first to the second.
    Number(f64, f64),
    Bool,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A mapping of names to plain values.
    Labels,
    Mapping(&'static Form),
    /// A list of mappings, so many at least.
    Mappings(&'static Form, usize),
    /// A mapping of names of this pattern, each to such content.
    Named(&'static str, &'static Content),
    /// Content of one of these kinds.
    Either(&'static [Content]),
    /// A mapping of names to what others say: a module's own schema, for its configs.
    Parameters,
    /// Any value.
    Any,
}

impl Form {
    /// The key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

pub(crate) const fn required(name: &'static str, value: Content, about: &'static str) -> Key {
    Key { name, required: true, value, about }
}

pub(crate) const fn optional(name: &'static str, value: Content, about: &'static str) -> Key {
    Key { name, required: false, value, about }
}

pub(crate) const LABELS: Key =
    optional("labels", Content::Labels, "What it can be selected by: names and plain values.");

/// The texts of a table of choices.
pub(crate) const fn names<T: Copy, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = choices[at].0;
        at += 1;
    }
    names
}
