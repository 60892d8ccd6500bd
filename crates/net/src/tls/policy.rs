//! What is asked of a server's TLS: `smtp_tls_security_level` and `smtp_tls_policy_maps`.

use std::fmt;

use lookup::{LookupError, Maps};

use super::certificate::Digest;
use super::ciphers::Ciphers;
use super::dane::Tlsa;
use super::protocols::Protocols;
use super::settings::Settings;

/// How much is asked, in Postfix's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// No TLS.
    None,
    /// TLS where the server offers it, whatever its certificate.
    May,
    /// TLS or no mail, whatever the certificate.
    Encrypt,
    /// The certificate or its key is one of those that are named.
    Fingerprint,
    /// Secure TLSA records of an MX host that was found by an insecure MX lookup: used, but never proof of anything.
    HalfDane,
    /// TLSA records where there are any, else as `may`.
    Dane,
    /// TLSA records or no mail.
    DaneOnly,
    /// A trusted certificate with the host's name.
    Verify,
    /// A trusted certificate with a name that does not depend on the DNS.
    Secure,
}

const LEVELS: [(&str, Level); 9] = [
    ("none", Level::None),
    ("may", Level::May),
    ("encrypt", Level::Encrypt),
    ("fingerprint", Level::Fingerprint),
    ("half-dane", Level::HalfDane),
    ("dane", Level::Dane),
    ("dane-only", Level::DaneOnly),
    ("verify", Level::Verify),
    ("secure", Level::Secure),
];

impl Level {
    /// The level of this name; `half-dane` cannot be asked for.
    ///
    /// # Errors
    /// A name that is none.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let found =
            LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, level)| *level);
        found.filter(|level| *level != Self::HalfDane).ok_or_else(|| {
            format!("\"{name}\" is no TLS security level; they are none, may, encrypt, fingerprint, dane, dane-only, verify, secure")
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("none", |(name, _)| name)
    }

    /// Whether mail goes over TLS or not at all. A `dane` that has found no records becomes `may` before this is asked.
    #[must_use]
    pub const fn must_encrypt(self) -> bool {
        !matches!(self, Self::None | Self::May)
    }

    /// Whether mail goes to a server that proved to be the right one, or not at all.
    #[must_use]
    pub const fn must_match(self) -> bool {
        !matches!(self, Self::None | Self::May | Self::Encrypt)
    }

    /// Whether TLSA records are to be looked up.
    #[must_use]
    pub const fn uses_dane(self) -> bool {
        matches!(self, Self::HalfDane | Self::Dane | Self::DaneOnly)
    }
}

/// Where the names come from that a certificate must have one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The host's name, as the DNS gave it.
    Hostname,
    /// The next hop.
    Nexthop,
    /// Anything below the next hop.
    DotNexthop,
    /// This name, or with a dot in front anything below it.
    Name(String),
}

impl Match {
    fn parse(word: &str) -> Self {
        match word {
            "hostname" => Self::Hostname,
            "nexthop" => Self::Nexthop,
            "dot-nexthop" => Self::DotNexthop,
            name => Self::Name(name.to_ascii_lowercase()),
        }
    }
}

/// What is asked of the server of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How much.
    pub level: Level,
    /// Names for the levels that look at names.
    pub names: Vec<Match>,
    /// Fingerprints of certificates or keys, in capitals.
    pub fingerprints: Vec<String>,
    /// The digest of those.
    pub digest: Digest,
    /// Versions of TLS.
    pub protocols: Protocols,
    /// Cipher suites.
    pub ciphers: Ciphers,
    /// Files with trust anchors for this destination alone; they replace the others.
    pub trust_anchors: Vec<String>,
    /// What to send as server name indication: `hostname`, `nexthop` or a name; empty for nothing (except with DANE).
    pub server_name: String,
    /// Whether connections may be kept for other deliveries.
    pub connection_reuse: bool,
    /// The host's TLSA records that can be used.
    pub tlsa: Vec<Tlsa>,
    /// The name under which those were found.
    pub tlsa_base: Option<String>,
    /// Whether the system's trust anchors count whatever `tls_append_default_CA` says: so it is with MTA-STS.
    pub system_anchors: bool,
    /// Whether a table says it of this destination, not main.cf of all.
    pub from_table: bool,
    /// Whether the log is told of a server that has no trusted certificate with its name, though mail goes there.
    pub reports_unverified: bool,
}

/// A policy that cannot be obeyed: mail waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// A table could not be asked.
    Lookup(LookupError),
    /// The text is for the log; the sender reads "client TLS configuration problem".
    Configuration(String),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => error.fmt(f),
            Self::Configuration(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for PolicyError {}

/// The policies of a configuration.
pub(super) struct Policies {
    site: Option<Policy>,
    /// The policy's parts where encryption is no must, and where it is.
    parts: [Parts; 2],
    maps: Maps,
    table: String,
    defaults: Defaults,
}

/// What depends on whether encryption is a must.
struct Parts {
    protocols: Protocols,
    grade: String,
    excluded: Vec<String>,
}

/// What main.cf says where a table says nothing.
struct Defaults {
    verify_match: Vec<Match>,
    secure_match: Vec<Match>,
    fingerprints: Vec<String>,
    digest: Digest,
    trust_anchors: Vec<String>,
    server_name: String,
    connection_reuse: bool,
}

impl Policies {
    pub(super) fn new(settings: Settings<'_>) -> Result<Self, String> {
        let parts = |mandatory| {
            settings.ciphers(mandatory)?;
            let (grade, excluded) = settings.cipher_words(mandatory);
            Ok::<_, String>(Parts { protocols: settings.protocols(mandatory)?, grade, excluded })
        };
        let table = settings.name("tls_policy_maps");
        let matches =
            |rest| settings.list(rest).iter().flat_map(|w| w.split(':')).map(Match::parse).collect();
        let mut policies = Self {
            site: None,
            parts: [parts(false)?, parts(true)?],
            maps: Maps::open(&settings.list("tls_policy_maps")).map_err(|e| format!("{table}: {e}"))?,
            table,
            defaults: Defaults {
                verify_match: matches("tls_verify_cert_match"),
                secure_match: matches("tls_secure_cert_match"),
                fingerprints: settings
                    .list("tls_fingerprint_cert_match")
                    .iter()
                    .flat_map(|item| item.split('|'))
                    .map(str::to_ascii_uppercase)
                    .collect(),
                digest: settings.digest()?,
                trust_anchors: config::split_list(&settings.text("tls_trust_anchor_file")),
                server_name: settings.text("tls_servername"),
                connection_reuse: settings.flag("tls_connection_reuse"),
            },
        };
        let level = site_level(settings)?;
        policies.site = Some(policies.plain(level).map_err(|e| e.to_string())?);
        Ok(policies)
    }

    /// A level with what main.cf says for it.
    pub(super) fn plain(&self, level: Level) -> Result<Policy, PolicyError> {
        self.make(level, &Attributes::default()).map_err(PolicyError::Configuration)
    }

    /// The policy for a destination in the form of transport(5): `example.com`, `[mail.example.com]:587` …
    pub(super) fn find(&self, nexthop: &str) -> Result<Policy, PolicyError> {
        let found = self.look_up(nexthop).map_err(PolicyError::Lookup)?;
        let Some((key, value)) = found else {
            return match &self.site {
                Some(policy) => Ok(policy.clone()),
                None => self.plain(Level::None),
            };
        };
        let parsed = Attributes::parse(&value).and_then(|(level, attributes)| self.make(level, &attributes));
        let parsed = parsed.map(|policy| Policy { from_table: true, ..policy });
        parsed.map_err(|text| {
            PolicyError::Configuration(format!("{}, lookup key \"{key}\": {text}", self.table))
        })
    }

    /// The whole of a domain without brackets and port is looked for first, then its parents with a dot in front.
    fn look_up(&self, nexthop: &str) -> Result<Option<(String, String)>, LookupError> {
        if self.maps.is_empty() {
            return Ok(None);
        }
        let key = nexthop.to_ascii_lowercase();
        if let Some(value) = self.maps.get(&key)? {
            return Ok(Some((key, value)));
        }
        if key.contains(['[', ':', '/']) {
            return Ok(None);
        }
        for (at, _) in key.match_indices('.').skip_while(|(at, _)| *at == 0) {
            if let Some(value) = self.maps.get(&key[at..])? {
                return Ok(Some((key[at..].to_owned(), value)));
            }
        }
        Ok(None)
    }

    fn make(&self, level: Level, attributes: &Attributes) -> Result<Policy, String> {
        let defaults = &self.defaults;
        let parts = &self.parts[usize::from(level.must_encrypt())];
        let excluded: Vec<String> = parts.excluded.iter().chain(&attributes.excluded).cloned().collect();
        let protocols = attributes.protocols.as_deref().map(Protocols::parse).transpose()?;
        let names = match (&attributes.names[..], level) {
            ([], Level::Verify) => defaults.verify_match.clone(),
            // With usage 2 of DANE, the name is that of the host or of the next hop (RFC 7672 section 3.2.2).
            ([], Level::Dane | Level::DaneOnly | Level::HalfDane) => vec![Match::Nexthop, Match::Hostname],
            ([], _) => defaults.secure_match.clone(),
            (words, _) => words.iter().flat_map(|word| word.split(':')).map(Match::parse).collect(),
        };
        let given = attributes.names.iter().flat_map(|word| word.split('|')).map(str::to_ascii_uppercase);
        let mut fingerprints: Vec<String> = given.filter(|_| level == Level::Fingerprint).collect();
        if fingerprints.is_empty() && level == Level::Fingerprint {
            fingerprints.clone_from(&defaults.fingerprints);
            if fingerprints.is_empty() {
                return Err(
                    "security level fingerprint without any fingerprint: name them with match=".into()
                );
            }
        }
        Ok(Policy {
            level,
            names,
            fingerprints,
            digest: defaults.digest,
            protocols: protocols.unwrap_or(parts.protocols),
            ciphers: Ciphers::new(attributes.grade.as_deref().unwrap_or(&parts.grade), &excluded)?,
            trust_anchors: match attributes.trust_anchors.is_empty() {
                true => defaults.trust_anchors.clone(),
                false => attributes.trust_anchors.clone(),
            },
            server_name: attributes.server_name.clone().unwrap_or_else(|| defaults.server_name.clone()),
            connection_reuse: attributes.connection_reuse.unwrap_or(defaults.connection_reuse),
            tlsa: Vec::new(),
            tlsa_base: None,
            system_anchors: false,
            from_table: false,
            reports_unverified: false,
        })
    }
}

/// `…_tls_security_level`, or what the parameters of former times make of it.
fn site_level(settings: Settings<'_>) -> Result<Level, String> {
    let level = settings.text("tls_security_level");
    if !level.is_empty() {
        return Level::from_name(&level)
            .map_err(|text| format!("{}: {text}", settings.name("tls_security_level")));
    }
    Ok(match (settings.flag("enforce_tls"), settings.flag("tls_enforce_peername")) {
        (true, true) => Level::Verify,
        (true, false) => Level::Encrypt,
        (false, _) if settings.flag("use_tls") => Level::May,
        (false, _) => Level::None,
    })
}

/// What a table says beside the level.
#[derive(Debug, Default)]
struct Attributes {
    names: Vec<String>,
    grade: Option<String>,
    protocols: Option<Vec<String>>,
    excluded: Vec<String>,
    trust_anchors: Vec<String>,
    server_name: Option<String>,
    connection_reuse: Option<bool>,
}

/// The level of an entry of `smtp_tls_policy_maps` that can be understood.
#[doc(hidden)]
#[must_use]
pub fn policy_level(value: &str) -> Option<Level> {
    Attributes::parse(value).ok().map(|(level, _)| level)
}

impl Attributes {
    fn parse(value: &str) -> Result<(Level, Self), String> {
        let mut items = config::split_list(value).into_iter();
        let level = Level::from_name(items.next().as_deref().unwrap_or_default())?;
        let mut found = Self::default();
        for item in items {
            let (name, value) = item
                .split_once('=')
                .map(|(name, value)| (name.trim_end(), value.trim_start()))
                .ok_or_else(|| format!("\"{item}\" must be name=value"))?;
            if level == Level::None && !is_information(name) {
                return Err(format!("attribute \"{name}\" with security level none"));
            }
            found.set(name, value, level)?;
        }
        Ok((level, found))
    }

    fn set(&mut self, name: &str, value: &str, level: Level) -> Result<(), String> {
        let once = |set: bool| if set { Err(format!("attribute \"{name}\" is given twice")) } else { Ok(()) };
        let unfit = || Err(format!("attribute \"{name}\" does not go with security level {}", level.name()));
        if value.is_empty() && !is_information(name) {
            return Err(format!("attribute \"{name}\" has no value"));
        }
        match name.to_ascii_lowercase().as_str() {
            "ciphers" => {
                once(self.grade.replace(value.to_owned()).is_some())?;
            }
            "protocols" => {
                let list =
                    value.split([':', ',', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect();
                once(self.protocols.replace(list).is_some())?;
            }
            "match"
                if matches!(
                    level,
                    Level::Verify | Level::Secure | Level::Fingerprint | Level::Dane | Level::DaneOnly
                ) =>
            {
                self.names.push(value.to_owned());
            }
            "exclude" => self.excluded.extend(value.split([':', ',', ' ']).map(str::to_owned)),
            "tafile" if matches!(level, Level::Verify | Level::Secure) => {
                self.trust_anchors.push(value.to_owned());
            }
            "servername" => once(self.server_name.replace(value.to_owned()).is_some())?,
            "connection_reuse" => {
                let reuse = match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(format!("connection_reuse={value} must be yes or no")),
                };
                once(self.connection_reuse.replace(reuse).is_some())?;
            }
            "enable_rpk" if value == "no" => {}
            "enable_rpk" => {
                return Err(
                    "enable_rpk=yes: raw public keys are not used here; take the attribute out".into()
                );
            }
            "match" | "tafile" => return unfit(),
            _ if is_information(name) => {}
            _ => return Err(format!("there is no attribute \"{name}\"")),
        }
        Ok(())
    }
}

/// Attributes by which MTA-STS daemons report to Postfix's TLSRPT client: they change nothing about a connection.
fn is_information(name: &str) -> bool {
    matches!(
        name,
        "policy_type"
            | "policy_domain"
            | "policy_string"
            | "policy_ttl"
            | "policy_failure"
            | "mx_host_pattern"
    )
}
