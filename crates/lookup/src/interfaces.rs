//! The addresses of this host: `inet_interfaces` and `proxy_interfaces` as numbers.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};

use config::param;
use nix::sys::socket::SockaddrStorage;

use crate::OpenError;

/// Which protocols `inet_protocols` leaves.
#[derive(Clone, Copy, Debug)]
pub struct Protocols {
    /// IPv4 is used.
    pub v4: bool,
    /// IPv6 is used.
    pub v6: bool,
}

impl Protocols {
    /// Reads the value of `inet_protocols`: `all`, `ipv4`, `ipv6`.
    #[must_use]
    pub fn new(inet_protocols: &[String]) -> Self {
        let has = |name: &str| inet_protocols.iter().any(|item| item.eq_ignore_ascii_case(name));
        Self { v4: has("all") || has("ipv4"), v6: has("all") || has("ipv6") }
    }

    fn use_of(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The addresses that a value of `inet_interfaces` or `proxy_interfaces` stands for: `all`, `loopback-only`, numeric
/// addresses with or without brackets, host names.
///
/// # Errors
/// An item that is no address and no host that can be found, or the system's list of addresses could not be read.
pub fn addresses(parameter: &str, items: &[String], protocols: Protocols) -> Result<Vec<IpAddr>, OpenError> {
    let mut found = Vec::new();
    for item in items {
        match item.to_ascii_lowercase().as_str() {
            "all" => found.extend(own_addresses(parameter)?),
            "loopback-only" => {
                found.extend(own_addresses(parameter)?.into_iter().filter(IpAddr::is_loopback))
            }
            name => {
                let addresses = host_addresses(name);
                found.extend(addresses.map_err(|error| not_found(parameter, items, name, &error))?);
            }
        }
    }
    found.retain(|ip| protocols.use_of(*ip));
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The addresses of all network interfaces of this host.
fn own_addresses(parameter: &str) -> Result<Vec<IpAddr>, OpenError> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(|error| unavailable(parameter, &format!("list the network interfaces: {}", error.desc())))?;
    Ok(interfaces.filter_map(|interface| numeric(interface.address?)).collect())
}

fn numeric(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn host_addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let bare = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    match bare.parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => Ok((bare, 0).to_socket_addrs()?.map(|socket| socket.ip()).collect()),
    }
}

/// Without the addresses it listens at the mail system does not start, as Postfix does not; those of a proxy may come later.
fn not_found(parameter: &str, items: &[String], name: &str, error: &io::Error) -> OpenError {
    let cause = config::resolver_cause(error);
    let what = format!("{parameter} = {}: host {name} not found: {cause}", items.join(", "));
    if parameter == param::INET_INTERFACES.name() {
        let remedy = "write addresses of this host, all or loopback-only, or the name into /etc/hosts";
        return OpenError::Configuration(format!("{what}; {remedy}"));
    }
    OpenError::Unavailable(format!("{what}; write addresses, or the name into /etc/hosts"))
}

fn unavailable(parameter: &str, cause: &str) -> OpenError {
    OpenError::Unavailable(format!("{parameter}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(items: &[&str], protocols: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let found = addresses("inet_interfaces", &owned(items), Protocols::new(&owned(protocols))).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numbers_need_no_name_service_and_protocols_filter_them() {
        assert_eq!(of(&["192.0.2.1", "[2001:db8::1]", "192.0.2.1"], &["all"]), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(of(&["192.0.2.1", "::1"], &["ipv4"]), ["192.0.2.1"]);
        assert_eq!(of(&["192.0.2.1", "::1"], &["ipv6"]), ["::1"]);
    }

    #[test]
    fn a_host_that_is_not_found_is_told_with_its_parameter() {
        let items = ["127.0.0.1".to_owned(), "no..such".to_owned()];
        let told =
            |parameter: &str| addresses(parameter, &items, Protocols { v4: true, v6: true }).unwrap_err();
        let OpenError::Configuration(text) = told("inet_interfaces") else {
            panic!("nothing can start on it")
        };
        assert!(
            text.starts_with("inet_interfaces = 127.0.0.1, no..such: host no..such not found: "),
            "{text}"
        );
        assert!(
            !text.contains("failed to lookup") && text.ends_with("or the name into /etc/hosts"),
            "{text}"
        );
        assert!(matches!(told("proxy_interfaces"), OpenError::Unavailable(_)));
    }

    #[test]
    fn the_loopback_address_is_among_all() {
        assert!(of(&["all"], &["all"]).contains(&"127.0.0.1".to_owned()));
        assert!(of(&["loopback-only"], &["ipv4"]).contains(&"127.0.0.1".to_owned()));
    }
}
