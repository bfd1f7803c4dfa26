//! Messages that have come, until they are given out in batches.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use tokio::time::Instant;

use super::delivery::{Delivery, KeyFrom};

/// When no message has come for so long, those that have make a batch.
const LINGER: Duration = Duration::from_millis(2);
/// They do also when the first of them has waited for so long.
const LONGEST_LINGER: Duration = Duration::from_millis(10);
/// How much is read at a time, and what as the key.
pub(super) struct Limits {
    pub(super) batch: usize,
    pub(super) bytes: usize,
    pub(super) key: Option<KeyFrom>,
}

/// Messages that have come, and that nobody was given.
pub(super) struct Fetched {
    pub(super) messages: VecDeque<(Message, Delivery)>,
    pub(super) bytes: usize,
    /// When the first of them came, and the last.
    first: Instant,
    latest: Instant,
    /// When the server heard of them last.
    pub(super) kept: Instant,
}

impl Fetched {
    pub(super) fn new(now: Instant) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, first: now, latest: now, kept: now }
    }

    pub(super) fn take(&mut self, message: Message, now: Instant) {
        if message.status.is_some_and(|status| status != StatusCode::OK) {
            return;
        }
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::of) else {
            tracing::warn!("a message of `{}` does not say which one it is", message.subject);
            return;
        };
        if self.messages.is_empty() {
            (self.first, self.kept) = (now, now);
        }
        self.latest = now;
        self.bytes += message.length;
        self.messages.push_back((message, delivery));
    }

    /// Whether a batch is to be given out.
    pub(super) fn is_due(&self, now: Instant, limits: &Limits, at_once: bool) -> bool {
        let is_full = self.messages.len() >= limits.batch || self.bytes >= limits.bytes;
        let is_quiet = now >= self.quiet_from() || now >= self.first + LONGEST_LINGER;
        !self.messages.is_empty() && (is_full || is_quiet || at_once)
    }

    /// When those that have come make a batch, if no more do.
    pub(super) fn quiet_from(&self) -> Instant {
        self.latest + LINGER
    }

    /// How many messages and bytes the next batch has.
    pub(super) fn next_batch(&self, limits: &Limits) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for (message, _) in self.messages.iter().take(limits.batch) {
            if count > 0 && bytes + message.length > limits.bytes {
                break;
            }
            (count, bytes) = (count + 1, bytes + message.length);
        }
        (count, bytes)
    }
}
