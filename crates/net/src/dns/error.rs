//! Why the DNS had no answer, in Postfix's words.

use std::fmt;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the record types")]
pub enum Kind {
    A,
    Aaaa,
    Mx,
    Ns,
    Ptr,
    Srv,
    Tlsa,
    Txt,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Tlsa => "TLSA",
            Self::Txt => "TXT",
        })
    }
}

/// Why there is no answer. `name` is the name that was asked about, as the caller had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist.
    NotFound {
        /// The name.
        name: String,
        /// What was asked for.
        kind: Kind,
    },
    /// The name exists and has no such record.
    NoData {
        /// The name.
        name: String,
        /// What was asked for.
        kind: Kind,
    },
    /// It cannot be a name in the DNS; nobody was asked.
    InvalidName {
        /// What was to be a name.
        name: String,
    },
    /// There are records, and none that can be used.
    Malformed {
        /// The name.
        name: String,
        /// What was asked for.
        kind: Kind,
    },
    /// The aliases go round in a circle, or on for ever.
    Circle {
        /// The name.
        name: String,
    },
    /// No server answered in time, or those that did could not say. Another time may be better.
    Temporary {
        /// The name.
        name: String,
        /// What was asked for.
        kind: Kind,
        /// What happened, for the log; not part of the text.
        cause: String,
    },
}

impl DnsError {
    /// Whether asking later may bring an answer.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
    }

    /// The name does not exist, or cannot.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::InvalidName { .. })
    }

    /// It is known that there is no such record: not at that name, or there is no such name.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::InvalidName { .. } | Self::NoData { .. })
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, kind, what) = match self {
            Self::InvalidName { name } => {
                return write!(f, "Name service error for {name}: invalid host or domain name");
            }
            Self::Circle { name } => return write!(f, "Name server loop for {name}"),
            Self::Malformed { name, kind } => {
                return write!(
                    f,
                    "Name service error for name={name} type={kind}: Malformed or unexpected name server reply"
                );
            }
            Self::NotFound { name, kind } => (name, kind, "Host not found"),
            Self::NoData { name, kind } => (name, kind, "Host found but no data record of requested type"),
            Self::Temporary { name, kind, .. } => (name, kind, "Host not found, try again"),
        };
        write!(f, "Host or domain name not found. Name service error for name={name} type={kind}: {what}")
    }
}

impl std::error::Error for DnsError {}
