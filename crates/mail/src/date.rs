//! Dates as mail writes them: RFC 5322 section 3.3.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment in a place, displayed as `Thu,  1 Jan 1970 00:00:00 +0000 (UTC)`.
///
/// The day is padded with a blank, as Postfix does. The caller looks up offset and name of the zone: this crate knows
/// no clock.
#[derive(Clone, Debug)]
pub struct Date<'a> {
    /// The moment; fractions of a second are dropped.
    pub time: SystemTime,
    /// The zone's offset from UTC in seconds, east positive, at that moment.
    pub offset: i32,
    /// The zone's name for the comment at the end, as `CEST`; empty for no comment.
    pub zone: &'a str,
}

impl fmt::Display for Date<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        // A clock beyond the year 10000 is a broken clock; its date only has to be of the right form.
        let local = i64::try_from(since.min(253_402_214_400)).unwrap_or(0) + i64::from(self.offset);
        let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        // 1 January 1970 was a Thursday.
        let weekday = DAYS[usize::try_from((days + 3).rem_euclid(7)).unwrap_or(0)];
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{weekday}, {day:2} {} {year} {hour:02}:{minute:02}:{second:02} ", MONTHS[month])?;
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.unsigned_abs() / 60;
        write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)?;
        if self.zone.is_empty() { Ok(()) } else { write!(f, " ({})", self.zone) }
    }
}

/// Year, month from 0 and day from 1 of the day that is `days` after 1 January 1970, in the Gregorian calendar.
///
/// Counts years from March, so that the leap day is a year's last, in eras of 400 years or 146,097 days.
fn civil(days: i64) -> (i64, usize, i64) {
    let from_era_zero = days + 719_468;
    let era = from_era_zero.div_euclid(146_097);
    let day_of_era = from_era_zero.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    (year, usize::try_from(month).unwrap_or(0), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64, offset: i32, zone: &str) -> String {
        Date { time: UNIX_EPOCH + Duration::from_secs(seconds), offset, zone }.to_string()
    }

    #[test]
    fn dates_have_the_form_of_rfc_5322() {
        assert_eq!(date(0, 0, "UTC"), "Thu,  1 Jan 1970 00:00:00 +0000 (UTC)");
        assert_eq!(date(1_709_251_199, 0, ""), "Thu, 29 Feb 2024 23:59:59 +0000");
        assert_eq!(date(1_709_251_199, 3600, "CET"), "Fri,  1 Mar 2024 00:59:59 +0100 (CET)");
        assert_eq!(date(951_782_400, -12_600, "NST"), "Mon, 28 Feb 2000 20:30:00 -0330 (NST)");
        assert_eq!(date(1_795_362_868, 19_800, ""), "Sun, 22 Nov 2026 21:24:28 +0530");
        assert_eq!(date(0, -3600, ""), "Wed, 31 Dec 1969 23:00:00 -0100");
    }
}
