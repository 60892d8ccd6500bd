//! Trust anchors: `…_CAfile`, `…_CApath`, the system's, and files that a policy names.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::certificate::Certificate;

/// The largest file of certificates that is read, and the most files of a directory.
const MAX_FILE: u64 = 16 * 1024 * 1024;
const MAX_FILES: usize = 10_000;

/// What a chain is to be good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    server: bool,
    depth: usize,
}

impl Purpose {
    /// To be a server; with no more than `depth` authorities, the anchor among them.
    pub(super) const fn server(depth: usize) -> Self {
        Self { server: true, depth }
    }

    /// To be a client; `depth` as for servers.
    pub(super) const fn client(depth: usize) -> Self {
        Self { server: false, depth }
    }
}

/// Certificates that are trusted to vouch for others.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Anchors {
    /// Adds the certificates of a file in PEM.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let found = read_certificates(path)?;
        if found.is_empty() {
            return Err(format!("{}: there is no certificate in it", path.display()));
        }
        found.into_iter().for_each(|der| self.add(der));
        Ok(())
    }

    /// Adds the files of a directory as `openssl rehash` leaves it: only names like `5ed36f99.0` count.
    pub(super) fn add_directory(&mut self, path: &Path) -> Result<(), String> {
        let entries = fs::read_dir(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        for entry in entries.flatten().take(MAX_FILES) {
            let name = entry.file_name();
            let hashed = name.to_str().and_then(|name| name.split_once('.')).is_some_and(|(hash, number)| {
                hash.len() == 8
                    && hash.bytes().all(|b| b.is_ascii_hexdigit())
                    && !number.is_empty()
                    && number.bytes().all(|b| b.is_ascii_digit())
            });
            if hashed {
                read_certificates(&entry.path())?.into_iter().for_each(|der| self.add(der));
            }
        }
        Ok(())
    }

    /// Adds what the system trusts.
    pub(super) fn add_system(&mut self) {
        rustls_native_certs::load_native_certs().certs.into_iter().for_each(|der| self.add(der));
    }

    pub(super) fn add(&mut self, der: CertificateDer<'static>) {
        // One that webpki cannot read vouches for nobody; OpenSSL skips such as well.
        if let Ok(anchor) = webpki::anchor_from_trusted_cert(&der) {
            let anchor = anchor.to_owned();
            self.anchors.push(anchor);
            self.certificates.push(der);
        }
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// The subjects, for a server that asks for certificates of its clients (RFC 8446 section 4.2.4).
    pub(super) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }

    /// Whether these vouch for the first certificate of `chain`, now, for this purpose.
    pub(super) fn vouch_for(&self, chain: &[CertificateDer<'_>], purpose: Purpose) -> Result<(), String> {
        let Some((leaf, rest)) = chain.split_first() else { return Err("no certificate".into()) };
        // A certificate that is trusted itself needs nobody; OpenSSL says the same of one that signed itself.
        if self.certificates.iter().any(|known| known.as_ref() == leaf.as_ref()) {
            return match Certificate::read(leaf).expired {
                true => Err("certificate has expired or is not yet valid".into()),
                false => Ok(()),
            };
        }
        verify(leaf, rest, &self.anchors, purpose).map_err(|reason| {
            let alone = reason == UNKNOWN_ISSUER && Certificate::read(leaf).self_issued;
            if alone { SELF_SIGNED.into() } else { reason }
        })
    }
}

/// The chain from a certificate to one of these anchors.
pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    purpose: Purpose,
) -> Result<(), String> {
    let usage = if purpose.server { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let parsed = EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
    let bounded = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() < purpose.depth {
        true => Ok(()),
        false => Err(webpki::Error::MaximumPathDepthExceeded),
    };
    let now = UnixTime::now();
    let verified = parsed.verify_for_usage(algorithms.all, anchors, rest, now, usage, None, Some(&bounded));
    verified.map(drop).map_err(|error| words(&error))
}

const UNKNOWN_ISSUER: &str = "unable to get local issuer certificate";
const SELF_SIGNED: &str = "self-signed certificate";

/// Whether a reason is that nobody known vouches for a certificate.
pub(super) fn is_about_issuer(reason: &str) -> bool {
    reason == UNKNOWN_ISSUER || reason == SELF_SIGNED
}

/// OpenSSL's words where it has some, because people know them.
fn words(error: &webpki::Error) -> String {
    match error {
        // One that ended before it began was never valid.
        webpki::Error::CertExpired { .. } | webpki::Error::InvalidCertValidity => {
            "certificate has expired".into()
        }
        webpki::Error::CertNotValidYet { .. } => "certificate is not yet valid".into(),
        webpki::Error::MaximumPathDepthExceeded => "certificate chain too long".into(),
        webpki::Error::UnknownIssuer => UNKNOWN_ISSUER.into(),
        webpki::Error::CaUsedAsEndEntity => SELF_SIGNED.into(),
        other => other.to_string(),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let of = |e: std::io::Error| format!("open {}: {e}", path.display());
    if fs::metadata(path).map_err(of)?.len() > MAX_FILE {
        return Err(format!("{}: too large for a file of certificates", path.display()));
    }
    let bytes = fs::read(path).map_err(of)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    parsed.map_err(|e| format!("{}: {e}", path.display()))
}

/// The system's anchors, read once for a process that asks.
pub(super) fn system() -> &'static Anchors {
    static SYSTEM: OnceLock<Anchors> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let mut anchors = Anchors::default();
        anchors.add_system();
        anchors
    })
}
