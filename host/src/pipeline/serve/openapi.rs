//! What the server understands, as OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0), made from the declared contexts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pype_core::pipeline::context::{ContextSpec, FieldSpec, FieldType};
use pype_core::pipeline::plan::Plan;
use serde_json::{Map, Value, json};

use super::{LONGEST_KEY, Shared};

pub(super) async fn document(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let mut paths = Map::new();
    for opened in shared.pipelines.values() {
        let plan = opened.plan();
        paths.insert(format!("/pipelines/{}", plan.name()), json!({ "post": operation(plan) }));
    }
    paths.insert("/jobs/{id}".to_owned(), json!({ "get": job() }));
    paths.insert("/healthz".to_owned(), json!({ "get": { "responses": { "200": described("The server is up") } } }));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "pype", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": { "Accepted": accepted(), "Error": error() } },
    });
    if shared.token.is_some() {
        document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "token": [] }]);
    }
    Json(document)
}

fn operation(plan: &Plan) -> Value {
    let spec = plan.context();
    let mut responses = json!({
        "200": described("The result"),
        "422": told("The context does not fit, or a stage refuses it", "Error"),
        "default": told("The request was refused, or failed", "Error"),
    });
    if plan.dispatch().is_some() {
        responses["202"] = told("Accepted as a job", "Accepted");
    }
    json!({
        "operationId": plan.name(),
        "summary": plan.about().desc,
        "parameters": parameters(plan),
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": schema(spec, Body::Json) },
            "multipart/form-data": { "schema": schema(spec, Body::Form) },
        } },
        "responses": responses,
    })
}

/// What makes two requests one is the job.
fn parameters(plan: &Plan) -> Value {
    match plan.dispatch() {
        Some(_) => json!([{
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": { "type": "string", "minLength": 1, "maxLength": LONGEST_KEY },
            "description": "What is asked for twice with the same key is done once",
        }]),
        None => json!([]),
    }
}

fn job() -> Value {
    json!({
        "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }],
        "responses": {
            "200": described("The job as it is: job_id, state, and its result or error"),
            "404": told("There is no such job", "Error"),
            "default": told("The request was refused, or the queue cannot be asked", "Error"),
        },
    })
}

fn accepted() -> Value {
    json!({
        "type": "object",
        "properties": {
            "job_id": { "type": "string" },
            "duplicate": { "type": "boolean", "description": "Whether it was accepted before, with the same key" },
        },
        "required": ["job_id", "duplicate"],
    })
}

fn error() -> Value {
    json!({
        "type": "object",
        "properties": { "error": {
            "type": "object",
            "properties": {
                "kind": { "type": "string" },
                "code": { "type": "string", "description": "A stable word for what went wrong" },
                "message": { "type": "string" },
                "retryable": { "type": "boolean", "description": "Whether it may go well another time" },
            },
            "required": ["kind", "code", "message", "retryable"],
        } },
        "required": ["error"],
    })
}

/// An answer of this schema.
fn told(description: &str, schema: &str) -> Value {
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn described(description: &str) -> Value {
    json!({ "description": description })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Json,
    Form,
}

fn schema(spec: &ContextSpec, body: Body) -> Value {
    let properties: Map<String, Value> =
        spec.fields.iter().map(|(name, field)| (name.to_string(), property(field, body))).collect();
    let required: Vec<String> =
        spec.fields.iter().filter(|(_, field)| field.is_required()).map(|(name, _)| name.to_string()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(field: &FieldSpec, body: Body) -> Value {
    let mut property = match (field.kind, body) {
        (FieldType::Str, _) => json!({ "type": "string" }),
        (FieldType::Int, _) => json!({ "type": "integer", "format": "int64" }),
        (FieldType::Float, _) => json!({ "type": "number" }),
        (FieldType::Bool, _) => json!({ "type": "boolean" }),
        (FieldType::Bytes, Body::Form) => json!({ "type": "string", "contentMediaType": "application/octet-stream" }),
        (FieldType::Bytes, Body::Json) => json!({ "oneOf": [
            { "type": "string" },
            { "type": "object", "properties": { "base64": { "type": "string", "contentEncoding": "base64" } },
              "required": ["base64"], "additionalProperties": false },
        ] }),
        (FieldType::List, _) => json!({ "type": "array" }),
        (FieldType::Object, _) => json!({ "type": "object" }),
        (FieldType::Any, _) => json!({}),
    };
    // What need not be there may be null as well.
    if !field.is_required() && body == Body::Json {
        if let Some(kinds) = property.get_mut("oneOf").and_then(Value::as_array_mut) {
            kinds.push(json!({ "type": "null" }));
        } else if let Some(kind) = property.get_mut("type") {
            *kind = json!([kind.take(), "null"]);
        }
    }
    if let Some(description) = &field.desc {
        property["description"] = description.as_str().into();
    }
    if let Some(default) = &field.default {
        property["default"] = default.clone();
    }
    property
}
