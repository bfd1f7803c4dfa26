//! Columns of text or bytes, as whoever made the frame lays them out.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow_schema::DataType;

/// A column of text or bytes.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
}

impl Bytes {
    pub(crate) fn of(column: &ArrayRef) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Utf8 => Self::Text(column.as_string().clone()),
            DataType::LargeUtf8 => Self::LargeText(column.as_string().clone()),
            DataType::Utf8View => Self::TextView(column.as_string_view().clone()),
            DataType::Binary => Self::Binary(column.as_binary().clone()),
            DataType::LargeBinary => Self::LargeBinary(column.as_binary().clone()),
            DataType::BinaryView => Self::BinaryView(column.as_binary_view().clone()),
            _ => return None,
        })
    }

    /// The value of a row, if it has one.
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Text(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Self::LargeText(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Self::TextView(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Self::Binary(column) => column.is_valid(row).then(|| column.value(row)),
            Self::LargeBinary(column) => column.is_valid(row).then(|| column.value(row)),
            Self::BinaryView(column) => column.is_valid(row).then(|| column.value(row)),
        }
    }

    /// The value of a row as text, if it has one, and that is text.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        self.get(row).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// A column of headers: lists of a name and a value.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    rows: Vec<Range<usize>>,
    names: Bytes,
    values: Bytes,
}

impl Headers {
    pub(crate) fn of(column: &ArrayRef) -> Option<Self> {
        let (mut rows, entries): (Vec<Range<usize>>, &ArrayRef) = match column.data_type() {
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                let at = |offset: i32| usize::try_from(offset).ok();
                let rows = lists.value_offsets().windows(2).map(|ends| Some(at(ends[0])?..at(ends[1])?));
                (rows.collect::<Option<_>>()?, lists.values())
            }
            DataType::LargeList(_) => {
                let lists = column.as_list::<i64>();
                let at = |offset: i64| usize::try_from(offset).ok();
                let rows = lists.value_offsets().windows(2).map(|ends| Some(at(ends[0])?..at(ends[1])?));
                (rows.collect::<Option<_>>()?, lists.values())
            }
            _ => return None,
        };
        for (row, range) in rows.iter_mut().enumerate() {
            if column.is_null(row) {
                *range = 0..0;
            }
        }
        let entries = entries.as_struct_opt()?;
        let [names, values] = entries.columns() else { return None };
        Some(Self { rows, names: Bytes::of(names)?, values: Bytes::of(values)? })
    }

    /// The headers of a row.
    pub(crate) fn get(&self, row: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.rows[row].clone().map(|at| (self.names.text(at).unwrap_or_default(), self.values.get(at)))
    }
}
