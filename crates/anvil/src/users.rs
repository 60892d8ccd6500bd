//! What authenticated users have used up of their limits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipc::anvil::{Answer, UserLimits};

use crate::window::Window;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The most users that are counted at a time; names come from a table of the site's own.
const MAX_USERS: usize = 100_000;

/// All users that have sent something today.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<String, [Window; 4]>);

impl Users {
    /// Whether nobody has sent anything within a day; forgets those who have not.
    pub(crate) fn are_over(&mut self, now: Instant) -> bool {
        self.0.retain(|_, windows| !windows.iter().all(|window| window.is_over(now, DAY)));
        self.0.is_empty()
    }

    /// Counts what a user wants to send, unless a limit forbids it: then nothing is counted.
    pub(crate) fn spend(
        &mut self,
        user: &str,
        messages: u64,
        recipients: u64,
        limits: &UserLimits,
        now: Instant,
    ) -> Answer {
        if self.0.len() >= MAX_USERS {
            self.are_over(now);
        }
        let rows = [
            (messages, limits.messages_per_hour, HOUR, "messages per hour"),
            (messages, limits.messages_per_day, DAY, "messages per day"),
            (recipients, limits.recipients_per_hour, HOUR, "recipients per hour"),
            (recipients, limits.recipients_per_day, DAY, "recipients per day"),
        ];
        // One spelling of a name must not be worth more than another.
        let windows = self.0.entry(user.to_lowercase()).or_insert_with(|| [Window::new(now); 4]);
        for (window, (wanted, limit, length, words)) in windows.iter_mut().zip(rows) {
            window.renew(now, length);
            if wanted > 0 && limit > 0 && window.count.saturating_add(wanted) > limit {
                let is_first = !std::mem::replace(&mut window.noticed, true);
                return Answer::Exceeded { limit: format!("{limit} {words}"), is_first };
            }
        }
        for (window, (wanted, ..)) in windows.iter_mut().zip(rows) {
            window.count = window.count.saturating_add(wanted);
        }
        Answer::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_for_its_time_and_is_told_once() {
        let limits = UserLimits { messages_per_hour: 2, recipients_per_day: 5, ..UserLimits::default() };
        let mut users = Users::default();
        let start = Instant::now();
        let mut spend = |user: &str, messages, recipients, hours: u32| {
            users.spend(user, messages, recipients, &limits, start + HOUR * hours)
        };
        let exceeded = |limit: &str, is_first| Answer::Exceeded { limit: limit.to_owned(), is_first };
        assert_eq!(spend("joe", 1, 0, 0), Answer::Done);
        assert_eq!(spend("Joe", 1, 0, 0), Answer::Done);
        assert_eq!(spend("joe", 1, 0, 0), exceeded("2 messages per hour", true));
        assert_eq!(spend("joe", 1, 0, 0), exceeded("2 messages per hour", false));
        assert_eq!(spend("ann", 1, 0, 0), Answer::Done);
        assert_eq!(spend("joe", 0, 5, 0), Answer::Done);
        assert_eq!(spend("joe", 0, 1, 1), exceeded("5 recipients per day", true));
        assert_eq!(spend("joe", 1, 0, 1), Answer::Done);
        assert_eq!(spend("joe", 0, 1, 24), Answer::Done);
        assert_eq!(spend("joe", 0, 6, 24), exceeded("5 recipients per day", true));
        assert!(!users.are_over(start + HOUR * 47));
        assert!(users.are_over(start + HOUR * 48));
    }
}
