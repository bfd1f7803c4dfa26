//! Spans, exported to a collector of OpenTelemetry when its standard variables ask for it: OTLP, as protobuf over HTTP.
//!
//! A parent is told as text, a `traceparent` of W3C Trace Context (w3.org/TR/trace-context), inside a process as between
//! machines: whoever has the text can go on from the span. When nobody asks for spans there are none, and starting one is a
//! branch. Secrets are masked on the exporter's thread, whoever put them into a span. A collector that cannot be reached costs
//! spans and one warning, never a run.

mod export;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value as Attribute};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanExporter};
use pype_plugin::Error;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use self::export::{Export, Health};
use crate::secret::Redactor;

/// How long the end of a process waits for a collector to take what is left.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Records of this target say something of a span that is under way. A record's fields: `trace`, the span's `traceparent`;
/// `name`, which it is to have, if that is not empty; and `attributes`, a JSON object as text.
pub const SPAN_TARGET: &str = "pype::span";

/// Starts spans, or none without an exporter. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<Exporting>>);

struct Exporting {
    tracer: SdkTracer,
    secrets: Arc<Mutex<Redactor>>,
    /// For records about them. Locked for one look or one change.
    live: Mutex<HashMap<SpanId, Context>>,
}

/// Sends spans to a collector. When it is dropped, what is left is sent, within a bounded time.
pub struct Exporter {
    provider: SdkTracerProvider,
    health: Arc<Health>,
}

/// What a span goes on from: a `traceparent`. One that cannot be read is none.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'t> {
    /// A span of this process.
    Here(Option<&'t str>),
    /// A span of whoever called.
    Caller(Option<&'t str>),
    /// The span that sent a message. The conventions of OpenTelemetry (opentelemetry.io/docs/specs/semconv/messaging) have who
    /// processes a message link to that span; where messages are processed one by one, and nothing else is going on around
    /// that, it may be the parent too. So it is here: one trace holds the sender and whoever does the work.
    Message(Option<&'t str>),
}

/// A span under way, if there is an exporter. One that is dropped before its [end](Self::end) was broken off.
#[derive(Default)]
#[must_use]
pub struct Span(Option<Live>);

struct Live {
    exporting: Arc<Exporting>,
    context: Context,
}

/// An exporter as the environment asks for it, whose requests run in `runtime`. If it asks for something impossible, a
/// warning says so, and there is none.
pub fn from_environment(runtime: &Handle) -> Option<(Spans, Exporter)> {
    let variable = |name: &str| std::env::var(name).ok();
    if !is_asked(variable) {
        return None;
    }
    let health = Arc::new(Health::default());
    match export::over_http(runtime, export::patience(variable), &health) {
        Ok(exporter) => Some(start(exporter, resource(variable), health)),
        Err(why) => {
            tracing::warn!("spans are not exported: {why}");
            None
        }
    }
}

/// As the specification of OpenTelemetry's variables has it: one that is empty is as good as none.
fn is_asked(variable: impl Fn(&str) -> Option<String>) -> bool {
    let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let says = |name: &str, word: &str| given(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    let endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
    endpoint.is_some() && !says("OTEL_SDK_DISABLED", "true") && !says("OTEL_TRACES_EXPORTER", "none")
}

/// Who sends the spans: what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, else a service `pype`.
fn resource(variable: impl Fn(&str) -> Option<String>) -> Resource {
    let given = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
    let resource = Resource::builder_empty()
        .with_service_name("pype")
        .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
        .with_detector(Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()));
    given.into_iter().fold(resource, opentelemetry_sdk::resource::ResourceBuilder::with_service_name).build()
}

/// Spans that go to `exporter`, in batches, from a thread of its own. What else the variables say, of sampling and of the size
/// of batches, the SDK reads by itself.
fn start(exporter: impl SpanExporter + 'static, resource: Resource, health: Arc<Health>) -> (Spans, Exporter) {
    let secrets = Arc::new(Mutex::new(Redactor::default()));
    let exporter = Export::new(exporter, secrets.clone(), health.clone());
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(BatchSpanProcessor::builder(exporter).build())
        .build();
    let scope = InstrumentationScope::builder("pype").with_version(env!("CARGO_PKG_VERSION")).build();
    let tracer = provider.tracer_with_scope(scope);
    let exporting = Exporting { tracer, secrets, live: Mutex::default() };
    (Spans(Some(Arc::new(exporting))), Exporter { provider, health })
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It fails only when the time is over.
        if self.provider.shutdown_with_timeout(FLUSH_PATIENCE).is_err() && !self.health.is_told() {
            let seconds = FLUSH_PATIENCE.as_secs();
            tracing::warn!("the last spans are lost: the collector did not take them within {seconds} s");
        }
    }
}

impl Spans {
    /// Starts a span; `builder` is asked only if there is an exporter.
    pub fn start(&self, parent: Parent<'_>, builder: impl FnOnce() -> SpanBuilder) -> Span {
        let Some(exporting) = &self.0 else { return Span(None) };
        let (around, builder) = match parent {
            Parent::Here(trace) => (context(trace, false), builder()),
            Parent::Caller(trace) => (context(trace, true), builder()),
            Parent::Message(trace) => {
                let around = context(trace, true);
                let link = Link::with_context(around.span().span_context().clone());
                (around, builder().with_links(vec![link]))
            }
        };
        let context = Context::new().with_span(exporting.tracer.build_with_context(builder, &around));
        if context.span().is_recording() {
            exporting.live().insert(context.span().span_context().span_id(), context.clone());
        }
        Span(Some(Live { exporting: exporting.clone(), context }))
    }

    /// Whether there is an exporter.
    pub fn are_sent(&self) -> bool {
        self.0.is_some()
    }

    /// Masks what `secrets` masks, from now on and in what waits to be sent.
    pub fn hide(&self, secrets: &Redactor) {
        let Some(exporting) = &self.0 else { return };
        let mut hidden = exporting.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        *hidden = hidden.and(secrets);
    }

    /// Whether records of this target say something of spans that there are.
    pub fn takes(&self, target: &str) -> bool {
        self.0.is_some() && target == SPAN_TARGET
    }

    /// Puts what a record of [`SPAN_TARGET`] says into its span, if that is under way here. `fields` are the record's, as JSON.
    pub fn describe(&self, fields: &[u8]) {
        let (Some(exporting), Ok(said)) = (&self.0, serde_json::from_slice::<Said>(fields)) else { return };
        let around = context(Some(&said.trace), false);
        let Some(context) = exporting.live().get(&around.span().span_context().span_id()).cloned() else { return };
        let span = context.span();
        if !said.name.is_empty() {
            span.update_name(said.name);
        }
        // What is no object was not said by a stage of ours.
        let attributes: Map<String, Value> = serde_json::from_str(&said.attributes).unwrap_or_default();
        span.set_attributes(
            attributes.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, plain(value)?))),
        );
    }
}

impl Exporting {
    fn live(&self) -> MutexGuard<'_, HashMap<SpanId, Context>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields of a record about a span.
#[derive(Deserialize)]
struct Said {
    trace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    attributes: String,
}

/// Attributes are plain: what is none is told as JSON.
fn plain(value: Value) -> Option<Attribute> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().map_or_else(|| number.to_string().into(), Attribute::from),
        },
        Value::String(text) => text.into(),
        nested @ (Value::Array(_) | Value::Object(_)) => nested.to_string().into(),
    })
}

/// What a span that goes on from `trace` is started in.
fn context(trace: Option<&str>, is_remote: bool) -> Context {
    let Some(trace) = trace else { return Context::new() };
    let carrier = HashMap::from([("traceparent".to_owned(), trace.to_owned())]);
    let read = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let found = read.span().span_context().clone();
    if !found.is_valid() {
        return Context::new();
    }
    // What is read is always marked as another's.
    let (id, flags, state) = (found.span_id(), found.trace_flags(), found.trace_state().clone());
    Context::new().with_remote_span_context(SpanContext::new(found.trace_id(), id, flags, is_remote, state))
}

impl Span {
    /// For whoever goes on from it.
    pub fn traceparent(&self) -> Option<String> {
        let live = self.0.as_ref()?;
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&live.context, &mut carrier);
        carrier.remove("traceparent")
    }

    /// Adds attributes, which are asked for only if there is an exporter.
    pub fn set<const N: usize>(&self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if let Some(live) = &self.0 {
            live.context.span().set_attributes(attributes());
        }
    }

    /// Ends it, with why what it is of failed, if it did.
    pub fn end(mut self, error: Option<&Error>) {
        let Some(live) = self.0.take() else { return };
        if let Some(error) = error {
            let span = live.context.span();
            span.set_attribute(KeyValue::new("error.type", error.code.clone()));
            span.set_attribute(KeyValue::new("pype.error.kind", error.kind.to_string()));
            span.set_status(Status::error(error.message.clone()));
        }
        live.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(live) = self.0.take() {
            live.context.span().set_status(Status::error("it was broken off"));
            live.end();
        }
    }
}

impl Live {
    fn end(self) {
        let span = self.context.span();
        self.exporting.live().remove(&span.span_context().span_id());
        span.end();
    }
}

#[cfg(test)]
pub(crate) mod tests;
