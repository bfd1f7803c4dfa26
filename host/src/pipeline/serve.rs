//! Pipelines over HTTP.
//!
//! `POST /pipelines/{name}` runs one: `200` with its result, or `202` with the id of the job that its rest has become.
//! `GET /jobs/{id}` tells of it. Every error is JSON of the same shape: `{"error": {"code", "message", …}}`.

mod body;
mod connections;
mod openapi;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pype_core::pipeline::context::ContextError;
use pype_plugin::queue::{Job, JobState};
use pype_plugin::{Error, ErrorKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::chain::{Answer, Asked};
use super::metrics::Metrics;
use super::open::Opened;

/// How long a body may take: who sends it slower takes the place of others.
const BODY_PATIENCE: Duration = Duration::from_secs(120);
/// A key is at most this long.
const LONGEST_KEY: usize = 255;

/// Serves pipelines.
pub struct Server {
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    limits: ServerLimits,
}

/// What a server takes on.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Larger bodies are refused.
    pub body_bytes: usize,
    /// So many runs at a time; those beyond are refused.
    pub requests: usize,
    /// Who takes longer to say what it asks for is hung up.
    pub head: Duration,
    /// What is under way when the server is to stop has so long to end.
    pub drain: Duration,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// What requests share.
struct Shared {
    pipelines: BTreeMap<String, Arc<Opened>>,
    token: Option<String>,
    running: Arc<Semaphore>,
    metrics: Metrics,
}

impl Server {
    /// Listens on `address`. Who has no `token` is refused, if there is one; without one, web pages are.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn listen(
        address: SocketAddr,
        pipelines: impl IntoIterator<Item = Arc<Opened>>,
        token: Option<String>,
        metrics: Metrics,
        limits: ServerLimits,
    ) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let pipelines = pipelines.into_iter().map(|one| (one.plan().name().to_string(), one)).collect();
        let running = Arc::new(Semaphore::new(limits.requests));
        let shared = Arc::new(Shared { pipelines, token, running, metrics });
        let guarded = Router::new()
            .route("/pipelines/{name}", post(run))
            .route("/jobs/{id}", get(job))
            .route("/openapi.json", get(openapi::document))
            .route("/metrics", get(counts))
            .layer(DefaultBodyLimit::max(limits.body_bytes))
            .layer(middleware::from_fn_with_state(shared.clone(), guard));
        let router = guarded.route("/healthz", get(|| async { "ok\n" })).fallback(nothing_there);
        let router = router.method_not_allowed_fallback(other_method).with_state(shared.clone());
        Ok(Self { listener, router, shared, limits })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` fires; requests that are under way then are answered yet.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, router, shared, limits } = self;
        let serving = connections::serve(listener, router, limits.head, stop.clone());
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(limits.drain).await;
        };
        tokio::select! {
            () = serving => {}
            () = patience => tracing::warn!("requests that are still under way are not answered"),
        }
        // Runs go on though their callers have hung up.
        let all = u32::try_from(limits.requests).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits.drain, shared.running.acquire_many(all)).await.is_err() {
            tracing::warn!("runs that are still under way are broken off");
        }
    }
}

/// Lets those through who have the token.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    if shared.token.is_none() && !is_from_here(request.headers()) {
        let message = "without a token only programs on this machine are served, and no web pages of others";
        let error = Error::new(ErrorKind::Config, "foreign-origin", message).hint("ask for a token: --token-file");
        return Refusal(StatusCode::FORBIDDEN, error).into_response();
    }
    match &shared.token {
        Some(token) if !given.is_some_and(|given| is_same(given, token)) => {
            let error = Error::new(ErrorKind::Config, "unauthorized", "a bearer token is needed, and this is not it");
            let mut refused = Refusal(StatusCode::UNAUTHORIZED, error).into_response();
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            refused
        }
        _ => next.run(request).await,
    }
}

/// A web page that is open in a browser here can reach this server, but cannot say that it comes from it.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).trim_matches(['[', ']']);
    let is_loopback = name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let origin = text(header::ORIGIN);
    let same_origin =
        origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| authority == host));
    is_loopback && same_origin
}

/// In a time that says nothing of where they differ.
fn is_same(given: &str, token: &str) -> bool {
    use hmac::{Hmac, Mac};
    use sha2::Sha256;
    let tag = |text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
        mac.chain_update(text)
    };
    tag(given).verify(&tag(token).finalize().into_bytes()).is_ok()
}

async fn nothing_there() -> Refusal {
    let message =
        "there is nothing here: POST /pipelines/{name}, GET /jobs/{id}, /openapi.json, /metrics and /healthz are";
    Refusal(StatusCode::NOT_FOUND, Error::new(ErrorKind::NotFound, "not-found", message))
}

async fn counts(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text())
}

async fn other_method() -> Refusal {
    let error = Error::new(ErrorKind::Data, "method-not-allowed", "this path takes another method");
    Refusal(StatusCode::METHOD_NOT_ALLOWED, error)
}

async fn run(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let opened = shared.pipelines.get(&name).ok_or_else(|| no_pipeline(&shared, &name))?;
    let asked = asked(&headers)?;
    let permit = shared.running.clone().try_acquire_owned().map_err(|_| {
        let error = Error::new(ErrorKind::Unavailable, "busy", "too many requests are under way").retryable(true);
        Refusal(StatusCode::SERVICE_UNAVAILABLE, error)
    })?;
    let body = body::context(opened.plan().context(), request);
    let context = tokio::time::timeout(BODY_PATIENCE, body).await.map_err(|_| too_slow())??;
    let opened = opened.clone();
    // A caller who hangs up does not break off what has begun.
    let running = tokio::spawn(async move {
        let answer = opened.run(context, asked).await;
        drop(permit);
        answer
    });
    let answer = running.await.unwrap_or_else(|lost| {
        Err(Error::new(ErrorKind::Internal, "host-panicked", "the host failed while it ran the pipeline")
            .caused_by(lost))
    });
    match answer {
        Ok(Answer::Done(result)) => Ok(Json(result).into_response()),
        Ok(Answer::Accepted(accepted)) => {
            let location = format!("/jobs/{}", accepted.id);
            let body = json!({ "job_id": accepted.id, "duplicate": accepted.duplicate });
            Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn too_slow() -> Refusal {
    let message = format!("the body has not come within {} s", BODY_PATIENCE.as_secs());
    Refusal(StatusCode::REQUEST_TIMEOUT, Error::new(ErrorKind::TimedOut, "slow-body", message).retryable(true))
}

fn asked(headers: &HeaderMap) -> Result<Asked, Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().map(str::to_owned)).transpose();
    let idempotency_key = text("idempotency-key").ok().flatten();
    if headers.contains_key("idempotency-key")
        && !idempotency_key.as_ref().is_some_and(|key| (1..=LONGEST_KEY).contains(&key.len()))
    {
        let message = format!("an `Idempotency-Key` has 1 to {LONGEST_KEY} visible ASCII characters");
        return Err(Refusal(StatusCode::BAD_REQUEST, Error::new(ErrorKind::Data, "bad-idempotency-key", message)));
    }
    Ok(Asked { idempotency_key, trace: text("traceparent").ok().flatten(), over_http: true })
}

fn no_pipeline(shared: &Shared, name: &str) -> Refusal {
    let names: Vec<&str> = shared.pipelines.keys().map(String::as_str).collect();
    let message = format!("there is no pipeline `{name}`; there are: {}", names.join(", "));
    Refusal(StatusCode::NOT_FOUND, Error::new(ErrorKind::NotFound, "no-such-pipeline", message))
}

async fn job(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let mut answer = Err(pype_plugin::queue::no_such_job(&id));
    let mut asked = BTreeSet::new();
    for opened in shared.pipelines.values() {
        let Some(queue) = opened.queue().filter(|_| asked.insert(opened.queue_key())) else { continue };
        match queue.job(&id).await {
            Ok(Some(job)) => return Ok(Json(told(&job))),
            Ok(None) => {}
            // Another queue may have it.
            Err(error) => answer = Err(error),
        }
    }
    answer.map_err(Refusal::from)
}

/// A job as callers see it.
fn told(job: &Job) -> Value {
    let mut told = json!({
        "job_id": job.id,
        "state": job.state,
        "pipeline": job.pipeline,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "created_ms": job.created_ms,
        "updated_ms": job.updated_ms,
    });
    if let Some(result) = &job.result {
        told["result"] = result.clone();
    }
    if let Some(error) = job.error.as_ref().filter(|_| job.state != JobState::Succeeded) {
        told["error"] = json!(error);
    }
    told
}

/// An error as an answer.
struct Refusal(StatusCode, Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            ErrorKind::Data => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Unavailable | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error)
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        let refused = Error::new(ErrorKind::Data, "bad-context", error.to_string());
        let meant: Vec<String> = error.meant().map(|field| format!("`{field}`")).collect();
        let refused = match meant.is_empty() {
            true => refused.hint("/openapi.json says which fields there are"),
            false => refused.hint(format!("did you mean {}?", meant.join(", "))),
        };
        Self(StatusCode::UNPROCESSABLE_ENTITY, refused)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
