//! What spans go through on their way to a collector: secrets are masked, failures told once, and requests made by the
//! client that the host has anyway.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::Status;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::runtime::Handle;

use crate::secret::Redactor;

/// How long a request may take when the environment does not say.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer is read. There is next to nothing in it.
const LONGEST_ANSWER: usize = 1 << 20;

/// Whether spans arrive.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether it has been told that they do not.
    told: AtomicBool,
    /// Where the last request went that failed, and why.
    last: Mutex<Option<String>>,
}

impl Health {
    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    fn failed(&self, why: String) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Tells of the first batch that is lost, and of the first that is not any more.
    fn tell(&self, sent: &OTelSdkResult) {
        let was_told = self.told.swap(sent.is_err(), Ordering::Relaxed);
        match sent {
            Err(error) if !was_told => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
                tracing::warn!("spans are not exported: {}", last.unwrap_or_else(|| error.to_string()));
            }
            Ok(()) if was_told => tracing::info!("spans are exported again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// An exporter that gets spans without secrets.
#[derive(Debug)]
pub(super) struct Export<E> {
    inner: E,
    secrets: Arc<Mutex<Redactor>>,
    health: Arc<Health>,
}

impl<E: SpanExporter> Export<E> {
    pub(super) fn new(inner: E, secrets: Arc<Mutex<Redactor>>, health: Arc<Health>) -> Self {
        Self { inner, secrets, health }
    }
}

impl<E: SpanExporter> SpanExporter for Export<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        batch.iter_mut().for_each(|span| mask(span, &secrets));
        let sent = self.inner.export(batch).await;
        self.health.tell(&sent);
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

fn mask(span: &mut SpanData, secrets: &Redactor) {
    if let Cow::Owned(clean) = secrets.text(&span.name) {
        span.name = clean.into();
    }
    if let Status::Error { description } = &mut span.status
        && let Cow::Owned(clean) = secrets.text(description)
    {
        *description = clean.into();
    }
    for KeyValue { key, value, .. } in &mut span.attributes {
        if let Cow::Owned(clean) = secrets.text(key.as_str()) {
            *key = clean.into();
        }
        if let Cow::Owned(clean) = secrets.text(&value.as_str()) {
            *value = clean.into();
        }
    }
}

/// How long a request may take, as the environment says.
pub(super) fn patience(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let of = |name: &str| variable(name).and_then(|value| value.trim().parse().ok()).map(Duration::from_millis);
    of("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| of("OTEL_EXPORTER_OTLP_TIMEOUT")).unwrap_or(PATIENCE)
}

/// The exporter that OpenTelemetry's variables describe.
///
/// # Errors
/// They ask for something impossible.
pub(super) fn over_http(
    runtime: &Handle,
    patience: Duration,
    health: &Arc<Health>,
) -> Result<opentelemetry_otlp::SpanExporter, Box<dyn Error>> {
    builder(runtime, patience, health).and_then(|builder| Ok(builder.build()?))
}

type Builder = opentelemetry_otlp::SpanExporterBuilder<opentelemetry_otlp::HttpExporterBuilderSet>;

pub(super) fn builder(runtime: &Handle, patience: Duration, health: &Arc<Health>) -> Result<Builder, Box<dyn Error>> {
    // The headers of a request may hold a token, which is for this collector alone.
    let client = Client::builder().redirect(Policy::none()).timeout(patience).build()?;
    let client = Requests { client, runtime: runtime.clone(), health: health.clone() };
    let builder = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(client);
    Ok(builder.with_protocol(Protocol::HttpBinary).with_timeout(patience))
}

/// Makes the exporter's requests. They are asked for on the exporter's own thread, which has no runtime.
#[derive(Debug)]
struct Requests {
    client: Client,
    runtime: Handle,
    health: Arc<Health>,
}

impl HttpClient for Requests {
    // As `async_trait` would write it, which the trait is made with.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let request = reqwest::Request::try_from(request)?;
            // No more of it: what else is in an address may be a password.
            let whereto = request.url().origin().ascii_serialization();
            let answer = match self.runtime.spawn(answer(self.client.clone(), request)).await {
                Ok(answer) => answer,
                Err(ended) => Err(ended.into()),
            };
            match &answer {
                Err(error) => self.health.failed(format!("{whereto}: {}", with_causes(error.as_ref()))),
                Ok(answer) if !answer.status().is_success() => {
                    self.health.failed(format!("{whereto} answers {}", answer.status()));
                }
                Ok(_) => {}
            }
            answer
        })
    }
}

async fn answer(client: Client, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
    let mut given = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = given.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(ResponseBodyTooLarge::new().into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(body.into());
    *answer.status_mut() = given.status();
    // When to come again, for one.
    *answer.headers_mut() = std::mem::take(given.headers_mut());
    Ok(answer)
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
