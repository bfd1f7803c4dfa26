//! What crosses machines between the two parts of a pipeline.
//!
//! ```text
//! "pype-env"  8 bytes
//! format      2 bytes, little endian: 1
//! length      8 bytes, little endian: of the header
//! header      JSON: which pipeline, where to resume, the context's JSON, and of each blob its field and length
//! blobs       their bytes, one after the other, in the order of the header
//! ```
//!
//! Bytes cross as they are. A blob of which the header has a `ref` is somewhere else, and whoever resumes fetches it. The
//! format's number rises when an older pype could not make sense of it; keys of the header that it does not know it skips.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::context::{Context, ContextError, Field};
use super::plan::Plan;
use crate::name::{ContextVersion, PipelineName, Version};

/// The format that [`Envelope::encode`] writes, and the newest that [`Envelope::decode`] reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"pype-env";

/// The rest of a pipeline, to be resumed by whoever gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Its version, for people: what counts is the signature.
    pub pipeline_version: Version,
    /// What the background is made of: [`Plan::signature`].
    pub signature: String,
    /// Where to resume: a place in [`Plan::stages`] of the plan that made it.
    pub stage: u32,
    /// The layout of the context.
    pub context_version: ContextVersion,
    /// The fields that are JSON.
    pub fields: Map<String, Value>,
    /// The fields that are bytes.
    pub blobs: BTreeMap<String, Blob>,
    /// The shard that the context belongs to.
    pub shard: Option<u32>,
    /// What makes a second job of this key the same as the first.
    pub idempotency_key: Option<String>,
    /// The span that it goes on from: a `traceparent` of W3C Trace Context.
    pub trace: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Bytes of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blob {
    /// They are here.
    Bytes(Bytes),
    /// They are in a store, too large to travel along.
    Reference {
        /// Where: `objects://…`.
        uri: String,
        /// How many there are.
        len: u64,
    },
}

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// They start otherwise.
    #[error("these bytes are no envelope of a job")]
    NotAnEnvelope,
    /// Written by a later pype.
    #[error("the envelope has format {found}, this pype reads up to {FORMAT_VERSION}: use a newer pype")]
    Newer {
        /// Its format.
        found: u16,
    },
    /// They end too early.
    #[error("the envelope is cut off: it says that it has {expected} bytes, and has {found}")]
    Truncated {
        /// How many it says there are.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// They go on after their end.
    #[error("the envelope has {extra} bytes after its end")]
    TooLong {
        /// How many there are too many.
        extra: u64,
    },
    /// Its header is not JSON, or lacks something.
    #[error("the header of the envelope is malformed")]
    Header(#[source] serde_json::Error),
}

/// Why a plan cannot resume an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It is another pipeline's.
    #[error("the job is of the pipeline `{found}`, not of `{expected}`")]
    OtherPipeline {
        /// The pipeline that it is of.
        found: PipelineName,
        /// The plan's.
        expected: PipelineName,
    },
    /// The pipeline has changed since.
    #[error(
        "the job was made for `{pipeline}` {found}, whose stages after the dispatch are others than those of {expected}"
    )]
    OtherStages {
        /// The pipeline.
        pipeline: PipelineName,
        /// The version that the job was made for.
        found: Version,
        /// The plan's.
        expected: Version,
    },
    /// Its bytes have not been fetched.
    #[error("the bytes of `{field}` have not been fetched from `{uri}`")]
    NotFetched {
        /// The field.
        field: String,
        /// Where its bytes are.
        uri: String,
    },
    /// Its context is of an unknown version, or does not fit.
    #[error(transparent)]
    Context(#[from] ContextError),
}

impl Envelope {
    /// The background part of a plan, with this context.
    #[must_use]
    pub fn of(plan: &Plan, context: &Context, created_ms: u64) -> Envelope {
        let mut envelope = Envelope {
            pipeline: plan.name().clone(),
            pipeline_version: plan.version().clone(),
            signature: plan.signature(),
            stage: u32::try_from(plan.resume_at()).expect("a document does not have that many stages"),
            context_version: context.version().clone(),
            fields: Map::new(),
            blobs: BTreeMap::new(),
            shard: context.shard(plan.context()),
            idempotency_key: None,
            trace: None,
            created_ms,
        };
        for (name, field) in context.fields() {
            match field {
                Field::Json(value) => {
                    envelope.fields.insert(name.to_owned(), value.as_ref().clone());
                }
                Field::Bytes(bytes) => {
                    envelope.blobs.insert(name.to_owned(), Blob::Bytes(bytes.clone()));
                }
            }
        }
        envelope
    }

    /// Where a plan resumes it, and with which context: one of an older version is migrated.
    ///
    /// # Errors
    /// If the plan is not what the job was made for, or the context cannot become such as the plan's.
    pub fn resume(self, plan: &Plan) -> Result<(usize, Context), ResumeError> {
        if self.pipeline != *plan.name() {
            return Err(ResumeError::OtherPipeline { found: self.pipeline, expected: plan.name().clone() });
        }
        // The same background may start at another place by now, if the caller's part has changed: the plan says where.
        if self.signature != plan.signature() {
            return Err(ResumeError::OtherStages {
                pipeline: self.pipeline,
                found: self.pipeline_version,
                expected: plan.version().clone(),
            });
        }
        let context = self.into_context()?.migrate(plan.context())?;
        Ok((plan.resume_at(), context))
    }

    fn into_context(self) -> Result<Context, ResumeError> {
        let mut fields: Vec<(String, Field)> =
            self.fields.into_iter().map(|(name, value)| (name, Field::from(value))).collect();
        for (field, blob) in self.blobs {
            match blob {
                Blob::Bytes(bytes) => fields.push((field, Field::Bytes(bytes))),
                Blob::Reference { uri, .. } => return Err(ResumeError::NotFetched { field, uri }),
            }
        }
        Ok(Context::stored(self.context_version, fields))
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header =
            serde_json::to_vec(&SerializedHeader::of(self)).expect("a header is plain data, its keys are text");
        let length = header.len() as u64;
        let blobs = || self.blobs.values().filter_map(Blob::bytes);
        let size = FIXED + header.len() + blobs().map(<[u8]>::len).sum::<usize>();
        let mut encoded = Vec::with_capacity(size);
        encoded.extend_from_slice(MAGIC);
        encoded.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        encoded.extend_from_slice(&length.to_le_bytes());
        encoded.extend_from_slice(&header);
        blobs().for_each(|bytes| encoded.extend_from_slice(bytes));
        encoded
    }

    /// From bytes. Whatever they are, no more memory is taken than they have themselves, a few times over.
    ///
    /// # Errors
    /// If they are not an envelope, are cut off, or of a later format.
    pub fn decode(encoded: &[u8]) -> Result<Envelope, EnvelopeError> {
        let rest = encoded.strip_prefix(MAGIC).ok_or(EnvelopeError::NotAnEnvelope)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(|| truncated(FIXED as u64, encoded))?;
        let found = u16::from_le_bytes(*format);
        if found > FORMAT_VERSION {
            return Err(EnvelopeError::Newer { found });
        }
        let (length, rest) = rest.split_first_chunk().ok_or_else(|| truncated(FIXED as u64, encoded))?;
        let length = u64::from_le_bytes(*length);
        let expected = length.saturating_add(FIXED as u64);
        let (header, blobs) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| truncated(expected, encoded))?;
        let header: SerializedHeader = serde_json::from_slice(header).map_err(EnvelopeError::Header)?;
        header.into_envelope(blobs, encoded)
    }
}

/// The bytes before the header.
const FIXED: usize = MAGIC.len() + size_of::<u16>() + size_of::<u64>();

fn truncated(expected: u64, encoded: &[u8]) -> EnvelopeError {
    EnvelopeError::Truncated { expected, found: encoded.len() as u64 }
}

impl Blob {
    /// The bytes, if they are here.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Blob::Bytes(bytes) => Some(bytes),
            Blob::Reference { .. } => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SerializedHeader {
    pipeline: PipelineName,
    pipeline_version: Version,
    signature: String,
    stage: u32,
    context_version: ContextVersion,
    context: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<SerializedBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    created_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct SerializedBlob {
    field: String,
    len: u64,
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl SerializedHeader {
    fn of(envelope: &Envelope) -> Self {
        let blob = |(field, blob): (&String, &Blob)| match blob {
            Blob::Bytes(bytes) => SerializedBlob { field: field.clone(), len: bytes.len() as u64, reference: None },
            Blob::Reference { uri, len } => {
                SerializedBlob { field: field.clone(), len: *len, reference: Some(uri.clone()) }
            }
        };
        SerializedHeader {
            pipeline: envelope.pipeline.clone(),
            pipeline_version: envelope.pipeline_version.clone(),
            signature: envelope.signature.clone(),
            stage: envelope.stage,
            context_version: envelope.context_version.clone(),
            context: envelope.fields.clone(),
            blobs: envelope.blobs.iter().map(blob).collect(),
            shard: envelope.shard,
            idempotency_key: envelope.idempotency_key.clone(),
            trace: envelope.trace.clone(),
            created_ms: envelope.created_ms,
        }
    }

    /// `rest` is what follows the header in `encoded`.
    fn into_envelope(self, mut rest: &[u8], encoded: &[u8]) -> Result<Envelope, EnvelopeError> {
        let mut blobs = BTreeMap::new();
        for SerializedBlob { field, len, reference } in self.blobs {
            let blob = match reference {
                Some(uri) => Blob::Reference { uri, len },
                None => Blob::Bytes(Bytes::copy_from_slice(take(&mut rest, len, encoded)?)),
            };
            blobs.insert(field, blob);
        }
        if !rest.is_empty() {
            return Err(EnvelopeError::TooLong { extra: rest.len() as u64 });
        }
        Ok(Envelope {
            pipeline: self.pipeline,
            pipeline_version: self.pipeline_version,
            signature: self.signature,
            stage: self.stage,
            context_version: self.context_version,
            fields: self.context,
            blobs,
            shard: self.shard,
            idempotency_key: self.idempotency_key,
            trace: self.trace,
            created_ms: self.created_ms,
        })
    }
}

/// So many bytes off the front of `rest`, the end of `encoded`.
fn take<'a>(rest: &mut &'a [u8], len: u64, encoded: &[u8]) -> Result<&'a [u8], EnvelopeError> {
    let split = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
    let Some((taken, left)) = split else {
        let before = (encoded.len() - rest.len()) as u64;
        return Err(truncated(before.saturating_add(len), encoded));
    };
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the first pype wrote.
    const GOLDEN: &[u8] = include_bytes!("envelope.v1.bin");

    fn envelope() -> Envelope {
        let text = "a name that a test gives is well formed";
        Envelope {
            pipeline: "upload".parse().expect(text),
            pipeline_version: "1.0.0".parse().expect(text),
            signature: "0123456789abcdef".to_owned(),
            stage: 2,
            context_version: "1.0".parse().expect(text),
            fields: json!({"file_path": "uploads/é.txt", "size": 7, "added": [null, {"by": "a stage"}]})
                .as_object()
                .cloned()
                .expect("a mapping"),
            blobs: BTreeMap::from([
                ("file_content".to_owned(), Blob::Bytes(vec![0, 255, 13, 10].into())),
                ("thumbnail".to_owned(), Blob::Bytes(vec![1].into())),
                ("video".to_owned(), Blob::Reference { uri: "objects://jobs/1/video".to_owned(), len: 1 << 40 }),
            ]),
            shard: Some(17),
            idempotency_key: Some("order-4711".to_owned()),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            created_ms: 1_737_000_000_000,
        }
    }

    #[test]
    fn what_the_first_pype_wrote_is_still_read() {
        assert_eq!(Envelope::decode(GOLDEN).expect("it is an envelope"), envelope());
        assert_eq!(envelope().encode(), GOLDEN, "the format has changed: it needs a new number, and a file of its own");
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = envelope().encode();
        for length in 0..whole.len() {
            let refused = Envelope::decode(&whole[..length]).expect_err("it is cut off");
            let expected = match length {
                0..8 => matches!(refused, EnvelopeError::NotAnEnvelope),
                _ => matches!(refused, EnvelopeError::Truncated { found, .. } if found == length as u64),
            };
            assert!(expected, "{length}: {refused}");
        }
        let longer = [whole, vec![0]].concat();
        assert!(matches!(Envelope::decode(&longer), Err(EnvelopeError::TooLong { extra: 1 })));
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let mut later = envelope().encode();
        later[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        assert!(matches!(Envelope::decode(&later), Err(EnvelopeError::Newer { found: 2 })));
    }

    #[test]
    fn a_length_is_only_believed_as_far_as_there_are_bytes() {
        let with_blobs = |blobs: &str| {
            let header = format!(
                r#"{{"pipeline": "p", "pipeline_version": "1.0.0", "signature": "", "stage": 0, "context_version": "1",
                    "context": {{}}, "created_ms": 0, "of_a_later_pype": 1, "blobs": {blobs}}}"#
            );
            let length = (header.len() as u64).to_le_bytes();
            Envelope::decode(&[MAGIC, &1_u16.to_le_bytes()[..], &length, header.as_bytes()].concat())
        };
        assert!(with_blobs("[]").is_ok_and(|one| one.pipeline.as_str() == "p"));
        let refused = with_blobs(r#"[{"field": "a", "len": 18446744073709551615}]"#);
        assert!(matches!(refused, Err(EnvelopeError::Truncated { expected: u64::MAX, .. })));
        assert!(matches!(with_blobs(&"[".repeat(100_000)), Err(EnvelopeError::Header(_))));

        let mut endless = envelope().encode();
        endless[10..18].fill(0xff);
        let refused = Envelope::decode(&endless);
        assert!(matches!(refused, Err(EnvelopeError::Truncated { expected: u64::MAX, .. })));
    }

    fn any_envelope() -> impl Strategy<Value = Envelope> {
        let blob = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Blob::Bytes(bytes.into())),
            ("[a-z:/]{1,20}", any::<u64>()).prop_map(|(uri, len)| Blob::Reference { uri, len }),
        ];
        let blobs = prop::collection::btree_map(".{0,5}", blob, 0..4);
        let fields = prop::collection::btree_map(".{0,5}", ".{0,20}", 0..4);
        (blobs, fields, any::<u32>(), any::<Option<u32>>(), any::<Option<String>>(), any::<u64>()).prop_map(
            |(blobs, fields, stage, shard, idempotency_key, created_ms)| Envelope {
                blobs,
                fields: fields.into_iter().map(|(name, text)| (name, Value::from(text))).collect(),
                stage,
                shard,
                idempotency_key,
                created_ms,
                ..envelope()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in any_envelope()) {
            prop_assert_eq!(Envelope::decode(&envelope.encode()).expect("it is an envelope"), envelope);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), with_magic in any::<bool>()) {
            let start = if with_magic { &GOLDEN[..10] } else { &[] };
            prop_assert!(Envelope::decode(&[start, &bytes].concat()).is_err());
        }

        #[test]
        fn no_changed_byte_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut changed = GOLDEN.to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            if let Ok(decoded) = Envelope::decode(&changed) {
                prop_assert!(decoded.encode().len() <= 2 * changed.len());
            }
        }
    }
}
