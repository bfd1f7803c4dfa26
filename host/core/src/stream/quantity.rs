//! Amounts and addresses as people write them.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::name::NameError;

/// So many bytes: `64MiB`, `10 MB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub NonZeroU64);

impl ByteSize {
    pub(super) const PATTERN: &str = "^0*[1-9][0-9]{0,8} ?(B|kB|MB|GB|KiB|MiB|GiB)?$";
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const UNITS: [(&str, u64); 8] = [
            ("", 1),
            ("B", 1),
            ("kB", 1000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
        ];
        let bytes = amount(text, &UNITS).and_then(NonZeroU64::new).map(ByteSize);
        let rule = "a number and perhaps a unit, `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`, such as `64MiB`";
        bytes.ok_or_else(|| NameError { what: "size", given: text.to_owned(), rule })
    }
}

/// So much time: `5s`, `200ms`, `1 min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Interval {
    pub(super) const PATTERN: &str = "^0*[1-9][0-9]{0,8} ?(ms|s|min|h)$";
}

impl FromStr for Interval {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];
        let interval = amount(text, &UNITS).filter(|ms| *ms > 0).map(|ms| Interval(Duration::from_millis(ms)));
        let rule = "a number and a unit, `ms`, `s`, `min` or `h`, such as `5s`";
        interval.ok_or_else(|| NameError { what: "time interval", given: text.to_owned(), rule })
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_secs_f64().serialize(serializer)
    }
}

/// A number of nine digits at most, perhaps a space, and a unit.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit.strip_prefix(' ').unwrap_or(unit))?.1;
    let spaced_nothing = unit == " ";
    let number: u64 = digits.parse().ok().filter(|number| *number < 1_000_000_000 && !spaced_nothing)?;
    number.checked_mul(factor)
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Listen(pub SocketAddr);

impl Listen {
    pub(super) const PATTERN: &str = r"^([0-9]{1,3}([.][0-9]{1,3}){3}|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$";
}

impl FromStr for Listen {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rule = "an address of IP and a port, such as `127.0.0.1:9091`";
        text.parse().map(Listen).map_err(|_| NameError { what: "listen address", given: text.to_owned(), rule })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| {
            let size = text.parse::<ByteSize>().ok().map(|size| size.0.get());
            assert_eq!(size, bytes, "{text}");
        };
        check("64MiB", Some(64 << 20));
        check("10 kB", Some(10_000));
        check("4096", Some(4096));
        for wrong in ["", "0", "0MiB", "-1", "1.5MiB", "64 mib", "64  MiB", "MiB", "1 ", "9999999999", "5s"] {
            check(wrong, None);
        }
    }

    #[test]
    fn intervals() {
        let check = |text: &str, ms: Option<u64>| {
            let interval = text.parse::<Interval>().ok().map(|interval| interval.0);
            assert_eq!(interval, ms.map(Duration::from_millis), "{text}");
        };
        check("5s", Some(5000));
        check("200 ms", Some(200));
        check("1h", Some(3_600_000));
        for wrong in ["", "5", "0s", "1.5s", "5 sec", "s", "-1s"] {
            check(wrong, None);
        }
    }
}
