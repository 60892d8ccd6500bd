//! resolv.conf(5): which servers are asked, and how patiently.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Like the C library, which looks at no more servers than these.
const SERVER_LIMIT: usize = 3;

/// The C library's limits of `ndots`, `timeout` and `attempts`.
const NDOTS_LIMIT: usize = 15;
const TIMEOUT_LIMIT: u64 = 30;
const ATTEMPTS_LIMIT: usize = 5;

/// The port of the DNS.
const PORT: u16 = 53;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Who is asked, in this order.
    pub(super) servers: Vec<SocketAddr>,
    /// `search` or `domain`, whichever comes last.
    pub(super) search: Vec<String>,
    /// A name with so many dots is taken as it is first.
    pub(super) ndots: usize,
    /// How long one server has to answer.
    pub(super) timeout: Duration,
    /// How often each server is asked.
    pub(super) attempts: usize,
    /// `rotate`: the servers take turns.
    pub(super) rotates: bool,
    /// `use-vc`: over TCP from the start.
    pub(super) tcp: bool,
    /// What could not be read, for the log.
    pub(super) complaints: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of the file. Without servers, the one on this host is asked.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotates: false,
            tcp: false,
            complaints: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.server(words.next().unwrap_or_default()),
                Some("search") => conf.search = words.map(bare_domain).collect(),
                Some("domain") => conf.search = words.take(1).map(bare_domain).collect(),
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf.search.retain(|domain| super::is_host_name(domain));
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        conf
    }

    fn server(&mut self, word: &str) {
        if self.servers.len() == SERVER_LIMIT {
            return;
        }
        let plain = word.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
        match plain.or_else(|| parse_with_port(word)) {
            Some(server) => self.servers.push(server),
            None => self.complaints.push(format!(
                "nameserver {word}: not an address, ADDRESS%ZONE is not supported; it is not asked"
            )),
        }
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match name {
            "ndots" => self.ndots = value.parse().unwrap_or(1).min(NDOTS_LIMIT),
            "timeout" => {
                self.timeout = Duration::from_secs(value.parse().unwrap_or(5).clamp(1, TIMEOUT_LIMIT));
            }
            "attempts" => self.attempts = value.parse().unwrap_or(2).clamp(1, ATTEMPTS_LIMIT),
            "rotate" => self.rotates = true,
            "use-vc" | "usevc" | "tcp" => self.tcp = true,
            _ => {}
        }
    }
}

/// `[ADDRESS]:PORT` for both families, as OpenBSD has it.
fn parse_with_port(word: &str) -> Option<SocketAddr> {
    match word.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((ip, port)) if !ip.contains(':') => format!("{ip}:{port}").parse().ok(),
        _ => word.parse().ok().filter(|server| !matches!(server, SocketAddr::V6(v6) if v6.scope_id() != 0)),
    }
}

fn bare_domain(domain: &str) -> String {
    domain.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_c_library_reads_it() {
        let conf = ResolvConf::parse(
            "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \n;x\nnameserver [127.0.0.1]:5300\n\
             nameserver 192.0.2.4\ndomain a.example\nsearch b.example. -- c.example\n\
             options ndots:3 timeout:99 attempts:0 rotate edns0\noptions use-vc\n",
        );
        let servers = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:5300"];
        assert_eq!(conf.servers, servers.map(|server| server.parse().unwrap()));
        assert_eq!(conf.search, ["b.example", "c.example"]);
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.attempts), (3, 30, 1));
        assert!(conf.rotates && conf.tcp && conf.complaints.is_empty());
    }

    #[test]
    fn without_servers_this_host_is_asked() {
        let conf = ResolvConf::parse("nameserver fe80::1%eth0\nnameserver\nsearch\n");
        assert_eq!(conf.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(conf.complaints.len(), 2);
    }

    #[test]
    fn ports_of_both_families() {
        let conf =
            ResolvConf::parse("nameserver 127.0.0.1:53\nnameserver [::1]:54\nnameserver [127.0.0.2]:0x\n");
        assert_eq!(conf.servers, ["127.0.0.1:53".parse().unwrap(), "[::1]:54".parse().unwrap()]);
    }
}
