//! Where a recipient address leads: its last domain, and the class of that domain.
//!
//! An address may carry a route: `user%other@us`, `other!user@us`, `"user@other"@us` all mean `user@other` to a host
//! that is `us`. As long as the domain is local it is taken off and what is left is looked at again, so that no
//! spelling of a foreign address passes for a local one.

use std::borrow::Cow;
use std::net::IpAddr;

use mail::Address;

use crate::address_search::{AddressSearch, is_quoted_outside};
use crate::domain::{is_hostname, literal_address};
use crate::rewrite::{RewriteContext, Rewriter, without_last_dot};
use crate::{LookupError, MatchList};

/// The classes of domains, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// `mydestination`, and the host's own addresses.
    Local,
    /// `virtual_alias_domains`: every valid address has an alias.
    VirtualAlias,
    /// `virtual_mailbox_domains`.
    VirtualMailbox,
    /// `relay_domains`.
    Relay,
    /// All others.
    Default,
}

/// A recipient address, taken to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The address without the routing that this host resolves itself; it has a domain.
    pub recipient: Cow<'a, Address>,
    /// The class of its domain.
    pub class: Class,
    /// The local part still has a `@`, `%` or `!`, by which the next host may send the message on.
    pub routed: bool,
    /// The syntax of the address is not one that can be delivered to.
    pub malformed: bool,
}

impl Destination<'_> {
    /// The domain of the recipient.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.recipient.domain().unwrap_or_default()
    }
}

/// Finds the destination of an address.
pub struct Destinations {
    pub(crate) search: AddressSearch,
    pub(crate) rewriter: Rewriter,
    pub(crate) domains: DomainClasses,
    pub(crate) settings: Settings,
}

/// The domains of the classes that have a list.
pub(crate) struct DomainClasses {
    pub(crate) virtual_alias: MatchList,
    pub(crate) virtual_mailbox: MatchList,
    pub(crate) relay: MatchList,
}

pub(crate) struct Settings {
    pub(crate) myhostname: Box<str>,
    pub(crate) empty_address_recipient: Box<str>,
    pub(crate) resolve_dequoted_address: bool,
    pub(crate) resolve_null_domain: bool,
    pub(crate) resolve_numeric_domain: bool,
    pub(crate) allow_min_user: bool,
}

/// An address that is being taken apart.
struct Split<'a> {
    local: Cow<'a, str>,
    domain: Option<Cow<'a, str>>,
}

impl<'a> Split<'a> {
    fn of(address: Cow<'a, str>) -> Self {
        match address {
            Cow::Borrowed(text) => match text.rsplit_once('@') {
                Some((local, domain)) => Self { local: local.into(), domain: Some(domain.into()) },
                None => Self { local: text.into(), domain: None },
            },
            Cow::Owned(mut text) => match text.rfind('@') {
                Some(at) => {
                    let domain = text.split_off(at + 1);
                    text.truncate(at);
                    Self { local: text.into(), domain: Some(domain.into()) }
                }
                None => Self { local: text.into(), domain: None },
            },
        }
    }
}

/// What is left of an address without its own host's routing.
struct Resolved<'a> {
    local: Cow<'a, str>,
    domain: Cow<'a, str>,
    is_local: bool,
}

impl Destinations {
    /// The searches in address tables, as this instance makes them.
    #[must_use]
    pub fn search(&self) -> &AddressSearch {
        &self.search
    }

    /// Where `recipient` leads. The null address leads to `empty_address_recipient`.
    ///
    /// # Errors
    /// A table that tells the classes apart could not be asked.
    pub fn find<'a>(&self, recipient: &'a Address) -> Result<Destination<'a>, LookupError> {
        let Resolved { local, domain, is_local } = self.resolve_routes(recipient)?;
        let address = address_of(recipient, &local, &domain);
        let well_formed = match &address {
            Some(_) if domain.starts_with('[') => literal_address(&domain).is_some(),
            Some(_) => is_hostname(&domain),
            None => false,
        };
        let class = match (well_formed, is_local) {
            (false, _) => Class::Default,
            (true, true) => Class::Local,
            (true, false) => self.class_of(&domain)?,
        };
        Ok(Destination {
            routed: local.contains(['@', '%', '!']),
            malformed: !well_formed || (local.starts_with('-') && !self.settings.allow_min_user),
            recipient: address.unwrap_or(Cow::Borrowed(recipient)),
            class,
        })
    }

    /// Takes local domains off until the domain is foreign or nothing but a local part is left.
    fn resolve_routes<'a>(&self, recipient: &'a Address) -> Result<Resolved<'a>, LookupError> {
        let mut rest = Split::of(recipient.as_str().into());
        let mut taken_off = None;
        // Each turn takes an operator or a domain off, except for the few that complete an address. The limit is for
        // settings that complete it in a circle.
        for _ in 0..recipient.as_str().len() + 100 {
            if let Some(domain) = self.domain_to_resolve(rest.domain.take()) {
                if !domain.is_empty() && !self.search.local_domains().contain(&domain)? {
                    return Ok(Resolved { local: rest.local, domain, is_local: false });
                }
                taken_off = Some(domain);
            }
            if let Some(inner) = self.route_inside(&rest.local) {
                rest = Split::of(Cow::Owned(inner));
            } else if rest.local.is_empty() {
                rest = Split::of(Cow::Owned(self.settings.empty_address_recipient.to_string()));
            } else if let Some(domain) = taken_off {
                return Ok(Resolved { local: rest.local, domain, is_local: true });
            } else {
                rest.domain = Some(Cow::Owned(self.settings.myhostname.to_string()));
            }
        }
        Ok(Resolved { local: rest.local, domain: Cow::Borrowed(""), is_local: false })
    }

    /// `domain` without a dot at its end, as a literal where it is a number and may be; `None` for the empty one where
    /// that means this host.
    fn domain_to_resolve<'a>(&self, domain: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        let domain = match domain? {
            Cow::Borrowed(text) => Cow::Borrowed(without_last_dot(text).unwrap_or(text)),
            Cow::Owned(text) => without_last_dot(&text).map(str::to_owned).unwrap_or(text).into(),
        };
        if domain.is_empty() && self.settings.resolve_null_domain {
            return None;
        }
        Some(self.numeric_domain_as_literal(&domain).map_or(domain, Cow::Owned))
    }

    /// The address that a local part stands for by `@`, `%` or `!`, in standard form.
    fn route_inside(&self, local: &str) -> Option<String> {
        let bang = self.rewriter.swap_bangpath && local.contains('!');
        let percent = self.rewriter.allow_percent_hack && local.contains('%');
        let standard = |text: &str| self.rewriter.standard_form(text, RewriteContext::Local).into_owned();
        if !is_quoted_outside(local) {
            return (bang || percent).then(|| standard(local));
        }
        // Quotes would hide the operators, but a later host may well look inside: so do we, before it is too late.
        if !self.settings.resolve_dequoted_address {
            return None;
        }
        if local.contains('@') {
            return Some(standard(local));
        }
        if percent && let Some((user, site)) = local.rsplit_once('%') {
            return Some(standard(&format!("{user}@{site}")));
        }
        if bang && let Some((site, user)) = local.split_once('!') {
            return Some(standard(&format!("{user}@{site}")));
        }
        None
    }

    /// `[192.0.2.1]` for `192.0.2.1`, where `resolve_numeric_domain` allows it.
    fn numeric_domain_as_literal(&self, domain: &str) -> Option<String> {
        if !self.settings.resolve_numeric_domain {
            return None;
        }
        match domain.parse().ok()? {
            IpAddr::V4(_) => Some(format!("[{domain}]")),
            IpAddr::V6(_) => Some(format!("[IPv6:{domain}]")),
        }
    }

    fn class_of(&self, domain: &str) -> Result<Class, LookupError> {
        if self.domains.virtual_alias.matches(domain)? {
            return Ok(Class::VirtualAlias);
        }
        if self.domains.virtual_mailbox.matches(domain)? {
            return Ok(Class::VirtualMailbox);
        }
        if self.domains.relay.matches_domain(domain)? {
            return Ok(Class::Relay);
        }
        Ok(Class::Default)
    }
}

/// `local@domain`, which is often what was given; `None` where it is too long.
fn address_of<'a>(given: &'a Address, local: &str, domain: &str) -> Option<Cow<'a, Address>> {
    if given.domain() == Some(domain) && given.local_part() == local {
        return Some(Cow::Borrowed(given));
    }
    Address::new(format!("{local}@{domain}")).ok().map(Cow::Owned)
}
