//! The names of column types as a flow writes them (`int`, `decimal(10,2)`), and back.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::suggest;

/// Every name a user may write, for the message about an unknown one.
const NAMES: &[&str] = &[
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float",
    "float32",
    "float64",
    "str",
    "bool",
    "date",
    "time",
    "datetime",
    "datetime(ms)",
    "datetime(us)",
    "datetime(ns)",
    "decimal(p,s)",
    "category",
];

/// Reads a type name. Case and spaces do not matter.
pub(crate) fn parse(name: &str) -> Result<DataType> {
    let plain: String = name.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if let Some(dtype) = simple(&plain).or_else(|| decimal(&plain)) {
        return Ok(dtype);
    }
    let error = Error::new(
        ErrorKind::Config,
        "unknown-type",
        format!("unknown column type `{name}`; known: {}", NAMES.join(", ")),
    );
    Err(match suggest::nearest(&plain, NAMES.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    })
}

/// The name this module would read back as `dtype`, or polars' own for what it does not know.
pub(crate) fn name(dtype: &DataType) -> String {
    match dtype {
        DataType::Int64 => "int".into(),
        DataType::Int8 => "int8".into(),
        DataType::Int16 => "int16".into(),
        DataType::Int32 => "int32".into(),
        DataType::UInt8 => "uint8".into(),
        DataType::UInt16 => "uint16".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float32 => "float32".into(),
        DataType::Float64 => "float".into(),
        DataType::String => "str".into(),
        DataType::Boolean => "bool".into(),
        DataType::Date => "date".into(),
        DataType::Time => "time".into(),
        DataType::Datetime(TimeUnit::Microseconds, None) => "datetime".into(),
        DataType::Decimal(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string(),
    }
}

fn simple(plain: &str) -> Option<DataType> {
    Some(match plain {
        "int" | "integer" | "int64" | "i64" | "bigint" | "long" => DataType::Int64,
        "int8" | "i8" | "tinyint" => DataType::Int8,
        "int16" | "i16" | "smallint" => DataType::Int16,
        "int32" | "i32" => DataType::Int32,
        "uint8" | "u8" => DataType::UInt8,
        "uint16" | "u16" => DataType::UInt16,
        "uint32" | "u32" => DataType::UInt32,
        "uint64" | "u64" | "uint" => DataType::UInt64,
        "float" | "double" | "float64" | "f64" | "number" => DataType::Float64,
        "float32" | "f32" => DataType::Float32,
        "str" | "string" | "text" | "varchar" | "utf8" => DataType::String,
        "bool" | "boolean" => DataType::Boolean,
        "date" => DataType::Date,
        "time" => DataType::Time,
        "datetime" | "timestamp" | "datetime(us)" => DataType::Datetime(TimeUnit::Microseconds, None),
        "datetime(ms)" => DataType::Datetime(TimeUnit::Milliseconds, None),
        "datetime(ns)" => DataType::Datetime(TimeUnit::Nanoseconds, None),
        "category" | "categorical" => DataType::from_categories(Categories::global()),
        _ => return None,
    })
}

fn decimal(plain: &str) -> Option<DataType> {
    let inside = plain.strip_prefix("decimal(").or_else(|| plain.strip_prefix("numeric("))?.strip_suffix(')')?;
    let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
    let (precision, scale) = (precision.parse().ok()?, scale.parse().ok()?);
    (1..=38).contains(&precision).then_some(())?;
    (scale <= precision).then_some(DataType::Decimal(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whatever_their_case_and_spaces() {
        for (text, expect) in [
            ("int", DataType::Int64),
            ("STR", DataType::String),
            (" Decimal( 10 , 2 ) ", DataType::Decimal(10, 2)),
            ("decimal(5)", DataType::Decimal(5, 0)),
            ("datetime(ms)", DataType::Datetime(TimeUnit::Milliseconds, None)),
        ] {
            assert_eq!(parse(text).expect(text), expect, "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        for text in ["strng", "decimal(0)", "decimal(5,9)", "decimal(50,2)", ""] {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains("unknown column type") && message.contains("decimal(p,s)"), "{message}");
        }
    }

    #[test]
    fn a_name_read_back_is_the_same_type() {
        for text in ["int", "float", "str", "bool", "date", "datetime", "decimal(10,2)", "uint8"] {
            assert_eq!(name(&parse(text).expect(text)), text);
        }
    }
}
