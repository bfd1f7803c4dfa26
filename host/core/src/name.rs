//! The names of things, each a type that only a well-formed text can become.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: {rule}")]
pub struct NameError {
    /// "module id", "flow name", …
    pub what: &'static str,
    /// The text that was refused.
    pub given: String,
    /// What it must look like.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $accepts:expr, $pattern:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What it looks like, as a regular expression of JSON Schema.
            pub const PATTERN: &str = $pattern;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) {
                    return Ok($name(text.to_owned()));
                }
                Err(NameError { what: $what, given: text.to_owned(), rule: $rule })
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The id of a module within one flow: `source_csv`.
    NodeId,
    "module id",
    |text| text.len() <= 64 && starts_with_letter(text, |c| c == '_'),
    "^[a-zA-Z][a-zA-Z0-9_]{0,63}$",
    "a letter, then letters, digits and `_`, 64 at most"
);
name!(
    /// The name under which a module is registered: `csv_source`.
    ModuleName,
    "module name",
    |text| text.len() <= 64 && starts_with_letter(text, |c| c == '_'),
    "^[a-zA-Z][a-zA-Z0-9_]{0,63}$",
    "a letter, then letters, digits and `_`, 64 at most"
);
name!(
    /// A port of a module: `data`, `in_left`. A family of ports, `in*`, is what a module declares; one of them is a port.
    PortName,
    "port name",
    |text| text.len() <= 64 && starts_with_letter(text, |c| c == '_'),
    "^[a-zA-Z][a-zA-Z0-9_]{0,63}$",
    "a letter, then letters, digits and `_`, 64 at most; where a module declares `in*`, write `in_1`"
);
name!(
    /// The name of a flow: `sample_etl`.
    FlowName,
    "flow name",
    |text| text.len() <= 128 && starts_with_letter(text, |c| c == '_' || c == '-'),
    "^[a-zA-Z][a-zA-Z0-9_-]{0,127}$",
    "a letter, then letters, digits, `_` and `-`, 128 at most"
);
name!(
    /// The name of a pipeline: `upload`.
    PipelineName,
    "pipeline name",
    |text| text.len() <= 128 && starts_with_letter(text, |c| c == '_' || c == '-'),
    "^[a-zA-Z][a-zA-Z0-9_-]{0,127}$",
    "a letter, then letters, digits, `_` and `-`, 128 at most"
);
name!(
    /// The name of a stream: `orders`.
    StreamName,
    "stream name",
    |text| text.len() <= 128 && starts_with_letter(text, |c| c == '_' || c == '-'),
    "^[a-zA-Z][a-zA-Z0-9_-]{0,127}$",
    "a letter, then letters, digits, `_` and `-`, 128 at most"
);
name!(
    /// Where dead letters go: a topic of Kafka, or a subject of JetStream without wildcards: `orders.dlq`.
    TopicName,
    "topic name",
    |text| text.len() <= 249 && starts_with(text, |c| c.is_ascii_alphanumeric(), |c| "._-".contains(c)),
    "^[a-zA-Z0-9][a-zA-Z0-9._-]{0,248}$",
    "a letter or digit, then letters, digits, `.`, `_` and `-`, 249 at most"
);
name!(
    /// A field of a pipeline's context: `file_path`.
    FieldName,
    "field name",
    |text| text.len() <= 64 && starts_with_letter(text, |c| c == '_'),
    "^[a-zA-Z][a-zA-Z0-9_]{0,63}$",
    "a letter, then letters, digits and `_`, 64 at most"
);
name!(
    /// The version of a context: `1.0`, `2025-01`. Versions are the same or not; which is the later, migrations say.
    ContextVersion,
    "context version",
    |text| text.len() <= 32 && starts_with(text, |c| c.is_ascii_alphanumeric(), |c| "._-".contains(c)),
    "^[a-zA-Z0-9][a-zA-Z0-9._-]{0,31}$",
    "a letter or digit, then letters, digits, `.`, `_` and `-`, 32 at most, such as `\"1.0\"`"
);
name!(
    /// A version of three numbers: `1.0.0`.
    Version,
    "version",
    |text| {
        let parts: Vec<&str> = text.split('.').collect();
        parts.len() == 3 && parts.iter().all(|part| is_number(part))
    },
    "^[0-9]{1,9}[.][0-9]{1,9}[.][0-9]{1,9}$",
    "three numbers, `N.N.N`, such as `\"1.0.0\"`"
);
name!(
    /// A day of the calendar: `2025-01-15`.
    Date,
    "date",
    is_date,
    "^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])$",
    "a day of the calendar, `YYYY-MM-DD`"
);

fn starts_with_letter(text: &str, also: impl Fn(char) -> bool) -> bool {
    starts_with(text, |first| first.is_ascii_alphabetic(), also)
}

/// A first character of a kind, then letters, digits, and some others.
fn starts_with(text: &str, first: impl Fn(char) -> bool, also: impl Fn(char) -> bool) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(first) && chars.all(|c| c.is_ascii_alphanumeric() || also(c))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return false;
    }
    if !parts.iter().all(|part| is_number(part)) {
        return false;
    }
    let number = |part: &str| part.parse::<u32>().unwrap_or(0);
    (1..=days_in(number(year), number(month))).contains(&number(day))
}

/// 0 for a month that does not exist.
fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        0 | 13.. => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn ids_start_with_a_letter_and_stay_short() {
        assert!(accepts::<NodeId>("source_csv2"));
        for wrong in ["", "2nd", "_x", "a-b", "a b", "é", &"a".repeat(65)] {
            assert!(!accepts::<NodeId>(wrong), "{wrong}");
        }
        assert!(accepts::<FlowName>("my-flow"));
        assert!(accepts::<PortName>("in_1"));
        assert!(!accepts::<PortName>("in*"));
    }

    #[test]
    fn versions_and_dates() {
        assert!(accepts::<Version>("1.0.0"));
        for wrong in ["1.0", "1.0.0.0", "1.0.x", "v1.0.0", "1..0", ""] {
            assert!(!accepts::<Version>(wrong), "{wrong}");
        }
        assert!(accepts::<Date>("2024-02-29"));
        for wrong in ["2025-02-29", "2025-13-01", "2025-1-1", "15-01-2025", "2025-01-00", "today"] {
            assert!(!accepts::<Date>(wrong), "{wrong}");
        }
    }
}
