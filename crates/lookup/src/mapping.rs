//! One step of mapping an address through a table: look it up, read the value as addresses, complete them, give them the
//! extension that the table did not know.

use mail::{Address, AddressError, header_address};

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
        let fails = |cause: String| LookupError::new(&self.maps.labels(), cause);
        let mapped = mapped.map_err(|why| fails(format!("the value for {address}: {why}")))?;
        if mapped.is_empty() {
            return Err(fails(format!("the value \"{value}\" for {address} holds no address")));
        }
        let kept = if self.propagate { extension } else { "" };
        let results: Result<Vec<_>, _> = mapped.iter().map(|result| self.complete(result, kept)).collect();
        results.map(Some).map_err(|why| fails(format!("the value for {address}, with its extension: {why}")))
    }

    fn complete(&self, result: &Address, extension: &str) -> Result<Address, AddressError> {
        let standard = self.rewriter.rewrite(result, RewriteContext::Local);
        if extension.is_empty() {
            return Ok(standard.into_owned());
        }
        let local = standard.local_part();
        match standard.domain() {
            Some(domain) => Address::new(format!("{local}{extension}@{domain}")),
            None => Address::new(format!("{local}{extension}")),
        }
    }
}

/// A local part as it stands in a list of addresses.
fn quoted(local: &str) -> String {
    Address::new(local).map_or_else(|_| local.to_owned(), |address| address.to_path())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Snapshot;

    use super::*;
    use crate::expand::VirtualAliases;

    #[test]
    fn no_address_of_a_value_is_left_out() {
        let long = "x".repeat(3000);
        let main_cf = format!(
            "myhostname = mail.example.com\nrecipient_delimiter = +\npropagate_unmatched_extensions = virtual\n\
             virtual_alias_maps = inline:{{ {{list@a = joe, {long}, jim}}, {{c@a = {}@b}} }}\n",
            &long[..2040]
        );
        let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
        let config = config::Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0;
        let aliases = VirtualAliases::new(&config).unwrap();
        for (recipient, why) in [
            ("list@a", "the value for list@a: address is longer than 2048 bytes: xxx"),
            ("c+extension@a", "the value for c+extension@a, with its extension: address is longer than"),
        ] {
            let address = Address::new(recipient).unwrap();
            let told = aliases.expand(&address).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
    }
}
