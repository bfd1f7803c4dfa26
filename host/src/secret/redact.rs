//! Masking: wherever a secret would be written, `***` is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use pype_core::run::event::{OutputInfo, RunEvent};
use pype_plugin::{Error, ErrorFacts};
use serde_json::{Map, Value};

const MASK: &str = "***";
/// Shorter texts stand in too many others: masking them would hide what is no secret, and tell where they are.
const SHORTEST: usize = 4;
/// Of a secret of several lines, such as a private key, each line of this length is masked by itself too: messages are
/// often split into lines.
const SHORTEST_LINE: usize = 8;

/// Masks values wherever they appear: as they are, and as JSON, as part of a URL and in base64. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Forms>>);

struct Forms {
    texts: BTreeSet<String>,
    search: AhoCorasick,
}

impl Redactor {
    /// Masks `values`, those of four bytes and more.
    pub fn of<'v>(values: impl IntoIterator<Item = &'v str>) -> Self {
        let long = values.into_iter().filter(|value| value.len() >= SHORTEST);
        Self::finding(long.flat_map(forms).collect())
    }

    /// Masks what either masks.
    pub fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (_, None) => self.clone(),
            (None, Some(_)) => other.clone(),
            (Some(ours), Some(theirs)) => Self::finding(ours.texts.union(&theirs.texts).cloned().collect()),
        }
    }

    fn finding(texts: BTreeSet<String>) -> Self {
        if texts.is_empty() {
            return Self::default();
        }
        let search = AhoCorasick::new(&texts).expect("secrets are far from the size that an automaton may have");
        Self(Some(Arc::new(Forms { texts, search })))
    }

    /// `text` without what is masked.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(forms) = &self.0 else { return text.into() };
        // By their ends; one that starts before an earlier one, or within it, belongs together with it.
        let mut masked: Vec<(usize, usize)> = Vec::new();
        for found in forms.search.find_overlapping_iter(text) {
            let mut start = found.start();
            while let Some(last) = masked.pop_if(|last| last.1 > start) {
                start = start.min(last.0);
            }
            masked.push((start, found.end()));
        }
        if masked.is_empty() {
            return text.into();
        }
        let mut clean = String::with_capacity(text.len());
        let mut at = 0;
        for (start, end) in masked {
            clean.push_str(&text[at..start]);
            clean.push_str(MASK);
            at = end;
        }
        (clean + &text[at..]).into()
    }

    /// Masks every text in `value`, and a number that is a secret as a whole.
    pub fn value(&self, value: &mut Value) {
        if self.0.is_none() {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if self.text(&number.to_string()) == MASK {
                    *value = MASK.into();
                }
            }
            Value::String(text) => self.string(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(entries) => self.object(entries),
        }
    }

    /// Masks the keys and values of an object.
    pub fn object(&self, entries: &mut Map<String, Value>) {
        if self.0.is_none() {
            return;
        }
        let masked = std::mem::take(entries).into_iter().map(|(mut key, mut value)| {
            self.string(&mut key);
            self.value(&mut value);
            (key, value)
        });
        *entries = masked.collect();
    }

    /// Whether a value holds something that is masked.
    pub fn hides_in(&self, value: &Value) -> bool {
        let mut masked = value.clone();
        self.value(&mut masked);
        masked != *value
    }

    /// Masks `text` in place.
    pub fn string(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.text(text) {
            *text = clean;
        }
    }

    /// An error without them: it is written down, and told to callers.
    pub fn error(&self, mut error: Error) -> Error {
        let ErrorFacts { message, causes, hint, .. } = &mut *error;
        for text in std::iter::once(message).chain(causes).chain(hint) {
            self.string(text);
        }
        error
    }

    /// Masks what modules have put into an event.
    pub fn event(&self, event: &mut RunEvent) {
        match event {
            RunEvent::Global { value, masked, .. } => {
                let whole = value.clone();
                self.value(value);
                *masked = *value != whole;
            }
            RunEvent::NodeFailed { error, .. } => self.value(error),
            RunEvent::NodeFinished { outputs, .. } => {
                outputs.iter_mut().for_each(|OutputInfo { target, .. }| self.string(target));
            }
            RunEvent::SubFlowFinished { reason, .. } => reason.iter_mut().for_each(|reason| self.string(reason)),
            RunEvent::RunStarted { .. }
            | RunEvent::SubFlowStarted { .. }
            | RunEvent::LoopStarted { .. }
            | RunEvent::Stored { .. }
            | RunEvent::NodeStarted { .. }
            | RunEvent::NodeProgress { .. }
            | RunEvent::RunFinished { .. } => {}
        }
    }
}

/// Shows nothing of what it masks.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor of {} texts", self.0.as_ref().map_or(0, |forms| forms.texts.len()))
    }
}

/// How a value may be written.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), escaped_as_json(value), escaped_by_debug(value)];
    forms.extend([percent(value, "%20", false), percent(value, "+", false), percent(value, "%20", true)]);
    forms.extend(in_base64(value));
    let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE && *line != value);
    forms.extend(lines.map(str::to_owned));
    forms
}

fn escaped_as_json(value: &str) -> String {
    within_quotes(&Value::from(value).to_string())
}

/// As `{:?}` writes it, which is what careless records hold.
fn escaped_by_debug(value: &str) -> String {
    within_quotes(&format!("{value:?}"))
}

fn within_quotes(text: &str) -> String {
    text[1..text.len() - 1].to_owned()
}

/// Percent-encoded (RFC 3986), all but unreserved characters.
fn percent(value: &str, space: &str, lower: bool) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        b' ' => space.to_owned(),
        _ if lower => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}

/// The characters that are sure to stand in the base64 (RFC 4648) of any text with the value in it, as in the
/// `user:password` of an HTTP header. What comes before shifts it by nothing, one or two bytes.
fn in_base64(value: &str) -> Vec<String> {
    let alphabets = [&alphabet::STANDARD, &alphabet::URL_SAFE];
    let shifted = |alphabet, shift: usize| {
        let bytes: Vec<u8> = std::iter::repeat_n(0, shift).chain(value.bytes()).collect();
        let text = GeneralPurpose::new(alphabet, NO_PAD).encode(&bytes);
        text[(shift * 8).div_ceil(6)..bytes.len() * 8 / 6].to_owned()
    };
    alphabets.into_iter().flat_map(|alphabet| (0..3).map(move |shift| shifted(alphabet, shift))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use pype_core::run::event::ItemPath;

    use super::*;

    #[track_caller]
    fn check(secrets: &[&str], text: &str, expect: &str) {
        assert_eq!(Redactor::of(secrets.iter().copied()).text(text), expect);
    }

    #[test]
    fn every_form_of_a_secret_is_masked() {
        check(&["hunter2"], "a hunter2 and hunter22", "a *** and ***2");
        check(&["p\"a\nß/ x"], r#"{"password":"p\"a\nß/ x"}"#, r#"{"password":"***"}"#);
        check(&["p\u{1}w'd"], r#"Config { password: "p\u{1}w'd" }"#, r#"Config { password: "***" }"#);
        check(&["pa/s s?"], "https://u:pa%2Fs%20s%3F@h/ q=pa%2Fs+s%3F pa%2fs%20s%3f", "https://u:***@h/ q=*** ***");
        check(&["abc", ""], "abc", "abc");
        check(&[], "abc", "abc");
    }

    #[test]
    fn a_secret_within_base64_is_masked() {
        let secret = "s3cret-päss~word?";
        for around in ["", "u:", "me:", "anna:", "a longer user:"] {
            for alphabet in [&alphabet::STANDARD, &alphabet::URL_SAFE] {
                let engine = GeneralPurpose::new(alphabet, NO_PAD);
                let written = engine.encode(format!("{around}{secret}, more"));
                let masked = Redactor::of([secret]).text(&written).into_owned();
                assert!(masked.contains("***"), "{around}: {masked}");
                let left: usize = masked.replace("***", "").len();
                let hidden = written.len() - left;
                assert!(hidden >= secret.len() * 8 / 6 - 1, "{around}: {hidden} of {written} are hidden");
            }
        }
    }

    #[test]
    fn secrets_that_overlap_are_masked_as_one() {
        check(&["abcdef", "defghi", "cdef"], "xabcdefghix", "x***x");
        check(&["abcd", "abcdefgh"], "abcdefgh abcd", "*** ***");
        check(&["abab"], "abababab!", "***!");
        check(&["abcd", "efgh"], "abcdefgh", "******");
    }

    #[test]
    fn a_line_of_a_key_is_masked_by_itself() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nAB\n-----END KEY-----\n";
        check(&[key], "read `MIIEvQIBADANBg`\nAB", "read `***`\nAB");
    }

    #[test]
    fn two_redactors_mask_what_either_does() {
        let both = Redactor::of(["first"]).and(&Redactor::of(["second"])).and(&Redactor::default());
        assert_eq!(both.text("first, second, third"), "***, ***, third");
        assert_eq!(Redactor::default().and(&Redactor::of(["first"])).text("first"), "***");
    }

    #[test]
    fn values_are_masked_however_deep() {
        let mut value = json!({"hunter2": [1234, 12345, {"k": "a hunter2"}], "n": null});
        Redactor::of(["hunter2", "1234"]).value(&mut value);
        assert_eq!(value, json!({"***": ["***", 12345, {"k": "a ***"}], "n": null}));
    }

    #[test]
    fn events_are_masked_where_modules_have_a_say() {
        let secret = Redactor::of(["hunter2"]);
        let node = || "n".parse().expect("an id");
        let mut events = [
            RunEvent::Global {
                node: node(),
                item: ItemPath::default(),
                name: "url".into(),
                value: json!("ftp://u:hunter2@h"),
                masked: false,
            },
            RunEvent::NodeFailed {
                node: node(),
                item: ItemPath::default(),
                error: json!({"kind": "io", "causes": ["hunter2"]}),
            },
            RunEvent::NodeFinished {
                node: node(),
                item: ItemPath::default(),
                rows: None,
                bytes: 0,
                seconds: 0.0,
                outputs: vec![OutputInfo { target: "s3://hunter2".into(), rows: None, bytes: None }],
            },
        ];
        events.iter_mut().for_each(|event| secret.event(event));
        let text = serde_json::to_string(&events).expect("events are plain data");
        assert!(!text.contains("hunter2") && text.matches("***").count() == 3, "{text}");
    }
}
