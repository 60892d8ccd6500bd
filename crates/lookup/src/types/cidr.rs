//! `cidr:file`: rules about blocks of network addresses.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Request, rules};
use crate::network::Network;
use crate::table::{OpenError, Table};

struct Block(Network);

pub(super) fn open(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    rules::open::<Block>(request)
}

impl rules::Pattern for Block {
    type Key<'k> = IpAddr;
    type Value = String;

    fn key(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    /// `address`, `address/prefix`, `[address]`, `[address]/prefix` or `[address/prefix]`.
    fn parse<'t>(text: &'t str, _doubt: &dyn Fn(&str)) -> Result<(Self, &'t str), String> {
        let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
        let (pattern, rest) = text.split_at(end);
        if pattern.is_empty() {
            return Err("expected an address pattern, such as 192.0.2.0/24".to_owned());
        }
        let bare = pattern.strip_prefix('[').and_then(|inner| {
            let (inside, outside) = inner.split_once(']')?;
            Some(format!("{inside}{outside}"))
        });
        let network = Network::parse(bare.as_deref().unwrap_or(pattern));
        network.map(|network| (Self(network), rest)).map_err(|error| format!("\"{pattern}\": {error}"))
    }

    fn value(&self, text: &str, _negated: bool, _substitute: bool) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn matches(&self, key: IpAddr) -> bool {
        self.0.contains(key)
    }

    fn answer(&self, value: &String, _key: IpAddr) -> String {
        value.clone()
    }
}
