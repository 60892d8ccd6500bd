//! Who this host is to a server: `smtp_sasl_password_maps`, and how much it shows of that (`smtp_sasl_…_options`).

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::param;
use lookup::{AddressSearch, LookupError, Maps, MatchList};
use mail::Address;
use net::tls::{Info, Trust};
use smtp_proto::sasl::client::{Credentials, Exchange};
use smtp_proto::sasl::scram::ChannelBinding;
use smtp_proto::sasl::{self, Mechanism, Secret, SecurityOptions};

use crate::failure::Failure;
use crate::settings::Own;
use crate::token::{Token, Tokens};

/// The most failed logins that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// The logins of a configuration, and the rules for showing them.
pub(crate) struct Logins {
    maps: Maps,
    search: AddressSearch,
    /// What parts a name from its password.
    delimiter: char,
    by_sender: bool,
    mechanisms: MatchList,
    options: [SecurityOptions; 3],
    pub(crate) soft_bounce: bool,
    tokens: Tokens,
    random: File,
    failed: Option<FailedLogins>,
}

/// A name and what proves it.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) username: String,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    Password(Secret),
    Token(Token),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Logins that a server refused for good: `smtp_sasl_auth_cache_…`. Who logs in with a wrong password again and again is
/// locked out.
struct FailedLogins {
    time: Duration,
    hasher: RandomState,
    known: Mutex<HashMap<String, (Instant, u64, Failure)>>,
}

/// Why no exchange begins.
pub(crate) enum NoLogin {
    /// None of the mechanisms that both sides know is good enough.
    NoMechanism,
    /// A reason of this host's own, to be told behind "cannot authenticate to server".
    Impossible(String),
}

impl Logins {
    /// The logins of this program; none where it does not log in.
    ///
    /// # Errors
    /// What is wrong, beginning with the parameter.
    pub(crate) fn new(own: &Own<'_>) -> Result<Option<Self>, String> {
        if !own.get(param::SMTP_SASL_AUTH_ENABLE) {
            return Ok(None);
        }
        let specs = own.get(param::SMTP_SASL_PASSWORD_MAPS);
        let name = own.name(param::SMTP_SASL_PASSWORD_MAPS);
        if specs.is_empty() {
            return Err(format!(
                "{} = yes without {name}: name a table of hosts and `user:password`",
                own.name(param::SMTP_SASL_AUTH_ENABLE)
            ));
        }
        let options = |parameter| {
            let parsed = SecurityOptions::parse(&own.get::<Vec<String>>(parameter).join(" "));
            parsed.map_err(|error| format!("{}: {error}", own.name(parameter)))
        };
        let filter = own.name(param::SMTP_SASL_MECHANISM_FILTER);
        let cached = !own.get(param::SMTP_SASL_AUTH_CACHE_NAME).is_empty();
        Ok(Some(Self {
            maps: Maps::open(&specs).map_err(|error| format!("{name}: {error}"))?,
            search: AddressSearch::from_config(own.config).map_err(|error| error.to_string())?,
            delimiter: own.get(param::SMTP_SASL_PASSWORD_RESULT_DELIMITER).chars().next().unwrap_or(':'),
            by_sender: own.get(param::SMTP_SENDER_DEPENDENT_AUTHENTICATION),
            mechanisms: MatchList::strings(&filter, &own.get(param::SMTP_SASL_MECHANISM_FILTER))
                .map_err(|error| error.to_string())?,
            options: [
                options(param::SMTP_SASL_SECURITY_OPTIONS)?,
                options(param::SMTP_SASL_TLS_SECURITY_OPTIONS)?,
                options(param::SMTP_SASL_TLS_VERIFIED_SECURITY_OPTIONS)?,
            ],
            soft_bounce: own.get(param::SMTP_SASL_AUTH_SOFT_BOUNCE),
            tokens: Tokens::default(),
            random: File::open("/dev/urandom").map_err(|error| format!("open /dev/urandom: {error}"))?,
            failed: cached.then(|| FailedLogins {
                time: own.get(param::SMTP_SASL_AUTH_CACHE_TIME),
                hasher: RandomState::new(),
                known: Mutex::default(),
            }),
        }))
    }

    /// The login for a server: by the sender where that is asked for, by the server's name, by the next hop as it is
    /// written.
    ///
    /// # Errors
    /// A table cannot be asked.
    pub(crate) fn find(
        &self,
        sender: &Address,
        host: &str,
        destination: &str,
    ) -> Result<Option<Login>, LookupError> {
        let mut found = None;
        if self.by_sender && !sender.is_null() {
            found = self.search.general(&self.maps, sender)?.map(|found| found.value);
        }
        for key in [host, destination] {
            if found.is_none() {
                found = self.maps.get(key)?;
            }
        }
        Ok(found.map(|value| Login::parse(&value, self.delimiter)))
    }

    /// What a session made with these logins depends on besides its server.
    pub(crate) fn scope(&self, sender: &Address, destination: &str) -> String {
        if self.by_sender { format!("{sender} {destination}") } else { destination.to_owned() }
    }

    /// Begins an exchange with the best mechanism that the server offers and this login can use.
    pub(crate) fn exchange(
        &self,
        login: &Login,
        offered: &[String],
        tls: Option<&Info>,
    ) -> Result<Exchange, NoLogin> {
        let options = match tls {
            None => self.options[0],
            Some(info) if info.trust == Trust::Verified => self.options[2],
            Some(_) => self.options[1],
        };
        let mut allowed = Vec::with_capacity(offered.len());
        for name in offered {
            let fits = self.mechanisms.is_empty()
                || self.mechanisms.matches(name).map_err(|error| NoLogin::Impossible(error.to_string()))?;
            if fits {
                allowed.push(name.clone());
            }
        }
        let binding = tls.and_then(channel_binding);
        // A password that only OAuth is allowed for is a token that somebody else keeps fresh.
        let only_oauth = !self.mechanisms.is_empty()
            && allowed.iter().all(|name| Mechanism::from_name(name).is_some_and(is_oauth));
        let can = |mechanism: Mechanism| match (&login.proof, mechanism) {
            (Proof::Token(_), mechanism) => is_oauth(mechanism),
            (Proof::Password(password), Mechanism::External) => password.is_empty() && tls.is_some(),
            (_, Mechanism::ScramSha1Plus | Mechanism::ScramSha256Plus) => binding.is_some(),
            (_, mechanism) => is_oauth(mechanism) == only_oauth,
        };
        let mechanism = sasl::choose(&allowed, options, can).ok_or(NoLogin::NoMechanism)?;
        let password = match &login.proof {
            Proof::Password(password) => password.clone(),
            Proof::Token(token) => self.tokens.get(token).map_err(NoLogin::Impossible)?,
        };
        let credentials = Credentials { username: login.username.clone(), password };
        let nonce =
            self.nonce().map_err(|error| NoLogin::Impossible(format!("read random bytes: {error}")))?;
        Exchange::new(mechanism, credentials, nonce, binding.as_ref())
            .map_err(|error| NoLogin::Impossible(error.to_string()))
    }

    fn nonce(&self) -> std::io::Result<String> {
        let mut bytes = [0; 18];
        (&self.random).read_exact(&mut bytes)?;
        let mut nonce = Vec::with_capacity(24);
        sasl::push_base64(&bytes, &mut nonce);
        Ok(String::from_utf8_lossy(&nonce).into_owned())
    }

    /// The server took the login.
    pub(crate) fn taken(&self, login: &Login) {
        if let Proof::Token(token) = &login.proof {
            self.tokens.taken(token);
        }
    }

    /// The server refused the login. True where there is another token now: it may be tried at once.
    pub(crate) fn refused(&self, login: &Login) -> bool {
        match &login.proof {
            Proof::Token(token) => self.tokens.refused(token),
            Proof::Password(_) => false,
        }
    }

    /// Remembers a refusal.
    pub(crate) fn remember(&self, host: &str, login: &Login, failure: &Failure) {
        let (Some(failed), Proof::Password(password)) = (&self.failed, &login.proof) else { return };
        let mut known = failed.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let print = failed.hasher.hash_one(&**password);
        known.insert(key(host, login), (Instant::now(), print, failure.clone()));
    }

    /// The refusal of the same name and password by this server, where it is remembered.
    pub(crate) fn remembered(&self, host: &str, login: &Login) -> Option<Failure> {
        let (Some(failed), Proof::Password(password)) = (&self.failed, &login.proof) else { return None };
        let known = failed.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, print, failure) = known.get(&key(host, login))?;
        let holds = since.elapsed() < failed.time && *print == failed.hasher.hash_one(&**password);
        holds.then(|| failure.clone())
    }
}

fn key(host: &str, login: &Login) -> String {
    format!("{};{}", host.to_ascii_lowercase(), login.username)
}

const fn is_oauth(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer)
}

/// What ties a login to this TLS connection, the better kind first (RFC 9266, RFC 5929).
fn channel_binding(info: &Info) -> Option<ChannelBinding> {
    let exporter = info.exporter.clone().map(|data| ChannelBinding { kind: "tls-exporter", data });
    exporter
        .or_else(|| info.end_point.clone().map(|data| ChannelBinding { kind: "tls-server-end-point", data }))
}

impl Login {
    /// Reads `user:password`, `user:token-file:/path` or `user:token-command:/program arguments`.
    fn parse(value: &str, delimiter: char) -> Self {
        let (username, password) = value.split_once(delimiter).unwrap_or((value, ""));
        let proof = match Token::parse(password) {
            Some(token) => Proof::Token(token),
            None => Proof::Password(Secret::from(password)),
        };
        Self { username: username.to_owned(), proof }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_names_and_passwords() {
        let login = Login::parse("joe:a:b", ':');
        assert_eq!(login.username, "joe");
        assert!(matches!(&login.proof, Proof::Password(password) if &**password == b"a:b"));
        assert!(matches!(Login::parse("joe", ':').proof, Proof::Password(password) if password.is_empty()));
        assert!(matches!(Login::parse("j@x:token-file:/t", ':').proof, Proof::Token(_)));
        assert!(!format!("{login:?}").contains("a:b"));
    }
}
