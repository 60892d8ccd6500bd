//! TLS as a server: `smtpd_tls_…`.
//!
//! Keys and certificates are looked at again once a second while clients come: a renewed pair takes effect without a reload, and
//! one that cannot be used is told and changes nothing. What a client's certificate is worth is found out after the handshake.

mod names;
mod tickets;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use config::Config;
use ipc::log;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{DistinguishedName, ServerConfig, ServerConnection, TicketRotator};
use rustls_pki_types::CertificateDer;

use super::anchors::{Anchors, Purpose};
use super::certificate::{Certificate, Digest, Key};
use super::handshake::{Socket, send_all, shake_hands};
use super::info::{self, Info, Trust};
use super::keys;
use super::settings::Settings;
use super::store::Store;
use super::verifier::{self, Accepting};
use names::Names;

/// Opens a file that this process may not open by itself.
pub type Opener = dyn Fn(&Path) -> io::Result<File> + Send + Sync;

/// `smtpd_tls_security_level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No TLS.
    #[default]
    None,
    /// STARTTLS is offered.
    May,
    /// Nothing goes without it.
    Encrypt,
}

impl Level {
    /// What main.cf asks for; the parameters of former times count where it is silent.
    ///
    /// # Errors
    /// A word that is no level.
    pub fn from_config(config: &Config) -> Result<Self, String> {
        Self::of(config, "smtpd")
    }

    /// The same of `PREFIX_tls_security_level`.
    ///
    /// # Errors
    /// A word that is no level.
    pub fn of(config: &Config, prefix: &str) -> Result<Self, String> {
        let settings = Settings { config, prefix };
        match settings.text("tls_security_level").to_ascii_lowercase().as_str() {
            "" if settings.flag("enforce_tls") => Ok(Self::Encrypt),
            "" if settings.flag("use_tls") => Ok(Self::May),
            "" | "none" => Ok(Self::None),
            "may" => Ok(Self::May),
            "encrypt" => Ok(Self::Encrypt),
            // Postfix takes what is a level of its client for the strongest of its server.
            "fingerprint" | "verify" | "secure" | "dane" | "dane-only" => Ok(Self::Encrypt),
            other => Err(format!(
                "{prefix}_tls_security_level = {other}: there is no such level; they are none, may and encrypt"
            )),
        }
    }
}

/// Everything that sessions of one service have in common.
pub struct Context {
    store: Mutex<Store<ServerConfig>>,
    names: Option<Arc<Names>>,
    template: Template,
    /// Who may vouch for clients' certificates.
    anchors: Anchors,
    purpose: Purpose,
    /// What a client is asked for.
    ask: bool,
    digest: Digest,
    log_level: u8,
}

/// What rustls' configuration is made of, beside the keys.
struct Template {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    verifier: Option<Arc<Accepting>>,
    tickets: Option<Arc<dyn rustls::server::ProducesTickets>>,
    prefer_ours: bool,
}

impl Context {
    /// The context of smtpd; `opener` opens what this process may not. Reads all keys, so that a mistake shows at the start.
    ///
    /// # Errors
    /// A parameter or file that cannot be used; the text begins with the parameter.
    pub fn new(config: &Config, opener: Option<Box<Opener>>) -> Result<Self, String> {
        let settings = Settings { config, prefix: "smtpd" };
        let mandatory = Level::from_config(config)? == Level::Encrypt;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: settings.ciphers(mandatory)?.suites(),
            ..rustls::crypto::ring::default_provider()
        });
        let mut anchors = Anchors::default();
        let (file, folder) = (settings.text("tls_CAfile"), settings.text("tls_CApath"));
        if !file.is_empty() {
            anchors.add_file(Path::new(&file)).map_err(|e| format!("smtpd_tls_CAfile: {e}"))?;
        }
        if !folder.is_empty() {
            anchors.add_directory(Path::new(&folder)).map_err(|e| format!("smtpd_tls_CApath: {e}"))?;
        }
        if config.text("tls_append_default_CA").as_deref() == Some("yes") && !anchors.is_empty() {
            anchors.add_system();
        }
        let ask = settings.flag("tls_ask_ccert") || settings.flag("tls_req_ccert");
        // The names of authorities help a client to choose; those of a whole system would not fit.
        let subjects = anchors.subjects().take(100).map(DistinguishedName::in_sequence).collect();
        let template = Template {
            verifier: ask.then(|| Arc::new(Accepting::clients(Arc::clone(&provider), subjects))),
            versions: settings.protocols(mandatory)?.versions(),
            tickets: tickets(settings)?,
            prefer_ours: config.text("tls_preempt_cipherlist").as_deref() == Some("yes"),
            provider,
        };
        let names = Names::new(config)?.map(Arc::new);
        let files = keys::files(settings);
        if files.is_empty() {
            return Err(
                "smtpd_tls_chain_files: TLS is on, but no certificate is named here or in smtpd_tls_cert_file; \
                 without one there is nothing to offer"
                    .into(),
            );
        }
        let context = Self {
            store: Mutex::new(Store::new(files, opener)),
            names,
            template,
            anchors,
            purpose: Purpose::client(settings.depth("tls_ccert_verifydepth")),
            ask,
            digest: settings.digest()?,
            log_level: settings.log_level(),
        };
        context.config().map(|_| context)
    }

    /// Whether a client is asked for a certificate.
    #[must_use]
    pub const fn asks_for_certificates(&self) -> bool {
        self.ask
    }

    /// `smtpd_tls_fingerprint_digest`.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// rustls' configuration with the keys as the files have them now.
    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.current(|keys| self.template.build(names::Resolver::new(keys, self.names.clone())))
    }

    /// Does the server's side of a handshake with `client`, who is named in the log, until `deadline`. It blocks on the stream, and
    /// nothing is kept of it beside the session.
    ///
    /// # Errors
    /// Why there is no TLS; it has been logged, and the connection is of no use any more.
    pub fn handshake(
        &self,
        stream: &mut impl Socket,
        client: &dyn std::fmt::Display,
        deadline: Instant,
    ) -> Result<Session, String> {
        let failed = |cause: String| {
            log::info!("SSL_accept error from {client}: {cause}");
            cause
        };
        let config = self.config().map_err(failed)?;
        let mut connection = Box::new(ServerConnection::new(config).map_err(|e| failed(e.to_string()))?);
        verifier::take_scheme();
        names::take_key();
        shake_hands(&mut connection, stream, deadline).map_err(failed)?;
        let info = self.judge(&connection);
        self.log(&info, client);
        Ok(Session { connection, info: Box::new(info) })
    }

    fn judge(&self, connection: &ServerConnection) -> Info {
        let mut info = Info::of(connection);
        info.server_name = connection.server_name().map(str::to_owned);
        let scheme = verifier::take_scheme();
        let ours = names::take_key();
        if info.protocol == "TLSv1.3" && !info.reused {
            if let Some((key, scheme)) = ours.as_ref().and_then(|ours| Some((ours.kind, ours.scheme?))) {
                let (algorithm, digest) = info::signature(scheme, key);
                (info.server_signature, info.server_digest) = (Some(algorithm), digest);
            }
            let theirs = info.certificate.as_ref().map(|certificate| certificate.key);
            if let (Some(scheme), Some(key)) = (scheme, theirs) {
                let (algorithm, digest) = info::signature(scheme, key);
                (info.client_signature, info.client_digest) = (Some(algorithm), digest);
            }
        }
        info.end_point = ours.map(|ours| ours.end_point);
        if info.protocol == "TLSv1.3" {
            info.exporter = connection.export_keying_material(vec![0; 32], info::EXPORTER, None).ok();
        }
        let chain: &[CertificateDer<'_>] = connection.peer_certificates().unwrap_or_default();
        if let Some(certificate) = &info.certificate {
            let result = match certificate.key.is_checked() {
                true => self.anchors.vouch_for(chain, self.purpose),
                false => Err("a key of a kind that cannot be checked".to_owned()),
            };
            info.trust = if result.is_ok() { Trust::Trusted } else { Trust::Untrusted };
            info.reason = result.err();
        }
        info
    }

    fn log(&self, info: &Info, client: &dyn std::fmt::Display) {
        if self.log_level < 1 {
            return;
        }
        if let (Some(reason), Some(certificate)) = (&info.reason, &info.certificate) {
            log::info!("certificate verification failed for {client}: {reason}");
            log::info!(
                "{client}: subject_CN={}, issuer={}, fingerprint={}, pkey_fingerprint={}",
                certificate.subject,
                certificate.issuer,
                certificate.fingerprint(self.digest),
                certificate.key_fingerprint(self.digest),
            );
        }
        let done = if info.reused { "reused" } else { "established" };
        let name = match (&self.names, &info.server_name) {
            (Some(names), Some(name)) if names.knows(name) => format!(" to {name}"),
            _ => String::new(),
        };
        log::info!("{} TLS connection {done} from {client}{name}: {}", info.trust.word(), info.summary());
    }
}

/// `smtpd_tls_session_cache_timeout`: sessions are resumed by tickets, which cost no memory here; 0 means none.
fn tickets(settings: Settings<'_>) -> Result<Option<Arc<dyn rustls::server::ProducesTickets>>, String> {
    const LONGEST: u64 = 100 * 24 * 3600;
    let lifetime = settings.time("tls_session_cache_timeout").as_secs().min(LONGEST);
    let Ok(lifetime @ 1..) = u32::try_from(lifetime) else { return Ok(None) };
    let generate = || Ok(Box::new(tickets::ticket_key()?) as Box<dyn rustls::server::ProducesTickets>);
    // A key is used for one half of a ticket's life, and known for the other.
    let rotating =
        TicketRotator::new(lifetime.div_ceil(2), generate).map_err(|e| format!("session tickets: {e}"))?;
    Ok(Some(Arc::new(rotating)))
}

impl Template {
    fn build(&self, resolver: names::Resolver) -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_protocol_versions(&self.versions).map_err(|e| e.to_string())?;
        let builder = match &self.verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier) as Arc<_>),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ignore_client_order = self.prefer_ours;
        if let Some(tickets) = &self.tickets {
            config.ticketer = Arc::clone(tickets);
            config.send_tls13_tickets = 1;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }
}

/// A client's encrypted session, without its socket: bytes go through the stream that is given each time.
pub struct Session {
    connection: Box<ServerConnection>,
    info: Box<Info>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("info", &self.info.summary()).finish_non_exhaustive()
    }
}

impl Session {
    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Reads what the client says into `buffer`; 0 is the end, with or without a good-bye.
    ///
    /// # Errors
    /// What the stream says; a client that does not keep to the protocol.
    pub fn read(&mut self, stream: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            send_all(&mut self.connection, stream)?;
            if self.connection.read_tls(stream)? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.connection.process_new_packets() {
                let _ = send_all(&mut self.connection, stream);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// What the stream says.
    pub fn write_all(&mut self, stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.connection.writer().write(bytes)?;
            bytes = &bytes[taken..];
            send_all(&mut self.connection, stream)?;
        }
        Ok(())
    }

    /// Says good-bye (RFC 8446 section 6.1). Whoever does not hear it is gone anyway.
    pub fn close(&mut self, stream: &mut impl Write) {
        self.connection.send_close_notify();
        let _ = send_all(&mut self.connection, stream);
    }
}

/// What a session remembers of the key that was used, for the log and for channel binding.
#[derive(Clone, Debug)]
struct OurKey {
    kind: Key,
    scheme: Option<rustls::SignatureScheme>,
    end_point: Vec<u8>,
}

impl OurKey {
    fn of(certificate: &CertificateDer<'_>, scheme: Option<rustls::SignatureScheme>) -> Self {
        Self { kind: Certificate::read(certificate).key, scheme, end_point: info::end_point(certificate) }
    }
}

#[cfg(test)]
mod tests;
