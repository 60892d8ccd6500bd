//! The addresses of this host: `inet_interfaces` and `proxy_interfaces` as numbers.

use std::net::{IpAddr, ToSocketAddrs};

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
            name => found.extend(host_addresses(parameter, name)?),
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

fn host_addresses(parameter: &str, name: &str) -> Result<Vec<IpAddr>, OpenError> {
    let bare = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    match (bare, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|socket| socket.ip()).collect()),
        Err(error) => Err(unavailable(parameter, &format!("host {name} not found: {error}"))),
    }
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
    fn the_loopback_address_is_among_all() {
        assert!(of(&["all"], &["all"]).contains(&"127.0.0.1".to_owned()));
        assert!(of(&["loopback-only"], &["ipv4"]).contains(&"127.0.0.1".to_owned()));
    }
}
