//! What the configuration says about notifications.

use std::time::Duration;

use config::templates::{Purpose, Templates};
use config::{Config, param};
use ipc::bounce::Kind;
use ipc::log;
use mail::Address;
use service::Fatal;

/// The parameters of bounce, read once.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `myhostname`
    pub(crate) hostname: String,
    /// The mail system's name in the field names of a report.
    pub(crate) label: String,
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
    /// `bounce_template_file`, by purpose.
    pub(crate) texts: [Text; 4],
}

/// A template with its names replaced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) charset: String,
    /// The value of `From:`.
    pub(crate) from: String,
    pub(crate) subject: String,
    pub(crate) postmaster_subject: String,
    /// The text, in `charset`.
    pub(crate) body: Vec<u8>,
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
        let (hostname, origin) = (config.get(param::MYHOSTNAME), config.get(param::MYORIGIN));
        let address = |name: &str, value: String, domain: &str| {
            complete(&value, domain).ok_or_else(|| Fatal::new(format!("{name} = {value}: not an address")))
        };
        let recipient = |name, value| address(name, value, &origin);
        let classes = config.get(param::NOTIFY_CLASSES);
        Ok(Self {
            label: label(&config.get(param::MAIL_NAME)),
            classes: Classes::new(&classes),
            // Not `myorigin`, which may be the name of several hosts.
            double_bounce: address(
                "double_bounce_sender",
                config.get(param::DOUBLE_BOUNCE_SENDER),
                &hostname,
            )?,
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
            texts: texts(config, &origin),
            hostname,
        })
    }

    /// Whether mail from this sender is a notice to the postmaster.
    pub(crate) fn is_double_bounce(&self, sender: &Address) -> bool {
        sender.as_str().eq_ignore_ascii_case(self.double_bounce.as_str())
    }

    /// The text of this kind of report.
    pub(crate) fn text(&self, kind: Kind) -> &Text {
        let purpose = match kind {
            Kind::Failure => Purpose::Failure,
            Kind::Delay => Purpose::Delay,
            Kind::Success => Purpose::Success,
            Kind::Trace => Purpose::Verify,
        };
        &self.texts[purpose as usize]
    }
}

impl Classes {
    fn new(words: &[String]) -> Self {
        let has = |class: &str| words.iter().any(|word| word.eq_ignore_ascii_case(class));
        Self { bounce: has("bounce"), double_bounce: has("2bounce") || has("bounce"), delay: has("delay") }
    }
}

/// What programs look for in reports is `X-Postfix-Queue-ID` and `Diagnostic-Code: X-Postfix`: that names the form of
/// the fields, whoever wrote them. An operator who gives the mail system another name gets it here, as there.
fn label(mail_name: &str) -> String {
    let name = if mail_name == param::MAIL_NAME.row().default { "Postfix" } else { mail_name };
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn texts(config: &Config, origin: &str) -> [Text; 4] {
    let (templates, found) = Templates::from_config(config);
    found.iter().for_each(|remark| log::warning!("{remark}"));
    let (host, domain) = (config.get(param::MYHOSTNAME), config.get(param::MYDOMAIN));
    let readable = config.get(param::SMTPUTF8_ENABLE);
    let shown = |name: String| if readable { idna::domain_to_unicode(&name).0 } else { name };
    let (host, domain) = (shown(host), shown(domain));
    [Purpose::Failure, Purpose::Delay, Purpose::Success, Purpose::Verify].map(|purpose| {
        let template = templates.get(purpose);
        let (body, _) = template.expand(config, &[("myhostname", &host), ("mydomain", &domain)]);
        let is_plain = template.charset.eq_ignore_ascii_case("us-ascii") && !body.is_ascii();
        Text {
            charset: if is_plain { "utf-8".to_owned() } else { template.charset.clone() },
            from: with_domain(&template.from, origin),
            subject: template.subject.clone(),
            postmaster_subject: template.postmaster_subject.clone(),
            body,
        }
    })
}

/// An address header whose names without a domain belong to `origin`.
fn with_domain(value: &str, origin: &str) -> String {
    let mut out = Vec::with_capacity(value.len() + origin.len());
    let complete = |address: &Address| -> Result<_, std::convert::Infallible> {
        let is_name = address.domain().is_none() && !address.is_null();
        Ok(is_name.then(|| Address::new(format!("{address}@{origin}")).ok()).flatten())
    };
    match mail::header_address::rewrite(value.as_bytes(), &mut out, complete) {
        Ok(_) => String::from_utf8_lossy(&out).into_owned(),
        Err(never) => match never {},
    }
}

/// A name without a domain belongs to `domain`.
fn complete(value: &str, domain: &str) -> Option<Address> {
    let value = value.trim();
    let address =
        if value.contains('@') { Address::new(value) } else { Address::new(format!("{value}@{domain}")) };
    address.ok().filter(|address| !address.local_part().is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A policy as nothing but a few names make it.
    pub(crate) fn policy(classes: Classes) -> Policy {
        let main_cf = "myhostname = mail.example.org\nmyorigin = example.org\ndelay_notice_recipient = delay\n\
                       2bounce_notice_recipient = 2bounce\nbounce_size_limit = 1000\n";
        Policy { classes, ..from_main_cf(main_cf) }
    }

    fn from_main_cf(main_cf: &str) -> Policy {
        let snapshot = config::Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) =
            Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        Policy::new(&config).unwrap()
    }

    #[test]
    fn names_are_completed() {
        let policy = policy(Classes::default());
        assert_eq!(policy.double_bounce.as_str(), "double-bounce@mail.example.org");
        assert_eq!(policy.bounce_recipient.as_str(), "postmaster@example.org");
        assert_eq!(policy.text(Kind::Delay).from, "Mail Delivery System <MAILER-DAEMON@example.org>");
        assert_eq!(
            with_domain("MAILER-DAEMON (The Mail System)", "a.b"),
            "MAILER-DAEMON@a.b (The Mail System)"
        );
    }

    #[test]
    fn fields_carry_the_name_that_programs_know_unless_the_operator_has_one() {
        assert_eq!(policy(Classes::default()).label, "Postfix");
        assert_eq!(from_main_cf("mail_name = Own Mail\n").label, "Own-Mail");
    }

    #[test]
    fn host_names_are_shown_as_people_write_them() {
        let text = |main_cf: &str| from_main_cf(main_cf).text(Kind::Failure).clone();
        let shown = text("myhostname = xn--gre-6ka8i.example\nsmtputf8_enable = yes\n");
        assert!(String::from_utf8_lossy(&shown.body).contains("host größe.example."), "{shown:?}");
        assert_eq!(shown.charset, "utf-8");
        let plain = text("myhostname = xn--gre-6ka8i.example\nsmtputf8_enable = no\n");
        assert!(plain.body.is_ascii() && plain.charset == "us-ascii");
    }
}
