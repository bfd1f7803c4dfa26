//! Many messages at a time, each confirmed.

use std::collections::VecDeque;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use pype_plugin::prelude::*;
use pype_plugin::stream::Record;

use crate::connection::Connection;
use crate::subject;

/// How many are under way at a time.
const AT_ONCE: usize = 512;

/// A message to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Message {
    /// A record, to the subject that its topic is. Dead letters have `source-topic` and `offset`, and are one message however
    /// often they are sent: not that which the record itself was when it was published first.
    pub(crate) fn of_record(record: Record<'_>) -> Result<Self> {
        subject::check_target(record.topic())?;
        let headers = headers(record.headers())?;
        let mut message = Self {
            subject: record.topic().to_owned(),
            headers,
            payload: Bytes::copy_from_slice(record.value().unwrap_or_default()),
        };
        let text = |name| record.headers().filter(|(one, _)| *one == name).last()?.1;
        if let (Some(topic), Some(offset)) = (text("source-topic"), text("offset")) {
            message.identify(&format!("{}:{}", String::from_utf8_lossy(topic), String::from_utf8_lossy(offset)));
        }
        Ok(message)
    }

    /// Of messages with the same one, a stream takes the first within its window for duplicates.
    pub(crate) fn identify(&mut self, id: &str) {
        self.headers.insert(NATS_MESSAGE_ID, one_line(id));
    }
}

/// The headers of a message. Those that servers take as instructions, of which the message that they came with has had the good,
/// are left out, but for the last `Nats-Msg-Id`.
pub(crate) fn headers<'a>(all: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        let value = one_line(&String::from_utf8_lossy(value.unwrap_or_default()));
        if name == AsRef::<str>::as_ref(&NATS_MESSAGE_ID) {
            headers.insert(NATS_MESSAGE_ID, value);
        } else if !is_instruction(name) {
            headers.append(header_name(name)?, value);
        }
    }
    Ok(headers)
}

fn header_name(name: &str) -> Result<HeaderName> {
    let refused =
        || Error::new(ErrorKind::Data, "bad-header", format!("the header `{}` is none of NATS", name.escape_debug()));
    if name.is_empty() {
        return Err(refused());
    }
    name.parse().map_err(|cause| refused().caused_by(cause))
}

/// Whether servers do something because of it: expect, roll up, expire, schedule.
fn is_instruction(name: &str) -> bool {
    const TOLD: [&str; 5] = ["nats-subject", "nats-num-delivered", "nats-stream", "nats-sequence", "nats-time-stamp"];
    let name = name.to_ascii_lowercase();
    name.starts_with("nats-") && !TOLD.contains(&name.as_str())
}

/// A header ends with its line.
pub(crate) fn one_line(text: &str) -> HeaderValue {
    let text = if text.contains(['\r', '\n']) { text.escape_debug().to_string() } else { text.to_owned() };
    text.parse().expect("its lines have been joined")
}

impl Connection {
    /// Publishes to streams, in this order. When it returns, the servers have written all of them to their files; how many
    /// bytes that were.
    pub(crate) async fn store_all(&self, messages: Vec<Message>) -> Result<u64> {
        let mut bytes = 0;
        let mut sent: VecDeque<Sent> = VecDeque::with_capacity(AT_ONCE.min(messages.len()));
        for Message { subject, headers, payload } in messages {
            if sent.len() >= AT_ONCE
                && let Some(oldest) = sent.pop_front()
            {
                self.confirmed(oldest).await?;
            }
            let (doing, size) = (format!("publish to `{subject}`"), payload.len());
            bytes += size as u64;
            let mut message = PublishMessage::build().payload(payload);
            if !headers.is_empty() {
                message = message.headers(headers);
            }
            let stored = self.within(&doing, self.jetstream().send_publish(subject.clone(), message)).await?;
            let stored = stored
                .or_else(|cause| self.not_stored(&doing, &subject, &cause, size).and(Err(unexpected(&subject))))?;
            sent.push_back(Sent { doing, subject, size, stored });
        }
        for one in sent {
            self.confirmed(one).await?;
        }
        Ok(bytes)
    }

    async fn confirmed(&self, Sent { doing, subject, size, stored }: Sent) -> Result<()> {
        match self.within(&doing, stored).await? {
            Ok(_) => Ok(()),
            Err(cause) => {
                self.not_stored(&doing, &subject, &cause, size)?.map(drop).ok_or_else(|| unexpected(&subject))
            }
        }
    }

    /// Publishes to whoever listens, in this order. When it returns, a server has all of them; how many bytes that were.
    pub(crate) async fn publish_all(&self, messages: Vec<Message>) -> Result<u64> {
        let connects = self.connects();
        let mut bytes = 0;
        for Message { subject, headers, payload } in messages {
            let (doing, size) = (format!("publish to `{subject}`"), payload.len());
            bytes += size as u64;
            let client = self.client();
            let sent = match headers.is_empty() {
                true => self.within(&doing, client.publish(subject, payload)).await?,
                false => self.within(&doing, client.publish_with_headers(subject, headers, payload)).await?,
            };
            sent.map_err(|cause| self.not_published(&doing, &cause, size))?;
        }
        let doing = "publish messages";
        self.step(doing, self.round_trip()).await?;
        // What was sent before the connection was lost may not have come to the server that has answered.
        if self.connects() == connects { Ok(bytes) } else { Err(self.unreachable(doing)) }
    }
}

/// A message whose confirmation is awaited.
struct Sent {
    doing: String,
    subject: String,
    size: usize,
    stored: PublishAckFuture,
}

/// No condition goes with these messages.
fn unexpected(subject: &str) -> Error {
    let message = format!("the stream of `{subject}` does not have what the headers expect of it");
    Error::new(ErrorKind::Data, "wrong-sequence", message)
}

#[cfg(test)]
mod tests {
    use pype_plugin::stream::{NewRecord, Records, RecordsBuilder};

    use super::*;

    fn check(own: &[(&str, Option<&[u8]>)], expect: &[(&str, &str)]) {
        let mut batch = RecordsBuilder::default();
        let record = NewRecord { topic: "dead.orders", value: Some(b"v"), ..NewRecord::default() };
        batch.push(record, own.iter().copied());
        let records = Records::try_from(&batch.finish()).expect("records");
        let message = Message::of_record(records.get(0)).expect("a message");
        let all = message.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let mut all: Vec<(&str, &str)> = all.map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        all.sort_unstable();
        assert_eq!((message.subject.as_str(), all.as_slice()), ("dead.orders", expect));
    }

    #[test]
    fn dead_letters_are_one_message_each_and_instruct_no_server() {
        check(&[], &[]);
        check(&[("a", Some(b"1")), ("a", None), ("b", Some(b"x\ny"))], &[("a", ""), ("a", "1"), ("b", "x\\ny")]);
        check(&[("Nats-Msg-Id", Some(b"1")), ("Nats-Msg-Id", Some(b"2"))], &[("Nats-Msg-Id", "2")]);
        check(
            &[
                ("Nats-Msg-Id", Some(b"own")),
                ("Nats-Rollup", Some(b"all")),
                ("Nats-Expected-Last-Sequence", Some(b"7")),
                ("Nats-Subject", Some(b"orders.new")),
                ("source-topic", Some(b"orders")),
                ("offset", Some(b"42")),
            ],
            &[
                ("Nats-Msg-Id", "orders:42"),
                ("Nats-Subject", "orders.new"),
                ("offset", "42"),
                ("source-topic", "orders"),
            ],
        );
    }

    #[test]
    fn names_that_are_no_headers_and_subjects_that_are_none_are_refused() {
        for name in ["", "a b", "a:b"] {
            assert_eq!(headers([(name, None)].into_iter()).expect_err(name).code, "bad-header");
        }
    }
}
