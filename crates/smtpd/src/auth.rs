//! Who checks what clients show in AUTH, and what they are offered.
//!
//! `smtpd_sasl_type` names the back end: `dovecot` asks Dovecot's authentication service; `postroad` has the mechanisms
//! of `smtp-proto` check against a table of passwords.

pub(crate) mod dovecot;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use config::{Config, Diagnostic, Severity, param};
use ipc::log;
use lookup::domain::Parents;
use lookup::{Maps, MatchList, OpenError};
use smtp_proto::sasl::scram::ChannelBinding;
use smtp_proto::sasl::{Mechanism, Secret, SecurityOptions};
use smtp_proto::server::AuthOffer;

use crate::client::Client;
use crate::tls::Encryption;

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this, in base64.
    Challenge(String),
    /// The client is this user.
    Accepted(String),
    /// It is not: who it said it was, and the reason.
    Refused(Option<String>, String),
    /// Nobody can tell for now.
    Unavailable(String),
}

/// An exchange with a client.
pub(crate) struct Exchange {
    /// In upper case.
    pub(crate) mechanism: String,
    kind: Kind,
}

enum Kind {
    Dovecot(dovecot::Exchange),
    Table(Box<table::Exchange>),
}

enum Backend {
    Dovecot(dovecot::Server),
    Table(table::Table),
}

/// The server's side of AUTH.
pub(crate) struct Authentication {
    backend: Backend,
    filter: MatchList,
    options: SecurityOptions,
    tls_options: SecurityOptions,
    exceptions: MatchList,
    /// `smtpd_sasl_external_maps`: who is who by certificate.
    certificates: Maps,
    tls_only: bool,
    broken_clients: bool,
    response_limit: usize,
}

impl Authentication {
    /// As configured; none where AUTH is not enabled.
    ///
    /// # Errors
    /// A list that can never work.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, OpenError> {
        if !config.get(param::SMTPD_SASL_AUTH_ENABLE) {
            return Ok(None);
        }
        let path: String = config.get(param::SMTPD_SASL_PATH);
        let backend = match config.get(param::SMTPD_SASL_TYPE).as_str() {
            "dovecot" => {
                let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
                let address = dovecot::Address::parse(&path, &queue_directory);
                Backend::Dovecot(dovecot::Server::new(address, path, config.get(param::SMTPD_SASL_SERVICE)))
            }
            "postroad" => Backend::Table(table::Table::new(config, &path)),
            // `verify` has said so; nobody is let in.
            _ => return Ok(None),
        };
        let options = |value: Vec<String>| SecurityOptions::parse(&value.join(" ")).unwrap_or_default();
        Ok(Some(Self {
            backend,
            filter: MatchList::strings(
                "smtpd_sasl_mechanism_filter",
                &config.get(param::SMTPD_SASL_MECHANISM_FILTER),
            )?,
            options: options(config.get(param::SMTPD_SASL_SECURITY_OPTIONS)),
            tls_options: options(config.get(param::SMTPD_SASL_TLS_SECURITY_OPTIONS)),
            exceptions: MatchList::hosts(
                "smtpd_sasl_exceptions_networks",
                &config.get(param::SMTPD_SASL_EXCEPTIONS_NETWORKS),
                Parents::from_config(config, "smtpd_sasl_exceptions_networks"),
            )?,
            certificates: Maps::open(&config.get(param::SMTPD_SASL_EXTERNAL_MAPS))?,
            tls_only: config.get(param::SMTPD_TLS_AUTH_ONLY),
            broken_clients: config.get(param::BROKEN_SASL_AUTH_CLIENTS),
            response_limit: usize::try_from(config.get::<u64>(param::SMTPD_SASL_RESPONSE_LIMIT))
                .unwrap_or(0)
                .clamp(512, MAX_RESPONSE),
        }))
    }

    /// What this client is offered.
    pub(crate) fn offer(&self, client: &Client) -> Option<Arc<AuthOffer>> {
        let excepted = client.ip.map_or(Ok(false), |ip| self.exceptions.matches_host(&client.name, ip));
        match excepted {
            Ok(false) => {}
            Ok(true) => return None,
            Err(error) => {
                log::warning!("{error}");
                return None;
            }
        }
        let needs_tls = self.tls_only && client.tls.is_none();
        let mechanisms = match needs_tls {
            true => String::new(),
            false => self.mechanisms(client).join(" "),
        };
        let (broken_clients, response_limit) = (self.broken_clients, self.response_limit);
        Some(Arc::new(AuthOffer { mechanisms, needs_tls, broken_clients, response_limit }))
    }

    /// The mechanisms that are allowed now. Where the back end does not answer there are none.
    fn mechanisms(&self, client: &Client) -> Vec<String> {
        let options = if client.tls.is_some() { self.tls_options } else { self.options };
        let offered = match &self.backend {
            Backend::Dovecot(server) => server.mechanisms().map(|mechanisms| {
                let allowed = mechanisms.into_iter().filter(|mechanism| allow(options, mechanism));
                allowed.map(|mechanism| mechanism.name).collect()
            }),
            Backend::Table(table) => table.mechanisms(&self.known_of(client)).map(|mechanisms| {
                let allowed = mechanisms.into_iter().filter(|mechanism| options.allow(*mechanism));
                allowed.map(|mechanism| mechanism.name().to_owned()).collect()
            }),
        };
        let mut offered: Vec<String> = offered.unwrap_or_else(|error| {
            log::warning!("{error}");
            Vec::new()
        });
        offered.retain(|name| {
            self.filter.matches(name).unwrap_or_else(|error| {
                log::warning!("{error}");
                false
            })
        });
        offered
    }

    /// What the client's TLS says to the mechanisms of the table of passwords.
    fn known_of(&self, client: &Client) -> table::Known {
        table::Known { bindings: bindings(client), external: self.named_by_certificate(client) }
    }

    /// The user whom the client's certificate stands for, else its key.
    fn named_by_certificate(&self, client: &Client) -> Option<String> {
        if self.certificates.is_empty() {
            return None;
        }
        for print in client.tls.as_ref()?.fingerprints()? {
            match self.certificates.get(&print) {
                Ok(None) => {}
                Ok(user) => return user,
                Err(error) => {
                    log::warning!("{error}");
                    return None;
                }
            }
        }
        None
    }

    /// Begins an exchange; `initial` is the client's base64.
    pub(crate) fn begin(
        &self,
        mechanism: &str,
        initial: Option<&Secret>,
        client: &Client,
    ) -> (Option<Exchange>, Step) {
        let encrypted = client.tls.is_some();
        if !self.mechanisms(client).iter().any(|name| name == mechanism) {
            return (None, Step::Refused(None, "Invalid authentication mechanism".to_owned()));
        }
        let (kind, step) = match &self.backend {
            Backend::Dovecot(server) => {
                let initial = initial.and_then(|initial| initial.as_str());
                match server.begin(mechanism, initial, client, encrypted) {
                    Ok((exchange, step)) => (Kind::Dovecot(exchange), step),
                    Err(error) => {
                        log::warning!("{error}");
                        let text = "Can't connect to authentication server".to_owned();
                        return (None, Step::Unavailable(text));
                    }
                }
            }
            Backend::Table(table) => {
                let Some(known) = Mechanism::from_name(mechanism) else {
                    return (None, Step::Refused(None, "Invalid authentication mechanism".to_owned()));
                };
                let mut exchange = table.exchange(known, self.known_of(client));
                let step = exchange.step(initial);
                (Kind::Table(Box::new(exchange)), step)
            }
        };
        (Some(Exchange { mechanism: mechanism.to_owned(), kind }), step)
    }
}

/// RFC 4954 section 4 has 12288 suffice for any mechanism; the buffer that is lent for it has five times that.
const MAX_RESPONSE: usize = 60 * 1024;

impl Exchange {
    /// The client's answer to a challenge, in base64.
    pub(crate) fn go_on(&mut self, response: &Secret) -> Step {
        match &mut self.kind {
            Kind::Dovecot(exchange) => match response.as_str().filter(|text| is_base64(text)) {
                Some(text) => exchange.go_on(text),
                None => Step::Refused(None, "Invalid base64 data in continued response".to_owned()),
            },
            Kind::Table(exchange) => exchange.step(Some(response)),
        }
    }
}

/// What an exchange can be bound to (RFC 5929, RFC 9266).
fn bindings(client: &Client) -> Vec<ChannelBinding> {
    let (exporter, end_point) = client.tls.as_ref().map(Encryption::bindings).unwrap_or_default();
    let kinds = [("tls-exporter", exporter), ("tls-server-end-point", end_point)];
    kinds.into_iter().filter_map(|(kind, data)| Some(ChannelBinding { kind, data: data?.to_vec() })).collect()
}

/// Whether the text can stand in a line of Dovecot's without being taken for something else.
fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// The judgement of Dovecot's own words for a mechanism.
fn allow(options: SecurityOptions, mechanism: &dovecot::Mechanism) -> bool {
    let has = |word: &str| mechanism.traits.iter().any(|name| name == word);
    // Dovecot's own, for its parts among themselves.
    let refused = has("private")
        || options.no_plain_text && has("plaintext")
        || options.no_active && has("active")
        || options.no_dictionary && has("dictionary")
        || options.no_anonymous && has("anonymous")
        || options.forward_secrecy && !has("forward-secrecy")
        || options.mutual_auth && !has("mutual-auth");
    !refused
}

/// What is wrong with the parameters of AUTH: for `postroad check` and for the log at each start.
#[must_use]
pub fn verify(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if !config.get(param::SMTPD_SASL_AUTH_ENABLE) {
        return found;
    }
    let file = config.directory().join("main.cf");
    let mut error = |text: String| {
        found.push(Diagnostic { severity: Severity::Error, file: file.clone(), line: 0, text });
    };
    match config.get(param::SMTPD_SASL_TYPE).as_str() {
        "dovecot" => {
            if !config.get(param::SMTPD_SASL_EXTERNAL_MAPS).is_empty() {
                error(
                    "smtpd_sasl_external_maps has no effect with smtpd_sasl_type = dovecot: Dovecot decides about EXTERNAL \
                     itself, by auth_ssl_username_from_cert"
                        .to_owned(),
                );
            }
        }
        "postroad" => {
            if leaves_out_external(config) {
                error(
                    "smtpd_sasl_external_maps has no effect while smtpd_sasl_mechanism_filter leaves out EXTERNAL, as it does by \
                     default; set smtpd_sasl_mechanism_filter = static:all"
                        .to_owned(),
                );
            }
            if let Err(text) = table::check(config, &config.get::<String>(param::SMTPD_SASL_PATH)) {
                error(text);
            }
        }
        "cyrus" => error(
            "smtpd_sasl_type = cyrus: Cyrus SASL is not part of this mail system; set smtpd_sasl_type = dovecot and \
             smtpd_sasl_path to the socket of Dovecot's auth service, or smtpd_sasl_type = postroad and smtpd_sasl_path \
             to a table that postpasswd keeps"
                .to_owned(),
        ),
        other => error(format!("smtpd_sasl_type = {other}: there is no such type; use dovecot or postroad")),
    }
    for (name, parameter) in [
        ("smtpd_sasl_security_options", param::SMTPD_SASL_SECURITY_OPTIONS),
        ("smtpd_sasl_tls_security_options", param::SMTPD_SASL_TLS_SECURITY_OPTIONS),
    ] {
        if let Err(word) = SecurityOptions::parse(&config.get(parameter).join(" ")) {
            error(format!(
                "{name}: \"{word}\" is no option; there are noplaintext, noactive, nodictionary, noanonymous, \
                 forward_secrecy and mutual_auth"
            ));
        }
    }
    found
}

/// Whether users have certificates that are of no use to them.
fn leaves_out_external(config: &Config) -> bool {
    let filter = config.get(param::SMTPD_SASL_MECHANISM_FILTER);
    let filter = MatchList::strings("smtpd_sasl_mechanism_filter", &filter);
    let allowed = filter.ok().and_then(|filter| filter.matches(Mechanism::External.name()).ok());
    !config.get(param::SMTPD_SASL_EXTERNAL_MAPS).is_empty() && allowed == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a main.cf with these lines.
    fn remarks(lines: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.cf"), format!("compatibility_level = 3.6\n{lines}")).unwrap();
        std::fs::write(folder.path().join("master.cf"), "").unwrap();
        let (config, _) = Config::load(folder.path()).unwrap();
        verify(&config).into_iter().map(|remark| remark.text).collect()
    }

    #[test]
    fn what_cannot_work_is_told_with_the_way_out() {
        let on = "smtpd_sasl_auth_enable = yes\n";
        assert!(remarks("smtpd_sasl_type = cyrus\n").is_empty());
        let cyrus = remarks(&format!("{on}smtpd_sasl_type = cyrus\n"));
        assert!(cyrus[0].contains("dovecot") && cyrus[0].contains("postpasswd"), "{cyrus:?}");
        assert!(remarks(&format!("{on}smtpd_sasl_type = pam\n"))[0].contains("there is no such type"));
        assert!(remarks(&format!("{on}smtpd_sasl_type = dovecot\n")).is_empty());
        let missing = remarks(&format!("{on}smtpd_sasl_type = postroad\nsmtpd_sasl_path = passwords\n"));
        assert!(missing[0].contains("postpasswd add"), "{missing:?}");
        let maps = "smtpd_sasl_external_maps = inline:{ a=b }\n";
        let dovecot = remarks(&format!("{on}smtpd_sasl_type = dovecot\n{maps}"));
        assert!(dovecot[0].contains("auth_ssl_username_from_cert"), "{dovecot:?}");
        let filtered = remarks(&format!("{on}smtpd_sasl_type = postroad\n{maps}"));
        assert!(filtered[0].contains("smtpd_sasl_mechanism_filter = static:all"), "{filtered:?}");
        let options = format!("{on}smtpd_sasl_type = dovecot\nsmtpd_sasl_security_options = noplain\n");
        assert!(remarks(&options).iter().any(|text| text.contains("\"noplain\" is no option")));
    }
}
