//! Services of master.cf that listen at the same address: a client could not choose between them, and would get the settings
//! of either.

use std::net::IpAddr;

use crate::config::Settings;
use crate::diagnostic::Remarks;
use crate::master_cf::{Presence, ServiceEntry, ServiceKind};
use crate::parameter::param;
use crate::value::split_list;

/// Remarks upon each service of type inet that listens where an earlier one does.
pub(crate) fn clashes(settings: &Settings, services: &[ServiceEntry], remarks: &mut Remarks<'_>) {
    let items = |text: Option<String>| split_list(&text.unwrap_or_default());
    let interfaces = items(settings.value_of(&param::INET_INTERFACES.row()).ok());
    let protocols = items(settings.value_of(&param::INET_PROTOCOLS.row()).ok());
    let is_used = |ip: IpAddr| {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        protocols.iter().any(|item| item == "all" || item == family)
    };
    let mut listening: Vec<(&ServiceEntry, u16, Place)> = Vec::new();
    let servers = services.iter().filter(|entry| entry.presence == Presence::Program);
    for entry in servers.filter(|entry| entry.kind == ServiceKind::Inet) {
        let Some((host, port)) = entry.host_and_port() else { continue };
        let hosts = host.map_or_else(|| interfaces.clone(), |host| vec![host.to_owned()]);
        let places: Vec<Place> = hosts.iter().flat_map(|host| Place::all_of(host)).collect();
        let places = places.into_iter().filter(|place| place.ip().is_none_or(is_used));
        let places: Vec<_> = places.map(|place| (entry, port, place)).collect();
        let clash = places.iter().find_map(|(_, port, place)| {
            listening.iter().find(|(_, other, earlier)| other == port && earlier.overlaps(place))
        });
        if let Some((earlier, port, _)) = clash {
            remarks.error(
                entry.line,
                format!(
                    "service {} listens at port {port} of an address at which {} of line {} listens; give it another port \
                     or address, or remove one of the two",
                    entry.name, earlier.name, earlier.line
                ),
            );
        } else {
            listening.extend(places);
        }
    }
}

/// Where a service listens, as far as it can be told without asking anybody for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Ip(IpAddr),
    Host(String),
}

impl Place {
    fn all_of(host: &str) -> Vec<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let addresses = match host.as_str() {
            "all" => ["0.0.0.0", "::"],
            "loopback-only" | "localhost" => ["127.0.0.1", "::1"],
            _ => return vec![host.parse().map_or(Self::Host(host), Self::Ip)],
        };
        addresses.into_iter().filter_map(|address| address.parse().ok().map(Self::Ip)).collect()
    }

    const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Host(_) => None,
        }
    }

    /// What listens at all addresses listens at each.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(one), Self::Ip(two)) => {
                one == two
                    || (one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified()))
            }
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Config, Severity, Snapshot};

    fn told(main_cf: &str, names: &[&str]) -> Vec<(u32, String)> {
        let master_cf: String = names.iter().map(|name| format!("{name} inet n - n - - smtpd\n")).collect();
        let main_cf = format!("compatibility_level = 3.6\n{main_cf}\n").into_bytes();
        let snapshot = Snapshot { main_cf, master_cf: master_cf.into_bytes() };
        let (_, found) = Config::inspect(Path::new("/nowhere"), &snapshot, &[]);
        let errors = found.into_iter().filter(|found| found.severity == Severity::Error);
        errors.map(|found| (found.line, found.text)).collect()
    }

    #[test]
    fn two_services_at_one_address_are_an_error() {
        let text = "service 25 listens at port 25 of an address at which smtp of line 1 listens; give it another port or \
                    address, or remove one of the two";
        assert_eq!(told("", &["smtp", "25"]), [(2, text.to_owned())]);
        for (main_cf, names) in [
            ("", &["smtp", "127.0.0.1:25"][..]),
            ("inet_interfaces = 192.0.2.1, [::1]", &["[::1]:2525", "2525"]),
            ("inet_interfaces = loopback-only", &["localhost:2525", "2525"]),
            ("", &["mail.example.com:2525", "Mail.Example.com:2525"]),
        ] {
            assert_eq!(told(main_cf, names).len(), 1, "{names:?}");
        }
    }

    #[test]
    fn services_with_addresses_of_their_own_are_none() {
        for (main_cf, names) in [
            ("", &["smtp", "submission", "127.0.0.1:10025"][..]),
            ("inet_interfaces = 192.0.2.1", &["127.0.0.1:25", "25"]),
            ("inet_protocols = ipv4", &["smtp", "[::1]:25"]),
            ("inet_protocols = ipv6", &["[::1]:2525", "127.0.0.1:2525"]),
        ] {
            assert_eq!(told(main_cf, names), [], "{names:?}");
        }
    }
}
