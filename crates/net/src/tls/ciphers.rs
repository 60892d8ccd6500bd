//! `…_tls_ciphers` and `…_tls_exclude_ciphers`: OpenSSL's words for cipher suites, applied to those that rustls has.
//!
//! All nine of them are strong and keep past traffic secret, so that the grades high, medium, low and export mean the same set;
//! exclusions work as in OpenSSL, on the suites of TLS 1.2 only.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite as suite;

/// A cipher suite, its name in OpenSSL, and the words of an exclusion that mean it.
struct Row {
    suite: SupportedCipherSuite,
    openssl: &'static str,
    words: &'static [&'static str],
}

/// The words that mean every suite of TLS 1.2 here.
const ALL: [&str; 10] =
    ["ALL", "HIGH", "DEFAULT", "ECDHE", "EECDH", "kECDHE", "kEECDH", "AEAD", "TLSv1.2", "FIPS"];

/// In the order of preference: TLS 1.3 (RFC 8446), then TLS 1.2 with forward secrecy (RFC 5289, RFC 7905).
const TABLE: [Row; 9] = [
    Row { suite: suite::TLS13_AES_256_GCM_SHA384, openssl: "TLS_AES_256_GCM_SHA384", words: &[] },
    Row { suite: suite::TLS13_AES_128_GCM_SHA256, openssl: "TLS_AES_128_GCM_SHA256", words: &[] },
    Row { suite: suite::TLS13_CHACHA20_POLY1305_SHA256, openssl: "TLS_CHACHA20_POLY1305_SHA256", words: &[] },
    Row {
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        openssl: "ECDHE-ECDSA-AES256-GCM-SHA384",
        words: &["ECDSA", "aECDSA", "AES", "AESGCM", "AES256"],
    },
    Row {
        suite: suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        openssl: "ECDHE-RSA-AES256-GCM-SHA384",
        words: &["aRSA", "AES", "AESGCM", "AES256"],
    },
    Row {
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        openssl: "ECDHE-ECDSA-AES128-GCM-SHA256",
        words: &["ECDSA", "aECDSA", "AES", "AESGCM", "AES128"],
    },
    Row {
        suite: suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        openssl: "ECDHE-RSA-AES128-GCM-SHA256",
        words: &["aRSA", "AES", "AESGCM", "AES128"],
    },
    Row {
        suite: suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        openssl: "ECDHE-ECDSA-CHACHA20-POLY1305",
        words: &["ECDSA", "aECDSA", "CHACHA20"],
    },
    Row {
        suite: suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        openssl: "ECDHE-RSA-CHACHA20-POLY1305",
        words: &["aRSA", "CHACHA20"],
    },
];

/// A set of cipher suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ciphers(u16);

impl Default for Ciphers {
    fn default() -> Self {
        Self((1 << TABLE.len()) - 1)
    }
}

impl Ciphers {
    /// The suites of a grade without those that are excluded.
    ///
    /// # Errors
    /// A grade that does not exist, or none that rustls could offer.
    pub fn new(grade: &str, excluded: &[String]) -> Result<Self, String> {
        match grade.to_ascii_lowercase().as_str() {
            "high" | "medium" | "low" | "export" => {}
            "null" => return Err(
                "\"null\" asks for connections without encryption, which are not offered; use high or medium"
                    .into(),
            ),
            _ => return Err(format!("\"{grade}\" is no cipher grade; the grades are high and medium")),
        }
        let mut set = Self::default();
        for item in excluded.iter().flat_map(|item| item.split(':')).filter(|item| !item.is_empty()) {
            set.exclude(item);
        }
        Ok(set)
    }

    /// Takes out what an OpenSSL expression means: `aNULL`, `AES128`, `ECDHE+AESGCM`, `ECDHE-RSA-AES128-GCM-SHA256` …
    fn exclude(&mut self, expression: &str) {
        for (index, row) in TABLE.iter().enumerate().skip(3) {
            let means = |word: &str| {
                let known = ALL.iter().chain(row.words);
                row.openssl.eq_ignore_ascii_case(word)
                    || known.into_iter().any(|known| known.eq_ignore_ascii_case(word))
            };
            if expression.split('+').all(means) {
                self.0 &= !(1 << index);
            }
        }
    }

    /// For rustls.
    pub(super) fn suites(self) -> Vec<SupportedCipherSuite> {
        let chosen = TABLE.iter().enumerate().filter(|(index, _)| self.0 & (1 << index) != 0);
        chosen.map(|(_, row)| row.suite).collect()
    }
}

/// OpenSSL's name of a suite, and the bits of its key.
pub(super) fn name_and_bits(suite: SupportedCipherSuite) -> (&'static str, u16) {
    let name = TABLE.iter().find(|row| row.suite == suite).map_or("unknown", |row| row.openssl);
    (name, if name.contains("128") { 128 } else { 256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(excluded: &str) -> Vec<&'static str> {
        let excluded: Vec<String> = excluded.split(' ').map(str::to_owned).collect();
        Ciphers::new("medium", &excluded).unwrap().suites().into_iter().map(|s| name_and_bits(s).0).collect()
    }

    #[test]
    fn exclusions_mean_what_they_mean_to_openssl() {
        assert_eq!(names("aNULL eNULL EXPORT DES RC4 MD5 PSK aDH kRSA 3DES SHA1").len(), 9);
        assert_eq!(names("aRSA").len(), 6);
        assert_eq!(names("AES128:CHACHA20").len(), 5);
        assert_eq!(names("ECDHE+CHACHA20").len(), 7);
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256").len(), 8);
        assert_eq!(
            names("HIGH"),
            ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"]
        );
    }

    #[test]
    fn grades_without_encryption_are_refused() {
        assert!(Ciphers::new("null", &[]).is_err());
        assert!(Ciphers::new("best", &[]).is_err());
        assert!(Ciphers::new("HIGH", &[]).is_ok());
    }
}
