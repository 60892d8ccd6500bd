//! TLS as a client: `smtp_tls_…` and `lmtp_tls_…`.
//!
//! [`Context::policy`] says what is asked of a destination, [`Context::handshake`] does it. A handshake never fails for the sake of a
//! certificate: what the certificate is worth is found out after it, logged, and held against the policy.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use config::Config;
use ipc::log;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};

use super::anchors::{self, Anchors, Purpose};
use super::certificate::{Certificate, Digest, Key};
use super::ciphers::Ciphers;
use super::dane::{self, Verdict};
use super::dane_host::Rules;
pub use super::dane_host::{DaneError, Host, LookUp};
pub use super::handshake::Socket;
use super::handshake::{send_all, shake_hands};
use super::info::{self, Info, Trust};
use super::policy::Policies;
pub use super::policy::{Level, Match, Policy, PolicyError};
use super::protocols::Protocols;
use super::server::Opener;
use super::sessions::Sessions;
use super::settings::Settings;
use super::store::Store;
use super::verifier::{self, Accepting};
use super::{keys, names, sts};

/// Everything that connections of one configuration have in common. Made once, shared by all threads.
pub struct Context {
    policies: Policies,
    anchors: Anchors,
    /// Whether the system's anchors count as well.
    system_anchors: bool,
    purpose: Purpose,
    own: Mutex<Store<OwnKeys>>,
    sessions: Arc<Sessions>,
    configs: Mutex<HashMap<ConfigKey, Arc<ClientConfig>>>,
    dane: dane::Settings,
    dane_rules: Rules,
    sts: Option<sts::Store>,
    wildcards_match_many: bool,
    log_level: u8,
}

/// What a configuration of rustls depends on: protocols, ciphers, and whether any key will do.
type ConfigKey = (Protocols, Ciphers, bool);

/// The server at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its name, as it came from the MX record or the configuration.
    pub host: &'a str,
    /// Its address; none for a UNIX socket.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// The domain of the next hop, without brackets and port.
    pub nexthop: &'a str,
}

impl fmt::Display for Peer<'_> {
    /// `host[address]:port`, as it stands in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}[{address}]:{}", self.host, self.port),
            None => f.write_str(self.host),
        }
    }
}

/// Why there is no connection to send mail over. The words are Postfix's, and the enhanced status is 4.7.5 for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// TLS did not come about, for this reason. Where the policy only wishes for TLS, try again without it.
    Handshake(String),
    /// It is not the certificate that was asked for, or nobody who is trusted vouches for it.
    NotVerified(String),
    /// The policy names a file of trust anchors that cannot be used.
    Configuration(String),
}

impl TlsError {
    /// What is behind it, for the log.
    #[must_use]
    pub fn cause(&self) -> &str {
        match self {
            Self::Handshake(cause) | Self::NotVerified(cause) | Self::Configuration(cause) => cause,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake(_) => "Cannot start TLS: handshake failure",
            Self::NotVerified(_) => "Server certificate not verified",
            Self::Configuration(_) => "client TLS configuration problem",
        })
    }
}

impl std::error::Error for TlsError {}

/// An encrypted connection. The end of the stream is an end with or without the peer's good-bye, as SMTP has its own.
pub struct TlsStream<S: Read + Write> {
    inner: rustls::StreamOwned<ClientConnection, S>,
    info: Info,
}

impl<S: Read + Write> TlsStream<S> {
    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The socket below, for its timeouts.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.inner.sock
    }

    /// Whether bytes wait in memory that a poll of the socket would not show.
    #[must_use]
    pub fn has_pending(&mut self) -> bool {
        self.inner.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Says good-bye (RFC 8446 section 6.1). Whoever does not hear it is gone anyway.
    pub fn close(&mut self) {
        self.inner.conn.send_close_notify();
        let _ = self.inner.conn.write_tls(&mut self.inner.sock);
    }
}

impl<S: Read + Write> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("info", &self.info.summary()).finish_non_exhaustive()
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            result => result,
        }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        send_all(&mut self.inner.conn, &mut self.inner.sock)?;
        self.inner.sock.flush()
    }
}

impl Context {
    /// The context of `prefix` (`smtp` or `lmtp`); `opener` opens keys that this process may not.
    ///
    /// # Errors
    /// A parameter, file or table that cannot be used; the text begins with the parameter.
    pub fn new(config: &Config, prefix: &str, opener: Option<Box<Opener>>) -> Result<Self, String> {
        let settings = Settings { config, prefix };
        let mut anchors = Anchors::default();
        let (file, folder) = (settings.text("tls_CAfile"), settings.text("tls_CApath"));
        if !file.is_empty() {
            anchors
                .add_file(Path::new(&file))
                .map_err(|e| format!("{}: {e}", settings.name("tls_CAfile")))?;
        }
        if !folder.is_empty() {
            anchors
                .add_directory(Path::new(&folder))
                .map_err(|e| format!("{}: {e}", settings.name("tls_CApath")))?;
        }
        let none = file.is_empty() && folder.is_empty();
        let global = |name: &str| config.text(name).unwrap_or_default();
        let context = Self {
            policies: Policies::new(settings)?,
            system_anchors: none || global("tls_append_default_CA") == "yes",
            anchors,
            purpose: Purpose::server(settings.depth("tls_scert_verifydepth")),
            own: Mutex::new(Store::new(keys::files(settings), opener)),
            sessions: Sessions::new(settings.time("tls_session_cache_timeout")),
            configs: Mutex::default(),
            dane: dane::Settings::new(
                &config::split_list(&global("tls_dane_digests")),
                &global("tls_dane_digest_agility"),
            )?,
            dane_rules: Rules::new(config, prefix)?,
            sts: if prefix == "smtp" { sts::Store::new(config)? } else { None },
            wildcards_match_many: global("tls_wildcard_matches_multiple_labels") != "no",
            log_level: settings.log_level(),
        };
        context.own().map(|_| context)
    }

    /// The certificates of ours, as their files have them now.
    fn own(&self) -> Result<Arc<OwnKeys>, String> {
        let mut store = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        store.current(|keys| Ok(Arc::new(OwnKeys(keys))))
    }

    /// What is asked of a destination, given as in transport(5): `example.com`, `[mail.example.com]:587` …
    ///
    /// # Errors
    /// A table that cannot be asked, or says what cannot be done: mail waits.
    pub fn policy(&self, nexthop: &str) -> Result<Policy, PolicyError> {
        self.policies.find(nexthop)
    }

    /// A level with what main.cf says for it.
    ///
    /// # Errors
    /// As [`Context::policy`].
    pub fn policy_of_level(&self, level: Level) -> Result<Policy, PolicyError> {
        self.policies.plain(level)
    }

    /// What the MTA-STS policy of a domain makes of the policy for one of its mail exchangers, after DANE had its say. `look_up` asks
    /// the DNS for TXT records. Not for hosts that the operator has named.
    ///
    /// # Errors
    /// The policy does not name the host.
    pub fn apply_sts(
        &self,
        policy: Policy,
        domain: &str,
        host: &str,
        look_up: &sts::LookUp<'_>,
    ) -> Result<Policy, sts::Unlisted> {
        match &self.sts {
            Some(store) => store.apply(policy, domain, host, look_up),
            None => Ok(policy),
        }
    }

    /// What makes TLSA records usable.
    #[must_use]
    pub fn dane(&self) -> &dane::Settings {
        &self.dane
    }

    pub(super) fn dane_rules(&self) -> &Rules {
        &self.dane_rules
    }

    /// Begins TLS on a connection, until `deadline`, and holds the server against the policy.
    ///
    /// # Errors
    /// See [`TlsError`]. The stream is closed then.
    pub fn handshake<S: Socket>(
        &self,
        stream: S,
        policy: &Policy,
        peer: &Peer<'_>,
        deadline: Instant,
    ) -> Result<TlsStream<S>, TlsError> {
        let failed = |cause: String| {
            log::info!("SSL_connect error to {peer}: {cause}");
            TlsError::Handshake(cause)
        };
        let server_name = self.server_name(policy, peer);
        let config = self.config(policy, peer, server_name.is_some()).map_err(failed)?;
        let shown = server_name.clone().unwrap_or_else(|| peer.host.to_owned());
        let target = ServerName::try_from(shown).or_else(|_| match peer.address {
            Some(address) => Ok(ServerName::IpAddress(address.into())),
            None => ServerName::try_from("localhost"),
        });
        let target = target.map_err(|e| failed(e.to_string()))?;
        let mut connection = ClientConnection::new(config, target).map_err(|e| failed(e.to_string()))?;
        let mut stream = stream;
        verifier::take_scheme();
        OWN_SIGNATURE.take();
        shake_hands(&mut connection, &mut stream, deadline).map_err(failed)?;
        let (info, verdict) = self.judge(&connection, policy, peer, server_name);
        self.log(&info, policy, peer);
        let mut stream = TlsStream { inner: rustls::StreamOwned::new(connection, stream), info };
        match verdict {
            Ok(()) => Ok(stream),
            Err(error) => {
                stream.close();
                Err(error)
            }
        }
    }

    /// The name that the server is told; Postfix tells none unless it is asked to, or DANE asks (RFC 7672 section 8.1).
    fn server_name(&self, policy: &Policy, peer: &Peer<'_>) -> Option<String> {
        let name = match (&policy.tlsa_base, policy.server_name.as_str()) {
            (Some(base), _) => base.clone(),
            (None, "") => return None,
            (None, "hostname") => peer.host.to_owned(),
            (None, "nexthop") => peer.nexthop.to_owned(),
            (None, name) => name.to_owned(),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        matches!(ServerName::try_from(name.as_str()), Ok(ServerName::DnsName(_))).then_some(name)
    }

    /// rustls' configuration for this connection.
    fn config(&self, policy: &Policy, peer: &Peer<'_>, with_name: bool) -> Result<Arc<ClientConfig>, String> {
        let lenient = !policy.level.must_match();
        let base = {
            let key = (policy.protocols, policy.ciphers, lenient);
            let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
            match configs.get(&key) {
                Some(config) => Arc::clone(config),
                None => {
                    let config = Arc::new(self.base_config(key)?);
                    configs.insert(key, Arc::clone(&config));
                    config
                }
            }
        };
        let own = self.own()?;
        // Who this host was is part of a session.
        let shown = own.0.iter().flat_map(|key| key.cert.first()).map(|der| Digest::Sha256.hex_of(der));
        let shown: Vec<String> = shown.collect();
        let key = Digest::Sha256.hex_of(format!("{peer:?} {policy:?} {shown:?}").as_bytes());
        let mut config = ClientConfig::clone(&base);
        config.client_auth_cert_resolver = own;
        config.enable_sni = with_name;
        config.resumption = Resumption::store(self.sessions.of(key));
        Ok(Arc::new(config))
    }

    fn base_config(&self, (protocols, ciphers, lenient): ConfigKey) -> Result<ClientConfig, String> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: ciphers.suites(),
            ..rustls::crypto::ring::default_provider()
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&protocols.versions()).map_err(|e| e.to_string())?;
        let verifier = Arc::new(Accepting::servers(provider, lenient));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        Ok(builder.with_no_client_auth())
    }

    /// What the server's certificate is worth, and whether that is enough.
    fn judge(
        &self,
        connection: &ClientConnection,
        policy: &Policy,
        peer: &Peer<'_>,
        server_name: Option<String>,
    ) -> (Info, Result<(), TlsError>) {
        let chain: &[CertificateDer<'_>] = connection.peer_certificates().unwrap_or_default();
        let mut info = Info { server_name, ..Info::of(connection) };
        let key = info.certificate.as_ref().map(|certificate| certificate.key);
        if let (Some(key), Some(scheme), "TLSv1.3", false) =
            (key, verifier::take_scheme(), info.protocol, info.reused)
        {
            let (algorithm, digest) = info::signature(scheme, key);
            (info.server_signature, info.server_digest) = (Some(algorithm), digest);
        }
        if let (Some((key, scheme)), "TLSv1.3", false) = (OWN_SIGNATURE.take(), info.protocol, info.reused) {
            let (algorithm, digest) = info::signature(scheme, key);
            (info.client_signature, info.client_digest) = (Some(algorithm), digest);
        }
        info.end_point = chain.first().map(info::end_point);
        if info.protocol == "TLSv1.3" {
            let exported = connection.export_keying_material(vec![0; 32], info::EXPORTER, None);
            info.exporter = exported.ok();
        }
        let Some(certificate) = info.certificate.clone() else { return (info, Ok(())) };
        let (trust, reason) = match certificate.key.is_checked() {
            true => self.trust(chain, &certificate, policy, peer),
            false => (Trust::Untrusted, Some("a key of a kind that cannot be checked".to_owned())),
        };
        if policy.reports_unverified && trust < Trust::Verified {
            let strict = Policy { level: Level::Verify, ..policy.clone() };
            if let (Trust::Anonymous | Trust::Untrusted | Trust::Trusted, Some(why)) =
                self.trust(chain, &certificate, &strict, peer)
            {
                log::info!(
                    "MTA-STS policy of {}: {peer} does not keep to it: {why} (only testing)",
                    peer.nexthop
                );
            }
        }
        let accepted = match policy.level {
            Level::HalfDane => trust >= Trust::Trusted,
            level => !level.must_match() || trust == Trust::Verified,
        };
        // Where a certificate must be the right one, half of the proof is none: the log says so in the words of Postfix.
        info.trust = if accepted { trust } else { Trust::Untrusted };
        let why = reason.clone().unwrap_or_default();
        info.reason = reason;
        (info, if accepted { Ok(()) } else { Err(TlsError::NotVerified(why)) })
    }

    fn trust(
        &self,
        chain: &[CertificateDer<'_>],
        certificate: &Certificate,
        policy: &Policy,
        peer: &Peer<'_>,
    ) -> (Trust, Option<String>) {
        match policy.level {
            Level::Fingerprint => {
                let prints =
                    [certificate.fingerprint(policy.digest), certificate.key_fingerprint(policy.digest)];
                match policy.fingerprints.iter().any(|wanted| prints.contains(wanted)) {
                    true => (Trust::Verified, None),
                    false => (Trust::Untrusted, Some("fingerprint mismatch".into())),
                }
            }
            level if level.uses_dane() => {
                // An MX host that was found insecurely proves nothing, however secure its own records are.
                let best = if level == Level::HalfDane { Trust::Trusted } else { Trust::Verified };
                match dane::verify(chain, &policy.tlsa, self.purpose) {
                    Verdict::EndEntity => (best, None),
                    Verdict::TrustAnchor if self.has_name(certificate, policy, peer) => (best, None),
                    Verdict::TrustAnchor => match level {
                        Level::HalfDane => (Trust::Untrusted, Some("hostname mismatch".into())),
                        _ => (Trust::Trusted, Some("hostname mismatch".into())),
                    },
                    Verdict::Mismatch(reason) => (Trust::Untrusted, Some(reason)),
                }
            }
            level => match self.vouched_for(chain, policy) {
                Err(reason) => (Trust::Untrusted, Some(reason)),
                Ok(()) if !level.must_match() => (Trust::Trusted, None),
                Ok(()) if self.has_name(certificate, policy, peer) => (Trust::Verified, None),
                Ok(()) => (Trust::Trusted, Some("hostname mismatch".into())),
            },
        }
    }

    /// Whether a trust anchor that counts for this policy vouches for the chain.
    fn vouched_for(&self, chain: &[CertificateDer<'_>], policy: &Policy) -> Result<(), String> {
        if !policy.trust_anchors.is_empty() {
            let mut anchors = Anchors::default();
            for file in &policy.trust_anchors {
                anchors.add_file(Path::new(file))?;
            }
            return anchors.vouch_for(chain, self.purpose);
        }
        let mut result = self.anchors.vouch_for(chain, self.purpose);
        if result.is_err() && (self.system_anchors || policy.system_anchors) {
            result = anchors::system().vouch_for(chain, self.purpose);
        }
        result
    }

    fn has_name(&self, certificate: &Certificate, policy: &Policy, peer: &Peer<'_>) -> bool {
        let dotted = format!(".{}", peer.nexthop);
        let wanted = policy.names.iter().map(|name| match name {
            Match::Hostname => peer.host,
            Match::Nexthop => peer.nexthop,
            Match::DotNexthop => &dotted,
            Match::Name(name) => name,
        });
        let mut wanted = wanted.chain(policy.tlsa_base.as_deref().filter(|_| policy.level.uses_dane()));
        let certified = certificate.names_to_match();
        wanted.any(|wanted| {
            wanted.parse().is_ok_and(|address| certificate.addresses.contains(&address))
                || certified.iter().any(|name| names::matches(name, wanted, self.wildcards_match_many))
        })
    }

    fn log(&self, info: &Info, policy: &Policy, peer: &Peer<'_>) {
        if let Some(reason) =
            info.reason.as_ref().filter(|_| policy.level.must_match() || self.log_level >= 2)
        {
            // Postfix says whose certificate it is, unless it is about who vouches for it.
            let whose = if anchors::is_about_issuer(reason) { "" } else { "server " };
            log::info!("{whose}certificate verification failed for {peer}: {reason}");
        }
        if self.log_level >= 1 {
            let done = if info.reused { "reused" } else { "established" };
            log::info!("{} TLS connection {done} to {peer}: {}", info.trust.word(), info.summary());
        }
        if let Some(certificate) = info.certificate.as_ref().filter(|_| self.log_level >= 2) {
            log::info!(
                "{peer}: subject_CN={}, issuer_CN={}, fingerprint={}, pkey_fingerprint={}",
                certificate.subject,
                certificate.issuer,
                certificate.fingerprint(policy.digest),
                certificate.key_fingerprint(policy.digest),
            );
        }
    }
}

thread_local! {
    /// With what this host proved who it is in the last handshake on this thread, which rustls does not tell.
    static OWN_SIGNATURE: Cell<Option<(Key, SignatureScheme)>> = const { Cell::new(None) };
}

/// The certificates that we have for servers who ask.
#[derive(Debug)]
struct OwnKeys(Vec<Arc<CertifiedKey>>);

impl rustls::client::ResolvesClientCert for OwnKeys {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let chosen = keys::choose(&self.0, schemes)?;
        let scheme = chosen.key.choose_scheme(schemes).map(|signer| signer.scheme());
        let kind = chosen.cert.first().map(|certificate| Certificate::read(certificate).key);
        OWN_SIGNATURE.set(kind.zip(scheme));
        Some(chosen)
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
