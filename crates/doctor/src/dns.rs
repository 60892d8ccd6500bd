//! What the checks ask the DNS, so that a test can answer.

use std::net::IpAddr;

use net::dns::{Answer, DnsError, Family, Mx, Resolver};

/// The questions.
pub trait Dns {
    /// The mail exchangers of a domain.
    ///
    /// # Errors
    /// As [`Resolver::mx`].
    fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, DnsError>;
    /// The addresses of a host.
    ///
    /// # Errors
    /// As [`Resolver::addresses`].
    fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, DnsError>;
    /// The names of an address.
    ///
    /// # Errors
    /// As [`Resolver::names`].
    fn names(&self, ip: IpAddr) -> Result<Answer<Vec<String>>, DnsError>;
    /// The texts at a name.
    ///
    /// # Errors
    /// As [`Resolver::txt`].
    fn txt(&self, name: &str) -> Result<Answer<Vec<String>>, DnsError>;
    /// The name servers of a zone.
    ///
    /// # Errors
    /// As [`Resolver::ns`].
    fn ns(&self, zone: &str) -> Result<Answer<Vec<String>>, DnsError>;
}

impl Dns for Resolver {
    fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, DnsError> {
        Self::mx(self, domain)
    }

    fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, DnsError> {
        Self::addresses(self, host, Family::Any)
    }

    fn names(&self, ip: IpAddr) -> Result<Answer<Vec<String>>, DnsError> {
        Self::names(self, ip)
    }

    fn txt(&self, name: &str) -> Result<Answer<Vec<String>>, DnsError> {
        Self::txt(self, name)
    }

    fn ns(&self, zone: &str) -> Result<Answer<Vec<String>>, DnsError> {
        Self::ns(self, zone)
    }
}
