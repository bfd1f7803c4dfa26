//! Numbers for people: `336,776 rows`, `41.2 MB`, `1.3 s`.

use std::time::Duration;

pub(in crate::cli) fn rows(count: u64) -> String {
    format!("{} row{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In powers of ten, as disks are sold.
pub(in crate::cli) fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    scaled(count as f64, &[" kB", " MB", " GB", " TB", " PB", " EB"])
}

/// Rows in a second: `1.2M rows/s`. None before there is anything to divide.
pub(in crate::cli) fn rate(rows: u64, elapsed: Duration) -> Option<String> {
    let seconds = elapsed.as_secs_f64();
    if rows == 0 || seconds < 0.1 {
        return None;
    }
    let rate = rows as f64 / seconds;
    let text = if rate < 1000.0 { format!("{rate:.0}") } else { scaled(rate, &["k", "M", "G", "T"]) };
    Some(format!("{text} rows/s"))
}

fn scaled(number: f64, units: &[&str]) -> String {
    let mut scaled = number / 1000.0;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be printed as 1000.0 belongs to the next unit.
    while scaled >= 999.95 {
        let Some(next) = units.next() else { break };
        unit = next;
        scaled /= 1000.0;
    }
    format!("{scaled:.1}{unit}")
}

pub(in crate::cli) fn seconds(seconds: f64) -> String {
    if seconds < 0.01 {
        return format!("{:.1} ms", seconds * 1000.0);
    }
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::from_secs_f64(seconds.round().min(1e15)).as_secs();
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min {rest:02} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 1, 999, 1000, 336_776].map(rows), ["0 rows", "1 row", "999 rows", "1,000 rows", "336,776 rows"]);
        assert_eq!(
            [0, 999, 1000, 41_200_000, 999_999, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 kB", "41.2 MB", "1.0 MB", "18.4 EB"]
        );
        assert_eq!(
            [0.0042, 0.74, 12.34, 61.0, 3725.4].map(seconds),
            ["4.2 ms", "0.74 s", "12.3 s", "1 min 01 s", "1 h 02 min 05 s"]
        );
        assert_eq!(rate(2_400_000, Duration::from_secs(2)).as_deref(), Some("1.2M rows/s"));
        assert_eq!(rate(50, Duration::from_millis(1)), None);
    }
}
