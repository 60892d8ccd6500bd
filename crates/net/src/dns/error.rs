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
    /// The operator's [`super::ReplyFilter`] leaves nothing, or cannot be used.
    Filtered {
        /// The name.
        name: String,
        /// What was asked for.
        kind: Kind,
        /// It leaves nothing.
        emptied: bool,
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
        matches!(self, Self::Temporary { .. } | Self::Filtered { .. })
    }

    /// The last words of the text: what happened, without the name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "Host not found",
            Self::NoData { .. } => "Host found but no data record of requested type",
            Self::Temporary { .. } => "Host not found, try again",
            Self::InvalidName { .. } => "invalid host or domain name",
            Self::Malformed { .. } => "Malformed or unexpected name server reply",
            Self::Circle { .. } => "Name server loop",
            Self::Filtered { emptied: true, .. } => "DNS reply filter drops all results",
            Self::Filtered { emptied: false, .. } => "Invalid DNS reply filter syntax",
        }
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
        let reason = self.reason();
        match self {
            Self::InvalidName { name } => write!(f, "Name service error for {name}: {reason}"),
            Self::Circle { name } => write!(f, "{reason} for {name}"),
            Self::Malformed { name, kind } => {
                write!(f, "Name service error for name={name} type={kind}: {reason}")
            }
            Self::Filtered { name, kind, .. } => {
                write!(f, "Error looking up name={name} type={kind}: {reason}")
            }
            Self::NotFound { name, kind }
            | Self::NoData { name, kind }
            | Self::Temporary { name, kind, .. } => write!(
                f,
                "Host or domain name not found. Name service error for name={name} type={kind}: {reason}"
            ),
        }
    }
}

impl std::error::Error for DnsError {}
