//! From text to a [`Plan`], with every problem at once.

mod handle;
mod modules;

use std::num::NonZeroU32;
use std::time::Duration;

use super::form;
use super::plan::{DeadLetter, Payload, Plan, Settings, usual_retry};
use super::quantity::Listen;
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned, parse};
use crate::form::configs::Schemas;
use crate::form::fields::Fields;
use crate::form::meta::{Meta, meta};
use crate::name::TopicName;
use crate::retry::Retry;
use crate::template::Context;

use self::handle::Written;

/// What everything is read with.
#[derive(Clone, Copy)]
struct Reader<'a> {
    source: &'a Source,
    catalog: &'a Catalog,
    context: &'a Context,
}

pub(super) fn load_and_plan(
    source: &Source,
    catalog: &Catalog,
    context: &Context,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let tree = parse(source)?;
    let mut found = Diagnostics::new();
    let plan = Reader { source, catalog, context }.document(&tree, &mut found);
    match plan.filter(|_| !found.has_errors()) {
        Some(plan) => Ok((plan, found)),
        None => Err(found),
    }
}

impl<'a> Reader<'a> {
    /// None if a part that every stream has cannot be read, which has been reported.
    fn document(self, tree: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<Plan> {
        let mut top = Fields::of(self.source, tree, &form::DOCUMENT, found)?;
        let meta = top.required("stream", found);
        let source = top.required("source", found);
        let parallel = top.optional("parallel");
        let retry = top.optional("retry");
        let dead_letter = top.optional("dead_letter");
        let alerts = top.optional("alerts");
        let commit = top.optional("commit");
        let metrics = top.optional("metrics");
        let decode = top.optional("decode");
        let handle = top.required("handle", found);
        let settings = top.optional("settings");
        top.finish(found);

        let mut schemas = Schemas::default();
        let meta = meta.and_then(|node| self::meta(self.source, node, &form::META, found));
        let input = source.and_then(|node| self.input(node, &mut schemas, found));
        let decode = decode.map_or(Some(Vec::new()), |node| self.decoders(node, &mut schemas, found));
        let retry = retry.map_or_else(usual_retry, |node| self.retry(node, found));
        let dead_letter = dead_letter.map(|node| self.dead_letter(node, found));
        let alerts = alerts.map(|node| self.alerts(node, found));
        let commit_interval = commit.and_then(|node| self.commit(node, found));
        let metrics = metrics.map(|node| self.metrics(node, found));
        let settings = settings.map_or_else(Settings::default, |node| self.settings(node, found));
        let parallel = parallel.map(|node| (node, self.parallel(node, found)));
        let written = Written { parallel, input: input.as_ref(), name: meta.as_ref().map(|meta| &meta.name) };
        let handle = handle.and_then(|node| self.handle(node, written, found));
        let Meta { name, version, about } = meta?;
        Some(Plan {
            name,
            version,
            about,
            source: input?,
            decode: decode?,
            retry,
            dead_letter: dead_letter.map_or(Some(None), |read| read.map(Some))?,
            alerts: alerts.map_or(Some(None), |read| read.map(Some))?,
            commit_interval: commit_interval.unwrap_or(Duration::from_secs(1)),
            metrics: metrics.map_or(Some(None), |read| read.map(Some))?,
            handle: handle?,
            settings,
            document: self.source.clone(),
        })
    }

    fn retry(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Retry {
        let usual = usual_retry();
        let Some(mut fields) = Fields::of(self.source, node, &form::RETRY, found) else { return usual };
        let attempts = fields.optional("attempts").and_then(|node| fields.integer(node, "attempts", found));
        let first = fields.optional("backoff_ms");
        let delay_ms = first.and_then(|node| milliseconds(&fields, node, "backoff_ms", found));
        let longest = fields.optional("max_backoff_ms");
        let longest = longest.and_then(|node| milliseconds(&fields, node, "max_backoff_ms", found));
        let jitter = fields.optional("jitter_ms").and_then(|node| milliseconds(&fields, node, "jitter_ms", found));
        let on = fields.optional("on").and_then(|node| fields.choice(node, "on", &form::RETRY_ON, found));
        fields.finish(found);
        let max_delay_ms = longest.unwrap_or(usual.max_delay_ms);
        if let (Some(node), Some(delay_ms)) = (first, delay_ms.filter(|delay_ms| *delay_ms > max_delay_ms)) {
            let message = format!("`backoff_ms` is {delay_ms}, which is more than `max_backoff_ms`, {max_delay_ms}");
            found.push(self.source.error("out-of-range", node.span, message));
        }
        Retry {
            attempts: attempts.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(usual.attempts),
            delay_ms: delay_ms.unwrap_or(usual.delay_ms),
            max_delay_ms,
            jitter_ms: jitter.unwrap_or(usual.jitter_ms),
            on: on.unwrap_or(usual.on),
            ..usual
        }
    }

    fn dead_letter(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<DeadLetter> {
        let mut fields = Fields::of(self.source, node, &form::DEAD_LETTER, found)?;
        let topic = fields.required("topic", found).and_then(|node| fields.name(node, "topic", found));
        let payload = fields.optional("payload");
        let payload = payload.and_then(|node| fields.choice(node, "payload", &form::PAYLOADS, found));
        let timeout = seconds(&mut fields, "timeout_s", found);
        fields.finish(found);
        Some(DeadLetter {
            topic: topic?,
            payload: payload.unwrap_or(Payload::Full),
            timeout: timeout.unwrap_or(Duration::from_secs(5)),
        })
    }

    fn alerts(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<TopicName> {
        let mut fields = Fields::of(self.source, node, &form::ALERTS, found)?;
        let topic = fields.required("topic", found).and_then(|node| fields.name(node, "topic", found));
        fields.finish(found);
        topic
    }

    fn commit(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<Duration> {
        let mut fields = Fields::of(self.source, node, &form::COMMIT, found)?;
        let interval = fields.optional("interval_ms");
        let interval = interval.and_then(|node| milliseconds(&fields, node, "interval_ms", found));
        fields.finish(found);
        interval.map(Duration::from_millis)
    }

    fn metrics(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<Listen> {
        let mut fields = Fields::of(self.source, node, &form::METRICS, found)?;
        let listen = fields.required("listen", found).and_then(|node| fields.name(node, "listen", found));
        fields.finish(found);
        listen
    }

    fn settings(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Settings {
        let usual = Settings::default();
        let Some(mut fields) = Fields::of(self.source, node, &form::SETTINGS, found) else { return usual };
        let grace = fields.optional("revoke_grace_ms");
        let grace = grace.and_then(|node| milliseconds(&fields, node, "revoke_grace_ms", found));
        let drain = seconds(&mut fields, "drain_s", found);
        fields.finish(found);
        Settings {
            revoke_grace: grace.map_or(usual.revoke_grace, Duration::from_millis),
            drain: drain.unwrap_or(usual.drain),
        }
    }
}

fn milliseconds(fields: &Fields<'_>, node: &Spanned<Node>, key: &str, found: &mut Diagnostics) -> Option<u64> {
    fields.integer(node, key, found).map(i64::unsigned_abs)
}

fn seconds(fields: &mut Fields<'_>, key: &'static str, found: &mut Diagnostics) -> Option<Duration> {
    let node = fields.optional(key)?;
    fields.number(node, key, found).map(Duration::from_secs_f64)
}
