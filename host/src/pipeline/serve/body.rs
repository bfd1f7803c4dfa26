//! From the body of a request to a context.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use pype_core::pipeline::context::{Context, ContextSpec, FieldType};
use pype_plugin::{Error, ErrorKind};
use serde_json::{Map, Value};

use super::Refusal;

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
    let failed = |error: axum::extract::multipart::MultipartError| unreadable(error.status(), &error.body_text());
    while let Some(part) = parts.next_field().await.map_err(failed)? {
        let name = part.name().unwrap_or_default().to_owned();
        let kind = spec.fields.get(name.as_str()).map(|field| field.kind);
        let is_file = part.file_name().is_some();
        let content = part.bytes().await.map_err(failed)?;
        if kind == Some(FieldType::Bytes) || (is_file && kind.is_none()) {
            bytes.insert(name, content);
        } else {
            let value = value(kind, &content).ok_or_else(|| not_text(&name))?;
            fields.insert(name, value);
        }
    }
    Ok(Context::from_parts(spec, fields, bytes)?)
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
