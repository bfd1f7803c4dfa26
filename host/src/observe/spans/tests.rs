use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use pype_plugin::ErrorKind;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;

use super::*;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector in this process.
pub(crate) struct Collector {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it listens");
        let sent = Arc::new(Mutex::new(Vec::new()));
        let collected = sent.clone();
        let take = move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
            collected.lock().expect("no test panics with it").extend(scopes.flat_map(|one| one.spans));
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, sent }
    }

    /// An exporter to it, as the environment would ask for it.
    pub(crate) fn exporter(&self) -> (Spans, Exporter) {
        exporter_to(self.address)
    }

    /// What has arrived when these are closed, the earliest first.
    pub(crate) async fn sent(&self, exporters: impl IntoIterator<Item = Exporter>) -> Vec<Sent> {
        for exporter in exporters {
            close(exporter).await;
        }
        let mut sent = self.sent.lock().expect("no test panics with it").clone();
        sent.sort_by_key(|span| span.start_time_unix_nano);
        sent
    }
}

fn exporter_to(address: SocketAddr) -> (Spans, Exporter) {
    use opentelemetry_otlp::WithExportConfig;
    let health = Arc::new(Health::default());
    let builder = export::builder(&Handle::current(), Duration::from_secs(10), &health).expect("a client");
    let exporter = builder.with_endpoint(format!("http://{address}/v1/traces")).build().expect("an exporter");
    start(exporter, resource(|_| None), health)
}

async fn close(exporter: Exporter) {
    tokio::task::spawn_blocking(move || drop(exporter)).await.expect("it ends");
}

/// The attributes of a span, as text.
pub(crate) fn attributes(span: &Sent) -> BTreeMap<String, String> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
        other => panic!("an attribute is {other:?}"),
    };
    let value = |one: &opentelemetry_proto::tonic::common::v1::KeyValue| one.value.clone()?.value.map(text);
    span.attributes.iter().filter_map(|one| Some((one.key.clone(), value(one)?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_described_by_records_masked_and_ended_when_it_is_broken_off() {
    let collector = Collector::start().await;
    let (spans, exporter) = collector.exporter();
    spans.hide(&Redactor::of(["hunter2"]));
    let span = spans.start(Parent::Caller(Some(CALLER)), || SpanBuilder::from_name("work"));
    let trace = span.traceparent().expect("it is exported");
    let described = json!({"a": 1, "b": {"c": [true]}, "d": "hunter2", "e": null, "f": 0.5}).to_string();
    let record = json!({"trace": trace, "name": "an upload", "attributes": described, "level": "more"});
    spans.describe(record.to_string().as_bytes());
    // Of nobody, and nothing.
    spans.describe(json!({"trace": CALLER, "name": "other"}).to_string().as_bytes());
    spans.describe(b"{}");
    span.end(Some(&Error::new(ErrorKind::Io, "no-login", "no login as hunter2")));
    // It is over.
    spans.describe(record.to_string().as_bytes());
    drop(spans.start(Parent::Here(Some(&trace)), || SpanBuilder::from_name("inside")));

    let sent = collector.sent([exporter]).await;
    let [work, inside] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((work.name.as_str(), hex::encode(&work.parent_span_id)), ("an upload", "b7ad6b7169203331".to_owned()));
    assert_eq!(trace, format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", hex::encode(&work.span_id)));
    assert_eq!(work.status.as_ref().map(|status| status.message.as_str()), Some("no login as ***"));
    let expected = [
        ("a", "1"),
        ("b", "{\"c\":[true]}"),
        ("d", "***"),
        ("error.type", "no-login"),
        ("f", "0.5"),
        ("pype.error.kind", "i/o"),
    ];
    assert_eq!(attributes(work), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!((&inside.trace_id, &inside.parent_span_id), (&work.trace_id, &work.span_id));
    assert_eq!(inside.status.as_ref().map(|status| status.message.as_str()), Some("it was broken off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_a_trace_sampled_gets_no_spans_but_the_trace_goes_on() {
    let collector = Collector::start().await;
    let (spans, exporter) = collector.exporter();
    let parent = CALLER.replace("-01", "-00");
    let span = spans.start(Parent::Caller(Some(&parent)), || SpanBuilder::from_name("work"));
    let trace = span.traceparent().expect("it goes on");
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.ends_with("-00"), "{trace}");
    span.end(None);
    let unreadable = spans.start(Parent::Caller(Some("00-nonsense")), || SpanBuilder::from_name("new"));
    unreadable.end(None);
    let sent = collector.sent([exporter]).await;
    assert_eq!(sent.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["new"]);
    assert!(sent[0].parent_span_id.is_empty());
}

#[test]
fn without_an_exporter_nothing_is_asked_for() {
    let spans = Spans::default();
    let span = spans.start(Parent::Here(Some(CALLER)), || panic!("a span was built"));
    span.set(|| -> [KeyValue; 0] { panic!("attributes were made") });
    assert_eq!((span.traceparent(), spans.takes(SPAN_TARGET)), (None, false));
    span.end(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_holds_nobody_up() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("loopback");
    // It takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    for address in [gone, silent.local_addr().expect("it listens")] {
        let (spans, exporter) = exporter_to(address);
        for _ in 0..10_000 {
            spans.start(Parent::Here(None), || SpanBuilder::from_name("work")).end(None);
        }
        let began = std::time::Instant::now();
        close(exporter).await;
        assert!(began.elapsed() < FLUSH_PATIENCE * 2, "{:?}", began.elapsed());
    }
}

#[derive(Debug)]
struct Failing(Arc<AtomicBool>);

impl SpanExporter for Failing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        match self.0.load(Ordering::Relaxed) {
            true => Err(OTelSdkError::InternalFailure("it is down".to_owned())),
            false => Ok(()),
        }
    }
}

#[test]
fn what_is_lost_is_told_once() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = lines.clone();
    let sink = move |text: &str| {
        let told = text.lines().map(|line| line[25..].to_owned());
        written.lock().expect("no test panics with it").extend(told);
    };
    let (log, writer) = crate::observe::log::start(Default::default(), Default::default(), sink);
    let down = Arc::new(AtomicBool::new(true));
    let exporter = Export::new(Failing(down.clone()), Arc::default(), Arc::default());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
        for is_down in [true, true, true, false, false, true] {
            down.store(is_down, Ordering::Relaxed);
            let sent = pype_plugin::testing::block_on(exporter.export(Vec::new()));
            assert_eq!(sent.is_err(), is_down);
        }
    });
    drop(writer);
    let lines = lines.lock().expect("no test panics with it");
    let told: Vec<&str> = lines.iter().map(|line| line.split("spans are ").nth(1).unwrap_or(line)).collect();
    let lost = "not exported: Operation failed: it is down";
    assert_eq!(told, [lost, "exported again", lost]);
}

#[test]
fn the_environment_asks_for_spans() {
    let check = |variables: &[(&str, &str)], expect: bool| {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let asked = is_asked(|name| variables.get(name).map(|&value| value.to_owned()));
        assert_eq!(asked, expect, "{variables:?}");
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
    check(&[], false);
    check(&[endpoint], true);
    check(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces")], true);
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false);
    check(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false);
    check(&[endpoint, ("OTEL_SDK_DISABLED", "false")], true);
    check(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false);
    check(&[endpoint, ("OTEL_TRACES_EXPORTER", "otlp")], true);
}
