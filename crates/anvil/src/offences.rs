//! From offences to bans: so many within a time are too many.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use config::{Config, param};
use ipc::anvil::{ClientNetwork, Offence};

use crate::window::Window;

/// The most networks that are watched at a time.
const MAX_WATCHED: usize = 100_000;

/// How many offences of a kind lead to a ban, 0 for never, and within which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    failed_logins: u64,
    unknown_recipients: u64,
    protocol_errors: u64,
    pub(crate) within: Duration,
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            failed_logins: config.get(param::SMTPD_CLIENT_BAN_FAILED_LOGINS),
            unknown_recipients: config.get(param::SMTPD_CLIENT_BAN_UNKNOWN_RECIPIENTS),
            protocol_errors: config.get(param::SMTPD_CLIENT_BAN_PROTOCOL_ERRORS),
            within: config.get(param::SMTPD_CLIENT_BAN_TIME_UNIT),
        }
    }

    const fn limit(&self, offence: Offence) -> u64 {
        match offence {
            Offence::FailedLogin => self.failed_logins,
            Offence::UnknownRecipient => self.unknown_recipients,
            Offence::ProtocolError => self.protocol_errors,
        }
    }
}

/// The offences of all networks.
#[derive(Debug, Default)]
pub(crate) struct Offences(HashMap<(ClientNetwork, Offence), Window>);

impl Offences {
    /// Counts one; gives the reason for a ban when it is one too many.
    pub(crate) fn count(
        &mut self,
        rules: &Rules,
        network: ClientNetwork,
        offence: Offence,
        now: Instant,
    ) -> Option<String> {
        let limit = rules.limit(offence);
        if limit == 0 || !self.has_room(rules.within, now) {
            return None;
        }
        let window = self.0.entry((network, offence)).or_insert_with(|| Window::new(now));
        window.renew(now, rules.within);
        window.count += 1;
        if window.count < limit {
            return None;
        }
        self.0.remove(&(network, offence));
        Some(format!("{limit} {} within {} seconds", offence.words(), rules.within.as_secs()))
    }

    /// Whether none counts any more.
    pub(crate) fn are_over(&mut self, within: Duration, now: Instant) -> bool {
        self.0.retain(|_, window| !window.is_over(now, within));
        self.0.is_empty()
    }

    /// Forgets what is over when there is much of it.
    fn has_room(&mut self, within: Duration, now: Instant) -> bool {
        self.0.len() < MAX_WATCHED || {
            self.are_over(within, now);
            self.0.len() < MAX_WATCHED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_of_a_kind_within_the_time_lead_to_a_ban() {
        let rules = Rules {
            failed_logins: 3,
            unknown_recipients: 2,
            protocol_errors: 0,
            within: Duration::from_secs(60),
        };
        let mut offences = Offences::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let mut count = |network, offence, seconds| {
            offences.count(&rules, network, offence, start + Duration::from_secs(seconds))
        };
        assert_eq!(count(one, Offence::FailedLogin, 0), None);
        assert_eq!(count(one, Offence::FailedLogin, 1), None);
        assert_eq!(count(other, Offence::FailedLogin, 2), None);
        assert_eq!(count(one, Offence::UnknownRecipient, 2), None);
        assert!((0..9).all(|n| count(one, Offence::ProtocolError, n).is_none()));
        assert_eq!(count(one, Offence::FailedLogin, 3).as_deref(), Some("3 failed logins within 60 seconds"));
        assert_eq!(count(one, Offence::FailedLogin, 4), None);
        assert_eq!(count(one, Offence::UnknownRecipient, 62), None);
        assert!(count(one, Offence::UnknownRecipient, 63).is_some());
        assert!(!offences.are_over(rules.within, start + Duration::from_secs(61)));
        assert!(offences.are_over(rules.within, start + Duration::from_secs(64)));
    }
}
