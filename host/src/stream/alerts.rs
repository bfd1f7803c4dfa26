//! What somebody should look at, told through the stream's own source. Of one kind of trouble one alert goes out a minute; what
//! comes meanwhile is counted.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use pype_plugin::Frame;
use pype_plugin::stream::{NewRecord, RecordsBuilder};
use serde_json::json;

/// Of one kind so often at most.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// So many wait while nobody takes them; the oldest go first.
const WAITING: usize = 16;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// The source cannot be reached.
    Source,
    /// What handles records keeps failing.
    Handling,
    /// What is done cannot be committed.
    Commit,
    /// Nobody takes dead letters.
    DeadLetters,
    /// The stream has stopped.
    Stopped,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Handling => "handling",
            Self::Commit => "commit",
            Self::DeadLetters => "dead_letters",
            Self::Stopped => "stopped",
        })
    }
}

/// Alerts of a stream.
pub(super) struct Alerts {
    stream: String,
    topic: String,
    /// When each kind was told last, and how often it has come since.
    told: BTreeMap<Trouble, (Timestamp, u64)>,
    waiting: VecDeque<Alert>,
    sending: Option<Alert>,
}

struct Alert {
    trouble: Trouble,
    message: String,
    /// How often it has come, since the last of its kind was told.
    times: u64,
    at: Timestamp,
}

impl Alerts {
    /// None yet.
    pub(super) fn new(stream: &str, topic: &str) -> Self {
        let (stream, topic) = (stream.to_owned(), topic.to_owned());
        Self { stream, topic, told: BTreeMap::new(), waiting: VecDeque::new(), sending: None }
    }

    /// Something is wrong.
    pub(super) fn raise(&mut self, trouble: Trouble, message: String, now: Timestamp) {
        let times = match self.told.get_mut(&trouble) {
            Some((since, missed)) if now.duration_since(*since) < AGAIN => {
                *missed += 1;
                return;
            }
            Some((_, missed)) => *missed + 1,
            None => 1,
        };
        self.told.insert(trouble, (now, 0));
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Alert { trouble, message, times, at: now });
    }

    /// The next to be published, if none is on its way.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if self.sending.is_some() {
            return None;
        }
        let alert = self.waiting.pop_front()?;
        let Alert { trouble, message, times, at } = &alert;
        let (stream, kind) = (&self.stream, trouble.to_string());
        let text = json!({"stream": stream, "kind": kind, "message": message, "times": times, "at": at.to_string()});
        let (key, text) = (self.stream.as_bytes(), text.to_string());
        let mut record = RecordsBuilder::default();
        let new =
            NewRecord { topic: &self.topic, key: Some(key), value: Some(text.as_bytes()), ..NewRecord::default() };
        record.push(new, []);
        self.sending = Some(alert);
        Some(record.finish_frame())
    }

    /// What became of the one that was on its way: it was taken, or goes out again, or will never be taken.
    pub(super) fn sent(&mut self, again: bool) {
        if let Some(alert) = self.sending.take().filter(|_| again) {
            self.waiting.push_front(alert);
        }
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::stream::Records;

    use super::*;

    async fn next(alerts: &mut Alerts) -> Option<serde_json::Value> {
        let frame = alerts.next()?;
        let records = Records::read(&frame).await.expect("records");
        let record = records[0].get(0);
        assert_eq!((record.topic(), record.key()), ("alerts", Some(b"orders".as_slice())));
        let mut told: serde_json::Value = serde_json::from_slice(record.value().expect("a value")).expect("JSON");
        assert!(told.as_object_mut().and_then(|told| told.shift_remove("at")).is_some());
        Some(told)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_793_922_600 + second).expect("a time")
    }

    #[tokio::test]
    async fn each_kind_is_told_once_a_minute_until_it_is_taken() {
        let mut alerts = Alerts::new("orders", "alerts");
        for (second, message) in [(0, "first"), (30, "second"), (59, "third")] {
            alerts.raise(Trouble::Source, message.to_owned(), at(second));
        }
        alerts.raise(Trouble::DeadLetters, "full".to_owned(), at(59));
        let first = json!({"stream": "orders", "kind": "source", "message": "first", "times": 1});
        assert_eq!(next(&mut alerts).await, Some(first.clone()));
        assert_eq!(next(&mut alerts).await, None, "one at a time");
        alerts.sent(true);
        assert_eq!(next(&mut alerts).await, Some(first));
        alerts.sent(false);
        let other = next(&mut alerts).await.expect("the other kind");
        assert_eq!((&other["kind"], &other["message"]), (&json!("dead_letters"), &json!("full")));
        alerts.sent(false);
        assert_eq!(next(&mut alerts).await, None);
        alerts.raise(Trouble::Source, "fourth".to_owned(), at(70));
        let fourth = next(&mut alerts).await.expect("a minute is over");
        assert_eq!((&fourth["message"], &fourth["times"]), (&json!("fourth"), &json!(3)));
    }
}
