//! Virtual aliases: a recipient and the addresses it stands for, virtual(5).

use std::collections::HashSet;
use std::fmt;

use mail::{Address, Dsn};

use crate::mapping::AddressMapping;
use crate::{LookupError, fold};

/// The virtual alias tables in force.
pub struct VirtualAliases {
    pub(crate) mapping: AddressMapping,
    pub(crate) limits: ExpansionLimits,
}

/// `virtual_alias_recursion_limit`, `virtual_alias_expansion_limit` and `virtual_alias_address_length_limit`.
#[derive(Clone, Copy, Debug)]
pub struct ExpansionLimits {
    /// How often an address may be replaced by the first of its results.
    pub recursion: usize,
    /// How many addresses one recipient may become.
    pub addresses: usize,
    /// How many bytes an address may have.
    pub address_length: usize,
}

/// A recipient could not be expanded. The message is to be tried again later: the tables may be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpandError {
    /// A table could not be asked, or holds no address where one is expected.
    Lookup(LookupError),
    /// The tables send the address on and on.
    TooDeep {
        /// `virtual_alias_recursion_limit`.
        limit: usize,
    },
    /// More addresses than are allowed.
    TooMany {
        /// `virtual_alias_expansion_limit`.
        limit: usize,
    },
    /// An address grew longer than is allowed.
    TooLong {
        /// `virtual_alias_address_length_limit`.
        limit: usize,
    },
}

impl VirtualAliases {
    /// The addresses that `recipient` stands for, or `None` where no table knows it. An address that stands for itself
    /// among others is kept and not looked up again; the results may hold an address more than once.
    ///
    /// # Errors
    /// Nothing is to be delivered: the tables failed, or loop.
    pub fn expand(&self, recipient: &Address) -> Result<Option<Vec<Address>>, ExpandError> {
        let Some(first) = self.step(recipient)? else { return Ok(None) };
        let mut addresses = vec![recipient.clone()];
        let mut finished = HashSet::new();
        replace(&mut addresses, 0, first, &mut finished);
        let mut at = 0;
        // `addresses` grows while it is walked through.
        while at < addresses.len() {
            for depth in usize::from(at == 0).. {
                if addresses.len() > self.limits.addresses {
                    return Err(ExpandError::TooMany { limit: self.limits.addresses });
                }
                if finished.contains(fold(addresses[at].as_str()).as_ref()) {
                    break;
                }
                if depth >= self.limits.recursion {
                    return Err(ExpandError::TooDeep { limit: self.limits.recursion });
                }
                let Some(results) = self.step(&addresses[at])? else { break };
                replace(&mut addresses, at, results, &mut finished);
            }
            at += 1;
        }
        Ok(Some(addresses))
    }

    fn step(&self, address: &Address) -> Result<Option<Vec<Address>>, ExpandError> {
        let results = self.mapping.step(address).map_err(ExpandError::Lookup)?;
        let limit = self.limits.address_length;
        if results.iter().flatten().any(|result| result.as_str().len() > limit) {
            return Err(ExpandError::TooLong { limit });
        }
        Ok(results)
    }
}

/// Puts the first of `results` in the place of the address that became them, the others at the end.
fn replace(addresses: &mut Vec<Address>, at: usize, results: Vec<Address>, finished: &mut HashSet<Box<str>>) {
    let before = fold(addresses[at].as_str()).into_owned();
    if results.iter().any(|result| fold(result.as_str()) == before) {
        finished.insert(before.into_boxed_str());
    }
    let mut results = results.into_iter();
    addresses[at] = results.next().unwrap_or_default();
    addresses.extend(results);
}

impl ExpandError {
    /// The enhanced status code for the client.
    #[must_use]
    pub fn dsn(&self) -> Dsn {
        match self {
            Self::Lookup(_) => Dsn::new(4, 3, 0),
            Self::TooDeep { .. } | Self::TooMany { .. } | Self::TooLong { .. } => Dsn::new(4, 6, 0),
        }
    }
}

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => write!(f, "virtual_alias_maps: {error}"),
            Self::TooDeep { limit } => {
                write!(
                    f,
                    "virtual_alias_maps: aliases nest deeper than virtual_alias_recursion_limit ({limit})"
                )
            }
            Self::TooMany { limit } => {
                write!(f, "virtual_alias_maps: more addresses than virtual_alias_expansion_limit ({limit})")
            }
            Self::TooLong { limit } => write!(
                f,
                "virtual_alias_maps: an address is longer than virtual_alias_address_length_limit ({limit})"
            ),
        }
    }
}

impl std::error::Error for ExpandError {}
