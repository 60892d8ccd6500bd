//! Local time as headers show it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mail::date::Date;

/// Turns times into date texts; remembers the last, which many messages of a busy second share.
#[derive(Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    second: Duration,
    text: String,
}

impl Clock {
    pub(crate) fn new(zone: TimeZone) -> Self {
        Self { zone, second: Duration::MAX, text: String::new() }
    }

    /// The RFC 5322 date of a time since the Unix epoch.
    pub(crate) fn date(&mut self, since_epoch: Duration) -> &str {
        let second = Duration::from_secs(since_epoch.as_secs());
        if self.second != second {
            let time = point_in_time(second);
            let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
            let zone = self.zone.to_offset_info(timestamp);
            let date = Date { time, offset: zone.offset().seconds(), zone: zone.abbreviation() };
            self.text = date.to_string();
            self.second = second;
        }
        &self.text
    }
}

/// A time that a client claims; one that no clock can show becomes the epoch.
fn point_in_time(since_epoch: Duration) -> SystemTime {
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}
