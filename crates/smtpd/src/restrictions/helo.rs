//! Restrictions on how the client names itself.

use lookup::LookupError;
use smtp_proto::path;

use super::address::is_fully_qualified;
use super::class::{Class, refuse};
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

pub(super) fn reject_invalid(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let Some(helo) = e.subject.helo else { return Ok(Decision::Dunno) };
    let bare = helo.strip_suffix('.').unwrap_or(helo);
    if path::is_domain(helo) || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(Decision::Dunno);
    }
    let text = if helo.starts_with('[') { "invalid ip address" } else { "Invalid name" };
    Ok(Decision::Refuse(refuse(e.subject, Class::Helo, e.judge.codes.invalid_hostname, (5, 2), text)))
}

pub(super) fn reject_non_fqdn(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let Some(helo) = e.subject.helo else { return Ok(Decision::Dunno) };
    if is_fully_qualified(helo) {
        return Ok(Decision::Dunno);
    }
    let text = "need fully-qualified hostname";
    Ok(Decision::Refuse(refuse(e.subject, Class::Helo, e.judge.codes.non_fqdn, (5, 2), text)))
}
