//! Columns of text or bytes, as whoever made a frame lays them out.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow_schema::DataType;

/// A column of text or bytes.
#[derive(Clone, Debug)]
pub struct BytesColumn(Layout);

#[derive(Clone, Debug)]
enum Layout {
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
}

impl BytesColumn {
    /// A column, if it holds text or bytes.
    pub fn of(column: &ArrayRef) -> Option<Self> {
        Some(Self(match column.data_type() {
            DataType::Utf8 => Layout::Text(column.as_string().clone()),
            DataType::LargeUtf8 => Layout::LargeText(column.as_string().clone()),
            DataType::Utf8View => Layout::TextView(column.as_string_view().clone()),
            DataType::Binary => Layout::Binary(column.as_binary().clone()),
            DataType::LargeBinary => Layout::LargeBinary(column.as_binary().clone()),
            DataType::BinaryView => Layout::BinaryView(column.as_binary_view().clone()),
            _ => return None,
        }))
    }

    /// The value of a row, if it has one.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        match &self.0 {
            Layout::Text(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Layout::LargeText(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Layout::TextView(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Layout::Binary(column) => column.is_valid(row).then(|| column.value(row)),
            Layout::LargeBinary(column) => column.is_valid(row).then(|| column.value(row)),
            Layout::BinaryView(column) => column.is_valid(row).then(|| column.value(row)),
        }
    }

    /// The value of a row as text, if it has one, and that is text.
    pub fn text(&self, row: usize) -> Option<&str> {
        self.get(row).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// A column of headers: lists of a name and a value.
#[derive(Clone, Debug)]
pub struct HeadersColumn {
    rows: Vec<Range<usize>>,
    names: BytesColumn,
    values: BytesColumn,
}

impl HeadersColumn {
    /// A column, if it holds lists of two columns of text or bytes.
    pub fn of(column: &ArrayRef) -> Option<Self> {
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
        Some(Self { rows, names: BytesColumn::of(names)?, values: BytesColumn::of(values)? })
    }

    /// The headers of a row.
    pub fn get(&self, row: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.rows[row].clone().map(|at| (self.names.text(at).unwrap_or_default(), self.values.get(at)))
    }
}
