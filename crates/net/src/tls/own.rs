//! The certificates that a server shows, looked at before a client does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::Config;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::anchors::Purpose;
use super::certificate::Certificate;
use super::settings::Settings;
use super::{anchors, keys, names};

/// One of them; its key is known to be its own.
#[derive(Clone, Debug)]
pub struct Own {
    /// The files it comes from.
    pub files: String,
    /// What is in it.
    pub certificate: Certificate,
    /// When it begins to be valid.
    pub begins: SystemTime,
    /// When it ceases to be.
    pub ends: SystemTime,
    /// Whether the authorities that this system trusts vouch for it, by the chain that is shown with it.
    pub trusted: Result<(), String>,
}

impl Own {
    /// Whether it is for a host of this name.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        self.certificate.names_to_match().iter().any(|name| names::matches(name, host, false))
    }
}

/// The certificates that the parameters of `prefix` (`smtpd`) name, or what is wrong with their files.
#[must_use]
pub fn own_certificates(config: &Config, prefix: &'static str) -> Vec<Result<Own, String>> {
    let mut found = Vec::new();
    for files in keys::files(Settings { config, prefix }) {
        match files.load(&keys::read_directly) {
            Err(error) => found.push(Err(format!("{}: {error}", files.parameter))),
            Ok(keys) => {
                found.extend(keys.iter().map(|key| look_at(&files.paths.join(" "), &key.cert)));
            }
        }
    }
    found
}

fn look_at(files: &str, chain: &[CertificateDer<'_>]) -> Result<Own, String> {
    let leaf = chain.first().ok_or_else(|| format!("{files}: there is no certificate in it"))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| format!("{files}: {error}"))?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(Own {
        files: files.to_owned(),
        certificate: Certificate::read(leaf),
        begins: time(parsed.validity().not_before.timestamp()),
        ends: time(parsed.validity().not_after.timestamp()),
        trusted: anchors::system().vouch_for(chain, Purpose::server(usize::MAX)),
    })
}
