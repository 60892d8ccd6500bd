//! What smtpd asks about a recipient while the client waits: is it known, and is mail for it taken from strangers.

use mail::{Address, Dsn};

use crate::destination::{Class, Destination};
use crate::resolve::{Resolver, Route};
use crate::{Absorbed, LookupError, Maps};

/// The tables that tell known recipients from unknown ones.
pub struct RecipientCheck {
    pub(crate) resolver: Resolver,
    pub(crate) absorbed: Absorbed,
    pub(crate) maps: RecipientMaps,
    pub(crate) reject_codes: RejectCodes,
    pub(crate) allow_untrusted_routing: bool,
    pub(crate) show_user_unknown_table_name: bool,
}

pub(crate) struct RecipientMaps {
    /// Tables that make a recipient known in every class: canonical and virtual alias maps.
    pub(crate) replaced: Vec<Maps>,
    pub(crate) local: Maps,
    pub(crate) virtual_mailbox: Maps,
    pub(crate) relay: Maps,
}

/// `unknown_local_recipient_reject_code` and its relatives.
pub(crate) struct RejectCodes {
    pub(crate) local: u16,
    pub(crate) virtual_alias: u16,
    pub(crate) virtual_mailbox: u16,
    pub(crate) relay: u16,
}

/// What is known about a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It exists, or its class has no list of recipients.
    Known {
        /// The class of its domain.
        class: Class,
    },
    /// Mail for it would only be returned.
    Unknown(Rejection),
    /// Its syntax is bad: `501 5.1.3 Bad recipient address syntax`.
    Malformed,
}

/// A reply of the form `CODE DSN <address>: Recipient address rejected: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reply code.
    pub code: u16,
    /// The enhanced status code.
    pub dsn: Dsn,
    /// Whether the route has that code, and may mean something else than an unknown recipient.
    pub dsn_is_given: bool,
    /// The reason.
    pub text: String,
}

impl RecipientCheck {
    /// The resolver this check is made with.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Whether mail from `sender` to `recipient` could be delivered, as far as the tables tell.
    ///
    /// # Errors
    /// A table could not be asked: `451 4.3.0`.
    pub fn check(&self, recipient: &Address, sender: &Address) -> Result<Verdict, LookupError> {
        let destination = self.resolver.destinations().find(recipient)?;
        if destination.malformed {
            return Ok(Verdict::Malformed);
        }
        let route = self.resolver.route(sender, destination)?;
        let class = route.class;
        for maps in &self.maps.replaced {
            if self.holds(maps, recipient)?
                || (route.recipient != *recipient && self.holds(maps, &route.recipient)?)
            {
                return Ok(Verdict::Known { class });
            }
        }
        if let Some(rejection) = self.undeliverable(&route) {
            return Ok(Verdict::Unknown(rejection));
        }
        let (maps, code, table) = match class {
            Class::Local => (&self.maps.local, self.reject_codes.local, "local recipient"),
            Class::VirtualMailbox => {
                (&self.maps.virtual_mailbox, self.reject_codes.virtual_mailbox, "virtual mailbox")
            }
            Class::Relay => (&self.maps.relay, self.reject_codes.relay, "relay recipient"),
            Class::VirtualAlias | Class::Default => return Ok(Verdict::Known { class }),
        };
        let is_absorbed = class == Class::Local && self.absorbed.contains(&route.recipient);
        if maps.is_empty() || is_absorbed || self.holds(maps, &route.recipient)? {
            return Ok(Verdict::Known { class });
        }
        let table =
            if self.show_user_unknown_table_name { format!(" in {table} table") } else { String::new() };
        let text = format!("User unknown{table}");
        Ok(Verdict::Unknown(Rejection::new(code, Dsn::new(5, 1, 1), text)))
    }

    /// Whether a stranger may send to `recipient`: this host is its destination, or a relay for its domain and nothing
    /// in the address sends it on from there. (`reject_unauth_destination` refuses the others.)
    ///
    /// # Errors
    /// A table could not be asked: `451 4.3.0`.
    pub fn relay_permitted(&self, recipient: &Address) -> Result<bool, LookupError> {
        Ok(self.is_authorized(&self.resolver.destinations().find(recipient)?))
    }

    fn is_authorized(&self, destination: &Destination<'_>) -> bool {
        if destination.routed && !self.allow_untrusted_routing {
            return false;
        }
        match destination.class {
            Class::Local | Class::VirtualAlias | Class::VirtualMailbox | Class::Relay => true,
            Class::Default => false,
        }
    }

    fn holds(&self, maps: &Maps, address: &Address) -> Result<bool, LookupError> {
        Ok(self.resolver.destinations().search().general(maps, address)?.is_some())
    }

    /// The reason why a route to `error` or `retry` leads nowhere.
    fn undeliverable(&self, route: &Route) -> Option<Rejection> {
        let (code, dsn) = match route.transport.as_str() {
            "error" if route.class == Class::VirtualAlias => {
                (self.reject_codes.virtual_alias, Dsn::new(5, 1, 1))
            }
            "error" => (550, Dsn::new(5, 1, 1)),
            "retry" => (450, Dsn::new(4, 1, 1)),
            _ => return None,
        };
        let (word, rest) = route.nexthop.split_once(' ').unwrap_or(("", &route.nexthop));
        let (dsn, dsn_is_given, text) = match word.parse() {
            Ok(dsn) => (dsn, true, rest.trim_start()),
            Err(_) => (dsn, route.class == Class::VirtualAlias, route.nexthop.as_str()),
        };
        Some(Rejection { dsn_is_given, ..Rejection::new(code, dsn, text.to_owned()) })
    }
}

impl Rejection {
    /// The class of the status code follows the reply code, which the operator may have changed to a temporary one.
    fn new(code: u16, dsn: Dsn, text: String) -> Self {
        let dsn = dsn.with_class(if code < 500 { 4 } else { 5 });
        Self { code, dsn, dsn_is_given: false, text }
    }
}
