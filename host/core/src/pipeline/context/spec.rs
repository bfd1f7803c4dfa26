//! What a pipeline says of its context.

use std::fmt;
use std::num::NonZeroU32;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::name::{ContextVersion, FieldName};

/// The fields of a context, and how contexts of older versions become such as these.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextSpec {
    /// The version of the layout.
    pub version: ContextVersion,
    /// The fields, in the order of the document.
    pub fields: IndexMap<FieldName, FieldSpec>,
    /// The field whose value settles the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_key: Option<FieldName>,
    /// How many shards there are.
    pub shards: NonZeroU32,
    /// Each from one version to the next; no two start from the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<Migration>,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldSpec {
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Need it not be there?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What it holds when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Text.
    Str,
    /// A whole number of 64 bits; `10.0` is one.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// Bytes, which travel beside the JSON.
    Bytes,
    /// A list.
    List,
    /// A mapping.
    Object,
    /// Anything.
    Any,
}

/// How a context of one version becomes one of the next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migration {
    /// The version it starts from.
    pub from: ContextVersion,
    /// The version it leads to.
    pub to: ContextVersion,
    /// First: fields that have another name now, all at once. What had the new name is replaced.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub rename: IndexMap<FieldName, FieldName>,
    /// Then: fields that hold this now, whatever they held.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub set: Map<String, Value>,
    /// Last: fields that are no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FieldName>,
}

/// A version that is neither the current one nor one that migrations start from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the context has version `{found}`: this pipeline has `{current}`, and {}", reachable(.from))]
pub struct UnknownVersion {
    /// The version that was found.
    pub found: ContextVersion,
    /// The version of the pipeline.
    pub current: ContextVersion,
    /// The versions that can be migrated.
    pub from: Vec<ContextVersion>,
}

fn reachable(from: &[ContextVersion]) -> String {
    match from {
        [] => "no migration leads there".to_owned(),
        all => {
            let all: Vec<String> = all.iter().map(|one| format!("`{one}`")).collect();
            format!("migrations lead there from {}", all.join(", "))
        }
    }
}

impl ContextSpec {
    /// The number of shards where a document gives none.
    pub const SHARDS: NonZeroU32 = NonZeroU32::new(1024).expect("it is not zero");

    /// The migrations that lead from a version to the current one, in their order.
    ///
    /// # Errors
    /// If they do not.
    pub fn migrations_from(&self, version: &ContextVersion) -> Result<Vec<&Migration>, UnknownVersion> {
        let mut steps = Vec::new();
        let mut at = version;
        while *at != self.version {
            let step = self.migrations.iter().find(|step| step.from == *at);
            // A circle, which no document has, leads nowhere.
            match step.filter(|_| steps.len() < self.migrations.len()) {
                Some(step) => steps.push(step),
                None => return Err(self.unknown(version)),
            }
            at = &steps[steps.len() - 1].to;
        }
        Ok(steps)
    }

    fn unknown(&self, version: &ContextVersion) -> UnknownVersion {
        let from = self.migrations.iter().map(|step| step.from.clone()).collect();
        UnknownVersion { found: version.clone(), current: self.version.clone(), from }
    }
}

impl FieldSpec {
    /// A field that must be given.
    #[must_use]
    pub fn of(kind: FieldType) -> FieldSpec {
        FieldSpec { kind, optional: false, default: None, desc: None }
    }

    /// Must it be given?
    #[must_use]
    pub fn is_required(&self) -> bool {
        !self.optional && self.default.is_none()
    }

    /// May a context be without it?
    #[must_use]
    pub fn may_be_absent(&self) -> bool {
        self.optional && self.default.is_none()
    }
}

impl FieldType {
    /// As it is written: `str`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::Str => "str",
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Bool => "bool",
            FieldType::Bytes => "bytes",
            FieldType::List => "list",
            FieldType::Object => "object",
            FieldType::Any => "any",
        }
    }

    /// In the words of an error message.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            FieldType::Str => "text",
            FieldType::Int => "a whole number of 64 bits",
            FieldType::Float => "a number",
            FieldType::Bool => "true or false",
            FieldType::Bytes => "bytes: a text, or `{\"base64\": …}`",
            FieldType::List => "a list",
            FieldType::Object => "a mapping",
            FieldType::Any => "a value",
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
