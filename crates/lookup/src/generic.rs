//! generic(5): the addresses that the world is shown in place of local ones, when a message leaves the host.

use mail::Address;

use crate::LookupError;
use crate::mapping::AddressMapping;
use crate::warning::warn;

/// `smtp_generic_maps`, or another list of its kind.
pub struct Generic {
    mapping: Option<AddressMapping>,
}

impl Generic {
    pub(crate) const fn new(mapping: Option<AddressMapping>) -> Self {
        Self { mapping }
    }

    /// Whether no address changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mapping.is_none()
    }

    /// The address to show: mapped once, or the same.
    ///
    /// # Errors
    /// A table cannot be asked, or what it says is no address.
    pub fn map(&self, address: &Address) -> Result<Option<Address>, LookupError> {
        let Some(mapping) = &self.mapping else { return Ok(None) };
        let Some(found) = mapping.step(address)? else { return Ok(None) };
        if found.len() > 1 {
            warn(format_args!(
                "generic mapping: {address} has more than one address; only the first is used"
            ));
        }
        Ok(found.into_iter().next())
    }
}
