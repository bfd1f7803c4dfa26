//! Bytes that cross without being copied.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use crate::abi::RawBytes;

/// Bytes, whoever has made them. Cheap to clone.
#[derive(Clone)]
pub struct Bytes {
    raw: Arc<RawBytes>,
}

impl Bytes {
    pub(crate) fn from_raw(raw: RawBytes) -> Self {
        Self { raw: Arc::new(raw) }
    }

    /// The bytes that `owner` has. They are kept with it, and not copied.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::from_raw(RawBytes::owned_by(owner))
    }

    pub(crate) fn into_raw(self) -> RawBytes {
        match Arc::try_unwrap(self.raw) {
            Ok(raw) => raw,
            Err(raw) => RawBytes::shared(raw),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.raw.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_owner(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

/// How many there are: bytes may be large, and secret.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NEWTYPE, BytesVisitor)
    }
}

/// By this name a context knows that its bytes are wanted as they are. serde has no way to hand out a value that is shared,
/// so it waits [on the thread](HANDED) until the visitor takes it.
const NEWTYPE: &str = "$pype_plugin::Bytes";

thread_local! {
    static HANDED: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Gives bytes to the visitor of a newtype, if that is [`Bytes`]; else the visitor comes back.
pub(super) fn hand_over<'de, V: Visitor<'de>, E: serde::de::Error>(
    bytes: &Bytes,
    newtype: &'static str,
    visitor: V,
) -> Result<Result<V::Value, E>, V> {
    if newtype != NEWTYPE {
        return Err(visitor);
    }
    HANDED.set(Some(bytes.clone()));
    Ok(visitor.visit_unit())
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Bytes, E> {
        HANDED.take().ok_or_else(|| E::invalid_type(Unexpected::Unit, &self))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_byte_buf(self)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    /// A text stands for its UTF-8.
    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(text.as_bytes().into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_crossings_share_what_they_hold() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        let at = bytes.as_ptr();
        let clone = bytes.clone();
        let crossed = Bytes::from_raw(clone.into_raw());
        assert_eq!((crossed.as_ptr(), &*crossed), (at, [1, 2, 3].as_slice()));
        drop(bytes);
        assert_eq!(&*crossed, [1, 2, 3]);
    }
}
