//! Where a row belongs: directories and file names that no id can break out of.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The directory of events that name no simulation. No id is encoded to it: `@` is not in their alphabet.
const NO_SIMULATION: &str = "@none";
/// The longest part of a path. File systems take 255 bytes.
const LONGEST: usize = 128;
/// What is left of a longer one, before the hash.
const KEPT: usize = 80;

const NANOSECONDS_AN_HOUR: i64 = 3_600_000_000_000;
const HOURS_A_DAY: i64 = 24;

/// An hour in UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hour(i64);

impl Hour {
    pub(crate) fn of(timestamp_ns: i64) -> Self {
        Self(timestamp_ns.div_euclid(NANOSECONDS_AN_HOUR))
    }
}

/// `{simulation_id}/{YYYY-MM-DD}/{HH}`.
pub(crate) fn directory(simulation_id: &str, hour: Hour) -> String {
    let (year, month, day) = date(hour.0.div_euclid(HOURS_A_DAY));
    let hour = hour.0.rem_euclid(HOURS_A_DAY);
    format!("{}/{year:04}-{month:02}-{day:02}/{hour:02}", part(simulation_id))
}

/// `{last sequence}-{tag}.parquet`. Names sort as their sequences do.
pub(crate) fn file_name(last: u64, tag: &str) -> String {
    format!("{last:020}-{tag}.parquet")
}

/// The last sequence of a file of that tag; of another file, none.
pub(crate) fn last_sequence(file_name: &str, tag: &str) -> Option<u64> {
    let last = file_name.strip_suffix(".parquet")?.strip_suffix(tag)?.strip_suffix('-')?;
    if last.len() == 20 { last.parse().ok() } else { None }
}

/// An id as a part of a path: another id has another part. Letters, digits, `.`, `_` and `-` stay; every other byte is `%` and
/// two digits. So are `.` and `_` in front, since readers pass over names that begin with them. What is too long ends with a hash,
/// after a `~`, which nothing else is encoded to.
pub(crate) fn part(id: &str) -> String {
    if id.is_empty() {
        return NO_SIMULATION.to_owned();
    }
    let mut encoded = String::with_capacity(id.len());
    for (at, byte) in id.bytes().enumerate() {
        match byte {
            b'.' | b'_' if at == 0 => escape(byte, &mut encoded),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => encoded.push(char::from(byte)),
            _ => escape(byte, &mut encoded),
        }
    }
    if encoded.len() <= LONGEST { encoded } else { shortened(&encoded, id) }
}

fn escape(byte: u8, into: &mut String) {
    write!(into, "%{byte:02X}").expect("a string takes all");
}

fn shortened(encoded: &str, id: &str) -> String {
    // Not in the middle of an escape.
    let end = (KEPT - 2..=KEPT).find(|end| encoded.as_bytes()[*end] == b'%').unwrap_or(KEPT);
    let mut part = format!("{}~", &encoded[..end]);
    for byte in &Sha256::digest(id)[..16] {
        write!(part, "{byte:02x}").expect("a string takes all");
    }
    part
}

/// The date of a day since 1970: Howard Hinnant's `civil_from_days`,
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_row_belongs_to_its_hour_in_utc() {
        let check =
            |timestamp_ns, expect: &str| assert_eq!(directory("s", Hour::of(timestamp_ns)), format!("s/{expect}"));
        check(0, "1970-01-01/00");
        check(-1, "1969-12-31/23");
        check(NANOSECONDS_AN_HOUR - 1, "1970-01-01/00");
        check(NANOSECONDS_AN_HOUR, "1970-01-01/01");
        check(1_709_251_199_999_999_999, "2024-02-29/23");
        check(1_709_251_200_000_000_000, "2024-03-01/00");
        check(i64::MIN, "1677-09-21/00");
        check(i64::MAX, "2262-04-11/23");
    }

    #[test]
    fn ids_stay_inside_and_apart() {
        let check = |id: &str, expect: &str| assert_eq!(part(id), expect);
        check("sim-1_A.b", "sim-1_A.b");
        check("", "@none");
        check("@none", "%40none");
        check("..", "%2E.");
        check(".hidden", "%2Ehidden");
        check("_temporary", "%5Ftemporary");
        check("../../x", "%2E.%2F..%2Fx");
        check("/etc", "%2Fetc");
        check("a\0b", "a%00b");
        check("é", "%C3%A9");
        check("%2E", "%252E");
        check("a\\b c", "a%5Cb%20c");
        check("~", "%7E");
    }

    #[test]
    fn long_ids_are_cut_and_still_apart() {
        let long = |c: char, n: usize| c.to_string().repeat(n);
        assert_eq!(part(&long('x', 128)).len(), 128);
        let ids = [
            long('x', 129),
            long('x', 130),
            long('x', 300),
            long('é', 43),
            long('é', 44),
            long('é', 300),
            long('/', 300),
        ];
        let parts: HashSet<_> = ids.iter().map(|id| part(id)).collect();
        assert_eq!(parts.len(), ids.len());
        for part in parts {
            assert!(part.len() <= LONGEST, "{part}");
            let (kept, hash) = part.split_once('~').expect("a hash");
            assert_eq!(hash.len(), 32);
            assert!(!kept.contains('%') || kept.len() % 3 == 0, "{part}");
        }
    }

    #[test]
    fn names_tell_their_last_sequence() {
        let name = file_name(42, "00ff");
        assert_eq!(name, "00000000000000000042-00ff.parquet");
        assert_eq!(last_sequence(&name, "00ff"), Some(42));
        assert_eq!(last_sequence(&file_name(u64::MAX, "00ff"), "00ff"), Some(u64::MAX));
        for other in
            ["00000000000000000042-00fe.parquet", ".x.tmp", "42-00ff.parquet", "x00000000000000000042-00ff.parquet"]
        {
            assert_eq!(last_sequence(other, "00ff"), None, "{other}");
        }
    }
}
