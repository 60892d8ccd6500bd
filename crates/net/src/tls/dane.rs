//! DANE: TLSA records instead of trust anchors (RFC 6698, RFC 7671, and RFC 7672 for SMTP).

use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::anchors::{self, Purpose};
use super::certificate::{Certificate, Digest};
pub use crate::dns::Tlsa;

/// The most records of one name that are looked at.
const MAX_RECORDS: usize = 100;

/// `tls_dane_digests`, `tls_dane_digest_agility`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Matching types that are usable, the strongest first.
    pub digests: Vec<u8>,
    /// Of several digests of the same kind, only the strongest counts (RFC 7671 section 9).
    pub agility: Agility,
}

/// `tls_dane_digest_agility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agility {
    /// Only the strongest counts.
    On,
    /// All count.
    Off,
    /// As `on`, where every digest comes with the same number of records; else all count.
    Maybe,
}

impl Default for Settings {
    fn default() -> Self {
        Self { digests: vec![2, 1], agility: Agility::On }
    }
}

impl Settings {
    /// From the names of digests and the word of the configuration.
    pub(super) fn new(digests: &[String], agility: &str) -> Result<Self, String> {
        let number =
            |name: &String| match name.split('=').next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "sha512" => Ok(2),
                "sha256" => Ok(1),
                _ => Err(format!(
                    "tls_dane_digests: \"{name}\" is not known here; the digests are sha512 and sha256"
                )),
            };
        let agility = match agility.to_ascii_lowercase().as_str() {
            "on" | "" => Agility::On,
            "off" => Agility::Off,
            "maybe" => Agility::Maybe,
            other => return Err(format!("tls_dane_digest_agility: \"{other}\" must be on, off or maybe")),
        };
        Ok(Self { digests: digests.iter().map(number).collect::<Result<_, _>>()?, agility })
    }

    /// The records that can be used (RFC 7672 section 3.1: usages 0 and 1 cannot), weaker digests left out.
    #[must_use]
    pub fn usable(&self, records: &[Tlsa]) -> Vec<Tlsa> {
        let usable = |record: &&Tlsa| {
            matches!(record.usage, 2 | 3)
                && record.selector <= 1
                && match record.matching {
                    0 => is_der(&record.data),
                    1 => record.data.len() == 32 && self.digests.contains(&1),
                    2 => record.data.len() == 64 && self.digests.contains(&2),
                    _ => false,
                }
        };
        let found: Vec<Tlsa> = records.iter().take(MAX_RECORDS).filter(usable).cloned().collect();
        let kept = found.iter().filter(|record| !self.is_outdone(record, &found)).cloned();
        kept.collect()
    }

    /// Whether a stronger digest of the same usage and selector is there.
    fn is_outdone(&self, record: &Tlsa, all: &[Tlsa]) -> bool {
        if record.matching == 0 || self.agility == Agility::Off {
            return false;
        }
        let rank = |matching: u8| self.digests.iter().position(|digest| *digest == matching);
        let same = |other: &&Tlsa| {
            other.usage == record.usage && other.selector == record.selector && other.matching != 0
        };
        let count = |matching: u8| all.iter().filter(same).filter(|other| other.matching == matching).count();
        if self.agility == Agility::Maybe && count(1) != count(2) {
            return false;
        }
        all.iter().filter(same).any(|other| rank(other.matching) < rank(record.matching))
    }
}

/// Whether the bytes are one DER sequence, whole.
fn is_der(data: &[u8]) -> bool {
    x509_parser::der_parser::parse_der(data)
        .is_ok_and(|(rest, object)| rest.is_empty() && object.as_sequence().is_ok())
}

/// What a chain is worth in the light of usable records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Usage 3 matched: no name and no date is looked at (RFC 7671 section 5.1).
    EndEntity,
    /// Usage 2 matched, and the chain is sound: the name is still to be looked at.
    TrustAnchor,
    /// No record matched, for this reason.
    Mismatch(String),
}

/// Whether a chain of one certificate, which may be anything, is what a record asks for.
#[doc(hidden)]
#[must_use]
pub fn certificate_matches(certificate: &[u8], record: &Tlsa) -> bool {
    let chain = [CertificateDer::from_slice(certificate)];
    !matches!(verify(&chain, std::slice::from_ref(record), Purpose::server(9)), Verdict::Mismatch(_))
}

/// Holds a server's chain against usable records.
#[must_use]
pub(super) fn verify(chain: &[CertificateDer<'_>], records: &[Tlsa], purpose: Purpose) -> Verdict {
    let Some((leaf, rest)) = chain.split_first() else { return Verdict::Mismatch("no certificate".into()) };
    if records.iter().any(|record| record.usage == 3 && matches(record, leaf)) {
        return Verdict::EndEntity;
    }
    let mut reason = "no TLSA record matches".to_owned();
    for record in records.iter().filter(|record| record.usage == 2) {
        for anchor in anchors_of(record, chain) {
            match anchors::verify(leaf, rest, &[anchor], purpose) {
                Ok(()) => return Verdict::TrustAnchor,
                Err(text) => reason = text,
            }
        }
    }
    Verdict::Mismatch(reason)
}

/// Whether a record is about this certificate.
fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let read;
    let selected = match record.selector {
        0 => certificate.as_ref(),
        _ => {
            read = Certificate::read(certificate).spki;
            &read[..]
        }
    };
    if selected.is_empty() {
        return false;
    }
    match record.matching {
        0 => selected == record.data,
        1 => Digest::Sha256.of(selected) == record.data,
        2 => Digest::Sha512.of(selected) == record.data,
        _ => false,
    }
}

/// The trust anchors that a record of usage 2 makes: certificates of the chain, or what is in the record itself.
fn anchors_of(record: &Tlsa, chain: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
    let to_anchor = |der: &CertificateDer<'_>| {
        let current = !Certificate::read(der).expired;
        webpki::anchor_from_trusted_cert(der).ok().filter(|_| current).map(|anchor| anchor.to_owned())
    };
    let mut found: Vec<_> =
        chain.iter().skip(1).filter(|der| matches(record, der)).filter_map(to_anchor).collect();
    if record.matching == 0 && record.selector == 0 {
        found.extend(to_anchor(&CertificateDer::from(record.data.clone())));
    }
    if record.matching == 0 && record.selector == 1 {
        // A bare key: whoever the topmost certificates name as their issuer may be its owner.
        found.extend(chain.iter().filter_map(|der| bare_key_anchor(der, &record.data)));
    }
    found
}

/// An anchor with the name of `issued`'s issuer and this key.
fn bare_key_anchor(issued: &CertificateDer<'_>, spki: &[u8]) -> Option<TrustAnchor<'static>> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(issued).ok()?;
    Some(TrustAnchor {
        subject: inside(parsed.issuer().as_raw())?.to_vec().into(),
        subject_public_key_info: inside(spki)?.to_vec().into(),
        name_constraints: None,
    })
}

/// The content of a DER sequence: webpki keeps names and keys without their outermost head.
fn inside(der: &[u8]) -> Option<&[u8]> {
    let (&[0x30, first], rest) = der.split_first_chunk::<2>()? else { return None };
    if first < 0x80 {
        return rest.get(..usize::from(first));
    }
    let (length, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
    let length = length.iter().try_fold(0_usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?;
    content.get(..length)
}
