//! Whether `mynetworks` trusts hosts all over the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::{Config, param};

use crate::domain::Parents;
use crate::interfaces::Protocols;
use crate::{MatchList, OpenError};

/// So many of the addresses below are in no site's own networks: it takes a sixteenth of IPv4, or what two registries of
/// IPv6 give out.
const TOO_MANY: usize = 2;

/// The item of `mynetworks`, or all of them, that holds hosts from all over the internet.
///
/// # Errors
/// An item that can never work.
pub fn trusted_strangers(config: &Config) -> Result<Option<String>, OpenError> {
    let items = config.get(param::MYNETWORKS);
    let protocols = Protocols::new(&config.get(param::INET_PROTOCOLS));
    let holds_strangers = |items: &[String]| {
        let list = MatchList::hosts("mynetworks", items, Parents::from_config(config, "mynetworks"))?;
        Ok(is_trusting(&list, strangers_v4().take_while(|_| protocols.v4))
            || is_trusting(&list, strangers_v6().take_while(|_| protocols.v6)))
    };
    // What an item with a "!" takes away from a later one, the whole list knows.
    if !holds_strangers(&items)? {
        return Ok(None);
    }
    for item in &items {
        if holds_strangers(std::slice::from_ref(item))? {
            return Ok(Some(item.clone()));
        }
    }
    Ok(Some(items.join(" ")))
}

/// One address of every eighth network of the size of 10.0.0.0/8.
fn strangers_v4() -> impl Iterator<Item = IpAddr> {
    (1..224).step_by(8).map(|first| Ipv4Addr::new(first, 77, 201, 35).into())
}

/// One address of what each registry gives out.
fn strangers_v6() -> impl Iterator<Item = IpAddr> {
    let blocks = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c0f];
    blocks.into_iter().map(|first| Ipv6Addr::new(first, 0x4d4, 0, 0, 0, 0, 0, 0x35).into())
}

/// A table that cannot be asked trusts nobody.
fn is_trusting(list: &MatchList, strangers: impl Iterator<Item = IpAddr>) -> bool {
    strangers.filter(|ip| list.matches_host("unknown", *ip).unwrap_or(false)).nth(TOO_MANY - 1).is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn trusted(settings: &str) -> Option<String> {
        let main_cf =
            format!("myhostname = mail.example.com\ninet_protocols = all\n{settings}\n").into_bytes();
        let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
        trusted_strangers(&Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0).unwrap()
    }

    #[test]
    fn the_item_that_trusts_the_world_is_found() {
        for (value, item) in [
            ("127.0.0.0/8, 0.0.0.0/0", "0.0.0.0/0"),
            ("127.0.0.0/8 [::]/0", "[::]/0"),
            ("[2000::]/3", "[2000::]/3"),
            ("128.0.0.0/1 10.0.0.0/8", "128.0.0.0/1"),
            ("!192.0.2.0/24 static:all", "static:all"),
            ("cidr:{ {0.0.0.0/0 yes} }", "cidr:{ {0.0.0.0/0 yes} }"),
            ("1.0.0.0/8 9.0.0.0/8 17.0.0.0/8", "1.0.0.0/8 9.0.0.0/8 17.0.0.0/8"),
        ] {
            assert_eq!(trusted(&format!("mynetworks = {value}")).as_deref(), Some(item), "{value}");
        }
    }

    #[test]
    fn networks_of_ones_own_are_no_strangers() {
        for value in [
            "127.0.0.0/8 [::1]/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 [fc00::]/7 [fe80::]/10",
            "17.0.0.0/8 [2600::]/12",
            "!0.0.0.0/0 0.0.0.0/0",
            "example.com hash:/no/such/file",
            "",
        ] {
            assert_eq!(trusted(&format!("mynetworks = {value}")), None, "{value}");
        }
        assert_eq!(trusted("mynetworks = [::]/0\ninet_protocols = ipv4"), None);
        assert_eq!(trusted(""), None);
    }
}
