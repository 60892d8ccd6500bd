//! Routing: which transport takes a recipient, and to which next hop.
//!
//! The rules are those of Postfix's trivial-rewrite(8) and transport(5), computed where they are needed instead of being
//! asked of a daemon. What can be read from `main.cf` is taken apart once, when the resolver is made.

use mail::Address;

use crate::destination::{Class, Destination, Destinations};
use crate::domain::Parents;
use crate::{LookupError, Maps, OpenError};

/// What qmgr needs to know to deliver to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name of a service of `master.cf`.
    pub transport: String,
    /// What the transport is told about the destination: a domain, `[host]:port`, for `error` and `retry` a text.
    pub nexthop: String,
    /// The recipient, without routing that ended here.
    pub recipient: Address,
    /// The class of its domain.
    pub class: Class,
}

/// Finds the route of an address.
pub struct Resolver {
    pub(crate) destinations: Destinations,
    pub(crate) transports: Transports,
    pub(crate) maps: RouteMaps,
    pub(crate) transport_parents: Parents,
    pub(crate) relayhost: Option<Box<str>>,
    pub(crate) show_user_unknown_table_name: bool,
    pub(crate) empty_address_relayhost_maps_lookup_key: Address,
    pub(crate) empty_address_default_transport_maps_lookup_key: Address,
}

/// The transports of the classes.
pub(crate) struct Transports {
    pub(crate) local: Target,
    pub(crate) virtual_mailbox: Target,
    pub(crate) relay: Target,
    pub(crate) default: Target,
}

pub(crate) struct RouteMaps {
    pub(crate) transport: Maps,
    pub(crate) relocated: Maps,
    pub(crate) sender_dependent_relayhost: Maps,
    pub(crate) sender_dependent_default_transport: Maps,
}

/// `transport:nexthop`, where either may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    transport: Box<str>,
    nexthop: Box<str>,
}

impl Target {
    /// From the value of a parameter, where a transport must be named.
    pub(crate) fn of_parameter(parameter: &str, value: &str) -> Result<Self, OpenError> {
        let target = Self::parse(value);
        if target.transport.is_empty() {
            let text = format!(
                "{parameter} = {value}: no transport is named: expected \"transport\" or \"transport:nexthop\""
            );
            return Err(OpenError::Configuration(text));
        }
        Ok(target)
    }

    fn parse(value: &str) -> Self {
        let (transport, nexthop) = value.split_once(':').unwrap_or((value, ""));
        Self { transport: transport.into(), nexthop: nexthop.into() }
    }
}

impl Resolver {
    /// The classes of domains and the searches, for those who need no route.
    #[must_use]
    pub fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// The route of a message from `sender` to `recipient`. An address that can never be delivered has a route as well:
    /// to `error`, with the enhanced status code and the reason as next hop.
    ///
    /// # Errors
    /// A table could not be asked, so that nobody knows the route now.
    pub fn resolve(&self, sender: &Address, recipient: &Address) -> Result<Route, LookupError> {
        self.route(sender, self.destinations.find(recipient)?)
    }

    /// As [`Resolver::resolve`], where the destination is known already.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub fn route(&self, sender: &Address, destination: Destination<'_>) -> Result<Route, LookupError> {
        if destination.malformed {
            return Ok(error_route(destination, "5.1.3 bad address syntax".to_owned()));
        }
        if let Some(moved) =
            self.destinations.search().general(&self.maps.relocated, &destination.recipient)?
        {
            return Ok(error_route(destination, format!("5.1.6 User has moved to {}", moved.value)));
        }
        if destination.class == Class::VirtualAlias {
            // What has an alias was replaced before it came here.
            let table = if self.show_user_unknown_table_name { " in virtual alias table" } else { "" };
            return Ok(error_route(destination, format!("5.1.1 User unknown{table}")));
        }
        let (transport, nexthop) = match self.transport_entry(&destination)? {
            Some(Target { transport, nexthop }) if transport.is_empty() => {
                let usual = self.usual_route(sender, &destination)?;
                if nexthop.is_empty() { usual } else { (usual.0, nexthop.into()) }
            }
            Some(Target { transport, nexthop }) => {
                let nexthop = if !nexthop.is_empty() {
                    nexthop.into()
                } else if &*transport == "error" {
                    "Address is undeliverable".to_owned()
                } else {
                    destination.domain().to_owned()
                };
                (transport.into(), nexthop)
            }
            None => self.usual_route(sender, &destination)?,
        };
        let Destination { recipient, class, .. } = destination;
        Ok(Route { transport, nexthop, recipient: recipient.into_owned(), class })
    }

    fn transport_entry(&self, destination: &Destination<'_>) -> Result<Option<Target>, LookupError> {
        let search = self.destinations.search();
        let value = search.transport(&self.maps.transport, &destination.recipient, self.transport_parents)?;
        Ok(value.map(|value| Target::parse(&value)))
    }

    /// The transport and next hop of the destination's class.
    fn usual_route(
        &self,
        sender: &Address,
        destination: &Destination<'_>,
    ) -> Result<(String, String), LookupError> {
        let of_sender;
        let (target, leaves_host) = match destination.class {
            Class::Local => (&self.transports.local, false),
            Class::VirtualMailbox => (&self.transports.virtual_mailbox, false),
            Class::Relay => (&self.transports.relay, true),
            Class::Default | Class::VirtualAlias => {
                of_sender = self.default_transport_of(sender)?;
                (of_sender.as_ref().unwrap_or(&self.transports.default), true)
            }
        };
        let nexthop = if !target.nexthop.is_empty() {
            target.nexthop.to_string()
        } else if leaves_host {
            self.relayhost_of(sender)?.unwrap_or_else(|| destination.domain().to_owned())
        } else {
            destination.domain().to_owned()
        };
        Ok((target.transport.to_string(), nexthop))
    }

    fn default_transport_of(&self, sender: &Address) -> Result<Option<Target>, LookupError> {
        let maps = &self.maps.sender_dependent_default_transport;
        let key = &self.empty_address_default_transport_maps_lookup_key;
        let Some(value) = self.value_for_sender(maps, sender, key)? else { return Ok(None) };
        let target = Target::parse(&value);
        if target.transport.is_empty() {
            let cause = format!("\"{value}\" for the sender {sender:?} names no transport");
            return Err(LookupError::new("sender_dependent_default_transport_maps", cause));
        }
        Ok(Some(target))
    }

    fn relayhost_of(&self, sender: &Address) -> Result<Option<String>, LookupError> {
        let maps = &self.maps.sender_dependent_relayhost;
        let value = self.value_for_sender(maps, sender, &self.empty_address_relayhost_maps_lookup_key)?;
        Ok(value.or_else(|| self.relayhost.as_deref().map(str::to_owned)))
    }

    /// A sender's value in `maps`; `DUNNO` stands for "as if it were not there".
    fn value_for_sender(
        &self,
        maps: &Maps,
        sender: &Address,
        null_key: &Address,
    ) -> Result<Option<String>, LookupError> {
        let key = if sender.is_null() { null_key } else { sender };
        let found = self.destinations.search().general(maps, key)?;
        Ok(found.map(|found| found.value).filter(|value| !value.eq_ignore_ascii_case("DUNNO")))
    }
}

fn error_route(destination: Destination<'_>, reason: String) -> Route {
    let Destination { recipient, class, .. } = destination;
    Route { transport: "error".to_owned(), nexthop: reason, recipient: recipient.into_owned(), class }
}
