//! Restrictions on names that nobody has: of clients, in HELO, in addresses.

use lookup::LookupError;
use lookup::destination::Class as DomainClass;
use mail::{Address, Dsn};
use net::dns::{DnsError, Mx};
use smtp_proto::Reply;

use super::class::{Class, refuse};
use super::evaluate::{Decision, Evaluation};
use super::judge::OnFailure;
use super::parse::Argument;
use crate::client::UNKNOWN;

/// The answer for what may be otherwise in a while.
const TRY_AGAIN: u16 = 450;

/// `reject_unknown_client_hostname`: the name must lead back to the address. X.7.25 is RFC 7372's.
pub(super) fn unknown_client(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let client = e.subject.client;
    if client.name != UNKNOWN {
        return Ok(Decision::Dunno);
    }
    Ok(nameless(e, client.name_is_temporary, 25, "hostname"))
}

/// `reject_unknown_reverse_client_hostname`: any name will do.
pub(super) fn unknown_reverse_client(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let client = e.subject.client;
    if client.reverse_name != UNKNOWN {
        return Ok(Decision::Dunno);
    }
    Ok(nameless(e, client.reverse_name_is_temporary, 1, "reverse hostname"))
}

fn nameless(e: &Evaluation<'_>, is_temporary: bool, detail: u16, what: &str) -> Decision {
    let code = if is_temporary { TRY_AGAIN } else { e.judge.codes.unknown_client };
    let text = format!("Client host rejected: cannot find your {what}, [{}]", e.subject.client.address);
    Decision::Refuse(Reply::new(code, Dsn::new(if code < 500 { 4 } else { 5 }, 7, detail), text))
}

/// `reject_unknown_helo_hostname`: the name has an address or a mail exchanger. An address literal must be one.
pub(super) fn unknown_helo(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Some(helo) = e.subject.helo else { return Ok(Decision::Dunno) };
    if helo.starts_with('[') {
        return super::helo::reject_invalid(e, class, argument);
    }
    let names = &e.judge.names;
    let found = names.dns().addresses(helo, names.family()).map(drop);
    let found = found.or_else(|error| either(error, names.dns().mx(helo).map(drop)));
    let refusal = |code| refuse(e.subject, Class::Helo, code, (7, 1), "Host not found");
    Ok(match found {
        Ok(()) => Decision::Dunno,
        Err(error) if error.is_temporary() => e.judge.unknown_helo_on_failure.decision(refusal(TRY_AGAIN)),
        Err(_) => Decision::Refuse(refusal(e.judge.codes.unknown_hostname)),
    })
}

/// `reject_unknown_sender_domain`
pub(super) fn unknown_sender_domain(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    unknown_domain(e, e.subject.sender, Class::Sender)
}

/// `reject_unknown_recipient_domain`
pub(super) fn unknown_recipient_domain(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    unknown_domain(e, e.subject.recipient, Class::Recipient)
}

/// Mail could be sent to the domain of this address, if it is not one of this host's own.
fn unknown_domain(
    e: &Evaluation<'_>,
    address: Option<&Address>,
    class: Class,
) -> Result<Decision, LookupError> {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Ok(Decision::Dunno) };
    let complete = e.judge.complete(address);
    let destination = e.judge.recipients.resolver().destinations().find(&complete)?;
    let domain = destination.domain();
    let foreign = matches!(destination.class, DomainClass::Relay | DomainClass::Default);
    if !foreign || domain.is_empty() || domain.starts_with('[') {
        return Ok(Decision::Dunno);
    }
    let detail = if class == Class::Sender { 8 } else { 2 };
    let refusal = |code| refuse(e.subject, class, code, (1, detail), "Domain not found");
    Ok(match mail_host(e, domain) {
        Ok(true) => Decision::Dunno,
        Ok(false) => {
            // RFC 7505 section 4.
            let (code, dsn) = if class == Class::Sender { (550, (7, 27)) } else { (556, (1, 10)) };
            let text = format!("Domain {domain} does not accept mail (nullMX)");
            Decision::Refuse(refuse(e.subject, class, code, dsn, &text))
        }
        Err(error) if error.is_temporary() => e.judge.unknown_address_on_failure.decision(refusal(TRY_AGAIN)),
        Err(_) => Decision::Refuse(refusal(e.judge.codes.unknown_address)),
    })
}

/// Whether the domain takes mail; an error if it has nowhere to take it.
fn mail_host(e: &Evaluation<'_>, domain: &str) -> Result<bool, DnsError> {
    let names = &e.judge.names;
    match names.dns().mx(domain) {
        Ok(answer) => Ok(!answer.value.iter().any(Mx::is_null)),
        Err(error @ DnsError::Malformed { .. }) => Err(error),
        Err(error) => {
            let found = names.dns().addresses(domain, names.family()).map(drop);
            either(error, found).map(|()| true)
        }
    }
}

/// The second of two questions, of which one answer is enough; if both have none, what may be otherwise in a while.
fn either(first: DnsError, second: Result<(), DnsError>) -> Result<(), DnsError> {
    second.map_err(|error| if first.is_temporary() { first } else { error })
}

impl OnFailure {
    /// What becomes of a request that could not be judged.
    pub(super) fn decision(self, reply: Reply) -> Decision {
        match self {
            Self::Defer => Decision::Refuse(reply),
            Self::DeferIfPermit => Decision::DeferIfPermit(reply),
        }
    }
}
