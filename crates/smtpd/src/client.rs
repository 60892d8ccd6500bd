//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::names::HostNames;
use crate::tls::Encryption;

/// Where a name or an address is not known.
pub(crate) const UNKNOWN: &str = "unknown";

/// Who authenticated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The mechanism, or `XCLIENT`.
    pub(crate) method: String,
    pub(crate) username: String,
}

/// The client of a session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its host name, or `unknown`.
    pub(crate) name: String,
    /// The name that its address leads to, whether that leads back or not; or `unknown`.
    pub(crate) reverse_name: String,
    /// The name could not be found for now; it may have one.
    pub(crate) name_is_temporary: bool,
    pub(crate) reverse_name_is_temporary: bool,
    /// It is a program of this host.
    pub(crate) on_unix_socket: bool,
    /// Its address; none on a UNIX socket, and where a trusted client does not know it.
    pub(crate) ip: Option<IpAddr>,
    /// The address in Postfix's form: numbers without brackets, `IPv6:` or zone.
    pub(crate) address: String,
    /// Its port, 0 where there is none.
    pub(crate) port: u16,
    /// `smtpd_client_port_logging`.
    pub(crate) shows_port: bool,
    /// It connected from an address of this host.
    pub(crate) is_local: bool,
    /// The address and port that it connected to; empty and 0 on a UNIX socket.
    pub(crate) server_address: String,
    pub(crate) server_port: u16,
    /// Who it has shown to be.
    pub(crate) login: Option<Login>,
    /// How the session is encrypted.
    pub(crate) tls: Option<Encryption>,
    /// How much the log shows of the session: see [`service::DebugPeers::level_of`].
    pub(crate) debug_level: u32,
}

impl Client {
    /// The client that connected from `peer` to `local`.
    pub(crate) fn new(peer: Option<SocketAddr>, local: Option<SocketAddr>, names: &HostNames) -> Self {
        let Some(peer) = peer else {
            return Self {
                name: "localhost".to_owned(),
                reverse_name: "localhost".to_owned(),
                name_is_temporary: false,
                reverse_name_is_temporary: false,
                on_unix_socket: true,
                ip: None,
                address: "127.0.0.1".to_owned(),
                port: 0,
                shows_port: false,
                is_local: true,
                server_address: String::new(),
                server_port: 0,
                login: None,
                tls: None,
                debug_level: 0,
            };
        };
        // A client of a socket that takes both families comes as ::ffff:192.0.2.1: it is an IPv4 client.
        let ip = peer.ip().to_canonical();
        let is_local = ip.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == ip);
        let named = names.of(ip);
        Self {
            name: named.name,
            reverse_name: named.reverse_name,
            name_is_temporary: named.is_temporary,
            reverse_name_is_temporary: named.reverse_is_temporary,
            on_unix_socket: false,
            ip: Some(ip),
            address: ip.to_string(),
            port: peer.port(),
            shows_port: false,
            is_local,
            server_address: local.map(|local| local.ip().to_canonical().to_string()).unwrap_or_default(),
            server_port: local.map_or(0, |local| local.port()),
            login: None,
            tls: None,
            debug_level: 0,
        }
    }
}

impl fmt::Display for Client {
    /// `name[address]` or `name[address]:port`, as it stands in the log and in replies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.address)?;
        if self.shows_port { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_an_ipv4_client() {
        let peer = "[::ffff:192.0.2.1]:25".parse().ok();
        let client = Client::new(peer, None, &HostNames::disabled());
        assert_eq!(client.to_string(), "unknown[192.0.2.1]");
        assert!(!client.is_local);
    }
}
