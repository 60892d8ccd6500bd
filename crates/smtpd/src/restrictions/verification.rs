//! `reject_unverified_sender` and `reject_unverified_recipient`: whether the next mail system would take mail to an
//! address, as the verify service knows it or finds it out.

use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Param, param};
use ipc::log;
use ipc::verify::{Client, Standing};
use mail::{Address, Dsn};
use smtp_proto::Reply;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::judge::OnFailure;

/// The most of a reason that is passed on: it is a stranger's text.
const REASON_LIMIT: usize = 250;

/// The way to the verify service, and what its answers lead to.
pub(super) struct Verification {
    service: Client,
    service_name: String,
    poll_count: u64,
    poll_delay: Duration,
    sender: Replies,
    recipient: Replies,
}

/// What is said about one kind of address.
struct Replies {
    /// X.1.7 of a sender, X.1.1 of a recipient.
    detail: u16,
    reject_code: u16,
    defer_code: u16,
    /// In place of the real reason; empty for that.
    reason: String,
    on_failure: OnFailure,
}

impl Verification {
    pub(super) fn new(config: &Config) -> Self {
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let service_name: String = config.get(param::ADDRESS_VERIFY_SERVICE_NAME);
        let code = |parameter: Param<u64>| u16::try_from(config.get(parameter)).unwrap_or(450);
        let on_failure = |parameter: Param<String>| OnFailure::new(&config.get(parameter));
        Self {
            service: Client::new(ipc::socket_path(&queue_directory, true, &service_name)),
            service_name,
            poll_count: config.get::<u64>(param::ADDRESS_VERIFY_POLL_COUNT).max(1),
            poll_delay: config.get(param::ADDRESS_VERIFY_POLL_DELAY),
            sender: Replies {
                detail: 7,
                reject_code: code(param::UNVERIFIED_SENDER_REJECT_CODE),
                defer_code: code(param::UNVERIFIED_SENDER_DEFER_CODE),
                reason: config.get(param::UNVERIFIED_SENDER_REJECT_REASON),
                on_failure: on_failure(param::UNVERIFIED_SENDER_TEMPFAIL_ACTION),
            },
            recipient: Replies {
                detail: 1,
                reject_code: code(param::UNVERIFIED_RECIPIENT_REJECT_CODE),
                defer_code: code(param::UNVERIFIED_RECIPIENT_DEFER_CODE),
                reason: config.get(param::UNVERIFIED_RECIPIENT_REJECT_REASON),
                on_failure: on_failure(param::UNVERIFIED_RECIPIENT_TEMPFAIL_ACTION),
            },
        }
    }

    /// What is known of an address; a probe is waited for as long as the client can be kept waiting.
    fn standing(&self, address: &Address) -> std::io::Result<(Standing, String)> {
        let mut left = self.poll_count;
        loop {
            let known = self.service.query(address)?;
            left -= 1;
            if known.0 != Standing::Pending || left == 0 {
                return Ok(known);
            }
            std::thread::sleep(self.poll_delay);
        }
    }
}

/// Refuses an address that mail cannot be delivered to; puts off one of which that is not known.
pub(super) fn reject(e: &Evaluation<'_>, address: Option<&Address>, class: Class) -> Decision {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Decision::Dunno };
    let verification = &e.judge.verification;
    let replies = if class == Class::Sender { &verification.sender } else { &verification.recipient };
    let refusal = |code: u16, text: String| {
        let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, 1, replies.detail);
        Reply::new(code, dsn, format!("<{address}>: {} rejected: {text}", class.words()))
    };
    let (standing, reason) = match verification.standing(&e.judge.complete(address)) {
        Ok(known) => known,
        Err(error) => {
            log::warning!("{} service failure: {error}", verification.service_name);
            return replies.on_failure.decision(refusal(450, "address verification problem".to_owned()));
        }
    };
    let code = match standing {
        Standing::Deliverable => return Decision::Dunno,
        Standing::Deferred | Standing::Pending => replies.defer_code,
        Standing::Undeliverable => replies.reject_code,
    };
    let reason = if replies.reason.is_empty() { printable(&reason) } else { replies.reason.clone() };
    match code {
        0..400 => Decision::Dunno,
        400..500 => replies.on_failure.decision(refusal(code, format!("unverified address: {reason}"))),
        _ => Decision::Refuse(refusal(code, format!("undeliverable address: {reason}"))),
    }
}

fn printable(text: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(REASON_LIMIT).map(printable).collect()
}
