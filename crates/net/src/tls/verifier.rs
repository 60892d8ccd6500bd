//! What rustls asks about a peer's certificate during the handshake. The certificate is accepted whatever it is: whether it is
//! good enough is decided afterwards, by the policy and with the whole chain at hand, so that an opportunistic connection never
//! fails for it, and the log can say what it was worth. What is checked here is that the peer holds the key.

use std::cell::Cell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::certificate::Certificate;

thread_local! {
    /// The scheme of the last signature that was checked on this thread: rustls tells nobody else. A handshake stays on one thread.
    static SCHEME: Cell<Option<SignatureScheme>> = const { Cell::new(None) };
}

/// The scheme of the last handshake on this thread; forgets it.
pub(super) fn take_scheme() -> Option<SignatureScheme> {
    SCHEME.take()
}

/// What peers are asked to sign with, in OpenSSL's order: they sign, and the log tells of it, as they would for Postfix. Some
/// of them cannot be checked here: see `lenient`.
const PREFERENCE: [SignatureScheme; 13] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PKCS1_SHA1,
];

/// See the module's head.
#[derive(Debug)]
pub(super) struct Accepting {
    provider: Arc<CryptoProvider>,
    /// Whether a key that rustls cannot check is good enough.
    lenient: bool,
    /// For a server: the subjects of the authorities whose certificates are asked for.
    subjects: Vec<DistinguishedName>,
}

impl Accepting {
    /// For a client.
    pub(super) fn servers(provider: Arc<CryptoProvider>, lenient: bool) -> Self {
        Self { provider, lenient, subjects: Vec::new() }
    }

    /// For a server that asks for certificates.
    pub(super) fn clients(provider: Arc<CryptoProvider>, subjects: Vec<DistinguishedName>) -> Self {
        Self { provider, lenient: true, subjects }
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
        result: Result<HandshakeSignatureValid, Error>,
        by_key: impl FnOnce(&SubjectPublicKeyInfoDer<'_>) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        SCHEME.set(Some(dss.scheme));
        let Err(error) = result else { return result };
        let read = Certificate::read(certificate);
        if read.key.is_checked() {
            // webpki refuses some certificates as a whole (version 1, odd extensions) whose keys are in order.
            let bad_signature = matches!(error, Error::InvalidCertificate(CertificateError::BadSignature));
            return if bad_signature {
                Err(error)
            } else {
                by_key(&SubjectPublicKeyInfoDer::from(read.spki))
            };
        }
        if self.lenient { Ok(HandshakeSignatureValid::assertion()) } else { Err(error) }
    }

    fn check12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let result = verify_tls12_signature(message, certificate, dss, algorithms);
        self.check(certificate, dss, result, |spki| self.check_by_key(message, spki, dss))
    }

    fn check13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let result = verify_tls13_signature(message, certificate, dss, algorithms);
        self.check(certificate, dss, result, |spki| {
            verify_tls13_signature_with_raw_key(message, spki, dss, algorithms)
        })
    }

    /// A signature of TLS 1.2, by the key alone: the scheme leaves the curve open there.
    fn check_by_key(
        &self,
        message: &[u8],
        spki: &SubjectPublicKeyInfoDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use x509_parser::prelude::FromDer as _;
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(|_| bad())?;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let algorithms =
            mapping.iter().find(|(scheme, _)| *scheme == dss.scheme).map_or(&[][..], |(_, found)| *found);
        let key = &parsed.subject_public_key.data;
        // A key of another kind fails; a signature verifies under the one algorithm that it was made with.
        let valid = algorithms
            .iter()
            .any(|algorithm| algorithm.verify_signature(key, message, dss.signature()).is_ok());
        if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let known = self.provider.signature_verification_algorithms.supported_schemes();
        let fits = |scheme: &SignatureScheme| self.lenient || known.contains(scheme);
        PREFERENCE.into_iter().filter(fits).collect()
    }
}

impl ServerCertVerifier for Accepting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check12(message, certificate, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check13(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Accepting {
    fn client_auth_mandatory(&self) -> bool {
        // A client without one is refused in words, after the handshake.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check12(message, certificate, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check13(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
