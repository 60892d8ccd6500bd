//! When to try again, when to warn and when to give up. No I/O, no clock.

use std::time::Duration;

use config::{Config, param};
use mail::QueueId;

/// The times of main.cf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    minimal_backoff: Duration,
    maximal_backoff: Duration,
    /// By how many percent times between attempts are spread.
    jitter: u32,
    maximal_lifetime: Duration,
    bounce_lifetime: Duration,
    /// Zero for never.
    delay_warning: Duration,
}

impl Times {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            minimal_backoff: config.get(param::MINIMAL_BACKOFF_TIME),
            maximal_backoff: config.get(param::MAXIMAL_BACKOFF_TIME),
            jitter: u32::try_from(config.get(param::BACKOFF_JITTER)).unwrap_or_default().min(100),
            maximal_lifetime: config.get(param::MAXIMAL_QUEUE_LIFETIME),
            bounce_lifetime: config.get(param::BOUNCE_QUEUE_LIFETIME),
            delay_warning: config.get(param::DELAY_WARNING_TIME),
        }
    }

    /// How long a message of this age waits: as long as it has waited already, within the configured bounds, and spread
    /// over a part of that time by its name, so that what was put off together does not come back together.
    pub(crate) fn backoff_after(&self, age: Duration, id: QueueId) -> Duration {
        let (least, most) = (self.minimal_backoff, self.maximal_backoff.max(self.minimal_backoff));
        let base = age.clamp(least, most);
        let span = base * self.jitter / 100;
        let latest = (base + span).min(most);
        let earliest = latest.saturating_sub(span).max(least);
        earliest + (latest - earliest) * chance(id, age) / u32::from(u16::MAX)
    }

    /// Whether a message of this age is given up; notifications (null sender) have a time of their own.
    pub(crate) fn is_expired(&self, age: Duration, null_sender: bool) -> bool {
        age >= if null_sender { self.bounce_lifetime } else { self.maximal_lifetime }
    }

    /// Whether the sender of a message of this age is to be told that it is late.
    pub(crate) fn is_late(&self, age: Duration) -> bool {
        !self.delay_warning.is_zero() && age >= self.delay_warning
    }
}

/// A number below 2^16 that looks like chance and is another one for each message and attempt: no generator's state has
/// to be kept, and a test can foresee it. (FNV-1a, and a last round that spreads its low bits.)
fn chance(id: QueueId, age: Duration) -> u32 {
    let age = age.as_secs().to_le_bytes();
    let hash = id.as_str().bytes().chain(age).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    u32::try_from(mixed >> 48).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    const TIMES: Times = Times {
        minimal_backoff: Duration::from_secs(300),
        maximal_backoff: Duration::from_secs(4000),
        jitter: 25,
        maximal_lifetime: Duration::from_secs(5 * 86400),
        bounce_lifetime: Duration::from_secs(86400),
        delay_warning: Duration::from_secs(4 * 3600),
    };

    fn waits(times: Times, age: u64) -> Vec<u64> {
        let id = || QueueId::generate(SystemTime::now());
        (0..1000).map(|_| times.backoff_after(Duration::from_secs(age), id()).as_secs()).collect()
    }

    #[test]
    fn the_wait_follows_the_age_within_its_bounds() {
        let exact = Times { jitter: 0, ..TIMES };
        let wait = |age| waits(exact, age)[0];
        assert_eq!((wait(0), wait(1000), wait(100_000)), (300, 1000, 4000));
    }

    #[test]
    fn what_was_put_off_together_comes_back_spread() {
        for (age, earliest, latest) in
            [(0, 300, 375), (1000, 1000, 1250), (3800, 3050, 4000), (100_000, 3000, 4000)]
        {
            let waits = waits(TIMES, age);
            assert!(waits.iter().all(|wait| (earliest..=latest).contains(wait)), "{age}");
            // A storm is what one tenth of the time gets more than a quarter of.
            let tenth = (latest - earliest) / 10 + 1;
            for from in (earliest..latest).step_by(usize::try_from(tenth).unwrap()) {
                let here = waits.iter().filter(|wait| (from..from + tenth).contains(wait)).count();
                assert!(here < 250, "{age}: {here} of 1000 from {from}");
            }
        }
    }

    #[test]
    fn notifications_expire_by_their_own_time() {
        let two_days = Duration::from_secs(2 * 86400);
        assert!(!TIMES.is_expired(two_days, false));
        assert!(TIMES.is_expired(two_days, true));
    }

    #[test]
    fn a_warning_has_its_time_and_can_be_left_out() {
        assert!(!TIMES.is_late(Duration::from_secs(3600)) && TIMES.is_late(Duration::from_secs(14_400)));
        assert!(!Times { delay_warning: Duration::ZERO, ..TIMES }.is_late(Duration::MAX));
    }

    proptest! {
        #[test]
        fn every_wait_is_within_the_bounds(
            least in 1_u64..10_000, more in 0_u64..100_000, jitter in 0_u32..=100, age in 0_u64..1_000_000,
        ) {
            let times = Times {
                minimal_backoff: Duration::from_secs(least),
                maximal_backoff: Duration::from_secs(least + more),
                jitter,
                ..TIMES
            };
            let wait = times.backoff_after(Duration::from_secs(age), QueueId::generate(SystemTime::now()));
            prop_assert!(wait >= times.minimal_backoff && wait <= times.maximal_backoff);
        }
    }
}
