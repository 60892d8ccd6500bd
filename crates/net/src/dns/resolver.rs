//! The blocking half: what callers see, and the one thread behind it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::filter::{Refused, ReplyFilter};
use super::resolv_conf::ResolvConf;
use super::servers::{Failure, Found, Servers, text_of};
use super::{Answer, DnsError, DnsSettings, Family, Kind, Mx, Srv, Tlsa, is_host_name, name};

/// A larger resolv.conf is none.
const CONF_LIMIT: u64 = 64 * 1024;

/// How long the file is trusted to be what it was.
const CONF_CHECK: Duration = Duration::from_secs(1);

/// Asks the DNS. Clones share their thread, which starts with the first question, and their memory.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
    filter: Option<Arc<ReplyFilter>>,
}

struct Inner {
    settings: DnsSettings,
    jobs: Mutex<Option<UnboundedSender<Job>>>,
}

struct Job {
    name: String,
    kind: RecordType,
    reply: Reply,
}

/// What is done with an answer, on the thread of the resolver: it must not wait for anything.
type Reply = Box<dyn FnOnce(Result<Found, Failure>) + Send>;

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.inner.settings).finish()
    }
}

impl Resolver {
    /// A resolver that asks as the settings say. Nothing happens before the first question.
    #[must_use]
    pub fn system(settings: DnsSettings) -> Self {
        Self { inner: Arc::new(Inner { settings, jobs: Mutex::new(None) }), filter: None }
    }

    /// The same, with the same memory, passing over what the filter says; [`Resolver::ipv4_then`] alone knows no filter.
    #[must_use]
    pub fn filtered(self, filter: ReplyFilter) -> Self {
        Self { filter: Some(Arc::new(filter)), ..self }
    }

    /// The mail exchangers of a domain, in the order of the answer.
    pub fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, DnsError> {
        self.ask(domain, Kind::Mx)?.usable(|record| match record {
            RData::MX(mx) => Some(Mx { preference: mx.preference, host: target(&mx.exchange)? }),
            _ => None,
        })
    }

    /// The addresses of a host. Where both families are wanted, those of one are enough.
    pub fn addresses(&self, host: &str, family: Family) -> Result<Answer<Vec<IpAddr>>, DnsError> {
        let of = |question: Question| {
            question.wait()?.usable(|record| match record {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })
        };
        match family {
            Family::V4 => of(self.begin(host, Kind::A)?),
            Family::V6 => of(self.begin(host, Kind::Aaaa)?),
            Family::Any => {
                let (v4, v6) = (self.begin(host, Kind::A)?, self.begin(host, Kind::Aaaa)?);
                both(of(v4), of(v6))
            }
        }
    }

    /// The names that this address leads back to.
    pub fn names(&self, ip: IpAddr) -> Result<Answer<Vec<String>>, DnsError> {
        let name = text_of(&Name::from(ip.to_canonical()));
        self.ask(&name, Kind::Ptr)?.usable(|record| match record {
            RData::PTR(name) => host(&name),
            _ => None,
        })
    }

    /// The name servers of a zone.
    pub fn ns(&self, zone: &str) -> Result<Answer<Vec<String>>, DnsError> {
        self.ask(zone, Kind::Ns)?.usable(|record| match record {
            RData::NS(name) => host(&name),
            _ => None,
        })
    }

    /// Texts; the strings of a record are one text.
    pub fn txt(&self, name: &str) -> Result<Answer<Vec<String>>, DnsError> {
        self.ask(name, Kind::Txt)?.usable(|record| match record {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
    }

    /// The hosts of a service, in the order of the answer.
    pub fn srv(&self, name: &str) -> Result<Answer<Vec<Srv>>, DnsError> {
        self.ask(name, Kind::Srv)?.usable(|record| match record {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: target(&srv.target)?,
            }),
            _ => None,
        })
    }

    /// What the certificate of the service at this name must be.
    pub fn tlsa(&self, name: &str) -> Result<Answer<Vec<Tlsa>>, DnsError> {
        self.ask(name, Kind::Tlsa)?.usable(|record| match record {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data,
            }),
            _ => None,
        })
    }

    /// The addresses that this host's own way of looking up names finds (nsswitch.conf: `/etc/hosts` and others); what
    /// `native` in `smtp_host_lookup` means. An address is its own. Never secure, and without a time to live.
    pub fn native_addresses(&self, host: &str, family: Family) -> Result<Answer<Vec<IpAddr>>, DnsError> {
        let kind = if family == Family::V6 { Kind::Aaaa } else { Kind::A };
        let not_found = || DnsError::NotFound { name: host.to_owned(), kind };
        let ascii = name::to_ascii(host).ok_or_else(|| DnsError::InvalidName { name: host.to_owned() })?;
        if !is_host_name(&ascii) && ascii.parse::<IpAddr>().is_err() {
            return Err(DnsError::InvalidName { name: host.to_owned() });
        }
        let found = (&*ascii, 0).to_socket_addrs().map_err(|error| match is_try_again(&error) {
            true => DnsError::Temporary { name: host.to_owned(), kind, cause: error.to_string() },
            false => not_found(),
        })?;
        let mut value: Vec<IpAddr> = Vec::new();
        for ip in found.map(|address| address.ip()).filter(|ip| family.includes(*ip)) {
            if !value.contains(&ip) {
                value.push(ip);
            }
        }
        match value.is_empty() {
            true => Err(DnsError::NoData { name: host.to_owned(), kind }),
            false => Ok(Answer { value, secure: false, ttl: Duration::ZERO, canonical: ascii.into_owned() }),
        }
    }

    fn ask(&self, name: &str, kind: Kind) -> Result<Asked, DnsError> {
        self.begin(name, kind)?.wait()
    }

    /// Sends a question on its way.
    fn begin(&self, name: &str, kind: Kind) -> Result<Question, DnsError> {
        let ascii = name::to_ask(name).ok_or_else(|| DnsError::InvalidName { name: name.to_owned() })?;
        let (reply, answer) = mpsc::sync_channel(1);
        let filter = self.filter.clone();
        // What went wrong is said of the name that was asked for, as DNS has it.
        let shown = if name.is_ascii() { name } else { &*ascii };
        let question = Question { name: shown.to_owned(), kind, answer, filter };
        let reply = Box::new(move |result| {
            // Who asked may have gone.
            let _ = reply.send(result);
        });
        let job = Job { name: ascii.into_owned(), kind: record_type(kind), reply };
        match self.inner.hand_over(job) {
            Ok(()) => Ok(question),
            Err(cause) => Err(DnsError::Temporary { name: question.name, kind, cause }),
        }
    }

    /// Asks for the IPv4 addresses of a host without waiting: `then` is called with the answer on the resolver's thread,
    /// which it must not hold up.
    ///
    /// # Errors
    /// A name that cannot be asked for; no thread.
    pub fn ipv4_then(
        &self,
        host: &str,
        then: impl FnOnce(Result<Answer<Vec<IpAddr>>, DnsError>) + Send + 'static,
    ) -> Result<(), DnsError> {
        let kind = Kind::A;
        let ascii = name::to_ask(host).ok_or_else(|| DnsError::InvalidName { name: host.to_owned() })?;
        let name = host.to_owned();
        let reply = Box::new(move |result| {
            let asked = answered(name, kind, result);
            then(asked.and_then(|asked| {
                asked.usable(|record| match record {
                    RData::A(a) => Some(IpAddr::V4(a.0)),
                    _ => None,
                })
            }));
        });
        let job = Job { name: ascii.into_owned(), kind: record_type(kind), reply };
        self.inner.hand_over(job).map_err(|cause| DnsError::Temporary { name: host.to_owned(), kind, cause })
    }
}

impl Inner {
    fn hand_over(&self, job: Job) -> Result<(), String> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(refused) => refused.0,
            },
            None => job,
        };
        let (sender, receiver) = unbounded_channel();
        let settings = self.settings.clone();
        thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || serve(settings, receiver))
            .map_err(|error| format!("start a thread: {error}"))?;
        let sent = sender.send(job).map_err(|_| "the thread ended".to_owned());
        *jobs = Some(sender);
        sent
    }
}

/// A question whose answer is to come.
struct Question {
    name: String,
    kind: Kind,
    answer: mpsc::Receiver<Result<Found, Failure>>,
    filter: Option<Arc<ReplyFilter>>,
}

/// A question with its answer.
struct Asked {
    name: String,
    kind: Kind,
    found: Found,
}

impl Question {
    fn wait(self) -> Result<Asked, DnsError> {
        let Self { name, kind, answer, filter } = self;
        let ended = |_| Err(Failure::Temporary("the thread ended".to_owned()));
        let asked = answered(name, kind, answer.recv().unwrap_or_else(ended))?;
        let Some(filter) = filter else { return Ok(asked) };
        let Asked { name, kind, found } = asked;
        match filter.apply(found) {
            Ok(found) => Ok(Asked { name, kind, found }),
            Err(refused) => Err(DnsError::Filtered { name, kind, emptied: refused == Refused::Emptied }),
        }
    }
}

fn answered(name: String, kind: Kind, result: Result<Found, Failure>) -> Result<Asked, DnsError> {
    match result {
        Ok(found) => Ok(Asked { name, kind, found }),
        Err(Failure::NotFound) => Err(DnsError::NotFound { name, kind }),
        Err(Failure::NoData) => Err(DnsError::NoData { name, kind }),
        Err(Failure::Circle) => Err(DnsError::Circle { name }),
        Err(Failure::Temporary(cause)) => Err(DnsError::Temporary { name, kind, cause }),
    }
}

impl Asked {
    /// The records that can be used; it is an error if none can.
    fn usable<T>(self, value_of: impl Fn(RData) -> Option<T>) -> Result<Answer<Vec<T>>, DnsError> {
        let Found { records, secure, ttl, canonical } = self.found;
        let value: Vec<T> = records.into_iter().filter_map(|(_, data)| value_of(data)).collect();
        if value.is_empty() {
            return Err(DnsError::Malformed { name: self.name, kind: self.kind });
        }
        Ok(Answer { value, secure, ttl, canonical })
    }
}

/// Addresses of both families; where one has none, the other's; where neither has, what may still change.
fn both(
    v4: Result<Answer<Vec<IpAddr>>, DnsError>,
    v6: Result<Answer<Vec<IpAddr>>, DnsError>,
) -> Result<Answer<Vec<IpAddr>>, DnsError> {
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.secure &= v6.secure;
            v4.ttl = v4.ttl.min(v6.ttl);
            v4.value.extend(v6.value);
            Ok(v4)
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(v4), Err(v6)) => Err(if v4.is_temporary() && !v6.is_temporary() { v4 } else { v6 }),
    }
}

fn host(name: &Name) -> Option<String> {
    Some(text_of(name)).filter(|text| is_host_name(text))
}

/// A host that a record points to: the root says that there is none, and an address in place of a name is understood, as
/// Postfix understands it.
fn target(name: &Name) -> Option<String> {
    let text = text_of(name);
    (name.is_root() || is_host_name(&text) || text.parse::<IpAddr>().is_ok()).then_some(text)
}

const fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Mx => RecordType::MX,
        Kind::Ns => RecordType::NS,
        Kind::Ptr => RecordType::PTR,
        Kind::Srv => RecordType::SRV,
        Kind::Tlsa => RecordType::TLSA,
        Kind::Txt => RecordType::TXT,
    }
}

/// The standard library gives EAI_AGAIN no kind of its own; its text comes from the C library.
fn is_try_again(error: &std::io::Error) -> bool {
    let text = error.to_string();
    text.contains("Temporary failure") || text.contains("ry again")
}

/// The thread: it ends when no resolver is left.
fn serve(settings: DnsSettings, mut jobs: UnboundedReceiver<Job>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ipc::log::warning!("start the resolver: {error}");
            return;
        }
    };
    runtime.block_on(async move {
        let mut configured = Configured::new(settings);
        while let Some(job) = jobs.recv().await {
            let Some(servers) = configured.servers() else {
                (job.reply)(Err(Failure::Temporary("no name server can be asked".to_owned())));
                continue;
            };
            tokio::spawn(async move {
                let result = servers.resolve(&job.name, job.kind).await;
                (job.reply)(result);
            });
        }
    });
}

/// The servers as resolv.conf has them. What was remembered is forgotten with the servers that said it.
struct Configured {
    settings: DnsSettings,
    checked: Option<Instant>,
    seen: Option<Version>,
    servers: Option<Arc<Servers>>,
}

/// What changes when a file does.
#[derive(PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

impl Configured {
    fn new(settings: DnsSettings) -> Self {
        Self { settings, checked: None, seen: None, servers: None }
    }

    fn servers(&mut self) -> Option<Arc<Servers>> {
        let now = Instant::now();
        if self.checked.is_none_or(|checked| now.duration_since(checked) >= CONF_CHECK) {
            self.checked = Some(now);
            match version_of(&self.settings.resolv_conf) {
                // A file that is gone for a moment while it is replaced changes nothing.
                Ok(None) if self.servers.is_some() => {}
                Ok(version) if self.servers.is_some() && version == self.seen => {}
                Ok(version) => match self.read() {
                    Ok(()) => self.seen = version,
                    Err(error) => self.complain(&error),
                },
                Err(error) => self.complain(&error),
            }
        }
        self.servers.clone()
    }

    /// What is only wrong for a moment leaves things as they are: another server than the operator's is not asked.
    fn read(&mut self) -> io::Result<()> {
        let path = &self.settings.resolv_conf;
        let text = match std::fs::read(path) {
            Ok(text) => text,
            // Without the file the server of this host is asked: resolv.conf(5).
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) if is_lasting(&error) => {
                ipc::log::warning!("{}: {error}; the name server of this host is asked", path.display());
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let conf = ResolvConf::parse(&String::from_utf8_lossy(&text));
        for complaint in &conf.complaints {
            ipc::log::warning!("{}: {complaint}", path.display());
        }
        match Servers::new(conf, &self.settings) {
            Ok(servers) => self.servers = Some(Arc::new(servers)),
            Err(error) => ipc::log::warning!("{}: {error}", path.display()),
        }
        Ok(())
    }

    fn complain(&self, error: &io::Error) {
        ipc::log::warning!("{}: {error}; trying again", self.settings.resolv_conf.display());
    }
}

/// None for a file that is not there or cannot be one; an error for what may be otherwise in a moment.
fn version_of(path: &Path) -> io::Result<Option<Version>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound || is_lasting(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let version = Version { modified: metadata.modified().ok(), inode: metadata.ino(), size: metadata.len() };
    Ok((version.size <= CONF_LIMIT).then_some(version))
}

/// Whether a file is unreadable for what it is, and where, which will not change by itself.
fn is_lasting(error: &io::Error) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, PermissionDenied};
    matches!(error.kind(), IsADirectory | NotADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_for_a_moment_is_not_taken_for_one_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let servers = |path: &Path| {
            let settings = DnsSettings { resolv_conf: path.to_owned(), ..DnsSettings::default() };
            Configured::new(settings).servers()
        };
        assert!(servers(&folder.path().join("missing")).is_some());
        assert!(servers(folder.path()).is_some());
        // Not one of those that last.
        assert!(servers(&folder.path().join("x".repeat(300))).is_none());
    }

    #[test]
    fn what_is_known_stays_while_the_file_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let settings = DnsSettings { resolv_conf: path, ..DnsSettings::default() };
        let mut configured = Configured::new(settings);
        let known = configured.servers().unwrap();
        configured.settings.resolv_conf = folder.path().join("x".repeat(300));
        configured.checked = None;
        assert!(Arc::ptr_eq(&known, &configured.servers().unwrap()));
    }
}
