//! What main.cf says to the loop.

use std::time::Duration;

use config::{Config, param};

use crate::retry::Times;

/// Open files besides those of active messages.
const OTHER_FILES: u64 = 256;

pub(super) struct Settings {
    pub(super) times: Times,
    /// How many files this process may have open, if that is known.
    pub(super) files: Option<u64>,
    /// `qmgr_message_active_limit`, and no more than there may be open files: each active message has one.
    pub(super) active_limit: usize,
    /// `qmgr_message_recipient_limit`
    pub(super) recipient_limit: usize,
    /// `qmgr_message_recipient_minimum`
    pub(super) recipient_minimum: usize,
    /// Transports whose mail waits until it is asked for.
    pub(super) defer_transports: Vec<String>,
    /// `soft_bounce`
    pub(super) soft_bounce: bool,
    /// `confirm_delay_cleared`
    pub(super) confirm_delay_cleared: bool,
    /// `queue_run_delay`: how often `incoming/` is looked at for messages whose arrival nobody told of.
    pub(super) scan_interval: Duration,
    /// `qmgr_clog_warn_time`, if it is to be warned.
    pub(super) clog_warn_time: Option<Duration>,
    /// `fast_flush_domains` names some.
    pub(super) has_flush_domains: bool,
}

impl Settings {
    pub(super) fn new(config: &Config, files: Option<u64>) -> Self {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let most = files.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES).max(1));
        let clog_warn_time = config.get(param::QMGR_CLOG_WARN_TIME);
        let warns = config.get(param::HELPFUL_WARNINGS) && !clog_warn_time.is_zero();
        Self {
            times: Times::new(config),
            files,
            active_limit: number(config.get(param::QMGR_MESSAGE_ACTIVE_LIMIT).min(most)),
            recipient_limit: number(config.get(param::QMGR_MESSAGE_RECIPIENT_LIMIT)),
            recipient_minimum: number(config.get(param::QMGR_MESSAGE_RECIPIENT_MINIMUM)).max(1),
            defer_transports: config.get(param::DEFER_TRANSPORTS),
            soft_bounce: config.get(param::SOFT_BOUNCE),
            confirm_delay_cleared: config.get(param::CONFIRM_DELAY_CLEARED),
            scan_interval: config.get(param::QUEUE_RUN_DELAY),
            clog_warn_time: warns.then_some(clog_warn_time),
            has_flush_domains: !config.get(param::FAST_FLUSH_DOMAINS).is_empty(),
        }
    }
}
