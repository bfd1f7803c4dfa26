//! Moments as people write them, in UTC: where a report is read says nothing about where the run was.

const DAY_MS: u64 = 86_400_000;

/// `2025-11-21 14:15:12 UTC`.
pub(super) fn moment(at_ms: u64) -> String {
    format!("{} {} UTC", date(at_ms), clock(at_ms))
}

/// `2025-11-21T14:15:12.000Z`, for programs.
pub(super) fn machine(at_ms: u64) -> String {
    format!("{}T{}.{:03}Z", date(at_ms), clock(at_ms), at_ms % 1000)
}

/// `14:15:12`.
pub(super) fn clock(at_ms: u64) -> String {
    let seconds = at_ms % DAY_MS / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The day of the Gregorian calendar, by the method of H. Hinnant (*chrono-compatible low-level date algorithms*, 2013): a
/// year that begins in March has its leap day at the end, and 400 years have always the same number of days.
fn date(at_ms: u64) -> String {
    let days = at_ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_763_734_512_345), "2025-11-21 14:15:12 UTC");
        assert_eq!(machine(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
    }
}
