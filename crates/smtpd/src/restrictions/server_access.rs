//! access(5) for the servers behind a name: `check_*_a_access`, `check_*_mx_access`, `check_*_ns_access`.

use std::net::IpAddr;

use ipc::log;
use lookup::LookupError;
use lookup::Maps;
use lookup::address_search::{access_address, access_domain};
use mail::Address;
use net::dns::{DnsError, Mx};

use super::access;
use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::misconfigured;
use super::parse::Argument;
use crate::client::UNKNOWN;

/// Which servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    /// The host of that name.
    Own,
    /// Those that take its mail.
    Mail,
    /// Those that answer for its zone.
    Name,
}

/// Asks the table about the servers behind what the class is about: their names, then their addresses.
pub(super) fn check(
    e: &mut Evaluation<'_>,
    class: Class,
    servers: Servers,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Table { maps, label } = argument else { return Ok(Decision::Dunno) };
    let Some(name) = name_of(e, class) else { return Ok(Decision::Dunno) };
    let found = match literal(&name) {
        Some(ip) if servers != Servers::Name => access_address(maps, &ip.to_string()),
        Some(_) => Ok(None),
        None => find(e, maps, &name, servers),
    };
    match access::act_on(e, found, class, label)? {
        Decision::Permit => {
            log::warning!(
                "{label} says OK to a server of {name}; whoever has the name could have written that, so the request is \
                 deferred; use DUNNO to make an exception"
            );
            Ok(Decision::Refuse(misconfigured()))
        }
        decision => Ok(decision),
    }
}

fn name_of(e: &Evaluation<'_>, class: Class) -> Option<String> {
    let subject = e.subject;
    let domain = |address: Option<&Address>| {
        let address = address.filter(|address| !address.is_null())?;
        e.judge.complete(address).domain().map(str::to_owned)
    };
    match class {
        Class::Client => Some(subject.client.name.clone()).filter(|name| name != UNKNOWN),
        Class::ReverseClient => Some(subject.client.reverse_name.clone()).filter(|name| name != UNKNOWN),
        Class::Helo => subject.helo.map(str::to_owned),
        Class::Sender => domain(subject.sender),
        Class::Recipient => domain(subject.recipient),
        Class::Login | Class::Data | Class::EndOfData | Class::Etrn => None,
    }
}

/// The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
fn literal(name: &str) -> Option<IpAddr> {
    let inside = name.strip_prefix('[')?.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inside[5..].parse().ok().map(IpAddr::V6),
        _ => inside.parse().ok().map(IpAddr::V4),
    }
}

fn find(
    e: &Evaluation<'_>,
    maps: &Maps,
    name: &str,
    servers: Servers,
) -> Result<Option<String>, LookupError> {
    let hosts = match hosts(e, name, servers) {
        Ok(hosts) => hosts,
        Err(error) => {
            let kind = if servers == Servers::Name { "NS" } else { "MX" };
            log::warning!("Unable to look up {kind} host for {name}: {}", error.reason());
            return Ok(None);
        }
    };
    for host in hosts {
        // What a name by itself is worth is for the verbs without servers to say.
        if servers != Servers::Own
            && let Some(value) = access_domain(maps, &host, e.judge.parents)?
        {
            return Ok(Some(value));
        }
        for ip in addresses(e, name, &host) {
            if let Some(value) = access_address(maps, &ip.to_string())? {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

/// The names of the servers.
fn hosts(e: &Evaluation<'_>, name: &str, servers: Servers) -> Result<Vec<String>, DnsError> {
    let dns = e.judge.names.dns();
    match servers {
        Servers::Own => Ok(vec![name.to_owned()]),
        Servers::Mail => match dns.mx(name) {
            Ok(answer) if answer.value.iter().any(Mx::is_null) => Ok(Vec::new()),
            Ok(answer) => Ok(answer.value.into_iter().map(|mx| mx.host).collect()),
            // Without mail exchangers the host itself takes the mail: RFC 5321 section 5.1.
            Err(error) if error.is_absence() => Ok(vec![name.to_owned()]),
            Err(error) => Err(error),
        },
        Servers::Name => {
            let mut zone = name;
            loop {
                match (dns.ns(zone), zone.split_once('.')) {
                    (Ok(answer), _) => return Ok(answer.value),
                    // A name within a zone has no name servers of its own.
                    (Err(error), Some((_, parent))) if error.is_absence() => zone = parent,
                    (Err(error), _) => return Err(error),
                }
            }
        }
    }
}

fn addresses(e: &Evaluation<'_>, name: &str, host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    e.judge.names.addresses(host, e.judge.names.family()).unwrap_or_else(|error| {
        if !error.is_absence() {
            log::warning!("Unable to look up host {host} for {name}: {}", error.reason());
        }
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn address_literals() {
        assert_eq!(literal("[192.0.2.1]"), "192.0.2.1".parse().ok());
        assert_eq!(literal("[IPv6:2001:db8::1]"), "2001:db8::1".parse().ok());
        for name in ["192.0.2.1", "[2001:db8::1]", "[x]", "[IPv6:]", "example.com"] {
            assert_eq!(literal(name), None, "{name}");
        }
    }
}
