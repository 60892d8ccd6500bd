//! Whether a message is worth an offer to qmgr: mostly, what comes next is like what came before.

use std::sync::atomic::{AtomicU32, Ordering};

use ipc::queue_manager::Fate;

/// The most messages that are not offered after one that stayed.
const LONGEST: u32 = 64;

/// What became of the last messages that were offered. Threads share it without a lock: all it decides is what is faster.
#[derive(Debug, Default)]
pub(crate) struct Prospects {
    /// How many are not offered after the next one that stays: twice as many each time.
    step: AtomicU32,
    /// How many are not offered now.
    left_out: AtomicU32,
}

impl Prospects {
    /// Whether the next message is worth it.
    pub(crate) fn are_good(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.left_out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }

    /// Notes what became of one.
    pub(crate) fn note(&self, fate: Fate) {
        let step = match fate {
            Fate::Delivered { .. } => 0,
            Fate::Kept => (2 * self.step.load(Ordering::Relaxed)).clamp(1, LONGEST),
        };
        self.step.store(step, Ordering::Relaxed);
        self.left_out.store(step, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_that_stays_is_offered_ever_more_rarely() {
        let prospects = Prospects::default();
        let mut offered = Vec::new();
        for number in 0..1_000 {
            if prospects.are_good() {
                offered.push(number);
                prospects.note(Fate::Kept);
            }
        }
        assert_eq!(offered[..9], [0, 2, 5, 10, 19, 36, 69, 134, 199]);
        // One that is delivered at once makes up for all that.
        assert!((0..=LONGEST).any(|_| prospects.are_good()));
        prospects.note(Fate::Delivered { relies_on_order: true });
        assert!((0..10).all(|_| prospects.are_good()));
    }
}
