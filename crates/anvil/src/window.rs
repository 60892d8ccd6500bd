//! Counting over a time: from the first event on, until the time is over; then it begins anew.

use std::time::{Duration, Instant};

/// A count that is forgotten when its time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    began: Instant,
    pub(crate) count: u64,
    /// Somebody was told that it is full.
    pub(crate) noticed: bool,
}

impl Window {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { began: now, count: 0, noticed: false }
    }

    /// Begins anew if the time is over.
    pub(crate) fn renew(&mut self, now: Instant, length: Duration) {
        if self.is_over(now, length) {
            *self = Self::new(now);
        }
    }

    pub(crate) fn is_over(&self, now: Instant, length: Duration) -> bool {
        now.saturating_duration_since(self.began) >= length
    }
}
