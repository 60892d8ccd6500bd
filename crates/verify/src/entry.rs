//! What is kept of an address, and when it is to be found out again. No I/O, no clock.

use std::time::Duration;

use config::{Config, param};
use ipc::verify::Standing;

/// How long a probe is waited for before another is sent, in seconds.
pub(crate) const PROBE_TIME: u64 = 1000;

/// How long a failure counts that is not to be remembered: those who wait for the probe are to hear of it.
const MOMENT: u64 = 60;

/// What is known of an address. Times are seconds since the Unix epoch, 0 for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) standing: Standing,
    /// When the last probe was sent whose result did not come yet.
    pub(crate) probed: u64,
    /// When the standing was found out.
    pub(crate) updated: u64,
    pub(crate) text: String,
}

/// The times of `address_verify_*`, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    positive_expire: u64,
    positive_refresh: u64,
    negative_expire: u64,
    negative_refresh: u64,
}

impl Times {
    pub(crate) fn new(config: &Config) -> Self {
        let seconds = |parameter| config.get::<Duration>(parameter).as_secs();
        let longest = if config.get(param::ADDRESS_VERIFY_NEGATIVE_CACHE) { u64::MAX } else { MOMENT };
        Self {
            positive_expire: seconds(param::ADDRESS_VERIFY_POSITIVE_EXPIRE_TIME),
            positive_refresh: seconds(param::ADDRESS_VERIFY_POSITIVE_REFRESH_TIME),
            negative_expire: seconds(param::ADDRESS_VERIFY_NEGATIVE_EXPIRE_TIME).min(longest),
            negative_refresh: seconds(param::ADDRESS_VERIFY_NEGATIVE_REFRESH_TIME).min(longest),
        }
    }
}

impl Entry {
    /// Of an address of which nothing is known.
    pub(crate) fn unknown() -> Self {
        let text = "Address verification in progress".to_owned();
        Self { standing: Standing::Pending, probed: 0, updated: 0, text }
    }

    /// As it is kept: `STANDING:PROBED:UPDATED:TEXT`, the standing as the number that Postfix gives it.
    pub(crate) fn to_value(&self) -> String {
        let number = match self.standing {
            Standing::Deliverable => 0,
            Standing::Deferred => 1,
            Standing::Undeliverable => 2,
            Standing::Pending => 3,
        };
        format!("{number}:{}:{}:{}", self.probed, self.updated, self.text)
    }

    /// What was kept; `None` for what is no entry.
    pub(crate) fn from_value(value: &str) -> Option<Self> {
        let mut parts = value.splitn(4, ':');
        let standing = match parts.next()? {
            "0" => Standing::Deliverable,
            "1" => Standing::Deferred,
            "2" => Standing::Undeliverable,
            "3" => Standing::Pending,
            _ => return None,
        };
        let (probed, updated) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { standing, probed, updated, text: parts.next()?.to_owned() })
    }

    /// Whether a probe is under way that may still answer.
    pub(crate) const fn awaits_probe(&self, now: u64) -> bool {
        now.saturating_sub(self.probed) <= PROBE_TIME
    }

    /// Whether it does not count any more.
    pub(crate) const fn is_expired(&self, times: &Times, now: u64) -> bool {
        let lifetime = match self.standing {
            Standing::Deliverable => times.positive_expire,
            Standing::Deferred | Standing::Undeliverable | Standing::Pending => times.negative_expire,
        };
        self.updated.saturating_add(lifetime) < now
    }

    /// Whether it still counts, but is to be found out anew.
    pub(crate) const fn wants_probe(&self, times: &Times, now: u64) -> bool {
        let age = match self.standing {
            Standing::Deliverable => times.positive_refresh,
            Standing::Deferred | Standing::Undeliverable | Standing::Pending => times.negative_refresh,
        };
        !self.awaits_probe(now) && self.updated.saturating_add(age) < now
    }

    /// Whether a probe's result takes the place of this: one failure does not undo what counts until it is over.
    pub(crate) const fn yields_to(&self, standing: Standing, times: &Times, now: u64) -> bool {
        matches!(standing, Standing::Deliverable)
            || !matches!(self.standing, Standing::Deliverable)
            || self.is_expired(times, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times =
        Times { positive_expire: 1000, positive_refresh: 500, negative_expire: 100, negative_refresh: 50 };

    fn entry(standing: Standing, updated: u64) -> Entry {
        Entry { standing, probed: 0, updated, text: "a:b".into() }
    }

    #[test]
    fn entries_are_read_as_they_are_written() {
        for standing in
            [Standing::Deliverable, Standing::Deferred, Standing::Undeliverable, Standing::Pending]
        {
            let entry = Entry { probed: 7, ..entry(standing, 9) };
            assert_eq!(Entry::from_value(&entry.to_value()), Some(entry));
        }
        for wrong in ["", "4:1:1:x", "0:1:x:y", "0:1:1", "0:-1:1:x"] {
            assert_eq!(Entry::from_value(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn good_news_count_longer_than_bad_news() {
        let now = 10_000;
        let good = |age| entry(Standing::Deliverable, now - age);
        let bad = |age| entry(Standing::Undeliverable, now - age);
        assert!(!good(500).wants_probe(&TIMES, now) && good(501).wants_probe(&TIMES, now));
        assert!(!good(1000).is_expired(&TIMES, now) && good(1001).is_expired(&TIMES, now));
        assert!(!bad(50).wants_probe(&TIMES, now) && bad(51).wants_probe(&TIMES, now));
        assert!(!bad(100).is_expired(&TIMES, now) && bad(101).is_expired(&TIMES, now));
    }

    #[test]
    fn one_probe_is_sent_at_a_time() {
        let now = 10_000;
        let probed = |at| Entry { probed: at, ..entry(Standing::Undeliverable, 1) };
        assert!(!probed(now - PROBE_TIME).wants_probe(&TIMES, now));
        assert!(probed(now - PROBE_TIME - 1).wants_probe(&TIMES, now));
    }

    #[test]
    fn a_single_failure_does_not_undo_a_success() {
        let now = 10_000;
        let good = entry(Standing::Deliverable, now - 600);
        assert!(!good.yields_to(Standing::Undeliverable, &TIMES, now));
        assert!(good.yields_to(Standing::Deliverable, &TIMES, now));
        assert!(entry(Standing::Deliverable, 1).yields_to(Standing::Deferred, &TIMES, now));
        assert!(entry(Standing::Undeliverable, now).yields_to(Standing::Deferred, &TIMES, now));
    }
}
