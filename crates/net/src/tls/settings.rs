//! Reading parameters whose names differ by a prefix only: `smtp_tls_…`, `lmtp_tls_…`, `smtpd_tls_…`.

use std::time::Duration;

use config::{Config, Value as _};

use super::certificate::Digest;
use super::ciphers::Ciphers;
use super::protocols::Protocols;

/// A configuration, seen by one program.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) config: &'a Config,
    pub(super) prefix: &'a str,
}

impl Settings<'_> {
    pub(super) fn name(self, rest: &str) -> String {
        format!("{}_{rest}", self.prefix)
    }

    pub(super) fn text(self, rest: &str) -> String {
        self.config.text(&self.name(rest)).unwrap_or_default()
    }

    pub(super) fn list(self, rest: &str) -> Vec<String> {
        config::split_list(&self.text(rest))
    }

    pub(super) fn flag(self, rest: &str) -> bool {
        self.text(rest).eq_ignore_ascii_case("yes")
    }

    pub(super) fn time(self, rest: &str) -> Duration {
        let name = self.name(rest);
        let row = config::find(&name);
        row.and_then(|row| Duration::parse(&self.text(rest), &row).ok()).unwrap_or(Duration::from_secs(3600))
    }

    /// `…_verifydepth`.
    pub(super) fn depth(self, rest: &str) -> usize {
        self.text(rest).trim().parse().unwrap_or(0)
    }

    /// `…_tls_loglevel`, a number that may be followed by nothing else.
    pub(super) fn log_level(self) -> u8 {
        self.text("tls_loglevel").trim().parse().unwrap_or(0)
    }

    pub(super) fn digest(self) -> Result<Digest, String> {
        let named = Digest::from_name(&self.text("tls_fingerprint_digest"));
        named.map_err(|text| format!("{}: {text}", self.name("tls_fingerprint_digest")))
    }

    /// The protocols that hold where encryption is a must, or where it is not.
    pub(super) fn protocols(self, mandatory: bool) -> Result<Protocols, String> {
        let rest = if mandatory { "tls_mandatory_protocols" } else { "tls_protocols" };
        Protocols::parse(&self.list(rest)).map_err(|text| format!("{}: {text}", self.name(rest)))
    }

    /// The grade in effect, and what is excluded.
    pub(super) fn cipher_words(self, mandatory: bool) -> (String, Vec<String>) {
        let mut excluded = self.list("tls_exclude_ciphers");
        if mandatory {
            excluded.extend(self.list("tls_mandatory_exclude_ciphers"));
        }
        (self.text(if mandatory { "tls_mandatory_ciphers" } else { "tls_ciphers" }), excluded)
    }

    pub(super) fn ciphers(self, mandatory: bool) -> Result<Ciphers, String> {
        let (grade, excluded) = self.cipher_words(mandatory);
        let rest = if mandatory { "tls_mandatory_ciphers" } else { "tls_ciphers" };
        Ciphers::new(&grade, &excluded).map_err(|text| format!("{}: {text}", self.name(rest)))
    }
}
