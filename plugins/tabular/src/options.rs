//! Config values that several modules share.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use pype_plugin::prelude::*;
use schemars::{Schema, SchemaGenerator};
use serde::Deserializer;
use serde::de::{self, MapAccess, Visitor};

/// A mapping that keeps its order and refuses a name given twice.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({"type": "object", "additionalProperties": value})
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

struct InOrder<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Named<T>, A::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format!("`{name}` is given twice")));
            }
            entries.push((name, value));
        }
        Ok(Named(entries))
    }
}

/// How a text file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What a sink does when its target is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IfExists {
    /// Replace it, once the new file is complete.
    #[default]
    Replace,
    /// Fail before anything is read.
    Fail,
}

/// Reads the option `option`, whose value must be one ASCII character. `\t` and `tab` mean a tab.
pub(crate) fn one_byte(option: &str, text: &str) -> Result<u8> {
    match (text, text.as_bytes()) {
        ("\\t" | "tab", _) => Ok(b'\t'),
        (_, [byte]) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        _ => Err(Error::new(
            ErrorKind::Config,
            "bad-option",
            format!("`{option}` must be one ASCII character, found `{text}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_keeps_its_order_and_refuses_twins() {
        let named: Named<i32> = serde_json::from_str(r#"{"z": 1, "a": 2, "m": 3}"#).expect("a mapping");
        assert_eq!(named.0, [("z".to_owned(), 1), ("a".to_owned(), 2), ("m".to_owned(), 3)]);
        let twins = serde_json::from_str::<Named<i32>>(r#"{"a": 1, "a": 2}"#).expect_err("given twice");
        assert!(twins.to_string().contains("`a` is given twice"), "{twins}");
    }
}
