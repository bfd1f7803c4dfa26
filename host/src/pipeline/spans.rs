//! The spans of a pipeline: one for a run of the caller's part, one for each attempt of a stage, one for handing the rest
//! over, and one for each attempt of a job.
//!
//! A span is a child of that of the stage around it: a stage holds the rest of its chain, and may run it more than once.
//! [`RunFacts::trace`](pype_plugin::RunFacts::trace) is the span that a stage runs in, and an envelope's that of its dispatch, which
//! the job's goes on from. Names of attributes are OpenTelemetry's where it has one, and begin with `pype.` where not.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use pype_core::pipeline::plan::{Plan, Stage};
use pype_plugin::queue::LeasedJob;
use pype_plugin::{Error, Result};
use serde_json::Value;

use super::chain::Asked;
use super::context::RunContext;
use crate::observe::spans::{Parent, Span, Spans};

/// A run of the caller's part.
pub(super) fn of_run(spans: &Spans, plan: &Plan, asked: &Asked) -> Span {
    spans.start(Parent::Caller(asked.trace.as_deref()), || {
        let kind = if asked.over_http { SpanKind::Server } else { SpanKind::Internal };
        SpanBuilder::from_name(format!("run {}", plan.name())).with_kind(kind).with_attributes(of_plan(plan))
    })
}

/// An attempt of a stage.
pub(super) fn of_attempt(spans: &Spans, run: &RunContext, stage: &Stage, attempt: u32) -> Span {
    spans.start(Parent::Here(run.facts.trace.as_deref()), || {
        let attributes = of_stage(run, stage).into_iter().chain([KeyValue::new("pype.attempt", i64::from(attempt))]);
        SpanBuilder::from_name(stage.id.to_string()).with_attributes(attributes)
    })
}

/// A dispatch that hands the rest to its queue.
pub(super) fn of_dispatch(spans: &Spans, run: &RunContext, stage: &Stage) -> Span {
    spans.start(Parent::Here(run.facts.trace.as_deref()), || {
        let name = format!("send {}", run.plan.name());
        let attributes = of_stage(run, stage).into_iter().chain(of_message(&run.plan, stage, "send"));
        SpanBuilder::from_name(name).with_kind(SpanKind::Producer).with_attributes(attributes)
    })
}

/// Ends the span of a dispatch, whose result tells the job.
pub(super) fn dispatched(span: Span, result: &Result<Value>) {
    if let Some(job) = result.as_ref().ok().and_then(|result| result["job_id"].as_str()) {
        span.set(|| [KeyValue::new("messaging.message.id", job.to_owned())]);
    }
    span.end(result.as_ref().err());
}

/// An attempt of a job, which goes on from its dispatch.
pub(super) fn of_job(spans: &Spans, plan: &Plan, job: &LeasedJob, trace: Option<&str>) -> Span {
    spans.start(Parent::Message(trace), || {
        let dispatch = plan.dispatch().expect("a job has come through it");
        let attributes = of_plan(plan).into_iter().chain(of_message(plan, dispatch, "process")).chain([
            KeyValue::new("messaging.message.id", job.lease.job.clone()),
            KeyValue::new("pype.attempt", i64::from(job.attempt)),
        ]);
        let name = format!("process {}", plan.name());
        SpanBuilder::from_name(name).with_kind(SpanKind::Consumer).with_attributes(attributes)
    })
}

/// Ends the span of a job, of which its worker says so.
pub(super) fn worked(span: Span, verdict: &'static str, error: Option<&Error>) {
    span.set(|| [KeyValue::new("pype.verdict", verdict)]);
    span.end(error);
}

/// From here on a run is inside a span.
pub(super) fn enter(span: &Span, run: &mut RunContext) {
    if let Some(trace) = span.traceparent() {
        Arc::make_mut(&mut run.facts).trace = Some(trace);
    }
}

fn of_plan(plan: &Plan) -> [KeyValue; 2] {
    [
        KeyValue::new("pype.pipeline", plan.name().to_string()),
        KeyValue::new("pype.pipeline.version", plan.version().to_string()),
    ]
}

fn of_stage(run: &RunContext, stage: &Stage) -> Vec<KeyValue> {
    let mut attributes = Vec::from(of_plan(&run.plan));
    attributes.push(KeyValue::new("pype.stage", stage.id.to_string()));
    attributes.push(KeyValue::new("pype.module", stage.module.to_string()));
    attributes
}

/// The queue is the system, and each pipeline a destination in it.
fn of_message(plan: &Plan, dispatch: &Stage, operation: &'static str) -> [KeyValue; 4] {
    [
        KeyValue::new("messaging.system", dispatch.module.to_string()),
        KeyValue::new("messaging.destination.name", plan.name().to_string()),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
    ]
}

#[cfg(test)]
mod tests;
