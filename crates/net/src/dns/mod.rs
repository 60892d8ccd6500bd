//! The DNS as mail asks it: blocking calls that many threads may make at once.
//!
//! [`Resolver`] asks the name servers of resolv.conf(5). A call blocks its own thread only, for no longer than
//! resolv.conf's time-outs and attempts allow, so that a silent server delays nobody else. Answers, and that there is none,
//! are remembered for their time to live. [`mail_hosts`] makes of such answers the list of hosts that mail is offered to.
//!
//! What cannot be answered is a value, [`DnsError`], whose text is what Postfix writes into logs and notifications. A
//! name that cannot be one in the DNS is refused without a question: some servers answer even those.

mod error;
#[cfg(test)]
mod fake;
mod filter;
pub mod mail_hosts;
mod name;
mod resolv_conf;
mod resolver;
mod servers;
mod sockets;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, param};

pub use error::{DnsError, Kind};
pub use filter::ReplyFilter;
pub use name::{is_host_name, to_ascii};
pub use resolver::Resolver;

/// How many servers, search domains, dots and attempts the text of a resolv.conf asks for.
#[doc(hidden)]
#[must_use]
pub fn resolv_conf_bounds(text: &str) -> [usize; 4] {
    let conf = resolv_conf::ResolvConf::parse(text);
    [conf.servers.len(), conf.search.len(), conf.ndots, conf.attempts]
}

/// How the DNS is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Where the servers are written: resolv.conf(5). A server may be written `[ADDRESS]:PORT` as well. The file is read again
    /// when it has changed.
    pub resolv_conf: PathBuf,
    /// Whether the servers are asked to validate. They are trusted when they say that they did (the AD bit), as
    /// Postfix trusts them: a validating resolver belongs on this host.
    pub dnssec: bool,
    /// `res_defnames`: a name without a dot is completed with the local domain.
    pub completes_names: bool,
    /// `res_dnsrch`: a name is sought in all the domains of `search`.
    pub searches_domains: bool,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            dnssec: false,
            completes_names: false,
            searches_domains: false,
        }
    }
}

impl DnsSettings {
    /// What `smtp_dns_resolver_options` and `smtp_dns_support_level` say.
    #[must_use]
    pub fn for_smtp(config: &Config) -> Self {
        let options = config.get(param::SMTP_DNS_RESOLVER_OPTIONS);
        Self::of(&options, &config.get(param::SMTP_DNS_SUPPORT_LEVEL))
    }

    /// What `lmtp_dns_resolver_options` and `lmtp_dns_support_level` say.
    #[must_use]
    pub fn for_lmtp(config: &Config) -> Self {
        let options = config.get(param::LMTP_DNS_RESOLVER_OPTIONS);
        Self::of(&options, &config.get(param::LMTP_DNS_SUPPORT_LEVEL))
    }

    fn of(options: &[String], support_level: &str) -> Self {
        let has = |name: &str| options.iter().any(|option| option.eq_ignore_ascii_case(name));
        Self {
            dnssec: support_level.eq_ignore_ascii_case("dnssec"),
            completes_names: has("res_defnames"),
            searches_domains: has("res_dnsrch"),
            ..Self::default()
        }
    }
}

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
    /// Both; one of the two is enough.
    Any,
}

impl Family {
    /// Whether an address is of this family.
    #[must_use]
    pub const fn includes(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Any => true,
        }
    }

    /// What `inet_protocols` leaves; none if it leaves nothing.
    #[must_use]
    pub fn of_protocols(protocols: &[String]) -> Option<Self> {
        let named = |name: &str| protocols.iter().any(|item| item == name || item == "all");
        match (named("ipv4"), named("ipv6")) {
            (true, true) => Some(Self::Any),
            (true, false) => Some(Self::V4),
            (false, true) => Some(Self::V6),
            (false, false) => None,
        }
    }
}

/// An answer of the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for; never empty where it is a list.
    pub value: T,
    /// The name servers validated everything that leads to this answer. Never true unless [`DnsSettings::dnssec`] asked.
    pub secure: bool,
    /// How long the answer may still be used.
    pub ttl: Duration,
    /// The name at the end of the chain of aliases: the name that was asked for where there are none.
    pub canonical: String,
}

impl<T> Answer<T> {
    /// The same answer about something made of its value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: f(self.value), secure: self.secure, ttl: self.ttl, canonical: self.canonical }
    }
}

/// A mail exchanger. Host `.` says that the domain takes no mail (RFC 7505); see [`Mx::is_null`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mx {
    /// The lower, the better.
    pub preference: u16,
    /// The name of the host, without a final dot.
    pub host: String,
}

impl Mx {
    /// "This domain takes no mail": RFC 7505 section 3.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.host == "."
    }
}

/// A service's host: RFC 2782. Target `.` says that there is no such service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// The lower, the better.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The name of the host, without a final dot.
    pub target: String,
}

/// What the certificate of a service must be: RFC 6698. The numbers are the registry's, whether known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// 2 is DANE-TA, 3 DANE-EE.
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What must be equal.
    pub data: Vec<u8>,
}
