//! Names that can be asked about.

use std::borrow::Cow;
use std::net::IpAddr;

/// The longest name: RFC 1035 section 2.3.4, without the lengths of its labels' first and last byte.
const NAME_LIMIT: usize = 255;

/// The longest label.
const LABEL_LIMIT: usize = 63;

/// Whether this can be the name of a host or domain: labels of letters, digits, `-` and `_` that neither start nor end with
/// `-`, with something in it that is no digit or dot. No final dot.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_LIMIT
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= NAME_LIMIT
        && name.split('.').all(label)
        && name.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.')
}

/// The name as the DNS has it: labels beyond ASCII as their A-labels (RFC 5891). None if it has none.
#[must_use]
pub fn to_ascii(name: &str) -> Option<Cow<'_, str>> {
    if name.is_ascii() {
        return Some(Cow::Borrowed(name));
    }
    idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY)
        .ok()
        .map(|ascii| Cow::Owned(ascii.into_owned()))
}

/// The name to ask about, or none if there can be no such name.
pub(super) fn to_ask(name: &str) -> Option<Cow<'_, str>> {
    to_ascii(name).filter(|ascii| is_host_name(ascii) && ascii.parse::<IpAddr>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_asked_about() {
        for name in ["example.com", "a_b.c", "_25._tcp.x.org", "localhost", "1.2.3.4a", "x1"] {
            assert_eq!(to_ask(name).as_deref(), Some(name));
        }
        let label = "a".repeat(64);
        let long = "abcdefgh.".repeat(29);
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.b",
            "a-.b",
            "192.0.2.1",
            "12.34",
            "::1",
            "a b",
            "a/b",
            "a\0",
            &label,
            &long,
        ] {
            assert_eq!(to_ask(name), None, "{name}");
        }
    }

    #[test]
    fn names_beyond_ascii_become_a_labels() {
        assert_eq!(to_ask("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(to_ask("BÜCHER.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(to_ask("例え。テスト").as_deref(), Some("xn--r8jz45g.xn--zckzah"));
        assert_eq!(to_ask("\u{200d}.example"), None);
    }
}
