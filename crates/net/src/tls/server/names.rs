//! Which certificate a client gets: `tls_server_sni_maps` for the name it asks for, else the service's own, by what it can verify.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use config::{Config, param};
use ipc::log;
use lookup::Maps;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm, SignatureScheme};

use super::super::keys::{self, KeyFiles};
use super::OurKey;

thread_local! {
    /// The key of the last handshake on this thread, which rustls does not tell.
    static KEY: RefCell<Option<OurKey>> = const { RefCell::new(None) };
}

/// The key of the last handshake on this thread; forgets it.
pub(super) fn take_key() -> Option<OurKey> {
    KEY.take()
}

/// The most chains that are kept parsed.
const MAX_PARSED: usize = 1000;

/// `tls_server_sni_maps`.
pub(super) struct Names {
    maps: Maps,
    /// Chains by the value of the table they came from: a value that changed is another chain.
    parsed: Mutex<HashMap<String, Vec<Arc<CertifiedKey>>>>,
}

impl Names {
    pub(super) fn new(config: &Config) -> Result<Option<Self>, String> {
        let specs = config.get(param::TLS_SERVER_SNI_MAPS);
        if specs.is_empty() {
            return Ok(None);
        }
        let maps = Maps::open(&specs).map_err(|e| format!("tls_server_sni_maps: {e}"))?;
        Ok(Some(Self { maps, parsed: Mutex::default() }))
    }

    /// Whether the tables name this host.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The name itself, then its parents with a dot in front.
    fn value(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        let parents = name.match_indices('.').map(|(at, _)| &name[at..]);
        for key in std::iter::once(name.as_str()).chain(parents) {
            match self.maps.get(key) {
                Ok(Some(value)) => return Some(value),
                Ok(None) => {}
                Err(error) => {
                    log::warning!("{error}");
                    return None;
                }
            }
        }
        None
    }

    fn keys(&self, name: &str) -> Vec<Arc<CertifiedKey>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        // A list of files is read for each client: what they hold may change, and the table does not say so.
        if value.starts_with('/') {
            return load(&config::split_list(&value), &keys::read_directly, name);
        }
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = parsed.get(&value) {
            return found.clone();
        }
        // `postmap -F` has put the files' content into the table.
        let read = |text: &str| {
            decode_base64(text).ok_or_else(|| "the value is neither files nor base64".to_owned())
        };
        let found = load(std::slice::from_ref(&value), &read, name);
        if parsed.len() >= MAX_PARSED {
            parsed.clear();
        }
        parsed.insert(value, found.clone());
        found
    }
}

fn load(
    paths: &[String],
    read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    name: &str,
) -> Vec<Arc<CertifiedKey>> {
    let files = KeyFiles { parameter: "tls_server_sni_maps".into(), paths: paths.to_vec(), pair: false };
    files.load(read).unwrap_or_else(|mut error| {
        // A value with keys in it is not for the log.
        if !paths.iter().all(|path| path.starts_with('/')) {
            error = "the table's value holds no usable keys and certificates; was it made with postmap -F?"
                .into();
        }
        log::warning!("tls_server_sni_maps: {name}: {error}");
        Vec::new()
    })
}

/// RFC 4648 section 4, blanks ignored.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => continue,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// rustls' question.
pub(super) struct Resolver {
    keys: Vec<Arc<CertifiedKey>>,
    names: Option<Arc<Names>>,
}

impl Resolver {
    /// ECDSA comes before RSA: it is quicker, and who cannot verify it says so.
    pub(super) fn new(mut keys: Vec<Arc<CertifiedKey>>, names: Option<Arc<Names>>) -> Self {
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Self { keys, names }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut named = match (&self.names, hello.server_name()) {
            (Some(names), Some(name)) => names.keys(name),
            _ => Vec::new(),
        };
        named.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        let found = choose(&named, &hello).or_else(|| choose(&self.keys, &hello))?;
        let scheme = found.key.choose_scheme(hello.signature_schemes()).map(|signer| signer.scheme());
        KEY.set(found.cert.first().map(|certificate| OurKey::of(certificate, scheme)));
        Some(found)
    }
}

/// The first key whose signature the client can verify.
fn choose(keys: &[Arc<CertifiedKey>], hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
    let fits = |key: &&Arc<CertifiedKey>| {
        let schemes: &[SignatureScheme] = hello.signature_schemes();
        key.key.choose_scheme(schemes).is_some() && suits(hello.cipher_suites(), key.key.algorithm())
    };
    keys.iter().find(fits).cloned()
}

/// Whether the client has a cipher suite for such a key: those of TLS 1.3 go with any, those of TLS 1.2 name the kind.
fn suits(suites: &[CipherSuite], algorithm: SignatureAlgorithm) -> bool {
    suites.iter().filter_map(|suite| suite.as_str()).any(|name| match algorithm {
        _ if name.starts_with("TLS13_") => true,
        SignatureAlgorithm::RSA => name.starts_with("TLS_ECDHE_RSA_"),
        _ => name.starts_with("TLS_ECDHE_ECDSA_"),
    })
}
