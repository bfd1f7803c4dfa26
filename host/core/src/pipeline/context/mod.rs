//! What the stages of a pipeline work on.
//!
//! A [`Context`] holds fields: those that the pipeline declares are there and of their types, from when it is made
//! ([`Context::from_json`]) through whatever stages do ([`Context::set`]) until it crosses to another machine and is made
//! again ([`Context::migrate`]). Stages may add fields of their own, whoever gives a context may not.

mod field;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use crate::name::{ContextVersion, FieldName};
use crate::suggest;

pub use field::{Field, FieldError, FieldProblem};
pub use spec::{ContextSpec, FieldSpec, FieldType, Migration, UnknownVersion};

/// What the stages of a pipeline work on. A clone shares the fields until one of the two changes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    content: Arc<Content>,
}

#[derive(Debug, Clone, PartialEq)]
struct Content {
    version: ContextVersion,
    fields: IndexMap<String, Field>,
}

/// Why something is no context of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// It is no mapping.
    #[error("a context must be a mapping, not {found}")]
    NotAMapping {
        /// What it is, in words.
        found: &'static str,
    },
    /// It was made with another layout, from which no migration leads to this one.
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    /// All that is wrong with its fields.
    #[error("the context does not fit: {}", joined(.0))]
    Fields(Vec<FieldError>),
}

impl ContextError {
    /// The fields that may have been meant by those that are not known.
    pub fn meant(&self) -> impl Iterator<Item = &str> {
        let errors = match self {
            ContextError::Fields(errors) => errors.as_slice(),
            ContextError::NotAMapping { .. } | ContextError::UnknownVersion(_) => &[],
        };
        errors.iter().filter_map(|error| match &error.problem {
            FieldProblem::Unknown { near } => near.as_deref(),
            FieldProblem::Missing | FieldProblem::Needed | FieldProblem::WrongType { .. } | FieldProblem::NotBase64 => {
                None
            }
        })
    }
}

fn joined(errors: &[FieldError]) -> String {
    errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("; ")
}

/// What happens to fields that are not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undeclared {
    Refused,
    Kept,
}

impl Context {
    /// The context that a caller gives as JSON: every field of its type, none missing, none unknown. Defaults are filled
    /// in, and what is `null` counts as not given. Bytes are given as a text, whose UTF-8 they then are, or as
    /// `{"base64": "…"}`.
    ///
    /// # Errors
    /// All that is wrong with it at once.
    pub fn from_json(spec: &ContextSpec, value: Value) -> Result<Context, ContextError> {
        match value {
            Value::Object(fields) => Context::from_parts(spec, fields, BTreeMap::new()),
            other => Err(ContextError::NotAMapping { found: field::kind_of(&other) }),
        }
    }

    /// The same, with bytes that came beside the JSON.
    ///
    /// # Errors
    /// All that is wrong with it at once.
    pub fn from_parts(
        spec: &ContextSpec,
        fields: Map<String, Value>,
        bytes: BTreeMap<String, Bytes>,
    ) -> Result<Context, ContextError> {
        let fields = fields.into_iter().map(|(name, value)| (name, Field::from(value)));
        let bytes = bytes.into_iter().map(|(name, bytes)| (name, Field::Bytes(bytes)));
        Context::checked(spec, fields.chain(bytes).collect(), Undeclared::Refused)
    }

    /// A context as it was stored, of whatever version, and not checked yet: [`Context::migrate`] does that.
    #[must_use]
    pub fn stored(version: ContextVersion, fields: impl IntoIterator<Item = (String, Field)>) -> Context {
        Context::of(version, fields.into_iter().collect())
    }

    /// The same in the layout that a pipeline has now: an older version goes through the chain of migrations. Fields
    /// that stages have added are kept.
    ///
    /// # Errors
    /// If no chain leads from its version to the current one, which is never guessed; or all that is wrong with its fields.
    pub fn migrate(self, spec: &ContextSpec) -> Result<Context, ContextError> {
        let Content { version, fields } = Arc::unwrap_or_clone(self.content);
        let steps = spec.migrations_from(&version)?;
        let fields = steps.into_iter().fold(fields, |fields, step| step.apply(fields));
        Context::checked(spec, fields, Undeclared::Kept)
    }

    fn checked(
        spec: &ContextSpec,
        mut given: IndexMap<String, Field>,
        undeclared: Undeclared,
    ) -> Result<Context, ContextError> {
        let mut fields = IndexMap::with_capacity(given.len());
        let mut errors = Vec::new();
        for (name, declared) in &spec.fields {
            match declared.read(given.shift_remove(name.as_str())) {
                Ok(field) => fields.extend(field.map(|field| (name.to_string(), field))),
                Err(problem) => errors.push(FieldError { field: name.to_string(), problem }),
            }
        }
        match undeclared {
            Undeclared::Kept => fields.extend(given),
            Undeclared::Refused => errors.extend(given.into_keys().map(|name| unknown(spec, name))),
        }
        match errors.is_empty() {
            true => Ok(Context::of(spec.version.clone(), fields)),
            false => Err(ContextError::Fields(errors)),
        }
    }

    fn of(version: ContextVersion, fields: IndexMap<String, Field>) -> Context {
        Context { content: Arc::new(Content { version, fields }) }
    }

    /// The version of its layout.
    #[must_use]
    pub fn version(&self) -> &ContextVersion {
        &self.content.version
    }

    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.content.fields.get(name)
    }

    /// All fields: the declared ones first.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.content.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// Sets a field: a declared one to what its type takes, any other to anything. `null` takes out what need not be there.
    ///
    /// # Errors
    /// If it is declared, and of another type. It then holds what it held.
    pub fn set(&mut self, spec: &ContextSpec, name: &str, field: Field) -> Result<(), FieldError> {
        let Some(declared) = spec.fields.get(name) else {
            self.fields_mut().insert(name.to_owned(), field);
            return Ok(());
        };
        if declared.may_be_absent() && declared.kind != FieldType::Any && field.is_null() {
            self.fields_mut().shift_remove(name);
            return Ok(());
        }
        let taken = declared.kind.take(field).map_err(|problem| FieldError { field: name.to_owned(), problem })?;
        self.fields_mut().insert(name.to_owned(), taken);
        Ok(())
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// If it is declared, and must be there.
    pub fn remove(&mut self, spec: &ContextSpec, name: &str) -> Result<Option<Field>, FieldError> {
        if spec.fields.get(name).is_some_and(|declared| !declared.may_be_absent()) {
            return Err(FieldError { field: name.to_owned(), problem: FieldProblem::Needed });
        }
        Ok(self.fields_mut().shift_remove(name))
    }

    fn fields_mut(&mut self) -> &mut IndexMap<String, Field> {
        &mut Arc::make_mut(&mut self.content).fields
    }

    /// As JSON, without the fields that hold bytes.
    #[must_use]
    pub fn to_json_without_bytes(&self) -> Value {
        let json = self.fields().filter_map(|(name, field)| Some((name.to_owned(), field.as_json()?.clone())));
        Value::Object(json.collect())
    }

    /// The shard that it belongs to; none if the pipeline has no shard key.
    #[must_use]
    pub fn shard(&self, spec: &ContextSpec) -> Option<u32> {
        let key = self.get(spec.shard_key.as_ref()?.as_str())?.as_json()?;
        Some(match key {
            Value::String(text) => shard_of(text, spec.shards),
            other => shard_of(&sorted(other).to_string(), spec.shards),
        })
    }
}

/// The shard of a key: the XXH3 hash of its UTF-8 (64 bits, no seed), modulo the number of shards. What is no text counts
/// as compact JSON, its keys sorted.
#[must_use]
pub fn shard_of(key: &str, shards: NonZeroU32) -> u32 {
    let shard = xxh3_64(key.as_bytes()) % u64::from(shards.get());
    u32::try_from(shard).expect("it is less than a number of 32 bits")
}

/// The order in which somebody wrote the keys of a mapping must not change where it belongs.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(entries) => {
            let entries: BTreeMap<&String, Value> = entries.iter().map(|(key, one)| (key, sorted(one))).collect();
            Value::Object(entries.into_iter().map(|(key, one)| (key.clone(), one)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn unknown(spec: &ContextSpec, field: String) -> FieldError {
    let near = suggest::nearest(&field, spec.fields.keys().map(FieldName::as_str)).map(str::to_owned);
    FieldError { field, problem: FieldProblem::Unknown { near } }
}

impl FieldSpec {
    /// What it holds when it is given this, or nothing; `None` if it is not there.
    fn read(&self, given: Option<Field>) -> Result<Option<Field>, FieldProblem> {
        // Of `any` null is a value.
        match given.filter(|field| self.kind == FieldType::Any || !field.is_null()) {
            Some(field) => self.kind.take(field).map(Some),
            None if self.is_required() => Err(FieldProblem::Missing),
            None => Ok(self.default.clone().map(Field::from)),
        }
    }
}

impl Migration {
    fn apply(&self, mut fields: IndexMap<String, Field>) -> IndexMap<String, Field> {
        // All are taken out before any is put back, so that two fields may swap their names.
        let renamed: Vec<_> = self
            .rename
            .iter()
            .filter_map(|(from, to)| Some((to.to_string(), fields.shift_remove(from.as_str())?)))
            .collect();
        fields.extend(renamed);
        fields.extend(self.set.iter().map(|(name, value)| (name.clone(), Field::from(value.clone()))));
        for name in &self.remove {
            fields.shift_remove(name.as_str());
        }
        fields
    }
}
