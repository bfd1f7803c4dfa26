//! Bytes that are too large for a queue: they wait in a store, and the job holds where.
//!
//! They are there before the job is accepted, and until it has succeeded or is forgotten: a job that failed may be
//! retried.

use std::sync::{Arc, Mutex, PoisonError};

use pype_core::pipeline::context::{ContextSpec, FieldType};
use pype_core::pipeline::envelope::{Blob, Envelope};
use pype_core::pipeline::plan::Plan;
use pype_plugin::host::{Chain, Going};
use pype_plugin::{Bytes, ContextStore, Error, ErrorKind, Field, Next, PipelineContext, Result, RunFacts};
use serde_json::{Value, json};

use super::stage::{OpenStage, again_after};

/// What a reference starts with.
const SCHEME: &str = "objects://";
/// The fields of the modules that carry it.
const NAME: &str = "file_path";
const CONTENT: &str = "file_content";

/// Where large bytes wait.
pub(super) struct LargeStore {
    pub(super) over_bytes: u64,
    pub(super) write: OpenStage,
    pub(super) read: OpenStage,
    pub(super) delete: OpenStage,
}

impl LargeStore {
    /// The stages that carry them.
    pub(super) fn stages(&self) -> [&OpenStage; 3] {
        [&self.write, &self.read, &self.delete]
    }

    /// Puts the large fields of a job away. Only declared ones: their names say what there is to forget.
    ///
    /// # Errors
    /// The store does not take them.
    pub(super) async fn put_away(&self, envelope: &mut Envelope, spec: &ContextSpec, job: &str) -> Result<()> {
        for field in bytes_fields(spec) {
            let Some(Blob::Bytes(bytes)) = envelope.blobs.get(field) else { continue };
            let len = bytes.len() as u64;
            if len <= self.over_bytes {
                continue;
            }
            let name = name_of(envelope.pipeline.as_str(), job, field);
            carry(&self.write, &name, Some(Bytes::from_owner(bytes.clone()))).await?;
            envelope.blobs.insert(field.to_owned(), Blob::Reference { uri: format!("{SCHEME}{name}"), len });
        }
        Ok(())
    }

    /// Fetches what was put away.
    ///
    /// # Errors
    /// It is not there, or not as it was.
    pub(super) async fn fetch(&self, envelope: &mut Envelope) -> Result<()> {
        for (field, blob) in &mut envelope.blobs {
            let Blob::Reference { uri, len } = blob else { continue };
            let name = uri.strip_prefix(SCHEME).ok_or_else(|| damaged(field, uri, "is no place in a store"))?;
            let bytes = carry(&self.read, name, None).await?;
            let bytes = bytes.ok_or_else(|| damaged(field, uri, "holds nothing"))?;
            if bytes.len() as u64 != *len {
                return Err(damaged(field, uri, "has another length than when it was put there"));
            }
            *blob = Blob::Bytes(bytes::Bytes::from_owner(bytes));
        }
        Ok(())
    }

    /// Forgets what a job has put away.
    pub(super) async fn forget(&self, names: impl IntoIterator<Item = String>) {
        forget(&self.delete, names).await;
    }
}

/// Deletes objects. What stays there by mistake harms nobody, so it is only told.
pub(super) async fn forget(delete: &OpenStage, names: impl IntoIterator<Item = String>) {
    for name in names {
        if let Err(error) = carry(delete, &name, None).await {
            tracing::warn!("`{name}` stays in the store of large fields: {error}");
        }
    }
}

/// The names of what an envelope has put away.
pub(super) fn put_away_by(envelope: &Envelope) -> Vec<String> {
    let names = envelope.blobs.values().filter_map(|blob| match blob {
        Blob::Reference { uri, .. } => Some(uri.strip_prefix(SCHEME)?.to_owned()),
        Blob::Bytes(_) => None,
    });
    names.collect()
}

/// The names of all that a job of a plan may have put away.
pub(super) fn of_job<'a>(plan: &'a Plan, job: &'a str) -> impl Iterator<Item = String> + 'a {
    bytes_fields(plan.context()).map(move |field| name_of(plan.name().as_str(), job, field))
}

fn bytes_fields(spec: &ContextSpec) -> impl Iterator<Item = &str> {
    spec.fields.iter().filter(|(_, field)| field.kind == FieldType::Bytes).map(|(name, _)| name.as_str())
}

fn name_of(pipeline: &str, job: &str, field: &str) -> String {
    format!("{pipeline}/{job}/{field}")
}

fn damaged(field: &str, uri: &str, why: &str) -> Error {
    Error::new(ErrorKind::Data, "damaged-job", format!("the bytes of `{field}` cannot be had: `{uri}` {why}"))
}

/// Has a stage carry bytes to an object or from it; the bytes that it goes on with.
async fn carry(stage: &OpenStage, name: &str, content: Option<Bytes>) -> Result<Option<Bytes>> {
    let mut attempt = 1;
    loop {
        let carried = Arc::new(Carried::default());
        let parcel = Parcel { name: name.to_owned(), content: content.clone() };
        let instance = stage.instances.take().await?;
        let next = Next::new(carried.clone());
        let error = match instance.execute(PipelineContext::new(parcel), next).end().await {
            Ok(_) => return Ok(carried.0.lock().unwrap_or_else(PoisonError::into_inner).take()),
            Err(error) => stage.redactor.error(error),
        };
        let Some(delay) = again_after(&stage.stage.retry, attempt, &error) else { return Err(error) };
        tokio::time::sleep(delay).await;
        attempt += 1;
    }
}

/// The context of a stage that carries bytes.
#[derive(Clone)]
struct Parcel {
    name: String,
    content: Option<Bytes>,
}

impl ContextStore for Parcel {
    fn facts(&self) -> RunFacts {
        RunFacts::default()
    }

    fn names(&self) -> Vec<String> {
        vec![NAME.to_owned(), CONTENT.to_owned()]
    }

    fn get(&self, name: &str) -> Option<Field> {
        match name {
            NAME => Some(Field::Json(json!(self.name))),
            CONTENT => self.content.clone().map(Field::Bytes),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, field: Field) -> Result<()> {
        if let (CONTENT, Field::Bytes(bytes)) = (name, field) {
            self.content = Some(bytes);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> bool {
        name == CONTENT && self.content.take().is_some()
    }
}

/// The end of its chain, which keeps the bytes.
#[derive(Default)]
struct Carried(Mutex<Option<Bytes>>);

impl Chain for Carried {
    fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going {
        Going::Over(ctx.into_store::<Parcel>().map(|parcel| {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = parcel.content;
            Value::Null.into()
        }))
    }
}
