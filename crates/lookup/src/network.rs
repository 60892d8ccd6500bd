//! A block of network addresses, `192.0.2.0/24` or `2001:db8::/32`, as match lists and `cidr:` tables name them.

use std::fmt;
use std::net::IpAddr;

/// The addresses that share the first `prefix` bits with `address`; the other bits of `address` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why text is not a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// What stands before the slash is not a numeric address.
    Address,
    /// What stands after the slash is not a number of bits that such an address has.
    Prefix {
        /// 32 or 128.
        most: u8,
    },
    /// Bits after the prefix are set, so that one of the two is a slip.
    HostBits {
        /// The network that was probably meant.
        meant: Network,
    },
}

impl Network {
    /// Reads `address` or `address/prefix`; an address alone is the block of that one address. No brackets.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |digits| read_prefix(digits, most))?;
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits { meant: network }) }
    }

    /// Whether `ip` lies in this block. An IPv4 address never lies in an IPv6 block or the other way round.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4() && masked(ip, self.prefix) == self.address
    }

    /// As match lists write it: an IPv6 address in brackets.
    #[must_use]
    pub fn bracketed(&self) -> String {
        match self.address {
            IpAddr::V4(_) => self.to_string(),
            IpAddr::V6(address) => format!("[{address}]/{}", self.prefix),
        }
    }
}

fn read_prefix(digits: &str, most: u8) -> Result<u8, NetworkError> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let prefix = digits.parse().ok().filter(|prefix| plain && *prefix <= most);
    prefix.ok_or(NetworkError::Prefix { most })
}

/// `address` with all bits after the first `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("not a numeric network address"),
            Self::Prefix { most } => write!(f, "the prefix length must be a number from 0 to {most}"),
            Self::HostBits { meant } => {
                write!(f, "bits are set after the network part: did you mean \"{meant}\"?")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        Network::parse(network).unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn a_block_contains_what_shares_its_prefix() {
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::/0", "2001:db8::1"));
    }

    #[test]
    fn slips_are_named() {
        let meant = Network::parse("10.0.0.0/8").unwrap();
        assert_eq!(Network::parse("10.1.0.0/8"), Err(NetworkError::HostBits { meant }));
        assert_eq!(Network::parse("10.0.0.0/33"), Err(NetworkError::Prefix { most: 32 }));
        assert_eq!(Network::parse("10.0.0.0/+8"), Err(NetworkError::Prefix { most: 32 }));
        assert_eq!(Network::parse("::/129"), Err(NetworkError::Prefix { most: 128 }));
        assert_eq!(Network::parse("10.0.0/8"), Err(NetworkError::Address));
        assert_eq!(Network::parse("example.com"), Err(NetworkError::Address));
    }
}
