//! Which stream a record is of.

use sha2::{Digest, Sha256};

/// A partition of a stream, from its making to its deletion: sequences are unique in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The stream, or the topic.
    pub(crate) stream: String,
    /// 0 for a stream of JetStream.
    pub(crate) partition: i32,
    /// When the stream was made, as its source says it; empty if it does not, as Kafka.
    pub(crate) created: String,
}

impl Identity {
    /// A short name of this partition of the stream, whenever it was made.
    pub(crate) fn stream_tag(&self) -> String {
        short_hash(&[&self.stream, &self.partition.to_string()])
    }

    /// The same, for this life of the stream only.
    pub(crate) fn tag(&self) -> String {
        short_hash(&[&self.stream, &self.partition.to_string(), &self.created])
    }
}

/// Sixteen hexadecimal digits. Each part goes in with its length, so that no two lists of parts are the same bytes.
fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_partitions_and_lives_apart() {
        let identity = |stream: &str, partition, created: &str| Identity {
            stream: stream.into(),
            partition,
            created: created.into(),
        };
        let first = identity("events", 0, "2025-01-01T00:00:00Z");
        let again = identity("events", 0, "2025-01-02T00:00:00Z");
        assert_eq!(first.stream_tag(), again.stream_tag());
        assert_ne!(first.tag(), again.tag());
        assert_ne!(first.stream_tag(), identity("events", 1, "").stream_tag());
        assert_ne!(identity("a", 11, "").tag(), identity("a1", 1, "").tag());
        // Names of files on disks: they stay.
        assert_eq!(first.tag(), "aca35a24cae7483e");
    }
}
