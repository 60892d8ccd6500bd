//! Whether there are nearly as many sessions as master.cf allows. New sessions are then given the limits of
//! `stress = yes`: shorter times and fewer errors, so that places become free for those who have mail.

use std::sync::atomic::{AtomicBool, Ordering};

use ipc::log;

/// The state of a service.
pub(crate) struct Stress {
    service: String,
    /// From so many sessions on.
    begins: u32,
    /// Below so many it is over; the gap keeps it from coming and going.
    ends: u32,
    on: AtomicBool,
}

impl Stress {
    /// For a service with this limit of sessions; without one there is no stress.
    pub(crate) fn new(service: &str, max_sessions: Option<u32>) -> Self {
        let part =
            |percent: u32| max_sessions.map_or(u32::MAX, |most| most.saturating_mul(percent).div_ceil(100));
        Self { service: service.to_owned(), begins: part(90), ends: part(70), on: AtomicBool::new(false) }
    }

    /// Whether a session that begins as one of so many begins under stress.
    pub(crate) fn with(&self, sessions: u32) -> bool {
        let was = self.on.load(Ordering::Relaxed);
        let is = if was { sessions >= self.ends } else { sessions >= self.begins };
        if is != was && self.on.swap(is, Ordering::Relaxed) == was {
            let service = &self.service;
            if is {
                log::warning!(
                    "service \"{service}\" has {sessions} sessions and is near its limit in master.cf: \
                     new sessions have the limits of stress = yes"
                );
            } else {
                log::info!("service \"{service}\" is no longer near its limit of sessions");
            }
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stress_begins_near_the_limit_and_lasts_until_it_is_well_over() {
        let stress = Stress::new("smtp", Some(100));
        let states: Vec<bool> = [1, 89, 90, 89, 71, 70, 69, 89].map(|n| stress.with(n)).into();
        assert_eq!(states, [false, false, true, true, true, true, false, false]);
        let stress = Stress::new("smtp", None);
        assert!(!stress.with(1_000_000));
    }
}
