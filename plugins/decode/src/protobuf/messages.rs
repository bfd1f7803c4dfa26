//! Messages as rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::Field as ArrowField;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions, Value,
};

use crate::column::{Cell, Column, ColumnType};
use crate::decoding::{Reason, Rows, present};

/// The columns of a message.
pub(crate) struct Plan {
    message: MessageDescriptor,
    fields: Vec<Field>,
    /// The place of a field's column, by the field's number.
    places: HashMap<u32, usize>,
}

struct Field {
    name: String,
    shape: Shape,
    /// Its cell where the message says nothing.
    absent: Cell<'static>,
}

/// How a field becomes a column.
enum Shape {
    Scalar(ColumnType),
    Enum(EnumDescriptor),
    Timestamp,
    Json,
}

impl Plan {
    pub(crate) fn of(message: MessageDescriptor) -> Self {
        let fields = message.fields().map(|field| Field::of(&field)).collect();
        let places = message.fields().enumerate().map(|(place, field)| (field.number(), place)).collect();
        Self { message, fields, places }
    }

    pub(crate) fn columns(&self) -> Vec<ArrowField> {
        let column = |field: &Field| {
            let nullable = field.absent == Cell::Null;
            ArrowField::new(&field.name, field.shape.column_type().data_type(), nullable)
        };
        self.fields.iter().map(column).collect()
    }

    /// The cells of a message.
    fn cells<'a>(&'a self, message: &'a DynamicMessage) -> Result<Vec<Cell<'a>>, Reason> {
        let mut cells: Vec<Cell<'a>> = self.fields.iter().map(|field| field.absent.clone()).collect();
        let mut json = None;
        for (field, value) in message.fields() {
            let Some(&place) = self.places.get(&field.number()) else { continue };
            let Field { name, shape, .. } = &self.fields[place];
            cells[place] = match shape {
                Shape::Scalar(_) => scalar(value),
                Shape::Enum(names) => Cell::Text(enum_name(names, value).into()),
                Shape::Timestamp => Cell::Micros(microseconds(value).ok_or_else(|| format!("`{name}` is no time"))?),
                Shape::Json => {
                    let json = match &json {
                        Some(json) => json,
                        None => json.insert(as_json(message)?),
                    };
                    Cell::Text(json[name.as_str()].to_string().into())
                }
            };
        }
        Ok(cells)
    }
}

impl Field {
    fn of(field: &FieldDescriptor) -> Self {
        let shape = Shape::of(field);
        let absent = match (&shape, field.supports_presence()) {
            (_, true) => Cell::Null,
            (Shape::Json | Shape::Timestamp, false) if field.is_map() => Cell::Text("{}".into()),
            (Shape::Json | Shape::Timestamp, false) => Cell::Text("[]".into()),
            (Shape::Enum(names), false) => Cell::Text(enum_name(names, &field.default_value()).into()),
            (Shape::Scalar(_), false) => scalar(&field.default_value()).into_owned(),
        };
        Self { name: field.name().to_owned(), shape, absent }
    }
}

impl Shape {
    fn of(field: &FieldDescriptor) -> Self {
        if field.is_list() || field.is_map() {
            return Self::Json;
        }
        Self::Scalar(match field.kind() {
            Kind::Double => ColumnType::Float64,
            Kind::Float => ColumnType::Float32,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => ColumnType::Int32,
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => ColumnType::Int64,
            Kind::Uint32 | Kind::Fixed32 => ColumnType::UInt32,
            Kind::Uint64 | Kind::Fixed64 => ColumnType::UInt64,
            Kind::Bool => ColumnType::Bool,
            Kind::String => ColumnType::Text,
            Kind::Bytes => ColumnType::Binary,
            Kind::Enum(names) => return Self::Enum(names),
            Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => return Self::Timestamp,
            Kind::Message(_) => return Self::Json,
        })
    }

    fn column_type(&self) -> ColumnType {
        match self {
            Self::Scalar(column_type) => *column_type,
            Self::Enum(_) | Self::Json => ColumnType::Text,
            Self::Timestamp => ColumnType::Timestamp,
        }
    }
}

impl Cell<'_> {
    fn into_owned(self) -> Cell<'static> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(value),
            Self::I32(value) => Cell::I32(value),
            Self::I64(value) => Cell::I64(value),
            Self::U32(value) => Cell::U32(value),
            Self::U64(value) => Cell::U64(value),
            Self::F32(value) => Cell::F32(value),
            Self::F64(value) => Cell::F64(value),
            Self::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Cell::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Micros(value) => Cell::Micros(value),
        }
    }
}

fn scalar(value: &Value) -> Cell<'_> {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::I32(value) => Cell::I32(*value),
        Value::I64(value) => Cell::I64(*value),
        Value::U32(value) => Cell::U32(*value),
        Value::U64(value) => Cell::U64(*value),
        Value::F32(value) => Cell::F32(*value),
        Value::F64(value) => Cell::F64(*value),
        Value::String(text) => Cell::Text(text.into()),
        Value::Bytes(bytes) => Cell::Bytes(bytes.as_ref().into()),
        Value::EnumNumber(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => {
            unreachable!("a field of a scalar kind holds {value:?}")
        }
    }
}

fn enum_name(names: &EnumDescriptor, value: &Value) -> String {
    let number = value.as_enum_number().expect("a field of an enum kind holds a number");
    names.get_value(number).map_or_else(|| number.to_string(), |value| value.name().to_owned())
}

/// Of a `google.protobuf.Timestamp`, whose fields are `seconds` and `nanos`.
fn microseconds(value: &Value) -> Option<i64> {
    let time = value.as_message()?;
    let seconds = time.get_field_by_number(1)?.as_i64()?;
    let nanoseconds = time.get_field_by_number(2)?.as_i32()?;
    seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanoseconds).div_euclid(1000))
}

fn as_json(message: &DynamicMessage) -> Result<serde_json::Value, Reason> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    json.map_err(|error| format!("the message has no JSON form: {error}"))
}

/// Messages on their way into columns.
pub(crate) struct Messages {
    plan: Arc<Plan>,
    columns: Vec<Column>,
}

impl Messages {
    pub(crate) fn of(plan: Arc<Plan>) -> Self {
        let columns = plan.fields.iter().map(|field| field.shape.column_type().column()).collect();
        Self { plan, columns }
    }
}

impl Rows for Messages {
    fn fields(&self) -> Vec<ArrowField> {
        self.plan.columns()
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), Reason> {
        let message = DynamicMessage::decode(self.plan.message.clone(), present(value)?).map_err(|e| e.to_string())?;
        let cells = self.plan.cells(&message)?;
        self.columns.iter_mut().zip(&cells).for_each(|(column, cell)| column.push(cell));
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        self.columns.iter_mut().map(Column::finish).collect()
    }
}
