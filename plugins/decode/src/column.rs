//! Columns that are built cell by cell, of types that are known when the module opens.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder, UInt32Builder, UInt64Builder,
};
use arrow_schema::{DataType, TimeUnit};

/// A value on its way into a column of the same type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Microseconds since 1970, which all readers of Parquet and Arrow have.
    Micros(i64),
}

macro_rules! columns {
    ($($kind:ident($builder:ident, $data_type:expr): $cell:pat => $value:expr),* $(,)?) => {
        /// The type of a column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ColumnType { $($kind),* }

        /// A column that grows.
        #[derive(Debug)]
        pub(crate) enum Column { $($kind($builder)),* }

        impl ColumnType {
            pub(crate) fn data_type(self) -> DataType {
                match self { $(Self::$kind => $data_type),* }
            }

            pub(crate) fn column(self) -> Column {
                match self { $(Self::$kind => Column::$kind($builder::default().with_type())),* }
            }
        }

        impl Column {
            /// # Panics
            /// The cell is of another type.
            pub(crate) fn push(&mut self, cell: &Cell<'_>) {
                match (self, cell) {
                    $((Self::$kind(column), Cell::Null) => column.append_null(),
                      (Self::$kind(column), $cell) => column.append_value($value),)*
                    (column, cell) => unreachable!("{cell:?} came to {column:?}"),
                }
            }

            /// The cells so far. There are none afterwards.
            pub(crate) fn finish(&mut self) -> ArrayRef {
                match self { $(Self::$kind(column) => Arc::new(column.finish()) as ArrayRef),* }
            }
        }
    };
}

columns! {
    Bool(BooleanBuilder, DataType::Boolean): Cell::Bool(value) => *value,
    Int32(Int32Builder, DataType::Int32): Cell::I32(value) => *value,
    Int64(Int64Builder, DataType::Int64): Cell::I64(value) => *value,
    UInt32(UInt32Builder, DataType::UInt32): Cell::U32(value) => *value,
    UInt64(UInt64Builder, DataType::UInt64): Cell::U64(value) => *value,
    Float32(Float32Builder, DataType::Float32): Cell::F32(value) => *value,
    Float64(Float64Builder, DataType::Float64): Cell::F64(value) => *value,
    Text(StringBuilder, DataType::Utf8): Cell::Text(value) => value.as_ref(),
    Binary(BinaryBuilder, DataType::Binary): Cell::Bytes(value) => value.as_ref(),
    Timestamp(TimestampMicrosecondBuilder, timestamp()): Cell::Micros(value) => *value,
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Builders whose type is more than that of their values.
trait WithType: Sized {
    fn with_type(self) -> Self {
        self
    }
}

impl WithType for BooleanBuilder {}
impl WithType for Int32Builder {}
impl WithType for Int64Builder {}
impl WithType for UInt32Builder {}
impl WithType for UInt64Builder {}
impl WithType for Float32Builder {}
impl WithType for Float64Builder {}
impl WithType for StringBuilder {}
impl WithType for BinaryBuilder {}
impl WithType for TimestampMicrosecondBuilder {
    fn with_type(self) -> Self {
        self.with_timezone("UTC")
    }
}
