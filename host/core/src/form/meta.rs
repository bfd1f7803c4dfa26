//! The section that says which document it is, who wrote it, what for: the same in pipelines and streams.

use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Form;
use super::fields::Fields;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned};
use crate::name::{NameError, Version};

/// What a document says about itself that does not change how it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct About {
    /// Who wrote it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
    /// What it can be selected by: names and plain values.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub labels: Map<String, Value>,
}

/// Which document it is.
pub(crate) struct Meta<N> {
    pub(crate) name: N,
    pub(crate) version: Version,
    pub(crate) about: About,
}

/// Reads the section.
pub(crate) fn meta<N: FromStr<Err = NameError>>(
    source: &Source,
    node: &Spanned<Node>,
    form: &'static Form,
    found: &mut Diagnostics,
) -> Option<Meta<N>> {
    let mut fields = Fields::of(source, node, form, found)?;
    let name = fields.required("name", found).and_then(|node| fields.name(node, "name", found));
    let version = fields.required("version", found).and_then(|node| fields.name(node, "version", found));
    let authors = fields.optional("authors").and_then(|node| fields.texts(node, "authors", found));
    let desc = fields.optional("desc").and_then(|node| fields.text(node, "desc", found));
    let labels = fields.labels(found);
    fields.finish(found);
    Some(Meta { name: name?, version: version?, about: About { authors: authors.unwrap_or_default(), desc, labels } })
}
