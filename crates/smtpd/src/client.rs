//! Who is at the other end of a connection.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where names come from.
const HOSTS: &str = "/etc/hosts";

/// A larger file is not read: it is no file of hosts.
const HOSTS_LIMIT: u64 = 16 * 1024 * 1024;

/// How long `/etc/hosts` is trusted to be what it was.
const HOSTS_CHECK: Duration = Duration::from_secs(1);

/// Who authenticated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The mechanism, or `XCLIENT`.
    pub(crate) method: String,
    pub(crate) username: String,
}

/// The client of a session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its host name, or `unknown`.
    pub(crate) name: String,
    /// The name that its address leads to, whether that leads back or not; or `unknown`.
    pub(crate) reverse_name: String,
    /// Its address; none on a UNIX socket, where the client is a program of this host.
    pub(crate) ip: Option<IpAddr>,
    /// The address in Postfix's form: numbers without brackets, `IPv6:` or zone.
    pub(crate) address: String,
    /// Its port, 0 where there is none.
    pub(crate) port: u16,
    /// `smtpd_client_port_logging`.
    pub(crate) shows_port: bool,
    /// It connected from an address of this host.
    pub(crate) is_local: bool,
    /// The address and port that it connected to; empty and 0 on a UNIX socket.
    pub(crate) server_address: String,
    pub(crate) server_port: u16,
    /// Who it has shown to be.
    pub(crate) login: Option<Login>,
}

impl Client {
    /// The client that connected from `peer` to `local`.
    pub(crate) fn new(peer: Option<SocketAddr>, local: Option<SocketAddr>, names: &HostNames) -> Self {
        let Some(peer) = peer else {
            return Self {
                name: "localhost".to_owned(),
                reverse_name: "localhost".to_owned(),
                ip: None,
                address: "127.0.0.1".to_owned(),
                port: 0,
                shows_port: false,
                is_local: true,
                server_address: String::new(),
                server_port: 0,
                login: None,
            };
        };
        // A client of a socket that takes both families comes as ::ffff:192.0.2.1: it is an IPv4 client.
        let ip = peer.ip().to_canonical();
        let is_local = ip.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == ip);
        let name = names.of(ip);
        Self {
            reverse_name: name.clone(),
            name,
            ip: Some(ip),
            address: ip.to_string(),
            port: peer.port(),
            shows_port: false,
            is_local,
            server_address: local.map(|local| local.ip().to_canonical().to_string()).unwrap_or_default(),
            server_port: local.map_or(0, |local| local.port()),
            login: None,
        }
    }
}

impl fmt::Display for Client {
    /// `name[address]` or `name[address]:port`, as it stands in the log and in replies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.address)?;
        if self.shows_port { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

/// Names of clients. So far they come from `/etc/hosts`; the DNS, with the check that a name leads back to its address,
/// belongs here.
#[derive(Debug)]
pub(crate) struct HostNames {
    /// `smtpd_peername_lookup`.
    enabled: bool,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    names: Arc<HashMap<IpAddr, String>>,
}

impl HostNames {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, cached: Mutex::new(Cached::default()) }
    }

    /// The name of this address, or `unknown`.
    pub(crate) fn of(&self, ip: IpAddr) -> String {
        let unknown = || "unknown".to_owned();
        if !self.enabled {
            return unknown();
        }
        self.names().get(&ip).cloned().unwrap_or_else(unknown)
    }

    /// The names as the file has them; it is looked at again when it changed.
    fn names(&self) -> Arc<HashMap<IpAddr, String>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if cached.checked.is_none_or(|checked| now.duration_since(checked) >= HOSTS_CHECK) {
            let metadata = fs::metadata(HOSTS).ok().filter(|file| file.len() <= HOSTS_LIMIT);
            let modified = metadata.and_then(|file| file.modified().ok());
            if cached.checked.is_none() || modified != cached.modified {
                let text = modified.and_then(|_| fs::read(HOSTS).ok()).unwrap_or_default();
                cached.names = Arc::new(parse_hosts(&String::from_utf8_lossy(&text)));
                cached.modified = modified;
            }
            cached.checked = Some(now);
        }
        Arc::clone(&cached.names)
    }
}

/// hosts(5): an address, its name, aliases. The first line with an address counts.
fn parse_hosts(text: &str) -> HashMap<IpAddr, String> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut words = line.split_ascii_whitespace();
        let (Some(ip), Some(name)) =
            (words.next().and_then(|word| word.parse::<IpAddr>().ok()), words.next())
        else {
            continue;
        };
        if smtp_proto::path::is_host_name(name) {
            names.entry(ip.to_canonical()).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_address_counts() {
        let names = parse_hosts(
            "127.0.0.1 localhost lh # x\n# 192.0.2.9 no\n::1\tip6\n127.0.0.1 other\nx y\n192.0.2.1 <b>\n",
        );
        assert_eq!(names.len(), 2);
        assert_eq!(names[&"127.0.0.1".parse::<IpAddr>().unwrap()], "localhost");
        assert_eq!(names[&"::1".parse::<IpAddr>().unwrap()], "ip6");
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_client() {
        let peer = "[::ffff:192.0.2.1]:25".parse().ok();
        let client = Client::new(peer, None, &HostNames::new(false));
        assert_eq!(client.to_string(), "unknown[192.0.2.1]");
        assert!(!client.is_local);
    }
}
