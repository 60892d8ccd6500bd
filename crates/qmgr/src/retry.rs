//! When to try again, and when to give up. No I/O.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use config::{Config, param};
use mail::QueueId;

/// The times of main.cf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    minimal_backoff: Duration,
    maximal_backoff: Duration,
    maximal_lifetime: Duration,
    bounce_lifetime: Duration,
}

impl Times {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            minimal_backoff: config.get(param::MINIMAL_BACKOFF_TIME),
            maximal_backoff: config.get(param::MAXIMAL_BACKOFF_TIME),
            maximal_lifetime: config.get(param::MAXIMAL_QUEUE_LIFETIME),
            bounce_lifetime: config.get(param::BOUNCE_QUEUE_LIFETIME),
        }
    }

    /// How long a message of this age waits: as long as it has waited already, within the configured bounds.
    pub(crate) fn backoff_after(&self, age: Duration) -> Duration {
        age.clamp(self.minimal_backoff, self.maximal_backoff.max(self.minimal_backoff))
    }

    /// Whether a message of this age is given up; notifications (null sender) have a time of their own.
    pub(crate) fn is_expired(&self, age: Duration, null_sender: bool) -> bool {
        age >= if null_sender { self.bounce_lifetime } else { self.maximal_lifetime }
    }
}

/// The deferred messages, by the time of their next attempt: some 40 bytes each.
///
/// An entry says when to look, not that the message is still there: claiming one that an operator removed finds
/// nothing, and that is all.
#[derive(Default)]
pub(crate) struct Deferred(BinaryHeap<Reverse<(u64, QueueId)>>);

impl Deferred {
    pub(crate) fn add(&mut self, id: QueueId, next_attempt: SystemTime) {
        self.0.push(Reverse((seconds(next_attempt), id)));
    }

    /// Takes the next message that is due.
    pub(crate) fn take_due(&mut self, now: SystemTime) -> Option<QueueId> {
        let Reverse((time, _)) = self.0.peek()?;
        if *time > seconds(now) {
            return None;
        }
        self.0.pop().map(|Reverse((_, id))| id)
    }

    /// Makes everything due.
    pub(crate) fn flush(&mut self) {
        self.0 = self.0.drain().map(|Reverse((_, id))| Reverse((0, id))).collect();
    }

    /// How long until something is due.
    pub(crate) fn next_in(&self, now: SystemTime) -> Option<Duration> {
        self.0.peek().map(|Reverse((time, _))| Duration::from_secs(time.saturating_sub(seconds(now))))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whole seconds since the epoch, rounded up, so that nothing is due early.
fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        minimal_backoff: Duration::from_secs(300),
        maximal_backoff: Duration::from_secs(4000),
        maximal_lifetime: Duration::from_secs(5 * 86400),
        bounce_lifetime: Duration::from_secs(86400),
    };

    #[test]
    fn the_wait_follows_the_age_within_its_bounds() {
        let wait = |age| TIMES.backoff_after(Duration::from_secs(age)).as_secs();
        assert_eq!((wait(0), wait(1000), wait(100_000)), (300, 1000, 4000));
    }

    #[test]
    fn notifications_expire_by_their_own_time() {
        let two_days = Duration::from_secs(2 * 86400);
        assert!(!TIMES.is_expired(two_days, false));
        assert!(TIMES.is_expired(two_days, true));
    }

    #[test]
    fn deferred_messages_come_when_they_are_due_or_flushed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (early, late) = (QueueId::generate(now), QueueId::generate(now));
        let mut deferred = Deferred::default();
        deferred.add(late, now + Duration::from_secs(100));
        deferred.add(early, now + Duration::from_secs(10));
        assert_eq!(deferred.take_due(now), None);
        assert_eq!(deferred.next_in(now), Some(Duration::from_secs(10)));
        assert_eq!(deferred.take_due(now + Duration::from_secs(10)), Some(early));
        deferred.flush();
        assert_eq!(deferred.take_due(now), Some(late));
        assert_eq!(deferred.len(), 0);
    }
}
