//! The library's `tracing` and `log` records, handed to the host's one writer.

use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::abi::Services;
use crate::context::Context;
use crate::glue::guard::with_current;

static LIBRARY: OnceLock<Context> = OnceLock::new();

/// Makes the forwarder this library's default; `library` takes what belongs to no node.
pub(crate) fn install(library: Context) {
    if LIBRARY.set(library).is_err() {
        return;
    }
    // In a test the author may have set up a subscriber: it stays, and records go there.
    let forwarded = tracing::subscriber::set_global_default(Registry::default().with(Forwarder));
    if forwarded.is_ok() && tracing_log::LogTracer::init().is_err() {
        tracing::debug!(target: "pype_plugin", "`log` records stay with the logger that the library installed");
    }
}

struct Forwarder;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Forwarder {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        context: LayerContext<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &tracing::span::Id, values: &tracing::span::Record<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        with_services(|services| {
            if !enabled(services, metadata) {
                return;
            }
            let mut fields = Fields::default();
            for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    fields.values.extend(of_span.values.clone());
                }
            }
            event.record(&mut fields);
            forward(services, metadata, &fields);
        });
    }
}

fn with_services(f: impl FnOnce(&Services)) {
    with_current(|node| {
        if let Some(services) = node.or_else(|| LIBRARY.get().map(Context::services)) {
            f(services);
        }
    });
}

fn enabled(services: &Services, metadata: &Metadata<'_>) -> bool {
    services.vtable.log_enabled()(&services.handle, level(metadata), metadata.target().into())
}

fn forward(services: &Services, metadata: &Metadata<'_>, fields: &Fields) {
    let others = serde_json::to_vec(&fields.values).unwrap_or_default();
    services.vtable.log()(
        &services.handle,
        level(metadata),
        metadata.target().into(),
        fields.message.as_str().into(),
        others.as_slice().into(),
    );
}

fn level(metadata: &Metadata<'_>) -> u8 {
    match *metadata.level() {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    values: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            name if name.starts_with("log.") => {} // Where a `log` record came from: in its metadata already.
            name => drop(self.values.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}
