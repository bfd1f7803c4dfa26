//! From the body of a request to a context.

use std::collections::BTreeMap;

use axum::extract::multipart::{Field as AxumField, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use pype_core::pipeline::context::{Context, ContextSpec, FieldType};
use pype_plugin::{Error, ErrorKind};
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;

use super::Refusal;

/// The largest part that is kept in memory.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// The context that a request brings: JSON, or the parts of a form.
pub(super) async fn context(spec: &ContextSpec, request: Request) -> Result<Context, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "multipart/form-data" => form(spec, request).await,
        "application/json" | "" => json(spec, request).await,
        other => {
            let message = format!("`{other}` is not understood: send application/json or multipart/form-data");
            let error = Error::new(ErrorKind::Data, "unsupported-media-type", message);
            Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
        }
    }
}

async fn json(spec: &ContextSpec, request: Request) -> Result<Context, Refusal> {
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|refused| unreadable(refused.status(), &refused.body_text()))?;
    let value: Value = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body is not JSON: {error}");
        Refusal(StatusCode::BAD_REQUEST, Error::new(ErrorKind::Data, "bad-json", message))
    })?;
    Ok(Context::from_json(spec, value)?)
}

/// Each part is a field: bytes as they are, text as it is, and all others as JSON.
async fn form(spec: &ContextSpec, request: Request) -> Result<Context, Refusal> {
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|refused| unreadable(refused.status(), &refused.body_text()))?;
    let mut fields = Map::new();
    let mut bytes = BTreeMap::new();
    while let Some(part) = parts.next_field().await.map_err(bad_part)? {
        let name = part.name().unwrap_or_default().to_owned();
        let kind = spec.fields.get(name.as_str()).map(|field| field.kind);
        let is_file = part.file_name().is_some();
        let content = content(part).await?;
        if kind == Some(FieldType::Bytes) || (is_file && kind.is_none()) {
            bytes.insert(name, content);
        } else {
            let value = value(kind, &content).ok_or_else(|| not_text(&name))?;
            fields.insert(name, value);
        }
    }
    Ok(Context::from_parts(spec, fields, bytes)?)
}

/// The content of a part. What is large waits in a file that nobody else sees, so that many uploads at a time need little
/// memory.
async fn content(mut part: AxumField<'_>) -> Result<Bytes, Refusal> {
    let mut content = BytesMut::new();
    let mut file = None;
    while let Some(chunk) = part.chunk().await.map_err(bad_part)? {
        content.extend_from_slice(&chunk);
        if content.len() > IN_MEMORY_BYTES {
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(tokio::fs::File::from_std(tempfile::tempfile().map_err(no_room)?)),
            };
            file.write_all(&content.split()).await.map_err(no_room)?;
        }
    }
    let Some(mut file) = file else { return Ok(content.freeze()) };
    file.write_all(&content).await.map_err(no_room)?;
    file.flush().await.map_err(no_room)?;
    let file = file.into_std().await;
    // SAFETY: the file has no name, so nobody else changes it or cuts it off while it is mapped.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(no_room)?;
    Ok(Bytes::from_owner(mapped))
}

fn bad_part(error: MultipartError) -> Refusal {
    unreadable(error.status(), &error.body_text())
}

fn no_room(error: std::io::Error) -> Refusal {
    tracing::error!("an upload cannot be kept in a temporary file: {error}");
    let error = Error::new(ErrorKind::Unavailable, "no-room", "there is no room for the upload").retryable(true);
    Refusal(StatusCode::INSUFFICIENT_STORAGE, error)
}

/// `None` if it is no text.
fn value(kind: Option<FieldType>, content: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(content).ok()?;
    match kind {
        Some(FieldType::Str) | None => Some(text.into()),
        // What is no JSON is refused with the others, as text where something else is wanted.
        Some(_) => Some(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
    }
}

fn not_text(name: &str) -> Refusal {
    let message = format!("the part `{name}` is not UTF-8, and its field is not of type bytes");
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, Error::new(ErrorKind::Data, "bad-context", message))
}

fn unreadable(status: StatusCode, why: &str) -> Refusal {
    let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad-body" };
    Refusal(status, Error::new(ErrorKind::Data, code, format!("the body cannot be read: {why}")))
}
