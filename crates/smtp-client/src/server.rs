//! Which server is talked to, as logs and reports name it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its name, or its address where that is all that is known; for a UNIX socket the name of this host.
    pub(crate) host: String,
    /// Where it is.
    pub(crate) place: Place,
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Inet(IpAddr, u16),
    Unix(PathBuf),
}

impl Server {
    /// `host[address]:port`, as after `relay=`.
    pub(crate) fn with_port(&self) -> String {
        match &self.place {
            Place::Inet(_, port) => format!("{self}:{port}"),
            Place::Unix(_) => self.to_string(),
        }
    }

    /// Its address; none for a UNIX socket.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        match &self.place {
            Place::Inet(address, _) => Some(*address),
            Place::Unix(_) => None,
        }
    }

    /// Its port; 0 for a UNIX socket.
    pub(crate) const fn port(&self) -> u16 {
        match &self.place {
            Place::Inet(_, port) => *port,
            Place::Unix(_) => 0,
        }
    }
}

impl fmt::Display for Server {
    /// `host[address]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Inet(address, _) => write!(f, "{}[{address}]", self.host),
            Place::Unix(path) => write!(f, "{}[{}]", self.host, path.display()),
        }
    }
}
