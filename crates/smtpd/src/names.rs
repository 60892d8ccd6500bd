//! Names of hosts: what a client's address leads to and back, and the addresses of others.
//!
//! `/etc/hosts` is asked first and the DNS then, as name services usually are. A name counts only if its addresses have
//! the one that led to it: everybody can write any name into the zone of an own address.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use config::{Config, param};
use ipc::log;
use lookup::OpenError;
use net::dns::{DnsError, DnsSettings, Family, ReplyFilter, Resolver, is_host_name};

use crate::client::UNKNOWN;

/// Names that need no server.
const HOSTS: &str = "/etc/hosts";

/// A larger file is not read: it is no file of hosts.
const HOSTS_LIMIT: u64 = 16 * 1024 * 1024;

/// How long `/etc/hosts` is trusted to be what it was.
const HOSTS_CHECK: Duration = Duration::from_secs(1);

/// Finds names and addresses.
#[derive(Debug)]
pub(crate) struct HostNames {
    /// `smtpd_peername_lookup`.
    enabled: bool,
    family: Family,
    /// For the names of clients.
    unfiltered: Resolver,
    /// As restrictions ask it: `smtpd_dns_reply_filter`.
    dns: Resolver,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    hosts: Arc<Hosts>,
}

/// The content of `/etc/hosts`.
#[derive(Debug, Default)]
struct Hosts {
    /// The first name of each address.
    names: HashMap<IpAddr, String>,
    /// The addresses of each name, in small letters.
    addresses: HashMap<String, Vec<IpAddr>>,
}

/// What an address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The name that leads back to the address, or `unknown`.
    pub(crate) name: String,
    /// It may have one; it could not be found out.
    pub(crate) is_temporary: bool,
    /// The name that the address leads to, or `unknown`.
    pub(crate) reverse_name: String,
    /// There may be one; it could not be found out.
    pub(crate) reverse_is_temporary: bool,
}

impl Named {
    fn unknown(is_temporary: bool) -> Self {
        Self {
            name: UNKNOWN.to_owned(),
            is_temporary,
            reverse_name: UNKNOWN.to_owned(),
            reverse_is_temporary: is_temporary,
        }
    }
}

impl HostNames {
    /// As the parameters say.
    ///
    /// # Errors
    /// A table that cannot be one.
    pub(crate) fn new(config: &Config) -> Result<Self, OpenError> {
        let dns = Resolver::system(DnsSettings::default());
        let filter = ReplyFilter::open("smtpd_dns_reply_filter", &config.get(param::SMTPD_DNS_REPLY_FILTER))?;
        Ok(Self {
            enabled: config.get(param::SMTPD_PEERNAME_LOOKUP),
            family: Family::of_protocols(&config.get(param::INET_PROTOCOLS)).unwrap_or(Family::Any),
            dns: filter.map_or_else(|| dns.clone(), |filter| dns.clone().filtered(filter)),
            unfiltered: dns,
            cached: Mutex::new(Cached::default()),
        })
    }

    /// Names that are never looked for.
    #[cfg(test)]
    pub(crate) fn disabled() -> Self {
        let dns = Resolver::system(DnsSettings::default());
        Self {
            enabled: false,
            family: Family::Any,
            unfiltered: dns.clone(),
            dns,
            cached: Mutex::new(Cached::default()),
        }
    }

    /// For questions about other records.
    pub(crate) const fn dns(&self) -> &Resolver {
        &self.dns
    }

    /// What `inet_protocols` leaves.
    pub(crate) const fn family(&self) -> Family {
        self.family
    }

    /// What this address is called. It takes as long as the name servers are given.
    pub(crate) fn of(&self, ip: IpAddr) -> Named {
        if !self.enabled {
            return Named::unknown(false);
        }
        let reverse_name = match self.reverse_name(ip) {
            Ok(name) => name,
            Err(error) => return Named::unknown(error.is_temporary()),
        };
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let (verified, is_temporary) = match self.addresses(&reverse_name, family) {
            Ok(addresses) if addresses.contains(&ip) => (true, false),
            Ok(_) => {
                log::warning!("hostname {reverse_name} does not resolve to address {ip}");
                (false, false)
            }
            Err(error) => {
                log::warning!("hostname {reverse_name} does not resolve to address {ip}: {}", error.reason());
                (false, error.is_temporary())
            }
        };
        let name = if verified { reverse_name.clone() } else { UNKNOWN.to_owned() };
        Named { name, is_temporary, reverse_name, reverse_is_temporary: false }
    }

    fn reverse_name(&self, ip: IpAddr) -> Result<String, DnsError> {
        if let Some(name) = self.hosts().names.get(&ip) {
            return Ok(name.clone());
        }
        // Never empty.
        Ok(self.unfiltered.names(ip)?.value.swap_remove(0))
    }

    /// The addresses of a host, as this host knows them or the DNS.
    pub(crate) fn addresses(&self, host: &str, family: Family) -> Result<Vec<IpAddr>, DnsError> {
        let hosts = self.hosts();
        let own = hosts.addresses.get(&host.to_ascii_lowercase()).into_iter().flatten();
        let own: Vec<IpAddr> = own.filter(|ip| family.includes(**ip)).copied().collect();
        if !own.is_empty() {
            return Ok(own);
        }
        self.unfiltered.addresses(host, family).map(|answer| answer.value)
    }

    /// The names as the file has them; it is looked at again when it changed.
    fn hosts(&self) -> Arc<Hosts> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if cached.checked.is_none_or(|checked| now.duration_since(checked) >= HOSTS_CHECK) {
            let metadata = fs::metadata(HOSTS).ok().filter(|file| file.len() <= HOSTS_LIMIT);
            let modified = metadata.and_then(|file| file.modified().ok());
            if cached.checked.is_none() || modified != cached.modified {
                let text = modified.and_then(|_| fs::read(HOSTS).ok()).unwrap_or_default();
                cached.hosts = Arc::new(Hosts::parse(&String::from_utf8_lossy(&text)));
                cached.modified = modified;
            }
            cached.checked = Some(now);
        }
        Arc::clone(&cached.hosts)
    }
}

impl Hosts {
    /// hosts(5): an address, its name, aliases. The first line with an address names it.
    fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_ascii_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            let ip = ip.to_canonical();
            for name in words.filter(|name| is_host_name(name)) {
                hosts.names.entry(ip).or_insert_with(|| name.to_owned());
                hosts.addresses.entry(name.to_ascii_lowercase()).or_default().push(ip);
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_address_counts() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost lh # x\n# 192.0.2.9 no\n::1\tip6\n127.0.0.1 other\nx y\n192.0.2.1 <b>\n::ffff:192.0.2.7 LH\n",
        );
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(hosts.names.len(), 3);
        assert_eq!(hosts.names[&ip("127.0.0.1")], "localhost");
        assert_eq!(hosts.names[&ip("::1")], "ip6");
        assert_eq!(hosts.addresses["lh"], [ip("127.0.0.1"), ip("192.0.2.7")]);
    }

    #[test]
    fn this_host_knows_its_own_name() {
        let config = config::Config::from_snapshot(
            std::path::Path::new("/etc/postroad"),
            &config::Snapshot { main_cf: b"compatibility_level = 3.6\n".to_vec(), master_cf: Vec::new() },
            &[],
        );
        let names = HostNames::new(&config.unwrap().0).unwrap();
        let named = names.of(IpAddr::from([127, 0, 0, 1]));
        assert_eq!((named.name.as_str(), named.reverse_name.as_str()), ("localhost", "localhost"));
        assert_eq!(HostNames::disabled().of(IpAddr::from([127, 0, 0, 1])), Named::unknown(false));
    }
}
