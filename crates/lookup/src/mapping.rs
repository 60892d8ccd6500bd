//! One step of mapping an address through a table: look it up, read the value as addresses, complete them, give them the
//! extension that the table did not know.

use mail::{Address, header_address};

use crate::address_search::{AddressSearch, Found};
use crate::rewrite::{RewriteContext, Rewriter};
use crate::{LookupError, Maps};

/// A list of tables from addresses to addresses, with all that it takes to use it.
pub(crate) struct AddressMapping {
    maps: Maps,
    search: AddressSearch,
    rewriter: Rewriter,
    /// `propagate_unmatched_extensions` names this use.
    propagate: bool,
}

impl AddressMapping {
    pub(crate) fn new(maps: Maps, search: AddressSearch, rewriter: Rewriter, propagate: bool) -> Self {
        Self { maps, search, rewriter, propagate }
    }

    /// What `address` is mapped to, at least one address; `None` where no table knows it. The null address is not
    /// looked up.
    pub(crate) fn step(&self, address: &Address) -> Result<Option<Vec<Address>>, LookupError> {
        if self.maps.is_empty() || address.is_null() {
            return Ok(None);
        }
        let Some(Found { value, extension }) = self.search.general(&self.maps, address)? else {
            return Ok(None);
        };
        let extension = extension.as_deref().unwrap_or_default();
        // `@other` means the same user there; the extension comes back below if it is to be kept.
        let mapped = if value.starts_with('@') {
            let user = address.local_part();
            let user = user.strip_suffix(extension).unwrap_or(user);
            header_address::parse_list(&format!("{}{value}", quoted(user)))
        } else {
            header_address::parse_list(&value)
        };
        let kept = if self.propagate { extension } else { "" };
        let results: Vec<_> = mapped.iter().filter_map(|result| self.complete(result, kept)).collect();
        if results.is_empty() {
            let cause = format!("the value \"{value}\" for {address} holds no address");
            return Err(LookupError::new(&self.labels(), cause));
        }
        Ok(Some(results))
    }

    fn complete(&self, result: &Address, extension: &str) -> Option<Address> {
        let standard = self.rewriter.rewrite(result, RewriteContext::Local);
        if extension.is_empty() {
            return Some(standard.into_owned());
        }
        let local = standard.local_part();
        match standard.domain() {
            Some(domain) => Address::new(format!("{local}{extension}@{domain}")).ok(),
            None => Address::new(format!("{local}{extension}")).ok(),
        }
    }

    fn labels(&self) -> String {
        self.maps.tables().iter().map(|table| table.label()).collect::<Vec<_>>().join(", ")
    }
}

/// A local part as it stands in a list of addresses.
fn quoted(local: &str) -> String {
    Address::new(local).map_or_else(|_| local.to_owned(), |address| address.to_path())
}
