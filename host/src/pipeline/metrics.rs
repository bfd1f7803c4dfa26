//! What pipelines have done, counted, in the text form of OpenMetrics (openmetrics.io), which Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::stage::{Failed, Observer};

/// The counts of all pipelines of a process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<Outcome, Counter>,
    seconds: Family<Pipeline, Histogram>,
    failures: Family<Failure, Counter>,
    jobs: Family<Outcome, Counter>,
    at_work: Family<Pipeline, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pipeline {
    pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    pipeline: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    pipeline: String,
    stage: String,
    code: String,
    retried: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to half a minute.
        let seconds: Family<Pipeline, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16)));
        let (runs, failures, jobs, at_work) = Default::default();
        let mut registry = Registry::with_prefix("pype");
        registry.register("runs", "Runs of the caller's part, by how they ended", Family::clone(&runs));
        registry.register_with_unit("run", "How long the caller's part takes", Unit::Seconds, seconds.clone());
        registry.register("failures", "Attempts of stages and jobs that failed", Family::clone(&failures));
        registry.register("jobs", "Jobs, by what the worker said of them", Family::clone(&jobs));
        registry.register("jobs_at_work", "Jobs that a worker has at the moment", Family::clone(&at_work));
        Self { registry: Arc::new(registry), runs, seconds, failures, jobs, at_work }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }

    /// Where the runs of a pipeline are counted. From now on they are in the text, if there are none yet too.
    pub(super) fn runs(&self, pipeline: &str) -> Runs {
        let counter = |outcome| self.runs.get_or_create(&Outcome { pipeline: pipeline.to_owned(), outcome }).clone();
        Runs {
            seconds: self.seconds.get_or_create(&Pipeline { pipeline: pipeline.to_owned() }).clone(),
            done: counter("done"),
            accepted: counter("accepted"),
            failed: counter("failed"),
        }
    }

    /// A worker has a job, until what is given back is dropped.
    pub(super) fn works(&self, pipeline: &str) -> AtWork {
        let labels = Pipeline { pipeline: pipeline.to_owned() };
        let at_work = self.at_work.get_or_create(&labels).clone();
        at_work.inc();
        AtWork(at_work)
    }

    /// What a worker says of a job.
    pub(super) fn concluded(&self, pipeline: &str, outcome: &'static str) {
        self.jobs.get_or_create(&Outcome { pipeline: pipeline.to_owned(), outcome }).inc();
    }

    /// Counts what `observer` hears.
    pub(super) fn counting(&self, observer: Observer) -> Observer {
        let failures = self.failures.clone();
        Arc::new(move |failed: &Failed| {
            let labels = Failure {
                pipeline: failed.pipeline.clone(),
                stage: failed.stage.clone(),
                code: failed.error.code.clone(),
                retried: if failed.again_after.is_some() { "yes" } else { "no" },
            };
            failures.get_or_create(&labels).inc();
            observer(failed);
        })
    }
}

/// The runs of one pipeline: of the caller's part, by how they ended.
pub(super) struct Runs {
    seconds: Histogram,
    pub(super) done: Counter,
    pub(super) accepted: Counter,
    pub(super) failed: Counter,
}

impl Runs {
    /// One is over, which `outcome` counts.
    pub(super) fn count(&self, outcome: &Counter, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        outcome.inc();
    }
}

/// A job at work.
pub(super) struct AtWork(Gauge);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text() {
        let metrics = Metrics::default();
        let runs = metrics.runs("upload");
        runs.count(&runs.accepted, Duration::from_millis(3));
        runs.count(&runs.accepted, Duration::from_millis(3));
        metrics.concluded("upload", "dead");
        let _at_work = metrics.works("upload");
        drop(metrics.works("upload"));
        let text = metrics.text();
        for line in [
            "pype_runs_total{pipeline=\"upload\",outcome=\"accepted\"} 2",
            "pype_runs_total{pipeline=\"upload\",outcome=\"failed\"} 0",
            "pype_run_seconds_count{pipeline=\"upload\"} 2",
            "pype_jobs_total{pipeline=\"upload\",outcome=\"dead\"} 1",
            "pype_jobs_at_work{pipeline=\"upload\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
