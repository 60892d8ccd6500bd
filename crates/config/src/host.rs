//! What the host says about itself: its name, and the networks it is in.

use std::net::{IpAddr, ToSocketAddrs};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The name of this host as the kernel has it; `localhost` if that cannot be had.
pub(crate) fn name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map(|name| name.trim_end_matches('.').to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// How wide `mynetworks` reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkStyle {
    Host,
    Subnet,
    Class,
}

/// The value of `mynetworks` where it is not set: what `inet_interfaces` (items) listens on, as wide as `style` says.
pub(crate) fn networks(style: NetworkStyle, interfaces: &[String], ipv4: bool, ipv6: bool) -> String {
    let own = own_addresses();
    let wanted = wanted_addresses(interfaces);
    let mut networks: Vec<String> = Vec::new();
    for (address, prefix) in own {
        let family = if address.is_ipv4() { ipv4 } else { ipv6 };
        let selected = match &wanted {
            Wanted::All => true,
            Wanted::Loopback => address.is_loopback(),
            Wanted::These(list) => list.contains(&address),
        };
        if family && selected {
            let network = network_of(address, prefix, style);
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
    }
    networks.join(" ")
}

enum Wanted {
    All,
    Loopback,
    These(Vec<IpAddr>),
}

fn wanted_addresses(interfaces: &[String]) -> Wanted {
    let mut addresses = Vec::new();
    for item in interfaces {
        if item.eq_ignore_ascii_case("all") {
            return Wanted::All;
        }
        if item.eq_ignore_ascii_case("loopback-only") {
            return Wanted::Loopback;
        }
        let bare = item.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => {
                addresses.extend((bare, 0).to_socket_addrs().into_iter().flatten().map(|found| found.ip()))
            }
        }
    }
    Wanted::These(addresses)
}

/// The addresses of this host's interfaces that are up, each with the length of its network's prefix.
fn own_addresses() -> Vec<(IpAddr, u8)> {
    let Ok(interfaces) = getifaddrs() else {
        return vec![(IpAddr::from([127, 0, 0, 1]), 8)];
    };
    let mut addresses = Vec::new();
    for interface in interfaces {
        if !interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) {
            continue;
        }
        let address = interface.address.as_ref().and_then(ip_of);
        let mask = interface.netmask.as_ref().and_then(ip_of);
        if let (Some(address), Some(mask)) = (address, mask) {
            let entry = (address, prefix_of(mask));
            if !addresses.contains(&entry) {
                addresses.push(entry);
            }
        }
    }
    // IPv4 first, whatever the kernel's order.
    addresses.sort_by_key(|(address, _)| address.is_ipv6());
    addresses
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => u32::from(mask).count_ones(),
        IpAddr::V6(mask) => u128::from(mask).count_ones(),
    };
    u8::try_from(ones).unwrap_or(128)
}

fn network_of(address: IpAddr, prefix: u8, style: NetworkStyle) -> String {
    match address {
        IpAddr::V4(v4) => {
            let prefix = match style {
                NetworkStyle::Host => 32,
                NetworkStyle::Subnet => prefix.min(32),
                NetworkStyle::Class => match v4.octets()[0] {
                    0..128 => 8,
                    128..192 => 16,
                    192..224 => 24,
                    224.. => 4,
                },
            };
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            // Classes end with IPv4: there the subnet is what comes nearest.
            let prefix = if style == NetworkStyle::Host { 128 } else { prefix.min(128) };
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            format!("[{}]/{prefix}", std::net::Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}
