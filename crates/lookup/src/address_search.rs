//! The orders in which the parts of an address are looked for in tables: one function for each kind of table.
//!
//! Every order begins with the whole address and goes on to less specific keys; each key is asked of all tables before
//! the next one is made. A table of patterns is asked for the whole address only. A local part that needs quotes is
//! looked for with them, then without. Keys that are a slice of the address cost no allocation; only an address with an
//! extension or with quotes makes new ones.

use std::sync::Arc;

use mail::Address;

use crate::domain::Parents;
use crate::local_domains::LocalDomains;
use crate::{Delimiters, LookupError, Maps};

/// What a search came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The table's value.
    pub value: String,
    /// The extension of the address, with its delimiter, where the key that matched did not have it.
    pub extension: Option<String>,
}

/// What the searches need to know of the configuration. Cheap to clone.
#[derive(Clone)]
pub struct AddressSearch {
    settings: Arc<Settings>,
}

struct Settings {
    delimiters: Delimiters,
    myorigin: Box<str>,
    local: LocalDomains,
}

impl AddressSearch {
    /// `myorigin` is a domain whose users are found by their bare names, as those of the `local` domains are.
    #[must_use]
    pub fn new(delimiters: Delimiters, myorigin: &str, local: LocalDomains) -> Self {
        Self { settings: Arc::new(Settings { delimiters, myorigin: myorigin.into(), local }) }
    }

    /// The characters that set off an extension.
    #[must_use]
    pub fn delimiters(&self) -> &Delimiters {
        &self.settings.delimiters
    }

    /// The domains of the local class.
    #[must_use]
    pub fn local_domains(&self) -> &LocalDomains {
        &self.settings.local
    }

    /// canonical(5), virtual(5), relocated(5), lists of recipients, tables asked for a sender: `user+ext@domain`,
    /// `user@domain`, for local domains `user+ext` and `user`, at last `@domain`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn general(&self, maps: &Maps, address: &Address) -> Result<Option<Found>, LookupError> {
        if maps.is_empty() {
            return Ok(None);
        }
        let keys = Keys::new(address.as_str(), &self.settings.delimiters);
        if let Some(found) = keys.with_domain(maps)? {
            return Ok(Some(found));
        }
        let Some(domain) = keys.domain else { return Ok(None) };
        if self.names_users_of(domain)?
            && let Some(found) = keys.without_domain(maps)?
        {
            return Ok(Some(found));
        }
        keys.at_domain(maps)
    }

    /// Whether a bare user name in a table stands for the users of `domain`.
    fn names_users_of(&self, domain: &str) -> Result<bool, LookupError> {
        Ok(domain.eq_ignore_ascii_case(&self.settings.myorigin) || self.settings.local.contain(domain)?)
    }

    /// The mailbox tables of virtual(8): `user+ext@domain`, `user@domain`, `@domain`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn mailbox(&self, maps: &Maps, address: &Address) -> Result<Option<Found>, LookupError> {
        let keys = Keys::new(address.as_str(), &self.settings.delimiters);
        match keys.with_domain(maps)? {
            Some(found) => Ok(Some(found)),
            None => keys.at_domain(maps),
        }
    }

    /// aliases(5): `user+ext`, then `user`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn alias(&self, maps: &Maps, local: &str) -> Result<Option<Found>, LookupError> {
        if let Some(value) = maps.get(local)? {
            return Ok(Some(Found { value, extension: None }));
        }
        let Some((user, extension)) = self.settings.delimiters.split(local) else { return Ok(None) };
        let value = maps.get(user)?;
        Ok(value.map(|value| Found { value, extension: Some(extension.to_owned()) }))
    }

    /// transport(5): `user+ext@domain`, `user@domain`, `domain`, its parents, `*`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn transport(
        &self,
        maps: &Maps,
        address: &Address,
        parents: Parents,
    ) -> Result<Option<String>, LookupError> {
        if maps.is_empty() {
            return Ok(None);
        }
        let keys = Keys::new(address.as_str(), &self.settings.delimiters);
        if let Some(found) = keys.with_domain(maps)? {
            return Ok(Some(found.value));
        }
        if let Some(value) = first_part(maps, parents.keys(keys.domain.unwrap_or_default()))? {
            return Ok(Some(value));
        }
        maps.get("*")
    }

    /// access(5) for an address: `user+ext@domain`, `user@domain`, `domain`, its parents, `user+ext@`, `user@`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub fn access(
        &self,
        maps: &Maps,
        address: &Address,
        parents: Parents,
    ) -> Result<Option<String>, LookupError> {
        let keys = Keys::new(address.as_str(), &self.settings.delimiters);
        if let Some(found) = keys.with_domain(maps)? {
            return Ok(Some(found.value));
        }
        if let Some(value) = first_part(maps, parents.keys(keys.domain.unwrap_or_default()))? {
            return Ok(Some(value));
        }
        for user in [Some(keys.local), keys.parts.map(|(user, _)| user)].into_iter().flatten() {
            if let Some(value) = part(maps, &joined(user, ""))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// An address taken apart into what it can be looked for by.
struct Keys<'a> {
    address: &'a str,
    local: &'a str,
    domain: Option<&'a str>,
    /// User and extension, where there is one.
    parts: Option<(&'a str, &'a str)>,
}

impl<'a> Keys<'a> {
    fn new(address: &'a str, delimiters: &Delimiters) -> Self {
        let (local, domain) =
            address.rsplit_once('@').map_or((address, None), |(local, domain)| (local, Some(domain)));
        Self { address, local, domain, parts: delimiters.split(local) }
    }

    /// `user+ext@domain`, `user@domain`.
    fn with_domain(&self, maps: &Maps) -> Result<Option<Found>, LookupError> {
        if let Some(value) = whole(maps, self.address)? {
            return Ok(Some(Found { value, extension: None }));
        }
        let Some((user, extension)) = self.parts else { return Ok(None) };
        let value = match self.domain {
            Some(domain) => part(maps, &joined(user, domain))?,
            None => part(maps, user)?,
        };
        Ok(value.map(|value| Found { value, extension: Some(extension.to_owned()) }))
    }

    /// `user+ext`, `user`.
    fn without_domain(&self, maps: &Maps) -> Result<Option<Found>, LookupError> {
        if let Some(value) = part(maps, self.local)? {
            return Ok(Some(Found { value, extension: None }));
        }
        let Some((user, extension)) = self.parts else { return Ok(None) };
        let value = part(maps, user)?;
        Ok(value.map(|value| Found { value, extension: Some(extension.to_owned()) }))
    }

    /// `@domain`.
    fn at_domain(&self, maps: &Maps) -> Result<Option<Found>, LookupError> {
        let key = &self.address[self.local.len()..];
        let value = if key.is_empty() { None } else { maps.get_part(key)? };
        Ok(value.map(|value| Found { value, extension: None }))
    }
}

/// Asks for a whole address: with the quotes that its local part may need, then without.
fn whole(maps: &Maps, address: &str) -> Result<Option<String>, LookupError> {
    if let Some(quoted) = quoted(address)
        && let Some(value) = maps.get(&quoted)?
    {
        return Ok(Some(value));
    }
    maps.get(address)
}

/// As [`whole`], for a part of an address: tables of patterns are left out.
fn part(maps: &Maps, address: &str) -> Result<Option<String>, LookupError> {
    if let Some(quoted) = quoted(address)
        && let Some(value) = maps.get_part(&quoted)?
    {
        return Ok(Some(value));
    }
    maps.get_part(address)
}

/// The address with quotes around its local part, where that is not a dot-string (RFC 5321 section 4.1.2).
fn quoted(address: &str) -> Option<String> {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    is_quoted_outside(local).then(|| Address::new(address).ok().map(|address| address.to_path()))?
}

/// Whether a local part stands between quotes outside of this program: it is not a dot-string.
pub(crate) fn is_quoted_outside(local: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    local.split('.').any(|atom| atom.is_empty() || !atom.bytes().all(atext))
}

/// access(5) for a host or domain name: the name, then its parents.
///
/// # Errors
/// A table could not be asked.
pub fn access_domain(maps: &Maps, name: &str, parents: Parents) -> Result<Option<String>, LookupError> {
    if let Some(value) = maps.get(name)? {
        return Ok(Some(value));
    }
    first_part(maps, parents.keys(name).skip(1))
}

/// access(5) for a host address in text form: the address, then ever shorter networks, cut at `.` or `:`.
///
/// # Errors
/// A table could not be asked.
pub fn access_address(maps: &Maps, ip: &str) -> Result<Option<String>, LookupError> {
    if let Some(value) = maps.get(ip)? {
        return Ok(Some(value));
    }
    let separator = if ip.contains(':') { ':' } else { '.' };
    let mut network = ip;
    while let Some((shorter, _)) = network.rsplit_once(separator)
        && !shorter.is_empty()
    {
        network = shorter;
        if let Some(value) = maps.get_part(network)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn first_part<'a>(maps: &Maps, keys: impl Iterator<Item = &'a str>) -> Result<Option<String>, LookupError> {
    for key in keys {
        if let Some(value) = maps.get_part(key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn joined(user: &str, domain: &str) -> String {
    let mut key = String::with_capacity(user.len() + 1 + domain.len());
    key.push_str(user);
    key.push('@');
    key.push_str(domain);
    key
}
