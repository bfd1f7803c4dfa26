//! A column out of a member.

use std::borrow::Cow;

use arrow_schema::Field as ArrowField;
use pype_plugin::prelude::*;

use crate::column::{Cell, ColumnType};
use crate::decoding::Reason;

/// How much of a value an error shows, in characters.
const SHOWN: usize = 60;

/// As the configs say it.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum FieldSpec {
    /// A type: the member has the column's name.
    Type(String),
    /// A type, and the member.
    From {
        /// The type.
        #[serde(rename = "type")]
        kind: String,
        /// The member's name, or a JSON pointer.
        from: String,
    },
}

/// A column, and where its cells come from.
pub(crate) struct Field {
    name: String,
    from: From,
    kind: Kind,
    nullable: bool,
}

enum From {
    Member(String),
    Pointer(String),
}

/// What a member should be.
#[derive(Clone, Copy)]
enum Kind {
    Str,
    Int,
    Float,
    Bool,
    Json,
    /// An RFC 3339 text.
    Timestamp,
    /// A whole number of so many nanoseconds each, under that name.
    Since1970(i64, &'static str),
}

const KINDS: [(&str, Kind); 10] = [
    ("str", Kind::Str),
    ("int", Kind::Int),
    ("float", Kind::Float),
    ("bool", Kind::Bool),
    ("json", Kind::Json),
    ("timestamp", Kind::Timestamp),
    ("timestamp_s", Kind::Since1970(1_000_000_000, "timestamp_s")),
    ("timestamp_ms", Kind::Since1970(1_000_000, "timestamp_ms")),
    ("timestamp_us", Kind::Since1970(1_000, "timestamp_us")),
    ("timestamp_ns", Kind::Since1970(1, "timestamp_ns")),
];

impl Field {
    pub(crate) fn of(name: &str, spec: &Value) -> Result<Self> {
        let (kind, from) = match serde_json::from_value(spec.clone()) {
            Ok(FieldSpec::Type(kind)) => (kind, From::Member(name.to_owned())),
            Ok(FieldSpec::From { kind, from }) if from.starts_with('/') => (kind, From::Pointer(from)),
            Ok(FieldSpec::From { kind, from }) => (kind, From::Member(from)),
            Err(_) => return Err(bad_field(format!("`fields`: `{name}` should be a type, or `{{type: …, from: …}}`"))),
        };
        let (kind, nullable) = kind.strip_suffix('?').map_or((kind.as_str(), false), |kind| (kind, true));
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            return Err(bad_field(format!("`fields`: the type of `{name}` is `{kind}`, which there is none of")));
        };
        Ok(Self { name: name.to_owned(), from, kind: *kind, nullable })
    }

    pub(crate) fn column(&self) -> ArrowField {
        ArrowField::new(&self.name, self.column_type().data_type(), self.nullable)
    }

    pub(crate) fn column_type(&self) -> ColumnType {
        match self.kind {
            Kind::Str | Kind::Json => ColumnType::Text,
            Kind::Int => ColumnType::Int64,
            Kind::Float => ColumnType::Float64,
            Kind::Bool => ColumnType::Bool,
            Kind::Timestamp | Kind::Since1970(..) => ColumnType::Timestamp,
        }
    }

    /// The member of the object that it takes, or takes a part of.
    pub(crate) fn member(&self) -> String {
        match &self.from {
            From::Member(name) => name.clone(),
            From::Pointer(pointer) => {
                let first = pointer[1..].split('/').next().unwrap_or_default();
                first.replace("~1", "/").replace("~0", "~")
            }
        }
    }

    /// Its cell in the row of an object.
    pub(crate) fn cell<'a>(&self, object: &'a Value) -> Result<Cell<'a>, Reason> {
        let value = match &self.from {
            From::Member(name) => object.get(name),
            From::Pointer(pointer) => object.pointer(pointer),
        };
        let given = match value {
            None | Some(Value::Null) if self.nullable => return Ok(Cell::Null),
            None => return Err(self.unfit("missing")),
            // Of any JSON, null is some.
            Some(Value::Null) if !matches!(self.kind, Kind::Json) => return Err(self.unfit("null")),
            Some(given) => given,
        };
        self.kind.cell(given).ok_or_else(|| self.unfit(&shown(given)))
    }

    fn unfit(&self, found: &str) -> Reason {
        format!("`{}` should be {}, but is {found}", self.name, self.kind.name())
    }
}

impl Kind {
    fn cell(self, value: &Value) -> Option<Cell<'_>> {
        Some(match self {
            Self::Str => Cell::Text(value.as_str()?.into()),
            Self::Int => Cell::I64(value.as_i64()?),
            Self::Float => Cell::F64(value.as_f64()?),
            Self::Bool => Cell::Bool(value.as_bool()?),
            Self::Json => Cell::Text(Cow::Owned(value.to_string())),
            Self::Timestamp => Cell::Micros(value.as_str()?.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
            Self::Since1970(nanoseconds, _) => Cell::Micros(microseconds(value.as_i64()?, nanoseconds)?),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Json => "json",
            Self::Timestamp => "timestamp",
            Self::Since1970(_, name) => name,
        }
    }
}

fn microseconds(count: i64, nanoseconds: i64) -> Option<i64> {
    let nanoseconds = i128::from(count) * i128::from(nanoseconds);
    i64::try_from(nanoseconds.div_euclid(1000)).ok()
}

/// A value in an error.
pub(crate) fn shown(value: &Value) -> String {
    let (what, text) = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => ("the bool", value.to_string()),
        Value::Number(_) => ("the number", value.to_string()),
        Value::String(text) => ("the text", text.clone()),
        Value::Array(_) => ("the array", value.to_string()),
        Value::Object(_) => ("the object", value.to_string()),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{what} `{}…`", &text[..end]),
        None => format!("{what} `{text}`"),
    }
}

fn bad_field(message: String) -> Error {
    let known: Vec<_> = KINDS.iter().map(|(name, _)| format!("`{name}`")).collect();
    let hint = format!("there are {}, and each with `?` for what may be null", known.join(", "));
    Error::new(ErrorKind::Config, "bad-field", message).hint(hint)
}
