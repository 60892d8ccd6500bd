//! The next hop as an operator writes it: which host or domain, at which port, in which order.

use std::fmt;
use std::path::PathBuf;

/// One place of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// `domain`, `host:port`, `[host]`, `[host]:port`, `[address]:port`.
    Inet {
        /// The name or address, without brackets and `IPv6:`.
        host: String,
        /// The port as it is written, where it is.
        port: Option<String>,
        /// In brackets: the host itself is meant, not who takes mail for it.
        literal: bool,
    },
    /// `unix:path`, for LMTP.
    Unix(PathBuf),
}

impl Destination {
    /// Reads one place. `unix:` and `inet:` are prefixes for LMTP alone: for SMTP they would be hosts of these names.
    pub(crate) fn parse(text: &str, lmtp: bool) -> Self {
        if lmtp && let Some(path) = text.strip_prefix("unix:") {
            return Self::Unix(path.into());
        }
        let text = if lmtp { text.strip_prefix("inet:").unwrap_or(text) } else { text };
        if let Some((inside, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let port = after.strip_prefix(':').filter(|port| !port.is_empty()).map(str::to_owned);
            return Self::Inet { host: without_tag(inside).to_owned(), port, literal: true };
        }
        match text.rsplit_once(':') {
            // An address of IPv6 without brackets is all host.
            Some((host, port)) if !host.contains(':') => {
                let port = (!port.is_empty()).then(|| port.to_owned());
                Self::Inet { host: host.to_owned(), port, literal: false }
            }
            _ => Self::Inet { host: text.to_owned(), port: None, literal: false },
        }
    }

    /// The places of a next hop, in their order: parted by commas or blanks.
    pub(crate) fn list(nexthop: &str, lmtp: bool) -> Vec<Self> {
        let items = nexthop.split([',', ' ', '\t']).filter(|item| !item.is_empty());
        items.map(|item| Self::parse(item, lmtp)).collect()
    }

    /// The name without brackets and port: what policies and passwords are looked up for.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Inet { host, .. } => host.clone(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

impl fmt::Display for Destination {
    /// As it is written: the key of tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port, literal } => {
                if *literal {
                    write!(f, "[{host}]")?
                } else {
                    f.write_str(host)?
                }
                port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `IPv6:` before an address of that kind, as mail addresses have it (RFC 5321 section 4.1.3).
fn without_tag(inside: &str) -> &str {
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => &inside[5..],
        _ => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, lmtp: bool) -> String {
        match Destination::parse(text, lmtp) {
            Destination::Inet { host, port, literal } => {
                let kind = if literal { "host" } else { "domain" };
                format!("{kind} {host} {}", port.as_deref().unwrap_or("-"))
            }
            Destination::Unix(path) => format!("unix {}", path.display()),
        }
    }

    #[test]
    fn places_are_read_as_operators_write_them() {
        for (text, expected) in [
            ("example.com", "domain example.com -"),
            ("example.com:587", "domain example.com 587"),
            ("[mx.example.com]", "host mx.example.com -"),
            ("[mx.example.com]:submission", "host mx.example.com submission"),
            ("[192.0.2.1]:25", "host 192.0.2.1 25"),
            ("[2001:db8::1]:26", "host 2001:db8::1 26"),
            ("[IPv6:2001:db8::1]", "host 2001:db8::1 -"),
            ("2001:db8::1", "domain 2001:db8::1 -"),
            ("[mx.example.com", "domain [mx.example.com -"),
            ("mx:", "domain mx -"),
            ("unix:25", "domain unix 25"),
        ] {
            assert_eq!(shown(text, false), expected, "{text}");
        }
        assert_eq!(shown("unix:private/dovecot", true), "unix private/dovecot");
        assert_eq!(shown("inet:[::1]:24", true), "host ::1 24");
        assert_eq!(shown("inet:lmtp.example.com:24", true), "domain lmtp.example.com 24");
    }

    #[test]
    fn a_next_hop_may_be_a_list() {
        let list = Destination::list("[a]:25, b:26  c", false);
        let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[a]:25", "b:26", "c"]);
        assert!(Destination::list(" , ", false).is_empty());
    }
}
