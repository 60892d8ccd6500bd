//! Which domains this system delivers to its own users: `mydestination`, and its addresses in brackets.

use std::net::IpAddr;

use crate::domain::literal_address;
use crate::{LookupError, MatchList};

/// The domains of the local class.
pub struct LocalDomains {
    destinations: MatchList,
    addresses: Vec<IpAddr>,
}

impl LocalDomains {
    /// `destinations` is `mydestination`; `addresses` what `inet_interfaces` and `proxy_interfaces` stand for.
    #[must_use]
    pub fn new(destinations: MatchList, addresses: Vec<IpAddr>) -> Self {
        Self { destinations, addresses }
    }

    /// Whether `domain`, with or without a dot at its end, is local.
    ///
    /// # Errors
    /// A table of `mydestination` could not be asked.
    pub fn contain(&self, domain: &str) -> Result<bool, LookupError> {
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        if domain.is_empty() || domain.ends_with('.') {
            return Ok(false);
        }
        if self.destinations.matches(domain)? {
            return Ok(true);
        }
        Ok(literal_address(domain).is_some_and(|ip| self.addresses.contains(&ip)))
    }
}
