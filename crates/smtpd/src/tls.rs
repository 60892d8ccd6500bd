//! TLS of this service: `smtpd_tls_…`.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Diagnostic, Severity, param};
use ipc::log;
use net::tls::server::{Context, Level, Opener};
use net::tls::{Digest, Info, Trust};
use service::Stream;

/// What the sessions of a service that has TLS go by.
pub(crate) struct Tls {
    pub(crate) context: Arc<Context>,
    /// TLS from the first byte on.
    pub(crate) wrapper: bool,
    /// How long a handshake may take.
    pub(crate) patience: Duration,
    /// A client without a trusted certificate is sent away.
    pub(crate) requires_certificate: bool,
    received_header: bool,
}

/// Whether nothing goes without encryption; with `smtpd_tls_wrappermode`, nothing can.
pub(crate) fn must_encrypt(config: &Config) -> bool {
    let wrapper = config.get(param::SMTPD_TLS_WRAPPERMODE);
    wrapper || Level::from_config(config) == Ok(Level::Encrypt)
}

/// What `postroad check` says of a service's TLS.
#[must_use]
pub fn verify(config: &Config) -> Vec<Diagnostic> {
    let file = config.directory().join("main.cf");
    let diagnostic = |severity, text| Diagnostic { severity, file: file.clone(), line: 0, text };
    let is_on = Level::from_config(config) != Ok(Level::None) || config.get(param::SMTPD_TLS_WRAPPERMODE);
    if !is_on {
        return Vec::new();
    }
    let mut found: Vec<Diagnostic> = net::tls::warnings(config, "smtpd")
        .into_iter()
        .map(|text| diagnostic(Severity::Warning, text))
        .collect();
    found.extend(Context::new(config, None).err().map(|text| match must_encrypt(config) {
        true => diagnostic(Severity::Error, text),
        // As in Postfix, a site that merely offers TLS goes on without it.
        false => diagnostic(Severity::Warning, format!("{text}; STARTTLS is not offered")),
    }));
    found
}

/// The keys and rules of main.cf; none for no TLS.
///
/// # Errors
/// What cannot work: a text that begins with the parameter.
pub(crate) fn open(config: &Config, opener: Option<Box<Opener>>) -> Result<Option<Arc<Context>>, String> {
    if Level::from_config(config)? == Level::None && !config.get(param::SMTPD_TLS_WRAPPERMODE) {
        return Ok(None);
    }
    match Context::new(config, opener) {
        Ok(context) => Ok(Some(Arc::new(context))),
        Err(error) if must_encrypt(config) => Err(error),
        Err(error) => {
            // Mail in clear is better than none where both are allowed.
            log::error!("{error}; STARTTLS is not offered");
            Ok(None)
        }
    }
}

/// What is known of a client's encrypted session.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    info: Arc<Info>,
    digest: Digest,
    asked: bool,
    shown: bool,
}

impl Tls {
    /// What main.cf says beside keys and rules.
    pub(crate) fn new(config: &Config, context: Arc<Context>) -> Self {
        Self {
            context,
            wrapper: config.get(param::SMTPD_TLS_WRAPPERMODE),
            patience: config.get::<Duration>(param::SMTPD_STARTTLS_TIMEOUT).max(Duration::from_secs(1)),
            requires_certificate: must_encrypt(config) && config.get(param::SMTPD_TLS_REQ_CCERT),
            received_header: config.get(param::SMTPD_TLS_RECEIVED_HEADER),
        }
    }

    /// What a handshake has brought.
    pub(crate) fn encryption(&self, info: &Info) -> Encryption {
        Encryption {
            info: Arc::new(info.clone()),
            digest: self.context.digest(),
            asked: self.context.asks_for_certificates(),
            shown: self.received_header,
        }
    }
}

impl Encryption {
    /// The protocol, the cipher suite, and the bits of its key.
    pub(crate) fn cipher(&self) -> (&str, &str, u16) {
        (self.info.protocol, self.info.cipher, self.info.bits)
    }

    /// Channel bindings for AUTH: of TLS 1.3, and of the server's certificate.
    pub(crate) fn bindings(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        (self.info.exporter.as_deref(), self.info.end_point.as_deref())
    }

    /// Whether an authority that is trusted vouches for the client's certificate.
    pub(crate) fn is_trusted(&self) -> bool {
        self.info.trust >= Trust::Trusted
    }

    /// Whether the client has shown a certificate.
    pub(crate) fn has_certificate(&self) -> bool {
        self.info.certificate.is_some()
    }

    /// The fingerprints of the client's certificate and of its key, if the client has shown that the key is its own.
    pub(crate) fn fingerprints(&self) -> Option<[String; 2]> {
        let certificate = self.info.proven()?;
        Some([certificate.fingerprint(self.digest), certificate.key_fingerprint(self.digest)])
    }

    /// The names of the subject and the issuer of a trusted certificate, as policy services are told them.
    pub(crate) fn trusted_names(&self) -> Option<(&str, &str)> {
        let certificate = self.info.certificate.as_ref().filter(|_| self.is_trusted())?;
        Some((&certificate.subject, &certificate.issuer))
    }

    /// What the `Received:` header says; nothing without `smtpd_tls_received_header`.
    pub(crate) fn received(&self) -> String {
        if self.shown { Received(self).to_string() } else { String::new() }
    }
}

/// The lines of the `Received:` header.
struct Received<'a>(&'a Encryption);

impl fmt::Display for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.0.info;
        write!(
            f,
            "(using {} with cipher {} ({bits}/{bits} bits)",
            info.protocol,
            info.cipher,
            bits = info.bits
        )?;
        if let Some(exchange) = &info.key_exchange {
            write!(f, "\n key-exchange {exchange}")?;
        }
        if let Some(signature) = &info.server_signature {
            write!(f, " server-signature {signature}")?;
        }
        if let Some(digest) = info.server_digest {
            write!(f, " server-digest {digest}")?;
        }
        if let Some(signature) = &info.client_signature {
            write!(f, "\n client-signature {signature}")?;
        }
        if let Some(digest) = info.client_digest {
            write!(f, " client-digest {digest}")?;
        }
        f.write_str(")\n")?;
        match &info.certificate {
            Some(certificate) => {
                let verdict = if self.0.is_trusted() { "verified OK" } else { "not verified" };
                let (subject, issuer) = (Comment(&certificate.subject), Comment(&certificate.issuer));
                write!(f, "(Client CN \"{subject}\", Issuer \"{issuer}\" ({verdict}))")
            }
            None if self.0.asked => f.write_str("(Client did not present a certificate)"),
            None => f.write_str("(No client certificate requested)"),
        }
    }
}

/// A name of the client's choice, fit for a comment (RFC 5322 section 3.2.2).
struct Comment<'a>(&'a str);

impl fmt::Display for Comment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|c| match c {
            '(' | ')' | '"' | '\\' => write!(f, "\\{c}"),
            c if c.is_control() => f.write_char('?'),
            c => f.write_char(c),
        })
    }
}

/// A client's socket, as TLS sees it.
pub(crate) struct Raw<'a>(pub(crate) &'a Stream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0;
        stream.read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.0;
        stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl net::tls::Socket for Raw<'_> {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = patience.max(Duration::from_millis(1));
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }
}
