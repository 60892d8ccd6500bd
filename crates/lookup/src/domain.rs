//! What the searches need to know of domain names: their form and their parents.

use std::net::IpAddr;

/// How a list or table names the subdomains of a domain: `parent_domain_matches_subdomains`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// The feature is listed: the pattern `example.com` covers its subdomains as well.
    Bare,
    /// It is not: subdomains are covered by the pattern `.example.com` only.
    Dotted,
}

impl Parents {
    /// The style of `feature` (a parameter's name) under this value of `parent_domain_matches_subdomains`.
    #[must_use]
    pub fn of_feature(feature: &str, parent_domain_matches_subdomains: &[String]) -> Self {
        let listed = parent_domain_matches_subdomains.iter().any(|name| name == feature);
        if listed { Self::Bare } else { Self::Dotted }
    }

    /// The keys under which `domain` is looked for, the most specific first: itself, then its parents with or without
    /// a leading dot.
    pub fn keys(self, domain: &str) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(domain), move |key| {
            let dot = 1 + key.bytes().skip(1).position(|b| b == b'.')?;
            key.get(if self == Self::Bare { dot + 1 } else { dot }..)
        })
        .filter(|key| !key.is_empty())
    }
}

/// Whether `domain` has the form of a host name: labels of letters, digits, `_` and inner hyphens (RFC 1123 section
/// 2.1; the underscore because it is in use; any non-ASCII character, RFC 6531), not all of it digits and dots.
#[must_use]
pub fn is_hostname(domain: &str) -> bool {
    domain.len() <= 255
        && domain.split('.').all(is_label)
        && !domain.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn is_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') || b >= 0x80;
    (1..=63).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]`, RFC 5321 section 4.1.3.
#[must_use]
pub fn literal_address(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    let v6 = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    if v6 { inner.get(5..)?.parse().ok().map(IpAddr::V6) } else { inner.parse().ok().map(IpAddr::V4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(style: Parents, domain: &str) -> Vec<&str> {
        style.keys(domain).collect()
    }

    #[test]
    fn parents_are_looked_for_from_the_specific_to_the_general() {
        assert_eq!(keys(Parents::Bare, "a.b.c"), ["a.b.c", "b.c", "c"]);
        assert_eq!(keys(Parents::Dotted, "a.b.c"), ["a.b.c", ".b.c", ".c"]);
        assert_eq!(keys(Parents::Dotted, "localhost"), ["localhost"]);
        assert_eq!(keys(Parents::Bare, ""), [""; 0]);
        assert_eq!(keys(Parents::Bare, "a."), ["a."]);
        assert_eq!(keys(Parents::Dotted, "ä.de"), ["ä.de", ".de"]);
    }

    #[test]
    fn host_names_are_told_from_bad_syntax() {
        for good in ["localhost", "a.b-c.example", "_dmarc.example.com", "münchen.de", "1.example", "4u"] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "1.2.3.4", "a b", "a@b", "[a]", "a:b"] {
            assert!(!is_hostname(bad), "{bad}");
        }
        assert!(!is_hostname(&"a".repeat(64)));
        assert!(!is_hostname(&["a"; 129].join(".")));
    }

    #[test]
    fn only_tagged_v6_and_bare_v4_are_literals() {
        assert_eq!(literal_address("[192.0.2.1]"), "192.0.2.1".parse().ok());
        assert_eq!(literal_address("[ipv6:::1]"), "::1".parse().ok());
        for bad in ["192.0.2.1", "[::1]", "[IPv6:192.0.2.1]", "[host]", "[]", "[192.0.2.1", "[1.2.3]"] {
            assert_eq!(literal_address(bad), None, "{bad}");
        }
    }
}
