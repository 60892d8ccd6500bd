//! The next hop as an operator writes it: which host or domain, at which port, in which order.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use lookup::domain::is_hostname;

/// One place of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// `domain`, `host:port`, `[host]`, `[host]:port`, `[address]:port`.
    Inet {
        /// The name or address, without brackets and `IPv6:`.
        host: String,
        /// The port, where one is written.
        port: Option<Port>,
        /// In brackets: the host itself is meant, not who takes mail for it.
        literal: bool,
    },
    /// `unix:path`, for LMTP.
    Unix(PathBuf),
}

/// A port that a place names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// As it is written, by number or name.
    pub(crate) written: String,
    pub(crate) number: u16,
}

/// Why a text is no place, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Fault {
    fn new(what: String, remedy: impl Into<String>) -> Self {
        Self { what, remedy: remedy.into() }
    }

    fn of_host(host: &str, place: &str) -> Self {
        let remedy = "write a domain, HOST:PORT, [HOST] or [HOST]:PORT";
        match host {
            "" => Self::new(format!("“{place}” names no host"), remedy),
            _ => Self::new(format!("“{host}” is neither a host name nor an address"), remedy),
        }
    }
}

impl Destination {
    /// Reads one place. `unix:` and `inet:` are prefixes for LMTP alone: for SMTP they would be hosts of these names.
    ///
    /// # Errors
    /// What Postfix's client would end at: no host can be meant, and to look for one would return mail for a slip of the pen.
    pub(crate) fn parse(text: &str, lmtp: bool) -> Result<Self, Fault> {
        if lmtp && let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let text = if lmtp { text.strip_prefix("inet:").unwrap_or(text) } else { text };
        let (host, port, literal) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or_else(|| unclosed(rest))?;
                let port = match after.strip_prefix(':') {
                    Some(port) => port,
                    None if after.is_empty() => "",
                    None => {
                        let what = format!("“{after}” stands after the bracket of “{text}”");
                        return Err(Fault::new(what, format!("write [{inside}] or [{inside}]:PORT")));
                    }
                };
                (without_tag(inside), port, true)
            }
            None => match text.rsplit_once(':') {
                // An address of IPv6 without brackets is all host.
                Some((host, port)) if !host.contains(':') => (host, port, false),
                _ => (text, "", false),
            },
        };
        // A dot at the end says that the name is whole.
        let name = host.strip_suffix('.').unwrap_or(host);
        if !is_hostname(name) && host.parse::<IpAddr>().is_err() {
            return Err(Fault::of_host(host, text));
        }
        Ok(Self::Inet { host: host.to_owned(), port: port_of(port, text)?, literal })
    }

    /// The places of a next hop, in their order: parted by commas or blanks.
    pub(crate) fn list(nexthop: &str, lmtp: bool) -> Vec<Result<Self, Fault>> {
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
                port.as_ref().map_or(Ok(()), |port| write!(f, ":{}", port.written))
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The port of `place`; none where it is not written.
fn port_of(written: &str, place: &str) -> Result<Option<Port>, Fault> {
    if written.is_empty() {
        return Ok(None);
    }
    match config::port_number(written) {
        Some(number) => Ok(Some(Port { written: written.to_owned(), number })),
        None => Err(Fault::new(
            format!("there is no port “{written}”, as in “{place}”"),
            "write a number from 1 to 65535 or a name from /etc/services",
        )),
    }
}

/// About `[rest`.
fn unclosed(rest: &str) -> Fault {
    let meant = match rest.rsplit_once(':') {
        // What follows the last colon of an address is no port.
        Some((host, port)) if without_tag(rest).parse::<IpAddr>().is_err() => format!("[{host}]:{port}"),
        _ => format!("[{rest}]"),
    };
    Fault::new(format!("the bracket of “[{rest}” is not closed"), format!("write {meant}"))
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
            Ok(Destination::Inet { host, port, literal }) => {
                let kind = if literal { "host" } else { "domain" };
                format!("{kind} {host} {}", port.map_or("-".to_owned(), |port| port.written))
            }
            Ok(Destination::Unix(path)) => format!("unix {}", path.display()),
            Err(Fault { what, remedy }) => format!("{what}; {remedy}"),
        }
    }

    #[test]
    fn places_are_read_as_operators_write_them() {
        for (text, expected) in [
            ("example.com", "domain example.com -"),
            ("example.com.", "domain example.com. -"),
            ("example.com:587", "domain example.com 587"),
            ("[mx.example.com]", "host mx.example.com -"),
            ("[mx.example.com]:submission", "host mx.example.com submission"),
            ("[192.0.2.1]:25", "host 192.0.2.1 25"),
            ("192.0.2.1:25", "domain 192.0.2.1 25"),
            ("[2001:db8::1]:26", "host 2001:db8::1 26"),
            ("[IPv6:2001:db8::1]", "host 2001:db8::1 -"),
            ("2001:db8::1", "domain 2001:db8::1 -"),
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
    fn what_is_no_place_says_what_to_write() {
        let port = "write a number from 1 to 65535 or a name from /etc/services";
        let host = "write a domain, HOST:PORT, [HOST] or [HOST]:PORT";
        for (text, what, remedy) in [
            ("[mx.a.example", "the bracket of “[mx.a.example” is not closed", "write [mx.a.example]"),
            (
                "[mx.a.example:587",
                "the bracket of “[mx.a.example:587” is not closed",
                "write [mx.a.example]:587",
            ),
            ("[2001:db8::1", "the bracket of “[2001:db8::1” is not closed", "write [2001:db8::1]"),
            ("[IPv6:::1", "the bracket of “[IPv6:::1” is not closed", "write [IPv6:::1]"),
            ("[mx]587", "“587” stands after the bracket of “[mx]587”", "write [mx] or [mx]:PORT"),
            ("[mx]:x", "there is no port “x”, as in “[mx]:x”", port),
            ("mx:99999", "there is no port “99999”, as in “mx:99999”", port),
            ("mx:0", "there is no port “0”, as in “mx:0”", port),
            ("mx:25x", "there is no port “25x”, as in “mx:25x”", port),
            (":587", "“:587” names no host", host),
            ("[]:587", "“[]:587” names no host", host),
            ("mx.a.example]:587", "“mx.a.example]” is neither a host name nor an address", host),
            ("smtp:[mx]:587", "“smtp:[mx]:587” is neither a host name nor an address", host),
            ("unix:/run/lmtp", "there is no port “/run/lmtp”, as in “unix:/run/lmtp”", port),
        ] {
            assert_eq!(shown(text, false), format!("{what}; {remedy}"), "{text}");
        }
    }

    #[test]
    fn a_next_hop_may_be_a_list() {
        let list = Destination::list("[a]:25, b:26  c", false);
        let shown: Vec<_> = list.iter().map(|place| place.as_ref().unwrap().to_string()).collect();
        assert_eq!(shown, ["[a]:25", "b:26", "c"]);
        assert!(Destination::list(" , ", false).is_empty());
    }
}
