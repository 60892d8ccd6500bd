//! Canonical mapping and masquerading: the form in which addresses are shown to the world, canonical(5).

use mail::Address;

use crate::mapping::AddressMapping;
use crate::warning::warn;
use crate::{LookupError, MatchList};

/// An address may be mapped this often before it is taken for a loop.
const MAPPING_LIMIT: usize = 10;

/// Where an address stands: what `canonical_classes` and its relatives choose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The reverse path.
    EnvelopeSender,
    /// A forward path.
    EnvelopeRecipient,
    /// `From:`, `Sender:`, `Reply-To:` and the like.
    HeaderSender,
    /// `To:`, `Cc:` and the like.
    HeaderRecipient,
}

/// A set of [`Usage`]s, the value of `canonical_classes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usages(u8);

impl Usages {
    /// Names that are none are for the configuration's checks to complain about.
    pub(crate) fn new(names: &[String]) -> Self {
        let bits = names.iter().map(|name| match name.as_str() {
            "envelope_sender" => Usage::EnvelopeSender.bit(),
            "envelope_recipient" => Usage::EnvelopeRecipient.bit(),
            "header_sender" => Usage::HeaderSender.bit(),
            "header_recipient" => Usage::HeaderRecipient.bit(),
            _ => 0,
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    fn has(self, usage: Usage) -> bool {
        self.0 & usage.bit() != 0
    }
}

impl Usage {
    const fn bit(self) -> u8 {
        match self {
            Self::EnvelopeSender => 1,
            Self::EnvelopeRecipient => 2,
            Self::HeaderSender => 4,
            Self::HeaderRecipient => 8,
        }
    }

    const fn is_sender(self) -> bool {
        matches!(self, Self::EnvelopeSender | Self::HeaderSender)
    }
}

/// The canonical tables in force.
pub struct Canonical {
    pub(crate) sender: Stage,
    pub(crate) recipient: Stage,
    pub(crate) both: Stage,
}

/// One of the three lists of tables, with the addresses it applies to.
pub(crate) struct Stage {
    pub(crate) parameter: &'static str,
    pub(crate) mapping: AddressMapping,
    pub(crate) usages: Usages,
}

impl Canonical {
    /// The address that is shown for `address`, which is in standard form; `None` where that is itself.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn map(&self, address: &Address, usage: Usage) -> Result<Option<Address>, LookupError> {
        let first = if usage.is_sender() { &self.sender } else { &self.recipient };
        let one = first.map(address, usage)?;
        let both = self.both.map(one.as_ref().unwrap_or(address), usage)?;
        Ok(both.or(one))
    }
}

impl Stage {
    fn map(&self, address: &Address, usage: Usage) -> Result<Option<Address>, LookupError> {
        if !self.usages.has(usage) {
            return Ok(None);
        }
        let mut mapped: Option<Address> = None;
        for _ in 0..MAPPING_LIMIT {
            let current = mapped.as_ref().unwrap_or(address);
            let Some(results) = self.mapping.step(current)? else { return Ok(mapped) };
            let Some(next) = results.into_iter().next() else { return Ok(mapped) };
            let is_final = next.as_str().eq_ignore_ascii_case(current.as_str());
            mapped = Some(next);
            if is_final {
                return Ok(mapped);
            }
        }
        warn(format_args!(
            "{}: {address} is mapped on and on; stopped after {MAPPING_LIMIT} times",
            self.parameter
        ));
        Ok(mapped)
    }
}

/// `masquerade_domains` and what belongs to it.
pub struct Masquerade {
    pub(crate) domains: Vec<String>,
    pub(crate) exceptions: MatchList,
    pub(crate) usages: Usages,
}

impl Masquerade {
    /// `address` without the subdomains that are to be hidden; `None` where nothing changes.
    ///
    /// # Errors
    /// A table of `masquerade_exceptions` could not be asked.
    pub fn apply(&self, address: &Address, usage: Usage) -> Result<Option<Address>, LookupError> {
        let Some(domain) = address.domain() else { return Ok(None) };
        if self.domains.is_empty() || !self.usages.has(usage) {
            return Ok(None);
        }
        let Some(shown) = self.shown_for(domain) else { return Ok(None) };
        if self.exceptions.matches(address.local_part())? {
            return Ok(None);
        }
        Ok(address.with_domain(shown).ok())
    }

    /// The first listed domain that is `domain` or a parent of it decides.
    fn shown_for(&self, domain: &str) -> Option<&str> {
        for item in &self.domains {
            let listed = item.trim_start_matches('!');
            let is_hidden = (item.len() - listed.len()) % 2 == 0;
            if listed.is_empty() {
                continue;
            }
            if domain.eq_ignore_ascii_case(listed) {
                return None;
            }
            if is_subdomain(domain, listed) {
                return is_hidden.then_some(listed);
            }
        }
        None
    }
}

fn is_subdomain(domain: &str, parent: &str) -> bool {
    let at = domain.len().checked_sub(parent.len());
    let Some((below, tail)) = at.and_then(|at| domain.split_at_checked(at)) else { return false };
    below.ends_with('.') && tail.eq_ignore_ascii_case(parent)
}
