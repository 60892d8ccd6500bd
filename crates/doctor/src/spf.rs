//! RFC 7208 as far as a site's own record goes: may these addresses send for the domain? Macros are not expanded.

use std::net::IpAddr;

use lookup::Network;

use crate::dns::Dns;

/// What a record says about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    /// The record is wrong, or cannot be judged here, and why.
    Unknown(String),
}

/// The records of a domain.
pub(crate) fn records(texts: &[String]) -> Vec<&str> {
    let is_record = |text: &&str| {
        let mut words = text.split(' ');
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("v=spf1"))
    };
    texts.iter().map(String::as_str).filter(is_record).collect()
}

/// What the domain's record says about an address.
pub(crate) fn evaluate(dns: &dyn Dns, domain: &str, ip: IpAddr) -> Verdict {
    Evaluation { dns, ip, lookups: 0 }.domain(domain)
}

/// Whether SPF lets this address send for the domain.
#[doc(hidden)]
#[must_use]
pub fn is_permitted(dns: &dyn Dns, domain: &str, ip: IpAddr) -> bool {
    evaluate(dns, domain, ip) == Verdict::Pass
}

struct Evaluation<'a> {
    dns: &'a dyn Dns,
    ip: IpAddr,
    lookups: u32,
}

/// RFC 7208 section 4.6.4.
const MAX_LOOKUPS: u32 = 10;

impl Evaluation<'_> {
    fn domain(&mut self, domain: &str) -> Verdict {
        let texts = match self.dns.txt(domain) {
            Ok(answer) => answer.value,
            Err(error) => return Verdict::Unknown(error.to_string()),
        };
        let found = records(&texts);
        let [record] = found[..] else {
            return Verdict::Unknown(format!("{domain} has {} SPF records", found.len()));
        };
        let mut redirect = None;
        for term in record.split(' ').skip(1).filter(|term| !term.is_empty()) {
            if let Some(other) = term.strip_prefix("redirect=") {
                redirect = Some(other);
                continue;
            }
            if term.contains('%') {
                return Verdict::Unknown(format!("“{term}” depends on the message"));
            }
            if term.contains('=') && !term.contains(':') {
                continue;
            }
            let verdict = match term.as_bytes().first() {
                Some(b'-') => Verdict::Fail,
                Some(b'~') => Verdict::SoftFail,
                Some(b'?') => Verdict::Neutral,
                _ => Verdict::Pass,
            };
            let mechanism = term.strip_prefix(['+', '-', '~', '?']).unwrap_or(term);
            match self.matches(mechanism, domain) {
                Ok(true) => return verdict,
                Ok(false) => {}
                Err(why) => return Verdict::Unknown(why),
            }
        }
        match redirect {
            Some(_) if !self.may_look() => Verdict::Unknown(too_many()),
            Some(other) => self.domain(other),
            None => Verdict::Neutral,
        }
    }

    fn matches(&mut self, mechanism: &str, domain: &str) -> Result<bool, String> {
        let (name, rest) = mechanism.split_at(mechanism.find([':', '/']).unwrap_or(mechanism.len()));
        let argument = rest.strip_prefix(':').unwrap_or("");
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "all" => return Ok(true),
            "ip4" | "ip6" => {
                let network = Network::parse(argument).map_err(|error| format!("“{mechanism}”: {error}"))?;
                return Ok(network.contains(self.ip));
            }
            "a" | "mx" | "include" | "exists" | "ptr" => {}
            _ => return Err(format!("“{mechanism}” is no mechanism")),
        }
        if !self.may_look() {
            return Err(too_many());
        }
        // `a/24` and `a:host/24//64`; what is beside the address itself is rare, and counts as no match.
        let host = argument.split('/').next().filter(|host| !host.is_empty()).unwrap_or(domain);
        Ok(match name.as_str() {
            "include" => match self.domain(argument) {
                Verdict::Unknown(why) => return Err(why),
                verdict => verdict == Verdict::Pass,
            },
            "a" => self.has_address(host, rest),
            "mx" => {
                let hosts = self.dns.mx(host).map(|answer| answer.value).unwrap_or_default();
                hosts.iter().take(10).any(|mx| self.has_address(&mx.host, rest))
            }
            "exists" => self.dns.addresses(host).is_ok(),
            _ => false,
        })
    }

    fn has_address(&self, host: &str, rest: &str) -> bool {
        let length = rest.split('/').nth(1).filter(|_| self.ip.is_ipv4());
        let addresses = self.dns.addresses(host).map(|answer| answer.value).unwrap_or_default();
        addresses.iter().any(|found| match (length.and_then(|l| l.parse::<u32>().ok()), found, self.ip) {
            (Some(length), IpAddr::V4(found), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
                found.to_bits() & mask == ip.to_bits() & mask
            }
            _ => *found == self.ip,
        })
    }

    fn may_look(&mut self) -> bool {
        self.lookups += 1;
        self.lookups <= MAX_LOOKUPS
    }
}

fn too_many() -> String {
    format!("it takes more than {MAX_LOOKUPS} questions, which receivers do not ask")
}
