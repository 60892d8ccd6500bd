//! Certificates of our own with their keys: `…_chain_files`, or pairs of `…_cert_file` and `…_key_file`.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::settings::Settings;

/// The parameters of the pairs, the older of which are for algorithms that rustls has, too; DSA is not among them.
const PAIRS: [(&str, &str); 3] = [
    ("tls_cert_file", "tls_key_file"),
    ("tls_eccert_file", "tls_eckey_file"),
    ("tls_dcert_file", "tls_dkey_file"),
];

/// The files of one certificate, or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyFiles {
    /// The parameter that names them.
    pub(super) parameter: String,
    /// In the order in which they are read: keys go with the certificates that follow them.
    pub(super) paths: Vec<String>,
    /// A certificate file whose key comes from another.
    pub(super) pair: bool,
}

/// What the configuration names: chain files if there are any, else the pairs.
pub(super) fn files(settings: Settings<'_>) -> Vec<KeyFiles> {
    let chain = settings.list("tls_chain_files");
    if !chain.is_empty() {
        let parameter = settings.name("tls_chain_files");
        return vec![KeyFiles { parameter, paths: chain, pair: false }];
    }
    let mut found = Vec::new();
    for (certificate, key) in PAIRS {
        let (cert_file, key_file) = (settings.text(certificate), settings.text(key));
        if !cert_file.is_empty() && cert_file != "none" {
            let key_file = if key_file.is_empty() { cert_file.clone() } else { key_file };
            let parameter = settings.name(certificate);
            found.push(KeyFiles { parameter, paths: vec![key_file, cert_file], pair: true });
        }
    }
    found
}

/// A key and the certificates that came after it.
type Chain = (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>);

impl KeyFiles {
    /// Makes keys of the content of the files, which `read` gives.
    pub(super) fn load(
        &self,
        read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Vec<Arc<CertifiedKey>>, String> {
        let chains = match self.pair {
            true => vec![self.read_pair(read)?],
            false => self.read_chain(read)?,
        };
        chains.into_iter().map(|chain| self.certified(chain)).collect()
    }

    /// The first key of one file, all certificates of the other.
    fn read_pair(&self, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Chain, String> {
        let [key_file, cert_file] = &self.paths[..] else { return Err("no pair".into()) };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert_file)?).collect();
        let certificates = certificates.map_err(|e| format!("{cert_file}: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(key_file)?).map_err(|_| {
            format!("{key_file}: there is no private key in it that can be read (an encrypted key cannot)")
        })?;
        if certificates.is_empty() {
            return Err(format!("{cert_file}: there is no certificate in it"));
        }
        Ok((key, certificates))
    }

    /// Keys, each followed by its certificates, through all files.
    fn read_chain(&self, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Vec<Chain>, String> {
        let mut chains: Vec<Chain> = Vec::new();
        for path in &self.paths {
            for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&read(path)?) {
                let (kind, der) = section.map_err(|e| format!("{path}: {e}"))?;
                match (kind, chains.last_mut()) {
                    (SectionKind::PrivateKey, _) => {
                        chains.push((PrivateKeyDer::Pkcs8(der.into()), Vec::new()))
                    }
                    (SectionKind::EcPrivateKey, _) => {
                        chains.push((PrivateKeyDer::Sec1(der.into()), Vec::new()))
                    }
                    (SectionKind::RsaPrivateKey, _) => {
                        chains.push((PrivateKeyDer::Pkcs1(der.into()), Vec::new()))
                    }
                    (SectionKind::Certificate, Some((_, certificates))) => certificates.push(der.into()),
                    (SectionKind::Certificate, None) => {
                        return Err(format!(
                            "{path}: a certificate comes before any key; each key must stand before its certificates"
                        ));
                    }
                    _ => {}
                }
            }
        }
        match chains.iter().any(|(_, certificates)| certificates.is_empty()) || chains.is_empty() {
            true => Err(format!(
                "{}: there is a key without certificates, or nothing at all",
                self.paths.join(" ")
            )),
            false => Ok(chains),
        }
    }

    fn certified(&self, (key, certificates): Chain) -> Result<Arc<CertifiedKey>, String> {
        let files = self.paths.join(" ");
        let key = any_supported_type(&key).map_err(|_| {
            format!("{files}: the key is of a kind that is not served here; use RSA (2048 bits or more), ECDSA P-256 or P-384, or Ed25519")
        })?;
        let certified = CertifiedKey::new(certificates, Arc::new(Obliging(key)));
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(format!("{files}: the private key is not that of the certificate"))
            }
            Err(error @ rustls::Error::InvalidCertificate(_)) => Err(format!("{files}: {error}")),
            _ => Ok(Arc::new(certified)),
        }
    }
}

/// A key that signs with the scheme that the peer likes best, as OpenSSL does; rustls would take the longest digest.
#[derive(Debug)]
struct Obliging(Arc<dyn SigningKey>);

impl SigningKey for Obliging {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.iter().find_map(|scheme| self.0.choose_scheme(&[*scheme]))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

/// Opens a file with the rights of this process.
pub(super) fn read_directly(path: &str) -> Result<Vec<u8>, String> {
    const MAX_FILE: u64 = 1024 * 1024;
    let of = |e: std::io::Error| format!("open {path}: {e}");
    if std::fs::metadata(path).map_err(of)?.len() > MAX_FILE {
        return Err(format!("{path}: too large for a file of keys and certificates"));
    }
    std::fs::read(path).map_err(of)
}

/// The first key that can sign with one of these schemes.
pub(super) fn choose(keys: &[Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
}
