//! `permit_mx_backup`: mail for domains that name this host as one of their mail exchangers, if not the best.

use std::net::IpAddr;

use lookup::LookupError;
use lookup::destination::Class as DomainClass;
use mail::{Address, Dsn};
use net::dns::Mx;
use smtp_proto::Reply;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

pub(super) fn permit(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let Some(recipient) = e.subject.recipient else { return Ok(Decision::Dunno) };
    let complete = e.judge.complete(recipient);
    let destination = e.judge.recipients.resolver().destinations().find(&complete)?;
    if destination.class == DomainClass::Local {
        return Ok(Decision::Permit);
    }
    if destination.routed {
        return Ok(Decision::Dunno);
    }
    if e.judge.relay_permitted(recipient)? {
        return Ok(Decision::Permit);
    }
    let domain = destination.domain();
    if domain.is_empty() || domain.starts_with('[') {
        return Ok(Decision::Dunno);
    }
    match e.judge.names.dns().mx(domain) {
        Ok(answer) => through_exchangers(e, recipient, &answer.value),
        // Perhaps another name of this host.
        Err(error) if error.is_absence() => match addresses(e, recipient, domain) {
            Ok(addresses) => Ok(super::client::permit_if(addresses.iter().any(|ip| is_own(e, *ip)))),
            Err(decision) => Ok(decision),
        },
        Err(error) => {
            let text = format!("Unable to look up mail exchanger information: {}", error.reason());
            Ok(deferral(recipient, &text))
        }
    }
}

/// Whether this host is among them and not the best, and the best is where it may be.
fn through_exchangers(e: &Evaluation<'_>, recipient: &Address, list: &[Mx]) -> Result<Decision, LookupError> {
    let best = list.iter().map(|mx| mx.preference).min();
    let (primary, backup): (Vec<&Mx>, Vec<&Mx>) = list.iter().partition(|mx| Some(mx.preference) == best);
    let mut primaries = Vec::new();
    for mx in primary.into_iter().filter(|mx| !mx.is_null()) {
        match addresses(e, recipient, &mx.host) {
            Ok(found) if found.iter().any(|ip| is_own(e, *ip)) => return Ok(Decision::Dunno),
            Ok(found) => primaries.extend(found.into_iter().map(|ip| (&mx.host, ip))),
            Err(decision) => return Ok(decision),
        }
    }
    let mut is_backup = false;
    for mx in backup {
        match addresses(e, recipient, &mx.host) {
            Ok(found) => is_backup |= found.iter().any(|ip| is_own(e, *ip)),
            Err(decision) => return Ok(decision),
        }
    }
    if !is_backup {
        return Ok(Decision::Dunno);
    }
    if let Some(networks) = &e.judge.mx_backup_networks {
        for (host, ip) in primaries {
            if !networks.matches_host(host, ip)? {
                return Ok(Decision::Dunno);
            }
        }
    }
    Ok(Decision::Permit)
}

/// The addresses of a mail exchanger; none if there is no such host. What is not known for now puts a refusal off.
fn addresses(e: &Evaluation<'_>, recipient: &Address, host: &str) -> Result<Vec<IpAddr>, Decision> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    match e.judge.names.addresses(host, e.judge.names.family()) {
        Ok(addresses) => Ok(addresses),
        Err(error) if error.is_absence() => Ok(Vec::new()),
        Err(error) => Err(deferral(
            recipient,
            &format!("Unable to look up mail exchanger host {host}: {}", error.reason()),
        )),
    }
}

fn is_own(e: &Evaluation<'_>, ip: IpAddr) -> bool {
    e.judge.own_addresses.contains(&ip)
}

fn deferral(recipient: &Address, text: &str) -> Decision {
    let text = format!("<{recipient}>: {} rejected: {text}", Class::Recipient.words());
    Decision::DeferIfReject(Reply::new(450, Dsn::new(4, 4, 4), text))
}
