//! `…_tls_protocols`: which versions of TLS are spoken. rustls has 1.2 and 1.3; the older ones, which the default of `>=TLSv1`
//! lets in, are broken and no peer is left who has nothing better.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// Every version there ever was, with its number on the wire (RFC 8446 section 4.1.2 and its predecessors).
const VERSIONS: [(&str, u16); 6] = [
    ("SSLv2", 0x0002),
    ("SSLv3", 0x0300),
    ("TLSv1", 0x0301),
    ("TLSv1.1", 0x0302),
    ("TLSv1.2", 0x0303),
    ("TLSv1.3", 0x0304),
];

/// The versions that may be used; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols {
    tls12: bool,
    tls13: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}

impl Protocols {
    /// Reads a list such as `>=TLSv1.2`, `!SSLv2, !SSLv3` or `TLSv1.2 TLSv1.3`; empty means all.
    ///
    /// # Errors
    /// An unknown name, or a list that leaves nothing that is spoken here.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        let mut allowed = [true; VERSIONS.len()];
        let mut named = [false; VERSIONS.len()];
        for item in items.iter().flat_map(|item| item.split(':')).filter(|item| !item.is_empty()) {
            if let Some(name) = item.strip_prefix(">=") {
                let least = index_of(name)?;
                allowed[..least].fill(false);
            } else if let Some(name) = item.strip_prefix("<=") {
                let most = index_of(name)?;
                allowed[most + 1..].fill(false);
            } else if let Some(name) = item.strip_prefix('!') {
                allowed[index_of(name)?] = false;
            } else {
                named[index_of(item)?] = true;
            }
        }
        if named.contains(&true) {
            allowed.iter_mut().zip(named).for_each(|(allowed, named)| *allowed &= named);
        }
        let found = Self { tls12: allowed[4], tls13: allowed[5] };
        if found.tls12 || found.tls13 {
            return Ok(found);
        }
        let list = items.join(" ");
        Err(format!(
            "\"{list}\" leaves neither TLSv1.2 nor TLSv1.3, the versions that are spoken here; use >=TLSv1.2"
        ))
    }

    /// For rustls.
    pub(super) fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions = Vec::new();
        versions.extend(self.tls13.then_some(&TLS13));
        versions.extend(self.tls12.then_some(&TLS12));
        versions
    }

    /// Whether TLS 1.3 may be used.
    #[must_use]
    pub const fn has_tls13(self) -> bool {
        self.tls13
    }

    /// Whether TLS 1.2 may be used.
    #[must_use]
    pub const fn has_tls12(self) -> bool {
        self.tls12
    }
}

/// The names in a list that ask for a version that is not spoken here, for `postroad check`.
pub(super) fn too_old(items: &[String]) -> Vec<&'static str> {
    let plain =
        items.iter().flat_map(|item| item.split(':')).filter(|item| !item.starts_with(['!', '>', '<']));
    plain
        .filter_map(|item| index_of(item).ok())
        .filter(|index| *index < 4)
        .map(|index| VERSIONS[index].0)
        .collect()
}

fn index_of(name: &str) -> Result<usize, String> {
    let number = u16::from_str_radix(name.trim_start_matches("0x"), 16).ok();
    let found =
        VERSIONS.iter().position(|(known, wire)| known.eq_ignore_ascii_case(name) || number == Some(*wire));
    found.ok_or_else(|| {
        format!("\"{name}\" is no TLS protocol version; the names are TLSv1.2 and TLSv1.3, as in >=TLSv1.2")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(bool, bool), String> {
        let items: Vec<String> =
            text.split([' ', ',']).filter(|s| !s.is_empty()).map(str::to_owned).collect();
        Protocols::parse(&items).map(|p| (p.tls12, p.tls13))
    }

    #[test]
    fn lists_are_read_as_postfix_reads_them() {
        for (list, expected) in [
            ("", (true, true)),
            (">=TLSv1", (true, true)),
            ("!SSLv2, !SSLv3", (true, true)),
            ("!SSLv2:!SSLv3:!tlsv1.3", (true, false)),
            (">=TLSv1.3", (false, true)),
            (">=TLSv1.1, <=TLSv1.2", (true, false)),
            ("TLSv1.2", (true, false)),
            ("TLSv1 TLSv1.2 TLSv1.3 !TLSv1.2", (false, true)),
            (">=0303", (true, true)),
        ] {
            assert_eq!(parse(list), Ok(expected), "{list}");
        }
        for (list, words) in
            [("TLSv1", "leaves neither"), ("<=TLSv1.1", "leaves neither"), ("TLSv9", "no TLS protocol")]
        {
            assert!(parse(list).is_err_and(|text| text.contains(words)), "{list}");
        }
        assert_eq!(too_old(&["TLSv1".into(), "!SSLv3".into(), "TLSv1.2".into()]), ["TLSv1"]);
    }
}
