//! What the configuration says about notifications.

use std::time::Duration;

use config::{Config, param};
use ipc::log;
use mail::Address;
use service::Fatal;

/// The parameters of bounce, read once.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `myhostname`
    pub(crate) hostname: String,
    /// `myorigin`
    pub(crate) origin: String,
    /// `notify_classes`
    pub(crate) classes: Classes,
    /// The sender of notices to the postmaster: mail from it is never answered.
    pub(crate) double_bounce: Address,
    /// `2bounce_notice_recipient`
    pub(crate) double_bounce_recipient: Address,
    /// `bounce_notice_recipient`
    pub(crate) bounce_recipient: Address,
    /// `delay_notice_recipient`
    pub(crate) delay_recipient: Address,
    /// `bounce_size_limit`: the largest message that is returned whole.
    pub(crate) size_limit: u64,
    /// `header_size_limit`: how much of a header is returned.
    pub(crate) header_limit: usize,
    /// `maximal_queue_lifetime`
    pub(crate) lifetime: Duration,
    /// `internal_mail_filter_classes` has `bounce`.
    pub(crate) filter: bool,
}

/// The `notify_classes` that matter here: of what the postmaster wants a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// Of what was returned to its sender, and of what can be returned to nobody.
    pub(crate) bounce: bool,
    /// Of what can be returned to nobody.
    pub(crate) double_bounce: bool,
    /// Of what is delayed.
    pub(crate) delay: bool,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Result<Self, Fatal> {
        let origin = config.get(param::MYORIGIN);
        let recipient = |name: &str, value: String| {
            complete(&value, &origin).ok_or_else(|| Fatal::new(format!("{name} = {value}: not an address")))
        };
        let classes = config.get(param::NOTIFY_CLASSES);
        Ok(Self {
            hostname: config.get(param::MYHOSTNAME),
            classes: Classes::new(&classes),
            double_bounce: recipient("double_bounce_sender", config.get(param::DOUBLE_BOUNCE_SENDER))?,
            double_bounce_recipient: recipient(
                "2bounce_notice_recipient",
                config.get(param::DOUBLE_BOUNCE_NOTICE_RECIPIENT),
            )?,
            bounce_recipient: recipient(
                "bounce_notice_recipient",
                config.get(param::BOUNCE_NOTICE_RECIPIENT),
            )?,
            delay_recipient: recipient("delay_notice_recipient", config.get(param::DELAY_NOTICE_RECIPIENT))?,
            size_limit: config.get(param::BOUNCE_SIZE_LIMIT),
            header_limit: usize::try_from(config.get(param::HEADER_SIZE_LIMIT)).unwrap_or(usize::MAX),
            lifetime: config.get(param::MAXIMAL_QUEUE_LIFETIME),
            filter: config.get(param::INTERNAL_MAIL_FILTER_CLASSES).iter().any(|class| class == "bounce"),
            origin,
        })
    }

    /// Whether mail from this sender is a notice to the postmaster.
    pub(crate) fn is_double_bounce(&self, sender: &Address) -> bool {
        sender.as_str().eq_ignore_ascii_case(self.double_bounce.as_str())
    }
}

impl Classes {
    fn new(words: &[String]) -> Self {
        const KNOWN: [&str; 8] =
            ["bounce", "2bounce", "data", "delay", "policy", "protocol", "resource", "software"];
        let has = |class: &str| words.iter().any(|word| word.eq_ignore_ascii_case(class));
        for word in words.iter().filter(|word| !KNOWN.contains(&word.to_ascii_lowercase().as_str())) {
            log::warning!("notify_classes: unknown class {word}; known are {}", KNOWN.join(", "));
        }
        Self { bounce: has("bounce"), double_bounce: has("2bounce") || has("bounce"), delay: has("delay") }
    }
}

/// A name without a domain belongs to `myorigin`.
fn complete(value: &str, origin: &str) -> Option<Address> {
    let value = value.trim();
    let address =
        if value.contains('@') { Address::new(value) } else { Address::new(format!("{value}@{origin}")) };
    address.ok().filter(|address| !address.local_part().is_empty())
}
