//! Limits of authenticated users: messages and recipients per hour and day, for all, or for one by a table.
//!
//! Anvil counts, for all services of the instance together. Who may not send more is told so, and the postmaster is told
//! once: an account that suddenly sends much is often a stolen one.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Config, Param, param};
use ipc::anvil::{Answer, Client as Anvil, Request, UserLimits};
use ipc::cleanup::{CleanupError, Client as Cleanup, Options};
use ipc::log;
use lookup::{LookupError, Maps, OpenError};
use mail::{Address, Dsn, Envelope, QueueId, Recipient};
use smtp_proto::Reply;

use crate::refusal;

/// The limits of a configuration.
pub(crate) struct Quota {
    usual: UserLimits,
    maps: Maps,
    notice_recipient: String,
    hostname: String,
    anvil: Arc<Anvil>,
}

impl Quota {
    pub(super) fn new(config: &Config, anvil: Arc<Anvil>) -> Result<Self, OpenError> {
        let number = |parameter: Param<u64>| config.get(parameter);
        Ok(Self {
            usual: UserLimits {
                messages_per_hour: number(param::SMTPD_USER_MESSAGES_PER_HOUR),
                messages_per_day: number(param::SMTPD_USER_MESSAGES_PER_DAY),
                recipients_per_hour: number(param::SMTPD_USER_RECIPIENTS_PER_HOUR),
                recipients_per_day: number(param::SMTPD_USER_RECIPIENTS_PER_DAY),
            },
            maps: Maps::open(&config.get(param::SMTPD_USER_LIMIT_MAPS))?,
            notice_recipient: config.get(param::SMTPD_USER_LIMIT_NOTICE_RECIPIENT),
            hostname: config.get(param::MYHOSTNAME),
            anvil,
        })
    }

    /// Counts what a user wants to send; the refusal, if a limit forbids it. Without anvil there are no limits: mail of
    /// people who may send it is worth more than the count.
    pub(crate) fn spend(
        &self,
        cleanup: &Cleanup,
        user: &str,
        messages: u64,
        recipients: u64,
    ) -> Option<Reply> {
        let limits = match self.limits_of(user) {
            Ok(limits) if limits == UserLimits::default() => return None,
            Ok(limits) => limits,
            Err(error) => return Some(refusal::from_lookup(&error, user)),
        };
        let request = Request::Spend { user: user.to_owned(), messages, recipients, limits };
        match self.anvil.ask(&request) {
            Ok(Answer::Exceeded { limit, is_first }) => {
                if is_first {
                    log::warning!("user {user} has used up the limit of {limit}");
                    self.notify(cleanup, user, &limit);
                }
                let text = format!("Error: the limit of {limit} of user {user} is used up");
                Some(Reply::new(450, Dsn::new(4, 7, 1), text))
            }
            Ok(_) => None,
            Err(error) => {
                log::warning!("anvil service: {error}; the limits of user {user} are not looked at");
                None
            }
        }
    }

    fn limits_of(&self, user: &str) -> Result<UserLimits, LookupError> {
        let mut limits = self.usual;
        let own = if self.maps.is_empty() { None } else { self.maps.get(user)? };
        for setting in config::split_list(&own.unwrap_or_default()) {
            let number = setting.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
            match number {
                Some(("messages_per_hour", number)) => limits.messages_per_hour = number,
                Some(("messages_per_day", number)) => limits.messages_per_day = number,
                Some(("recipients_per_hour", number)) => limits.recipients_per_hour = number,
                Some(("recipients_per_day", number)) => limits.recipients_per_day = number,
                _ => log::warning!(
                    "smtpd_user_limit_maps: {setting} of user {user} is no limit such as messages_per_hour=100"
                ),
            }
        }
        Ok(limits)
    }

    /// Tells the postmaster. A notice that cannot be queued is in the log all the same.
    fn notify(&self, cleanup: &Cleanup, user: &str, limit: &str) {
        if self.notice_recipient.is_empty() {
            return;
        }
        match self.queue_notice(cleanup, user, limit) {
            Ok(id) => log::info!("{id}: postmaster notice about the limits of user {user}"),
            Err(error) => log::warning!("postmaster notice about the limits of user {user}: {error}"),
        }
    }

    fn queue_notice(&self, cleanup: &Cleanup, user: &str, limit: &str) -> Result<QueueId, CleanupError> {
        let now = SystemTime::now();
        let id = QueueId::generate(now);
        let recipient = Address::new(self.notice_recipient.clone())
            .map_err(|e| CleanupError::Unreachable(std::io::Error::other(e.to_string())))?;
        let envelope = Envelope {
            smtputf8: !user.is_ascii(),
            ..Envelope::new(
                Address::null(),
                vec![Recipient::new(recipient)],
                now.duration_since(UNIX_EPOCH).unwrap_or_default(),
            )
        };
        let options = Options { filter: false, ..Options::default() };
        let mut submission = cleanup.begin(id, &envelope, options)?;
        let text = self.notice(user, limit);
        submission.write_all(text.as_bytes()).map_err(CleanupError::Unreachable)?;
        submission.commit()?;
        Ok(id)
    }

    fn notice(&self, user: &str, limit: &str) -> String {
        let user: String = user.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let (host, to) = (&self.hostname, &self.notice_recipient);
        format!(
            "From: MAILER-DAEMON (Mail Delivery System)\n\
             To: {to} (Postmaster)\n\
             Subject: Postroad SMTP server: user {user} has used up a limit\n\
             Auto-Submitted: auto-generated\n\
             MIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\n\n\
             This is the mail system at host {host}.\n\n\
             The user {user} has used up the limit of {limit} and may not send\n\
             more until its time is over.\n\n\
             If the user has not sent so much on purpose, somebody else may know\n\
             the password. The limits are smtpd_user_messages_per_hour and its\n\
             like; smtpd_user_limit_maps has limits for single users.\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Snapshot;

    use super::*;

    #[test]
    fn a_table_overrides_single_limits() {
        let main_cf = "compatibility_level = 3.6\nsmtpd_user_messages_per_hour = 10\nsmtpd_user_recipients_per_day = 99\n\
                       smtpd_user_limit_maps = inline:{ { ann = messages_per_hour=0, recipients_per_day=7 }, bob=rubbish }\n";
        let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) = Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        let quota = Quota::new(&config, Arc::new(Anvil::new("/nowhere".into()))).unwrap();
        let usual = UserLimits { messages_per_hour: 10, recipients_per_day: 99, ..UserLimits::default() };
        assert_eq!(quota.limits_of("joe").unwrap(), usual);
        assert_eq!(quota.limits_of("bob").unwrap(), usual);
        let ann = UserLimits { recipients_per_day: 7, ..UserLimits::default() };
        assert_eq!(quota.limits_of("ann").unwrap(), ann);
        // Without anvil, nobody is kept from sending.
        assert_eq!(quota.spend(&Cleanup::new("/nowhere".into()), "joe", 1, 0), None);
    }
}
