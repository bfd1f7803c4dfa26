//! What a pipeline is about: named fields that stages read, change and pass on.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Bytes;
use super::bytes::hand_over;
use crate::abi::{self, RawContext};
use crate::context::answer;
use crate::error::{Error, ErrorKind, Result};

/// The context of one run of a pipeline. The host has it: a field crosses when it is asked for, and bytes are not copied.
pub struct PipelineContext {
    raw: RawContext,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A JSON value.
    Json(Value),
    /// Bytes.
    Bytes(Bytes),
}

/// What is known of a run besides its context. Crosses as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// Unlike that of any other run.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The version of the context.
    pub context_version: String,
    /// The job, behind the dispatch.
    pub job_id: Option<String>,
    /// 1 at first.
    pub attempt: u32,
    /// The same for everything that is asked for twice: an effect that is keyed with it happens once.
    pub idempotency_key: Option<String>,
    /// Rises with every lease of the job: what is guarded by it refuses those who were overtaken.
    pub fencing_token: Option<u64>,
    /// The span that the stage runs in, to go on from: the `traceparent` of W3C Trace Context. Where nothing is traced, what
    /// the caller sent.
    pub trace: Option<String>,
    /// Which part of all keys it belongs to.
    pub shard: Option<u32>,
}

impl PipelineContext {
    #[inline]
    pub(crate) fn from_raw(raw: RawContext) -> Self {
        Self { raw }
    }

    #[inline]
    pub(crate) fn raw(&self) -> &RawContext {
        &self.raw
    }

    #[inline]
    pub(crate) fn into_raw(self) -> RawContext {
        self.raw
    }

    /// What is known of the run.
    pub fn facts(&self) -> RunFacts {
        serde_json::from_slice(&self.raw.vtable.facts()(&self.raw.handle)).unwrap_or_default()
    }

    /// The names of all fields.
    pub fn names(&self) -> Vec<String> {
        serde_json::from_slice(&self.raw.vtable.names()(&self.raw.handle)).unwrap_or_default()
    }

    /// A field, if it is there.
    ///
    /// # Errors
    /// It is not readable.
    pub fn field(&self, name: &str) -> Result<Option<Field>> {
        match self.raw.vtable.get()(&self.raw.handle, name.into()).into_option() {
            None => Ok(None),
            Some(abi::Field::Json(json)) => Ok(Some(Field::Json(serde_json::from_slice(&json)?))),
            Some(abi::Field::Bytes(bytes)) => Ok(Some(Field::Bytes(Bytes::from_raw(bytes)))),
        }
    }

    /// The value of a field.
    ///
    /// # Errors
    /// It is not there, or not of this type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let field = self.field(name)?.ok_or_else(|| missing(name))?;
        T::deserialize(One(field)).map_err(|error| error.of(name))
    }

    /// Sets a field to a value.
    ///
    /// # Errors
    /// It is declared with another type.
    pub fn set(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        self.put(name, abi::Field::Json(serde_json::to_vec(&value)?.into()))
    }

    /// Sets a field to bytes.
    ///
    /// # Errors
    /// It is declared with another type.
    pub fn set_bytes(&mut self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.put(name, abi::Field::Bytes(bytes.into().into_raw()))
    }

    fn put(&mut self, name: &str, field: abi::Field) -> Result<()> {
        answer(self.raw.vtable.set()(&self.raw.handle, name.into(), field))
    }

    /// Takes a field away; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.raw.vtable.remove()(&self.raw.handle, name.into())
    }

    /// What a stage sends of it to somebody else: the field `body` as it is, bytes or text, or else `fields` as one JSON
    /// object; all that are no bytes, if none is named.
    ///
    /// # Errors
    /// A field that is named is not there, or is bytes where JSON is wanted.
    pub fn message(&self, body: Option<&str>, fields: &[String]) -> Result<Vec<u8>> {
        if let Some(body) = body {
            let bytes: Bytes = self.get(body)?;
            return Ok(bytes.to_vec());
        }
        let mut message = serde_json::Map::new();
        if fields.is_empty() {
            for name in self.names() {
                if let Some(Field::Json(value)) = self.field(&name)? {
                    message.insert(name, value);
                }
            }
        }
        for name in fields {
            message.insert(name.clone(), self.get(name)?);
        }
        Ok(serde_json::to_vec(&message)?)
    }

    /// The fields that `T` has, as a `T`. Others stay where they are. A field of bytes is a [`Bytes`].
    ///
    /// # Errors
    /// One is missing, or not of its type.
    pub fn bind<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(Fields(self)).map_err(|Unfit(message)| {
            Error::new(ErrorKind::Data, "unfit-context", format!("the context does not fit: {message}"))
        })
    }
}

/// Another context with the same fields. What is done to one the other does not see.
impl Clone for PipelineContext {
    fn clone(&self) -> Self {
        Self { raw: self.raw.vtable.duplicate()(&self.raw.handle) }
    }
}

impl fmt::Debug for PipelineContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineContext").field("fields", &self.names()).finish_non_exhaustive()
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Data, "missing-field", format!("the context has no field `{name}`"))
        .hint("declare it in the pipeline's `context`, or have a stage before this one set it")
}

/// Why fields do not make a value.
#[derive(Debug)]
struct Unfit(String);

impl Unfit {
    fn of(self, name: &str) -> Error {
        Error::new(ErrorKind::Data, "unfit-field", format!("the field `{name}` does not fit: {}", self.0))
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl serde::de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// One field.
struct One(Field);

impl<'de> Deserializer<'de> for One {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Field::Json(value) => value.deserialize_any(visitor).map_err(serde::de::Error::custom),
            Field::Bytes(bytes) => visitor.visit_bytes(&bytes),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Field::Json(Value::Null) => visitor.visit_none(),
            field => visitor.visit_some(One(field)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        match &self.0 {
            Field::Json(_) => visitor.visit_newtype_struct(self),
            Field::Bytes(bytes) => match hand_over(bytes, name, visitor) {
                Ok(handed) => handed,
                Err(visitor) => visitor.visit_newtype_struct(self),
            },
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match self.0 {
            Field::Json(value) => value.deserialize_enum(name, variants, visitor).map_err(serde::de::Error::custom),
            Field::Bytes(_) => Err(Unfit("bytes are no variant".to_owned())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Unfit> for One {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// All fields, of which a struct takes those that it has.
struct Fields<'a>(&'a PipelineContext);

impl Fields<'_> {
    fn visit<'de, V: Visitor<'de>>(&self, names: impl Iterator<Item = String>, visitor: V) -> Result<V::Value, Unfit> {
        let mut fields = Vec::new();
        for name in names {
            let field = self.0.field(&name).map_err(|error| Unfit(format!("`{name}`: {error}")))?;
            fields.extend(field.map(|field| (name, One(field))));
        }
        visitor.visit_map(MapDeserializer::new(fields.into_iter()))
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.visit(self.0.names().into_iter(), visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.visit(fields.iter().map(|&name| name.to_owned()), visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Where the fields of a context are: in the host, or in a test.
pub trait ContextStore: Clone + Send + Sync + 'static {
    /// What is known of the run.
    fn facts(&self) -> RunFacts;
    /// The names of all fields.
    fn names(&self) -> Vec<String>;
    /// A field.
    fn get(&self, name: &str) -> Option<Field>;
    /// Sets a field.
    ///
    /// # Errors
    /// It is declared with another type.
    fn set(&mut self, name: &str, field: Field) -> Result<()>;
    /// Takes a field away; whether it was there.
    fn remove(&mut self, name: &str) -> bool;
}
