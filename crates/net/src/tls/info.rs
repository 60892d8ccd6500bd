//! What is known of a connection that speaks TLS: for the log, the policy, and the `Received:` header.

use std::fmt;

use rustls::{CommonState, ProtocolVersion, SignatureScheme};
use rustls_pki_types::CertificateDer;

use super::certificate::{Certificate, Key};
use super::ciphers;

/// What a certificate proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// There was none.
    #[default]
    Anonymous,
    /// It proved nothing.
    Untrusted,
    /// A trust anchor vouches for it.
    Trusted,
    /// It is the one that was asked for.
    Verified,
}

impl Trust {
    /// The word of the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Anonymous => "Anonymous",
            Self::Untrusted => "Untrusted",
            Self::Trusted => "Trusted",
            Self::Verified => "Verified",
        }
    }
}

/// A signature or a key exchange: its name, and where there is more to say, curve or size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithm {
    /// `X25519`, `ECDHE`, `RSA-PSS` …
    pub name: &'static str,
    /// `P-256`, `2048 bits` …
    pub detail: String,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `TLSv1.3`.
    pub protocol: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The bits of its key.
    pub bits: u16,
    /// What the peer's certificate proved.
    pub trust: Trust,
    /// Whether an earlier session was resumed.
    pub reused: bool,
    /// The key exchange; known for TLS 1.3 without resumption, as in Postfix.
    pub key_exchange: Option<Algorithm>,
    /// The server's signature; known likewise.
    pub server_signature: Option<Algorithm>,
    /// The digest of that; known likewise, where the signature names one.
    pub server_digest: Option<&'static str>,
    /// The client's signature, where it sent a certificate.
    pub client_signature: Option<Algorithm>,
    /// The digest of that.
    pub client_digest: Option<&'static str>,
    /// The peer's certificate.
    pub certificate: Option<Certificate>,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// Why the certificate is no better than it is.
    pub reason: Option<String>,
    /// Channel binding `tls-exporter` (RFC 9266).
    pub exporter: Option<Vec<u8>>,
    /// Channel binding `tls-server-end-point` (RFC 5929 section 4).
    pub end_point: Option<Vec<u8>>,
}

impl Info {
    /// What holds for both sides.
    pub(super) fn of(state: &CommonState) -> Self {
        let (cipher, bits) = state.negotiated_cipher_suite().map_or(("unknown", 0), ciphers::name_and_bits);
        let version = state.protocol_version();
        let reused = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let group =
            state.negotiated_key_exchange_group().filter(|_| version == Some(ProtocolVersion::TLSv1_3));
        Self {
            protocol: match version {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher,
            bits,
            reused,
            key_exchange: group.map(|group| match group.name() {
                rustls::NamedGroup::X25519 => Algorithm { name: "X25519", detail: String::new() },
                rustls::NamedGroup::secp256r1 => Algorithm { name: "ECDHE", detail: "P-256".into() },
                rustls::NamedGroup::secp384r1 => Algorithm { name: "ECDHE", detail: "P-384".into() },
                _ => Algorithm { name: "ECDHE", detail: String::new() },
            }),
            certificate: state.peer_certificates().and_then(|chain| chain.first()).map(Certificate::read),
            ..Self::default()
        }
    }

    /// The subject's name for the log and the `Received:` header.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        self.certificate.as_ref().map_or("", |certificate| certificate.subject.as_str())
    }

    /// The peer's certificate, if the peer has shown that it holds the key to it.
    #[must_use]
    pub fn proven(&self) -> Option<&Certificate> {
        self.certificate.as_ref().filter(|certificate| certificate.key.is_checked())
    }

    /// `TLSv1.3 with cipher … (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256`.
    #[must_use]
    pub fn summary(&self) -> String {
        use std::fmt::Write as _;
        let mut text =
            format!("{} with cipher {} ({bits}/{bits} bits)", self.protocol, self.cipher, bits = self.bits);
        let mut add = |word: &str, value: Option<String>| {
            // Writing to a string cannot fail.
            let _ = value.map(|value| write!(text, " {word} {value}"));
        };
        add("key-exchange", self.key_exchange.as_ref().map(ToString::to_string));
        add("server-signature", self.server_signature.as_ref().map(ToString::to_string));
        add("server-digest", self.server_digest.map(str::to_owned));
        add("client-signature", self.client_signature.as_ref().map(ToString::to_string));
        add("client-digest", self.client_digest.map(str::to_owned));
        text
    }
}

/// The algorithm and the digest of a signature in TLS 1.3, by its scheme and the key it was made with.
pub(super) fn signature(scheme: SignatureScheme, key: Key) -> (Algorithm, Option<&'static str>) {
    let algorithm = match key {
        Key::Rsa(bits) => Algorithm { name: "RSA-PSS", detail: format!("{bits} bits") },
        Key::Ecdsa(curve) => Algorithm { name: "ECDSA", detail: curve.to_owned() },
        Key::Ed25519 => Algorithm { name: "ED25519", detail: String::new() },
        Key::Other => Algorithm { name: "unknown", detail: String::new() },
    };
    let digest = match scheme {
        SignatureScheme::RSA_PSS_SHA256 | SignatureScheme::ECDSA_NISTP256_SHA256 => Some("SHA256"),
        SignatureScheme::RSA_PSS_SHA384 | SignatureScheme::ECDSA_NISTP384_SHA384 => Some("SHA384"),
        SignatureScheme::RSA_PSS_SHA512 | SignatureScheme::ECDSA_NISTP521_SHA512 => Some("SHA512"),
        _ => None,
    };
    (algorithm, digest)
}

/// Channel binding to the server's certificate: its digest, by the digest of its own signature, SHA-256 at least.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Vec<u8> {
    use super::certificate::Digest;
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let parsed = X509Certificate::from_der(certificate).ok();
    let algorithm = parsed.map(|(_, parsed)| parsed.signature_algorithm.algorithm.to_id_string());
    let digest = match algorithm.as_deref() {
        Some("1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3") => Digest::Sha384,
        Some("1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4") => Digest::Sha512,
        _ => Digest::Sha256,
    };
    digest.of(certificate)
}

/// The label of RFC 9266.
pub(super) const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
