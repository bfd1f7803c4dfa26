//! What a stream does, in the text form of OpenMetrics (openmetrics.io), which Prometheus reads; and whether it is well.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use pype_core::stream::control::{PartitionState, StreamState, Totals};
use pype_plugin::stream::Partition;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A stream is not well when one record has held its position back for so long.
const STUCK: Duration = Duration::from_secs(60);

/// A stream at one moment.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its numbers.
    pub state: StreamState,
    /// The partitions, in the order of those numbers.
    pub partitions: Vec<Partition>,
}

/// Where a stream shows what it does. Cheap to clone.
#[derive(Clone)]
pub struct Watched {
    // Written by the owner, twice a second; read by whoever asks.
    shown: Arc<Mutex<Option<Shown>>>,
    handling: Histogram,
    ages: Histogram,
    commits: Histogram,
    registry: Arc<Registry>,
}

impl Watched {
    pub(super) fn new(stream: &str) -> Self {
        let shown = Arc::new(Mutex::default());
        // From 100 µs to 27 minutes, and from a millisecond to half a minute.
        let handling = Histogram::new(exponential_buckets(0.0001, 4.0, 12));
        let commits = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        // From 100 µs to ten minutes, in finer steps.
        let ages = Histogram::new(exponential_buckets(0.0001, 1.5, 40));
        let mut registry =
            Registry::with_prefix_and_labels("pype_stream", [("stream".into(), stream.to_owned().into())].into_iter());
        registry.register_with_unit("handling", "How long a record is handled", Unit::Seconds, handling.clone());
        let help = "How long it takes from the poll that brought a record until it is done";
        registry.register_with_unit("latency", help, Unit::Seconds, ages.clone());
        registry.register_with_unit("commit", "How long a commit takes", Unit::Seconds, commits.clone());
        registry.register_collector(Box::new(Numbers(shown.clone())));
        Self { shown, handling, ages, commits, registry: Arc::new(registry) }
    }

    /// The latest.
    #[must_use]
    pub fn shown(&self) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn show(&self, shown: Shown) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    pub(super) fn handled(&self, took: Duration) {
        self.handling.observe(took.as_secs_f64());
    }

    pub(super) fn done(&self, age: Duration) {
        self.ages.observe(age.as_secs_f64());
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }

    /// Serves `/metrics` and `/healthz` until it is told to stop.
    pub(super) async fn serve(self, listen: SocketAddr, stop: CancellationToken) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/metrics", get(metrics)).route("/healthz", get(health)).with_state(self);
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!("metrics are no longer served: {error}");
            }
        });
        Ok(address)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

async fn metrics(State(watched): State<Watched>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], watched.text()).into_response()
}

/// 503 as long as a record holds a partition back for more than a minute.
async fn health(State(watched): State<Watched>) -> Response {
    let shown = watched.shown();
    let stuck = shown.iter().flat_map(|shown| shown.state.partitions.iter().zip(&shown.partitions));
    let stuck = stuck.filter(|(state, _)| state.blocked_for.is_some_and(|blocked| blocked > STUCK));
    let stuck: Vec<String> = stuck.map(|(state, named)| blocking(state, named)).collect();
    match stuck.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", stuck.join("\n"))).into_response(),
    }
}

/// What holds a partition back, in words.
#[must_use]
pub fn blocking(state: &PartitionState, partition: &Partition) -> String {
    let Partition { topic, partition } = partition;
    let (offset, seconds) =
        (state.blocking_offset.unwrap_or_default(), state.blocked_for.unwrap_or_default().as_secs());
    format!("{topic}/{partition} waits for offset {offset}, {seconds} s")
}

/// The numbers of the state, made into metrics when somebody asks.
#[derive(Debug)]
struct Numbers(Arc<Mutex<Option<Shown>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPartition {
    topic: String,
    partition: i32,
}

type PerPartition = fn(&PartitionState) -> Option<f64>;
type Total = fn(&Totals) -> u64;

// Offsets are exact up to 2^53, as Prometheus has it.
const PER_PARTITION: [(&str, &str, PerPartition); 9] = [
    ("lag", "Offsets between the position and the end of the log", |one| one.lag.map(|lag| lag as f64)),
    ("gaps", "Stretches of incomplete records before completed ones", |one| Some(one.gaps as f64)),
    ("blocking_offset", "The record that holds the position back", |one| one.blocking_offset.map(|at| at as f64)),
    ("blocked_seconds", "For how long it has", |one| Some(one.blocked_for.unwrap_or_default().as_secs_f64())),
    ("queued", "Records that wait for their turn", |one| Some(one.queued as f64)),
    ("in_flight", "Records that are handled", |one| Some(one.running as f64)),
    ("parked", "Records that wait for a retry, or behind one that does", |one| Some(one.parked as f64)),
    ("paused", "Whether the source is held back", |one| Some(f64::from(u8::from(one.paused)))),
    ("epoch", "The assignment", |one| Some(one.epoch.get() as f64)),
];

const TOTALS: [(&str, &str, Total); 11] = [
    ("delivered", "Records that were taken", |totals| totals.delivered),
    ("completed", "Records that were handled", |totals| totals.completed),
    ("done_before", "Records that an earlier owner had handled", |totals| totals.done_before),
    ("redelivered", "Records that came again while they were under way", |totals| totals.redelivered),
    ("failures", "Attempts that failed", |totals| totals.failed),
    ("retries", "Attempts after one that failed", |totals| totals.retries),
    ("dead_letters", "Dead letters that are confirmed", |totals| totals.dead_letters),
    ("dead_letter_failures", "Dead letters that were not taken", |totals| totals.dead_letter_failures),
    ("stale", "Ends that came too late", |totals| totals.stale),
    ("commits", "Commits", |totals| totals.commits),
    ("commit_failures", "Commits that failed", |totals| totals.commit_failures),
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Shown { state, partitions }) = shown else { return Ok(()) };
        for (name, help, of) in PER_PARTITION {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (one, Partition { topic, partition }) in state.partitions.iter().zip(&partitions) {
                if let Some(value) = of(one) {
                    let labels = OfPartition { topic: topic.clone(), partition: *partition };
                    ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        for (name, help, of) in TOTALS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(of(&state.totals)).encode(metric)?;
        }
        Ok(())
    }
}
