//! Restrictions that fit every list.

use std::time::Duration;

use lookup::LookupError;
use mail::{Address, Dsn};
use smtp_proto::Reply;

use super::class::{Class, refuse};
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// The longest time that `sleep` sleeps: it holds a session.
const MAX_SLEEP: u64 = 600;

pub(super) fn reject(e: &mut Evaluation<'_>, class: Class, _: &Argument) -> Result<Decision, LookupError> {
    Ok(Decision::Refuse(refuse(e.subject, class, e.judge.codes.reject, (7, 1), "Access denied")))
}

pub(super) fn defer(e: &mut Evaluation<'_>, class: Class, _: &Argument) -> Result<Decision, LookupError> {
    Ok(Decision::Refuse(refuse(e.subject, class, e.judge.codes.defer, (3, 2), "Try again later")))
}

pub(super) fn reject_plaintext_session(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    if e.subject.client.tls.is_some() {
        return Ok(Decision::Dunno);
    }
    let code = e.judge.codes.plaintext;
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, 7, 1);
    Ok(Decision::Refuse(Reply::new(code, dsn, "Session encryption is required")))
}

pub(super) fn reject_unauth_pipelining(
    e: &mut Evaluation<'_>,
    class: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    if !e.subject.out_of_step {
        return Ok(Decision::Dunno);
    }
    let text = "Improper use of SMTP command pipelining";
    Ok(Decision::Refuse(refuse(e.subject, class, 503, (5, 0), text)))
}

pub(super) fn reject_multi_recipient_bounce(
    e: &mut Evaluation<'_>,
    class: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let subject = e.subject;
    if subject.recipients > 1 && subject.sender.is_some_and(Address::is_null) {
        let code = e.judge.codes.multi_recipient_bounce;
        return Ok(Decision::Refuse(refuse(subject, class, code, (5, 3), "Multi-recipient bounce")));
    }
    Ok(Decision::Dunno)
}

/// `sleep SECONDS`.
pub(super) fn sleep(_: &mut Evaluation<'_>, _: Class, argument: &Argument) -> Result<Decision, LookupError> {
    if let Argument::Text(seconds) = argument {
        std::thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(0).min(MAX_SLEEP)));
    }
    Ok(Decision::Dunno)
}
