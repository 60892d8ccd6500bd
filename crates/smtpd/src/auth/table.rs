//! Passwords in a table of this mail system's own, kept by postpasswd.
//!
//! The table is read again when its file has changed; a table that has become unreadable or wrong lets nobody in, for
//! now, and says so in the log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use config::{Config, param};
use smtp_proto::sasl::scram::{ChannelBinding, Hash, Keys};
use smtp_proto::sasl::server::{self, Context, Reason, Unavailable, Verifier};
use smtp_proto::sasl::{Mechanism, Secret, from_base64, push_base64};

use super::Step;

/// A larger file is not read.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// How long the file is trusted to be what it was.
const CHECK: Duration = Duration::from_secs(1);
/// How long a refusal is held back: whoever tries passwords has to wait.
const FAILURE_DELAY: Duration = Duration::from_secs(2);
/// So many passwords are hashed at a time: each takes a processor and 19 MiB.
const HASHES: usize = 4;

/// The table, shared by all sessions.
pub(super) struct Table(Arc<Shared>);

struct Shared {
    path: PathBuf,
    hostname: String,
    /// `smtpd_sasl_local_domain`
    realm: String,
    decoy_seed: Secret,
    current: Mutex<Current>,
    hashing: [Mutex<()>; HASHES],
    next: AtomicUsize,
}

#[derive(Default)]
struct Current {
    checked: Option<Instant>,
    /// Device, inode, size, time of the last change.
    seen: Option<(u64, u64, u64, i64, i64)>,
    table: Option<Arc<passwords::Table>>,
}

/// What the client's TLS says of it.
pub(super) struct Known {
    /// What an exchange can be bound to; nothing without TLS.
    pub(super) bindings: Vec<ChannelBinding>,
    /// The user whom its certificate stands for.
    pub(super) external: Option<String>,
}

/// One exchange.
pub(super) struct Exchange {
    exchange: server::Exchange,
    shared: Arc<Shared>,
}

/// The file of `smtpd_sasl_path`, which is relative to the configuration's directory.
fn file(config: &Config, path: &str) -> PathBuf {
    config.directory().join(path)
}

/// Whether the table can be used.
///
/// # Errors
/// What is wrong with it, for the operator.
pub(super) fn check(config: &Config, path: &str) -> Result<(), String> {
    let path = file(config, path);
    let help = "smtpd_sasl_path names the table of passwords, which \"postpasswd add NAME\" makes";
    let metadata =
        fs::metadata(&path).map_err(|error| format!("open {}: {error}; {help}", path.display()))?;
    if metadata.mode() & 0o007 != 0 {
        return Err(format!(
            "{}: everybody may read or write the table of passwords; chmod o= {}",
            path.display(),
            path.display()
        ));
    }
    read(&path).map(drop)
}

fn read(path: &Path) -> Result<passwords::Table, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(|error| failed(&error))?;
    if metadata.len() > MAX_FILE {
        return Err(failed(&"larger than 64 MiB: this is no table of passwords"));
    }
    let text = Secret::from(fs::read_to_string(path).map_err(|error| failed(&error))?);
    passwords::Table::parse(text.as_str().unwrap_or_default()).map_err(|error| failed(&error))
}

impl Table {
    pub(super) fn new(config: &Config, path: &str) -> Self {
        let mut seed = vec![0; 32];
        // Without randomness the decoys can be told from users; logins are checked all the same.
        let _ = getrandom::fill(&mut seed);
        Self(Arc::new(Shared {
            path: file(config, path),
            hostname: config.get(param::MYHOSTNAME),
            realm: config.get(param::SMTPD_SASL_LOCAL_DOMAIN),
            decoy_seed: Secret::new(seed),
            current: Mutex::default(),
            hashing: Default::default(),
            next: AtomicUsize::new(0),
        }))
    }

    /// What can be offered: SCRAM where every user has what it needs, also bound to the channel where there is one, and
    /// EXTERNAL to a client whose certificate stands for a user.
    pub(super) fn mechanisms(&self, known: &Known) -> Result<Vec<Mechanism>, String> {
        let table = self.0.table()?;
        let bound = !known.bindings.is_empty();
        let mut mechanisms = vec![Mechanism::Plain, Mechanism::Login];
        for (hash, plain, plus) in [
            (Hash::Sha256, Mechanism::ScramSha256, Mechanism::ScramSha256Plus),
            (Hash::Sha1, Mechanism::ScramSha1, Mechanism::ScramSha1Plus),
        ] {
            if table.all_have_scram(hash) {
                mechanisms.push(plain);
                mechanisms.extend(bound.then_some(plus));
            }
        }
        // Such a user needs no password, but one who is locked stays out.
        let may_enter = |name: &String| !table.user(name).is_some_and(|user| user.locked);
        mechanisms
            .extend(known.external.as_ref().filter(|name| may_enter(name)).map(|_| Mechanism::External));
        Ok(mechanisms)
    }

    pub(super) fn exchange(&self, mechanism: Mechanism, known: Known) -> Exchange {
        let Known { bindings, external } = known;
        let context = Context {
            hostname: self.0.hostname.clone(),
            nonce: nonce(),
            plus_offered: !bindings.is_empty(),
            bindings,
            external,
            decoy_seed: self.0.decoy_seed.clone(),
        };
        Exchange { exchange: server::Exchange::new(mechanism, context), shared: Arc::clone(&self.0) }
    }
}

/// What was never used before.
fn nonce() -> String {
    let mut random = [0; 18];
    let mut text = Vec::new();
    if getrandom::fill(&mut random).is_ok() {
        push_base64(&random, &mut text);
    }
    String::from_utf8(text).unwrap_or_default()
}

impl Exchange {
    /// The client's response, in base64; none where AUTH came without one.
    pub(super) fn step(&mut self, response: Option<&Secret>) -> Step {
        let refused = |text: &str| Step::Refused(None, text.to_owned());
        let decoded = match response.map(|response| &**response) {
            None => None,
            Some(b"=") => Some(Secret::default()),
            Some(text) => match from_base64(text) {
                Ok(decoded) => Some(decoded),
                Err(_) => return refused("Invalid base64 data in response"),
            },
        };
        match self.exchange.step(decoded.as_ref(), &mut &*self.shared) {
            server::Step::Challenge(challenge) => {
                let mut text = Vec::new();
                push_base64(&challenge, &mut text);
                Step::Challenge(String::from_utf8(text).unwrap_or_default())
            }
            server::Step::Accepted(username) => {
                let known = self.shared.table().ok().and_then(|table| self.shared.find(&table, &username));
                Step::Accepted(known.unwrap_or(username))
            }
            server::Step::Refused(refusal) => {
                let username = refusal.username;
                if let Reason::Unavailable(error) = refusal.reason {
                    ipc::log::warning!("{error}");
                    return Step::Unavailable("the table of passwords cannot be read".to_owned());
                }
                thread::sleep(FAILURE_DELAY);
                let text = match refusal.reason {
                    Reason::Credentials | Reason::Unavailable(_) => "authentication failure",
                    Reason::NotAuthorized => "not authorized to act as another user",
                    Reason::Malformed => "malformed response",
                    Reason::ChannelBinding => "channel binding does not match",
                };
                Step::Refused(username, text.to_owned())
            }
        }
    }
}

impl Shared {
    /// The table as the file has it.
    fn table(&self) -> Result<Arc<passwords::Table>, String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let (Some(table), Some(checked)) = (&current.table, current.checked)
            && now.duration_since(checked) < CHECK
        {
            return Ok(Arc::clone(table));
        }
        let file = fs::metadata(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let seen = (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec());
        if current.seen != Some(seen) || current.table.is_none() {
            current.table = None;
            current.table = Some(Arc::new(read(&self.path)?));
            current.seen = Some(seen);
        }
        current.checked = Some(now);
        current.table.clone().ok_or_else(|| "no table".to_owned())
    }

    /// The name under which a user stands in the table: as it was said, or with the realm.
    fn find(&self, table: &passwords::Table, username: &str) -> Option<String> {
        let is_able = |name: &str| table.user(name).is_some_and(|user| !user.locked);
        if is_able(username) {
            return Some(username.to_owned());
        }
        let full = format!("{username}@{}", self.realm);
        (!self.realm.is_empty() && !username.contains('@') && is_able(&full)).then_some(full)
    }

    fn able(&self, username: &str) -> Result<(Arc<passwords::Table>, Option<String>), Unavailable> {
        let table = self.table().map_err(Unavailable)?;
        let name = self.find(&table, username);
        Ok((table, name))
    }
}

impl Verifier for &Shared {
    fn check(&mut self, username: &str, password: &Secret) -> Result<bool, Unavailable> {
        let (table, name) = self.able(username)?;
        let place = self.next.fetch_add(1, Ordering::Relaxed) % HASHES;
        let turn = self.hashing[place].lock().unwrap_or_else(PoisonError::into_inner);
        let right = match name.and_then(|name| table.user(&name)) {
            Some(user) => user.opens_with(password),
            None => {
                passwords::check_nothing(password);
                false
            }
        };
        drop(turn);
        Ok(right)
    }

    fn scram_keys(&mut self, hash: Hash, username: &str) -> Result<Option<Keys>, Unavailable> {
        let (table, name) = self.able(username)?;
        Ok(name.and_then(|name| table.user(&name)?.scram_keys(hash).cloned()))
    }

    /// Passwords themselves are not kept: CRAM-MD5 is not offered.
    fn password(&mut self, _: &str) -> Result<Option<Secret>, Unavailable> {
        Ok(None)
    }

    /// There are no tokens: the OAuth mechanisms are not offered.
    fn check_token(&mut self, _: &str, _: &Secret) -> Result<bool, Unavailable> {
        Ok(false)
    }
}
