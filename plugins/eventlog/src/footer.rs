//! What a file says of itself, in the key-value metadata of its footer.
//!
//! | key | value |
//! |---|---|
//! | `pype.eventlog.version` | `1`: the version of this table |
//! | `pype.eventlog.stream` | the stream, or the topic |
//! | `pype.eventlog.partition` | its number |
//! | `pype.eventlog.created` | when the stream was made, as the source says it; empty if it does not |
//! | `pype.eventlog.sequences` | the set of the sequences: a 64-bit Roaring bitmap in its portable form, in Base64 |
//!
//! The bitmap's form: <https://github.com/RoaringBitmap/RoaringFormatSpec#extension-for-64-bit-implementations>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use roaring::RoaringTreemap;

use crate::identity::Identity;

const VERSION_KEY: &str = "pype.eventlog.version";
const STREAM: &str = "pype.eventlog.stream";
const PARTITION: &str = "pype.eventlog.partition";
const CREATED: &str = "pype.eventlog.created";
const SEQUENCES: &str = "pype.eventlog.sequences";

const VERSION: &str = "1";

/// Whose events a file holds, and which.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footer {
    pub(crate) identity: Identity,
    pub(crate) sequences: RoaringTreemap,
}

impl Footer {
    pub(crate) fn to_metadata(&self) -> Vec<KeyValue> {
        let mut bitmap = Vec::with_capacity(self.sequences.serialized_size());
        self.sequences.serialize_into(&mut bitmap).expect("a vector takes all");
        let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        vec![
            pair(VERSION_KEY, VERSION.to_owned()),
            pair(STREAM, self.identity.stream.clone()),
            pair(PARTITION, self.identity.partition.to_string()),
            pair(CREATED, self.identity.created.clone()),
            pair(SEQUENCES, STANDARD.encode(bitmap)),
        ]
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of(metadata: &ParquetMetaData) -> Result<Self, String> {
        let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
        let value = |key: &str| {
            let pair = pairs.iter().find(|pair| pair.key == key);
            pair.and_then(|pair| pair.value.as_deref()).ok_or_else(|| format!("its metadata has no `{key}`"))
        };
        let version = value(VERSION_KEY)?;
        if version != VERSION {
            return Err(format!("its metadata has version `{version}`, and this pype knows version {VERSION}"));
        }
        let partition = value(PARTITION)?.parse().map_err(|error| format!("`{PARTITION}`: {error}"))?;
        let (stream, created) = (value(STREAM)?.to_owned(), value(CREATED)?.to_owned());
        let bitmap = STANDARD.decode(value(SEQUENCES)?).map_err(|error| format!("`{SEQUENCES}`: {error}"))?;
        let sequences =
            RoaringTreemap::deserialize_from(bitmap.as_slice()).map_err(|error| format!("`{SEQUENCES}`: {error}"))?;
        Ok(Self { identity: Identity { stream, partition, created }, sequences })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::file::metadata::FileMetaData;
    use parquet::schema::types::{SchemaDescriptor, Type};

    use super::*;

    /// What a file of the first version says; the bitmap is another library's (pyroaring 1.2).
    fn first_version() -> Vec<(&'static str, &'static str)> {
        vec![
            ("pype.eventlog.version", "1"),
            ("pype.eventlog.stream", "EVENTS"),
            ("pype.eventlog.partition", "0"),
            ("pype.eventlog.created", "2025-05-01T00:00:00Z"),
            ("pype.eventlog.sequences", "AgAAAAAAAAAAAAAAOjAAAAEAAAAAAAIAEAAAAAEAAgAFAAIAAAA6MAAAAQAAAAAAAAAQAAAAAAA="),
        ]
    }

    fn footer(pairs: Vec<(&str, &str)>) -> Result<Footer, String> {
        let pairs = pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned())).collect();
        let root = Type::group_type_builder("schema").build().expect("a schema");
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
        let metadata = FileMetaData::new(1, 0, None, Some(pairs), schema, None);
        Footer::of(&ParquetMetaData::new(metadata, Vec::new()))
    }

    #[test]
    fn files_of_the_first_version_stay_readable() {
        let identity =
            Identity { stream: "EVENTS".to_owned(), partition: 0, created: "2025-05-01T00:00:00Z".to_owned() };
        let sequences = [1, 2, 5, 1 << 33].into_iter().collect();
        assert_eq!(footer(first_version()), Ok(Footer { identity, sequences }));
    }

    #[test]
    fn what_it_does_not_understand_is_refused() {
        let check = |change: fn(&mut Vec<(&str, &str)>), expect: &str| {
            let mut pairs = first_version();
            change(&mut pairs);
            let error = footer(pairs).expect_err("refused");
            assert!(error.starts_with(expect), "{error}");
        };
        check(|pairs| pairs.clear(), "its metadata has no `pype.eventlog.version`");
        check(|pairs| pairs[0].1 = "2", "its metadata has version `2`, and this pype knows version 1");
        check(|pairs| pairs[2].1 = "x", "`pype.eventlog.partition`: invalid digit");
        check(|pairs| pairs[4].1 = "AAAA", "`pype.eventlog.sequences`: ");
        check(|pairs| pairs.truncate(4), "its metadata has no `pype.eventlog.sequences`");
    }
}
