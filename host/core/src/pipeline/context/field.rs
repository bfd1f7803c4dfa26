//! The fields of a context: what they hold, and whether it is what they should.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::spec::FieldType;
use crate::document::whole_number;

/// What a field holds. A clone shares it.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// A value of JSON.
    Json(Arc<Value>),
    /// Bytes, which travel beside the JSON.
    Bytes(Bytes),
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct FieldError {
    /// The field: `size`.
    pub field: String,
    /// What is wrong with it.
    pub problem: FieldProblem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// It must be there.
    #[error("is missing")]
    Missing,
    /// It must be there, and somebody wants it out.
    #[error("cannot be taken out")]
    Needed,
    /// It is not declared.
    #[error("is not a field of this context")]
    Unknown {
        /// The field that may have been meant.
        near: Option<String>,
    },
    /// It holds something else.
    #[error("must be {}, not {found}", .wanted.in_words())]
    WrongType {
        /// What it should hold.
        wanted: FieldType,
        /// What it holds, in words. Values are not told: they may be secret, or large.
        found: &'static str,
    },
    /// Its text is not base64.
    #[error("is not base64")]
    NotBase64,
}

impl From<Value> for Field {
    fn from(value: Value) -> Field {
        Field::Json(Arc::new(value))
    }
}

impl From<Vec<u8>> for Field {
    fn from(bytes: Vec<u8>) -> Field {
        Field::Bytes(bytes.into())
    }
}

impl Field {
    /// The JSON, if it is that.
    #[must_use]
    pub fn as_json(&self) -> Option<&Value> {
        match self {
            Field::Json(value) => Some(value),
            Field::Bytes(_) => None,
        }
    }

    /// The bytes, if it holds those.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Field::Json(_) => None,
            Field::Bytes(bytes) => Some(bytes),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.as_json().is_some_and(Value::is_null)
    }

    fn kind(&self) -> &'static str {
        match self {
            Field::Json(value) => kind_of(value),
            Field::Bytes(_) => "bytes",
        }
    }
}

impl FieldType {
    /// What a field of this type holds when it is given this: for the most part the same. Bytes are given as a text,
    /// whose UTF-8 they then are, or as `{"base64": "…"}`; `10.0` is the whole number 10.
    pub(crate) fn take(self, given: Field) -> Result<Field, FieldProblem> {
        let fits = match (self, &given) {
            (FieldType::Any, _) | (FieldType::Bytes, Field::Bytes(_)) => true,
            (FieldType::Bytes, Field::Json(value)) => return self.bytes(value),
            (FieldType::Str, Field::Json(value)) => value.is_string(),
            (FieldType::Int, Field::Json(value)) if value.is_f64() => return self.whole(value),
            // What only an unsigned number could hold would wrap in many a plugin.
            (FieldType::Int, Field::Json(value)) => value.is_i64(),
            (FieldType::Float, Field::Json(value)) => value.is_number(),
            (FieldType::Bool, Field::Json(value)) => value.is_boolean(),
            (FieldType::List, Field::Json(value)) => value.is_array(),
            (FieldType::Object, Field::Json(value)) => value.is_object(),
            (
                FieldType::Str
                | FieldType::Int
                | FieldType::Float
                | FieldType::Bool
                | FieldType::List
                | FieldType::Object,
                Field::Bytes(_),
            ) => false,
        };
        if fits { Ok(given) } else { Err(self.refuse(given.kind())) }
    }

    fn bytes(self, value: &Value) -> Result<Field, FieldProblem> {
        if let Some(text) = value.as_str() {
            return Ok(Field::Bytes(Bytes::copy_from_slice(text.as_bytes())));
        }
        let encoded = value.as_object().filter(|entries| entries.len() == 1).and_then(|entries| entries.get("base64"));
        let text = encoded.and_then(Value::as_str).ok_or_else(|| self.refuse(kind_of(value)))?;
        STANDARD.decode(text).map(Field::from).map_err(|_| FieldProblem::NotBase64)
    }

    fn whole(self, value: &Value) -> Result<Field, FieldProblem> {
        let whole = value.as_f64().and_then(whole_number);
        whole.map(|whole| Field::from(Value::from(whole))).ok_or_else(|| self.refuse(kind_of(value)))
    }

    fn refuse(self, found: &'static str) -> FieldProblem {
        FieldProblem::WrongType { wanted: self, found }
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
