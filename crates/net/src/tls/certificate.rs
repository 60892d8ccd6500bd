//! What is read out of a certificate: names, issuer, key, fingerprints.

use std::net::IpAddr;

use md5::{Digest as _, Md5};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

/// The most names that are kept of one certificate.
const MAX_NAMES: usize = 1000;

/// A certificate of the peer, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name; empty if it has none.
    pub subject: String,
    /// The issuer's common name, else its organisation.
    pub issuer: String,
    /// The DNS names, without those that hold anything but printable ASCII.
    pub names: Vec<String>,
    /// Whether there is a DNS name at all: the common name counts only where there is none (RFC 6125 section 6.4.4).
    pub has_dns_names: bool,
    /// The addresses, for hosts that are told by theirs (RFC 9525 section 6.5).
    pub addresses: Vec<IpAddr>,
    /// What kind of key it has.
    pub key: Key,
    /// Not valid yet, or no more.
    pub expired: bool,
    /// Issuer and subject are the same.
    pub self_issued: bool,
    /// The serial number, in Postfix's form.
    pub serial: String,
    /// The subject's and the issuer's whole names as in RFC 2253, for policy services.
    pub subject_dn: String,
    /// See `subject_dn`.
    pub issuer_dn: String,
    /// The certificate itself.
    pub der: Vec<u8>,
    /// The public key in it (SubjectPublicKeyInfo).
    pub spki: Vec<u8>,
}

/// The kind and size of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// RSA with so many bits.
    Rsa(usize),
    /// ECDSA on the curve of this name.
    Ecdsa(&'static str),
    /// Ed25519.
    Ed25519,
    /// Something else.
    #[default]
    Other,
}

impl Key {
    /// Whether rustls can check a signature that was made with it: if it can, it does; if it cannot, nothing is known about who
    /// holds the key.
    #[must_use]
    pub const fn is_checked(self) -> bool {
        match self {
            Self::Rsa(bits) => bits >= 2048 && bits <= 8192,
            Self::Ecdsa(curve) => matches!(curve.as_bytes(), b"prime256v1" | b"secp384r1"),
            Self::Ed25519 => true,
            Self::Other => false,
        }
    }
}

impl Certificate {
    /// Reads a certificate. One that cannot be read has no names.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Self {
        let mut found = Self { der: der.to_vec(), ..Self::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { return found };
        found.subject = common_name(parsed.subject()).unwrap_or_default();
        found.issuer =
            common_name(parsed.issuer()).or_else(|| organization(parsed.issuer())).unwrap_or_default();
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            for name in names.value.general_names.iter().take(MAX_NAMES) {
                match name {
                    GeneralName::DNSName(name) => {
                        found.has_dns_names = true;
                        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) {
                            found.names.push((*name).to_owned());
                        }
                    }
                    GeneralName::IPAddress(bytes) => found.addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        found.key = key_of(&parsed);
        found.expired = !parsed.validity().is_valid();
        found.self_issued = parsed.subject() == parsed.issuer();
        found.serial = parsed.raw_serial_as_string().replace(':', "").to_uppercase();
        found.subject_dn = printable(&parsed.subject().to_string());
        found.issuer_dn = printable(&parsed.issuer().to_string());
        found.spki = parsed.public_key().raw.to_vec();
        found
    }

    /// The fingerprint of the certificate, as colon-separated hexadecimal digits in capitals.
    #[must_use]
    pub fn fingerprint(&self, digest: Digest) -> String {
        digest.hex_of(&self.der)
    }

    /// The fingerprint of its public key.
    #[must_use]
    pub fn key_fingerprint(&self, digest: Digest) -> String {
        digest.hex_of(&self.spki)
    }

    /// The names that a policy is held against: the DNS names, or the common name where there is none.
    #[must_use]
    pub fn names_to_match(&self) -> Vec<&str> {
        match self.has_dns_names {
            true => self.names.iter().map(String::as_str).collect(),
            false => Some(self.subject.as_str()).into_iter().filter(|name| !name.is_empty()).collect(),
        }
    }
}

fn key_of(parsed: &X509Certificate<'_>) -> Key {
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Key::Rsa(key.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = parsed.public_key().algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            Key::Ecdsa(match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "prime256v1",
                Some("1.3.132.0.34") => "secp384r1",
                Some("1.3.132.0.35") => "secp521r1",
                _ => "unknown",
            })
        }
        _ if parsed.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => Key::Ed25519,
        _ => Key::Other,
    }
}

/// Four or sixteen bytes (RFC 5280 section 4.2.1.6).
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().last().and_then(|cn| cn.as_str().ok()).map(printable)
}

fn organization(name: &X509Name<'_>) -> Option<String> {
    name.iter_organization().last().and_then(|o| o.as_str().ok()).map(printable)
}

/// A name chosen by the peer, fit for a line of the log.
fn printable(text: &str) -> String {
    text.chars().take(256).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The message digest of `…_tls_fingerprint_digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// Broken, and Postfix's default of former times.
    Md5,
    /// Broken.
    Sha1,
    /// The one to use.
    Sha256,
    /// Longer.
    Sha384,
    /// Longer still.
    Sha512,
}

impl Digest {
    /// The digest of this name.
    ///
    /// # Errors
    /// A name that is none.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "md5" => Self::Md5,
            "sha1" => Self::Sha1,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => return Err(format!("\"{name}\" is no message digest that is known here; use sha256")),
        })
    }

    /// The digest of some bytes.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Md5 => return Md5::digest(bytes).to_vec(),
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        let mut context = Context::new(algorithm);
        context.update(bytes);
        context.finish().as_ref().to_vec()
    }

    /// The same, as the fingerprints of Postfix and OpenSSL are written.
    #[must_use]
    pub fn hex_of(self, bytes: &[u8]) -> String {
        let parts: Vec<String> = self.of(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        parts.join(":")
    }
}
