//! Restrictions on senders and recipients: their form, their domains, whether they exist.

use lookup::LookupError;
use lookup::recipient_check::Verdict;
use mail::{Address, Dsn};
use smtp_proto::{Fault, Reply, path};

use super::class::{Class, refuse};
use super::client;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

pub(super) fn is_fully_qualified(domain: &str) -> bool {
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    path::is_domain(domain) && (domain.starts_with('[') || bare.contains('.'))
}

pub(super) fn non_fqdn(e: &Evaluation<'_>, address: Option<&Address>, class: Class) -> Decision {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Decision::Dunno };
    match address.domain() {
        Some(domain) if is_fully_qualified(domain) => Decision::Dunno,
        _ => Decision::Refuse(refuse(
            e.subject,
            class,
            e.judge.codes.non_fqdn,
            (5, 2),
            "need fully-qualified address",
        )),
    }
}

pub(super) fn unlisted(
    e: &mut Evaluation<'_>,
    address: Option<&Address>,
    class: Class,
) -> Result<Decision, LookupError> {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Ok(Decision::Dunno) };
    e.asked = Some(class);
    let nobody = Address::null();
    // The route of a sender's own address does not depend on who writes to it.
    let sender = e.subject.sender.filter(|_| class == Class::Recipient).unwrap_or(&nobody);
    match e.judge.recipients.check(&e.judge.complete(address), &e.judge.complete(sender))? {
        Verdict::Known { .. } => Ok(Decision::Dunno),
        Verdict::Malformed if class == Class::Sender => Ok(Decision::Refuse(Fault::SenderSyntax.reply(""))),
        Verdict::Malformed => Ok(Decision::Refuse(Fault::RecipientSyntax.reply(""))),
        Verdict::Unknown(rejection) => {
            // X.1.1 is about a recipient; RFC 3463 has no code for an unknown sender but X.1.0.
            let dsn = match class {
                _ if rejection.dsn_is_given => class.fitting(rejection.dsn),
                Class::Sender => Dsn::new(rejection.dsn.class(), 1, 0),
                _ => rejection.dsn,
            };
            let text = format!("<{address}>: {} rejected: {}", class.words(), rejection.text);
            Ok(Decision::Refuse(Reply::new(rejection.code, dsn, text)))
        }
    }
}

pub(super) fn permit_auth_destination(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    e.asked = Some(Class::Recipient);
    match e.subject.recipient {
        Some(recipient) => Ok(client::permit_if(e.judge.relay_permitted(recipient)?)),
        None => Ok(Decision::Dunno),
    }
}

pub(super) fn unauth_destination(e: &mut Evaluation<'_>, defer: bool) -> Result<Decision, LookupError> {
    let Some(recipient) = e.subject.recipient else { return Ok(Decision::Dunno) };
    e.asked = Some(Class::Recipient);
    if e.judge.relay_permitted(recipient)? {
        return Ok(Decision::Dunno);
    }
    let code = e.judge.codes.relay_domains;
    let code = if defer && code >= 500 { code - 100 } else { code };
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, 7, 1);
    Ok(Decision::Refuse(Reply::new(code, dsn, format!("<{recipient}>: Relay access denied"))))
}

pub(super) fn check_relay_domains(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    match permit_auth_destination(e, class, argument)? {
        Decision::Permit => Ok(Decision::Permit),
        _ => unauth_destination(e, false),
    }
}
