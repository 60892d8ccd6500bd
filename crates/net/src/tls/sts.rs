//! MTA-STS: a domain says on its web server which of its mail exchangers are to be believed in (RFC 8461).
//!
//! Policies are kept in memory, because the client's process has no right to write files: a restart asks again, and until the
//! answer is there, mail goes as it would to a domain seen for the first time. DANE takes precedence (RFC 8461 section 2), and so
//! does what the operator has written for a destination.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::Config;
use ipc::log;
use rustls_pki_types::CertificateDer;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::anchors::{self, Anchors};
use super::policy::{Level, Match, Policy};
use crate::dns::{Answer, DnsError};

/// The largest policy that is read (RFC 8461 section 3.3), and the most of its patterns.
const MAX_SIZE: u64 = 64 * 1024;
const MAX_PATTERNS: usize = 100;

/// The longest that a policy may be kept: RFC 8461 section 3.2.
const MAX_AGE: u64 = 31_557_600;

/// How long a web server is left alone after it failed: RFC 8461 section 3.3.
const RETRY: Duration = Duration::from_secs(300);

/// The most domains that are remembered.
const MAX_DOMAINS: usize = 10_000;

/// What a domain asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes to hosts that keep to the policy, or not at all.
    Enforce,
    /// What is wrong is reported, here to the log, and mail goes.
    Testing,
    /// Nothing any more.
    None,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it asks for.
    pub mode: Mode,
    /// The names of the domain's mail exchangers, or patterns with an asterisk for the first label.
    pub mx: Vec<String>,
    /// How long it may be kept.
    pub max_age: Duration,
}

impl Document {
    /// Reads a policy (RFC 8461 section 3.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
            let value = value.trim_matches([' ', '\t']);
            // The first of each counts, but for mx.
            match name.trim_end_matches([' ', '\t']) {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() < MAX_PATTERNS => mx.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err("no version STSv1".into());
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            other => return Err(format!("mode \"{}\" is none", other.unwrap_or_default())),
        };
        let seconds: u64 = max_age.unwrap_or_default().parse().map_err(|_| "max_age is no number")?;
        if mx.is_empty() && mode != Mode::None {
            return Err("no mx".into());
        }
        Ok(Self { mode, mx, max_age: Duration::from_secs(seconds.min(MAX_AGE)) })
    }

    /// Whether a mail exchanger is one that the policy names (RFC 8461 section 4.1).
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            None => pattern.eq_ignore_ascii_case(host),
            Some(domain) => host
                .split_once('.')
                .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(domain)),
        })
    }
}

/// The `id` of a `_mta-sts` record (RFC 8461 section 3.1); none where there is not exactly one record.
#[must_use]
pub fn record_id(texts: &[String]) -> Option<&str> {
    let mut records =
        texts.iter().filter(|text| text.split(';').next().is_some_and(|first| first.trim_end() == "v=STSv1"));
    let record = records.next().filter(|_| records.next().is_none())?;
    let mut fields = record.split(';').filter_map(|field| field.split_once('='));
    let id = fields.find(|(name, _)| name.trim() == "id").map(|(_, id)| id.trim())?;
    ((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(id)
}

/// Why no mail goes to a host: the domain's policy does not name it. The enhanced status is 4.7.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    domain: String,
    host: String,
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MTA-STS policy of {} does not name the host {}", self.domain, self.host)
    }
}

impl std::error::Error for Unlisted {}

/// Asks for TXT records.
pub type LookUp<'a> = dyn Fn(&str) -> Result<Answer<Vec<String>>, DnsError> + 'a;

/// Fetches the policy of a domain.
type Fetch = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// The policies of all domains.
pub(super) struct Store {
    /// `smtp_tls_mta_sts = enforce`
    enforces: bool,
    fetch: Box<Fetch>,
    domains: Mutex<HashMap<String, Arc<Mutex<Entry>>>>,
}

/// What is known of one domain. It is locked while it is being fetched: others who want it wait, and fetch nothing.
#[derive(Default)]
struct Entry {
    id: String,
    document: Option<(Document, Instant)>,
    failed: Option<(String, Instant)>,
}

impl Entry {
    fn current(&self) -> Option<&Document> {
        let (document, since) = self.document.as_ref()?;
        (since.elapsed() < document.max_age).then_some(document)
    }
}

impl Store {
    /// The store of a configuration; none for `smtp_tls_mta_sts = no`.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, String> {
        let enforces = match config.text("smtp_tls_mta_sts").as_deref() {
            Some("enforce") => true,
            Some("testing") => false,
            _ => return Ok(None),
        };
        let mut extra = Anchors::default();
        let file = config.text("smtp_tls_CAfile").unwrap_or_default();
        if !file.is_empty() {
            extra.add_file(std::path::Path::new(&file)).map_err(|e| format!("smtp_tls_CAfile: {e}"))?;
        }
        let patience = config.get(config::param::SMTP_TLS_MTA_STS_TIMEOUT);
        let fetch = move |domain: &str| {
            let roots: Vec<_> = extra.certificates().iter().chain(anchors::system().certificates()).collect();
            fetch(&roots, &format!("https://mta-sts.{domain}/.well-known/mta-sts.txt"), patience)
        };
        Ok(Some(Self { enforces, fetch: Box::new(fetch), domains: Mutex::default() }))
    }

    /// What the policy of `domain` makes of the policy for one of its mail exchangers.
    pub(super) fn apply(
        &self,
        policy: Policy,
        domain: &str,
        host: &str,
        look_up: &LookUp<'_>,
    ) -> Result<Policy, Unlisted> {
        let may_rise = matches!(policy.level, Level::May | Level::Encrypt)
            && !policy.from_table
            && policy.tlsa.is_empty();
        let document = if may_rise { self.document(domain, look_up) } else { None };
        let Some(document) = document.filter(|document| document.mode != Mode::None) else {
            return Ok(policy);
        };
        let enforce = self.enforces && document.mode == Mode::Enforce;
        if !document.names(host) {
            let unlisted = Unlisted { domain: domain.to_owned(), host: host.to_owned() };
            if enforce {
                return Err(unlisted);
            }
            log::info!("{unlisted} (only testing)");
        }
        let level = if enforce { Level::Verify } else { policy.level };
        Ok(Policy {
            level,
            names: vec![Match::Hostname],
            server_name: "hostname".to_owned(),
            trust_anchors: Vec::new(),
            system_anchors: true,
            reports_unverified: !enforce,
            ..policy
        })
    }

    /// The policy that holds now (RFC 8461 section 5.1): one that was kept stays in force while it cannot be renewed.
    fn document(&self, domain: &str, look_up: &LookUp<'_>) -> Option<Document> {
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        let entry = self.entry(&domain);
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = look_up(&format!("_mta-sts.{domain}")).map(|answer| answer.value).unwrap_or_default();
        let Some(id) = record_id(&texts) else { return entry.current().cloned() };
        let is_known = entry.id == id && entry.current().is_some();
        let gave_up = entry.failed.as_ref().is_some_and(|(failed, at)| failed == id && at.elapsed() < RETRY);
        if !is_known && !gave_up {
            match (self.fetch)(&domain).and_then(|text| Document::parse(&text)) {
                Ok(document) => {
                    id.clone_into(&mut entry.id);
                    entry.document = Some((document, Instant::now()));
                    entry.failed = None;
                }
                Err(error) => {
                    log::warning!("MTA-STS policy of {domain}: {error}");
                    entry.failed = Some((id.to_owned(), Instant::now()));
                }
            }
        }
        entry.current().cloned()
    }

    fn entry(&self, domain: &str) -> Arc<Mutex<Entry>> {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        if !domains.contains_key(domain) && domains.len() >= MAX_DOMAINS {
            // Those with nothing to remember first; who holds a policy keeps it if it can.
            let holds =
                |entry: &Arc<Mutex<Entry>>| entry.try_lock().is_ok_and(|entry| entry.current().is_some());
            domains.retain(|_, entry| holds(entry));
            if domains.len() >= MAX_DOMAINS {
                return Arc::default();
            }
        }
        Arc::clone(domains.entry(domain.to_owned()).or_default())
    }
}

/// Gets a policy (RFC 8461 section 3.3): no redirect is followed, and only text counts.
fn fetch(roots: &[&CertificateDer<'static>], url: &str, patience: Duration) -> Result<String, String> {
    let roots: Vec<Certificate<'static>> =
        roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(patience))
        .build()
        .new_agent();
    let mut response = agent.get(url).call().map_err(|e| format!("get {url}: {e}"))?;
    if response.status() != 200 {
        return Err(format!("get {url}: status {}", response.status().as_u16()));
    }
    if response.body().mime_type() != Some("text/plain") {
        return Err(format!("get {url}: not of type text/plain"));
    }
    let body = response.body_mut().with_config().limit(MAX_SIZE).read_to_string();
    body.map_err(|e| format!("get {url}: {e}"))
}

#[cfg(test)]
mod tests;
