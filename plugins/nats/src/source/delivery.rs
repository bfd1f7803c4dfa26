//! What a message of a consumer says of itself.

use async_nats::{HeaderMap, Message};
use pype_plugin::{Error, ErrorKind, Result};

/// Which message of its stream it is, and which time it comes. It is in the subject that acknowledgements go to
/// (ADR-15 of NATS): `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.CONSUMER-SEQUENCE.TIME.PENDING`, with a domain and an account
/// after `ACK` on other servers, and perhaps something random at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) sequence: u64,
    /// 1 at first.
    pub(crate) deliveries: u64,
    /// When the stream took it, in milliseconds since 1970.
    pub(crate) stored_ms: i64,
}

impl Delivery {
    pub(crate) fn of(reply: &str) -> Option<Self> {
        let tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let before = match tokens.clone().count() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let mut numbers = tokens.skip(before).map(str::parse::<u64>);
        let mut number = || numbers.next()?.ok();
        let (deliveries, sequence, _, stored_ns) = (number()?, number()?, number()?, number()?);
        Some(Self { sequence, deliveries, stored_ms: i64::try_from(stored_ns / 1_000_000).ok()? })
    }
}

/// Where a record's key is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyFrom {
    Subject,
    /// A part of the subject, the first is 0.
    Token(usize),
    Header(String),
}

impl KeyFrom {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let token = |number: &str| number.parse::<usize>().ok()?.checked_sub(1).map(Self::Token);
        let parsed = match text.split_once(':') {
            None if text == "subject" => Some(Self::Subject),
            Some(("token", number)) => token(number),
            Some(("header", name)) if !name.is_empty() => Some(Self::Header(name.to_owned())),
            None | Some(_) => None,
        };
        parsed.ok_or_else(|| {
            Error::new(ErrorKind::Config, "bad-key", format!("`key`: `{text}` says of nothing that it is the key"))
                .hint("`subject`, `token:1` or `header:NAME`")
        })
    }

    /// The key, if the message has it.
    pub(crate) fn of<'a>(&self, message: &'a Message) -> Option<&'a [u8]> {
        match self {
            Self::Subject => Some(message.subject.as_bytes()),
            Self::Token(at) => message.subject.split('.').nth(*at).map(str::as_bytes),
            Self::Header(name) => header(message.headers.as_ref()?, name).map(str::as_bytes),
        }
    }
}

/// The first value of a header. A name that no header can have has none.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(one, _)| AsRef::<str>::as_ref(one) == name);
    found.and_then(|(_, values)| values.first()).map(|value| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_acknowledgements_tells_which_message_it_is() {
        let expect = Some(Delivery { sequence: 42, deliveries: 2, stored_ms: 1_700_000_000_123 });
        for (reply, expect) in [
            ("$JS.ACK.orders.pype.2.42.7.1700000000123456789.9", expect),
            ("$JS.ACK.hub.ACCOUNT.orders.pype.2.42.7.1700000000123456789.9", expect),
            ("$JS.ACK.hub.ACCOUNT.orders.pype.2.42.7.1700000000123456789.9.x1", expect),
            ("$JS.ACK.orders.pype.2.x.7.1700000000123456789.9", None),
            ("$JS.ACK.orders", None),
            ("_INBOX.a.b", None),
        ] {
            assert_eq!(Delivery::of(reply), expect, "{reply}");
        }
    }

    #[test]
    fn keys_come_from_subjects_and_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("Customer", "c7");
        let message = Message {
            subject: "orders.eu.new".into(),
            reply: None,
            payload: "".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        for (text, expect) in [
            ("subject", Some("orders.eu.new")),
            ("token:2", Some("eu")),
            ("token:4", None),
            ("header:Customer", Some("c7")),
            ("header:a b", None),
        ] {
            assert_eq!(KeyFrom::parse(text).map(|from| from.of(&message)), Ok(expect.map(str::as_bytes)), "{text}");
        }
        for text in ["", "key", "token:0", "token:x", "header:"] {
            assert_eq!(KeyFrom::parse(text).expect_err(text).code, "bad-key");
        }
    }
}
