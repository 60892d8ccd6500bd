//! From `main` to a [`Service`]: what master left for this process.

use std::fmt;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use config::{Config, Snapshot, param};
use ipc::control::Birth;
use ipc::frame::Receiver;
use ipc::log;
use nix::sys::socket::{self, AddressFamily, SockaddrLike, SockaddrStorage};
use nix::unistd::{Uid, User};

use crate::Fatal;
use crate::lifecycle::Lifecycle;
use crate::sandbox::Sandbox;

/// Descriptors a child is born with: the control socket, the log, then its listening sockets.
const CONTROL: i32 = 3;
const LOG: i32 = 4;
const FIRST_LISTENER: i32 = 5;

/// The most listening sockets of one service: as many addresses as `inet_interfaces` may name.
const MAX_LISTENERS: u32 = 256;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits.h.
const CONFIG: u8 = 78;
/// `EX_SOFTWARE` of sysexits.h.
const SOFTWARE: u8 = 70;

/// One service of master.cf, in this process: phase 1 (before drop) until one of its `serve_…` functions is called.
#[derive(Debug)]
pub struct Service {
    /// The service's name in master.cf: `smtp`, `127.0.0.1:10025`, `local` …
    pub name: String,
    /// The program's name.
    pub program: &'static str,
    /// The configuration, with this service's `-o` settings.
    pub config: Config,
    /// What follows the command in master.cf besides options.
    pub arguments: Vec<String>,
    /// The number of `-v` in master.cf.
    pub verbosity: u8,
    /// The wake-up interval of master.cf, for programs that look around by themselves.
    pub wakeup: Option<std::time::Duration>,
    /// Sessions or deliveries at a time; `None` for no limit.
    pub max_sessions: Option<u32>,
    /// What master says and asks.
    pub lifecycle: Arc<Lifecycle>,
    /// The listening sockets, non-blocking.
    pub listeners: Vec<Listener>,
    pub(crate) unprivileged: bool,
    /// Whom to become, where this process is root's and is to become somebody.
    pub(crate) owner: Option<User>,
    pub(crate) sandbox: Arc<Sandbox>,
}

/// Opens a file that this process may not open itself, or no longer.
pub type Opener = Box<dyn Fn(&Path) -> std::io::Result<File> + Send + Sync>;

impl Service {
    /// Has master open the files of [`ipc::control::key_files`]: keys that were renewed since this process gave up its rights.
    #[must_use]
    pub fn opener(&self) -> Opener {
        let lifecycle = Arc::clone(&self.lifecycle);
        Box::new(move |path: &Path| lifecycle.open(path))
    }
}

/// A listening socket that master opened.
#[derive(Debug)]
pub enum Listener {
    /// `inet`
    Tcp(TcpListener),
    /// `unix`
    Unix(UnixListener),
}

/// Where it listens.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("a port"),
            },
            Self::Unix(listener) => {
                match listener.local_addr().ok().as_ref().and_then(SocketAddr::as_pathname) {
                    Some(path) => write!(f, "{}", path.display()),
                    None => f.write_str("a socket"),
                }
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Runs a daemon: `fn main() -> ExitCode { service::daemon("smtpd", smtpd::run) }`.
///
/// With the argument `check` it judges a configuration instead; see [`ipc::check`].
pub fn daemon(program: &'static str, serve: fn(Service) -> Result<(), Fatal>) -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ipc::check::ARGUMENT) {
        return ipc::check::answer(|question| crate::judge(&question.config));
    }
    serve_as(program, serve)
}

/// As [`daemon`], for a program that has a judgement of its own.
pub fn daemon_with_judgement(
    program: &'static str,
    judge: fn(&ipc::check::Asked) -> Vec<config::Diagnostic>,
    serve: fn(Service) -> Result<(), Fatal>,
) -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ipc::check::ARGUMENT) {
        return ipc::check::answer(judge);
    }
    serve_as(program, serve)
}

fn serve_as(program: &'static str, serve: fn(Service) -> Result<(), Fatal>) -> ExitCode {
    let service = match birth(program) {
        Ok(service) => service,
        Err((code, text)) => {
            log::fatal!("{program}: {text}");
            log::flush();
            return ExitCode::from(code);
        }
    };
    let lifecycle = Arc::clone(&service.lifecycle);
    let result = serve(service);
    let code = match &result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fatal(text)) => {
            log::fatal!("{text}");
            ExitCode::from(SOFTWARE)
        }
    };
    lifecycle.finished();
    log::flush();
    code
}

fn birth(program: &'static str) -> Result<Service, (u8, String)> {
    let control = sys::descriptors::inherited(CONTROL).map(UnixStream::from);
    let log_file = sys::descriptors::inherited(LOG).map(File::from);
    let (Ok(control), Ok(log_file)) = (control, log_file) else {
        return Err((USAGE, "this program is run by the master process; use `postroad start`".into()));
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let mut receiver = Receiver::new();
    let (birth, config) = match read_birth(&control, &mut receiver) {
        Ok(read) => read,
        Err(why) => {
            let nothing = Snapshot { main_cf: Vec::new(), master_cf: Vec::new() };
            let (config, _) = Config::inspect(Path::new("/"), &nothing, &[]);
            start_log(&config, program, Some(log_file).filter(|file| !is_null(file)));
            return Err(why);
        }
    };
    let confined = confine(program, &birth, &config);
    // Also where it is to tell that the process must not go on.
    start_log(&config, program, birth.log_file.then_some(log_file));
    let (owner, sandbox) = confined.map_err(|error| (SOFTWARE, error.to_string()))?;
    if let Some(warning) = sandbox.warning() {
        log::warning!("{warning}");
    }
    let sandbox = Arc::new(sandbox);
    lookup::report_warnings_to(|text| log::warning!("{text}"));
    let listeners =
        take_listeners(birth.listeners).map_err(|e| (SOFTWARE, format!("listening sockets: {e}")))?;
    let lifecycle =
        Lifecycle::start(control, receiver, Arc::clone(&sandbox)).map_err(|e| (SOFTWARE, e.to_string()))?;
    Ok(Service {
        name: birth.service,
        program,
        config,
        arguments: birth.arguments,
        verbosity: birth.verbosity,
        wakeup: birth.wakeup,
        max_sessions: birth.max_sessions,
        lifecycle,
        listeners,
        unprivileged: birth.unprivileged,
        owner,
        sandbox,
    })
}

/// What master says first: who this process is to be, and by which configuration.
fn read_birth(control: &UnixStream, receiver: &mut Receiver) -> Result<(Birth, Config), (u8, String)> {
    let birth: Birth = match receiver.next_message(control) {
        Ok(Some(birth)) => birth,
        Ok(None) => return Err((SOFTWARE, "master went away".into())),
        Err(error) => return Err((SOFTWARE, format!("connection to master: {error}"))),
    };
    receiver.release();
    let config = Config::from_snapshot(&birth.config_directory, &birth.snapshot, &birth.overrides);
    let (config, _) = config.map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (CONFIG, list.join("; "))
    })?;
    Ok((birth, config))
}

/// The first step of the sandbox, before the log starts its thread: what holds for a thread does not reach those that there
/// are.
fn confine(program: &str, birth: &Birth, config: &Config) -> Result<(Option<User>, Sandbox), Fatal> {
    // Looked up before the process is confined to its files.
    let owner = birth.unprivileged.then(|| owner_of(config)).transpose()?.flatten();
    let sandbox = Sandbox::new(program, config, &birth.overrides, birth.unprivileged)?;
    if sandbox.starts_no_program() {
        // Where the system has no such thing, all works without.
        let _ = sys::process::interrupt_nobody();
    }
    sandbox.enter()?;
    Ok((owner, sandbox))
}

/// Whether this is no log but what stands in its place where lines go to syslog.
fn is_null(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
    file.metadata().is_ok_and(|found| null.is_ok_and(|null| found.rdev() == null))
}

/// `mail_owner`, where this process is root's.
fn owner_of(config: &Config) -> Result<Option<User>, Fatal> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let owner = config.get(param::MAIL_OWNER);
    let user = User::from_name(&owner).map_err(|e| Fatal::new(format!("look up mail_owner {owner}: {e}")))?;
    let missing =
        || Fatal::new(format!("mail_owner = {owner}: no such user; create it or name another in main.cf"));
    user.ok_or_else(missing).map(Some)
}

fn start_log(config: &Config, program: &str, file: Option<File>) {
    let facility = config.get(param::SYSLOG_FACILITY);
    log::init_daemon(log::Destination {
        name: format!("{}/{program}", config.get(param::SYSLOG_NAME)),
        file,
        facility: log::Facility::from_name(&facility).unwrap_or(log::Facility::MAIL),
        stderr: false,
    });
}

fn take_listeners(count: u32) -> std::io::Result<Vec<Listener>> {
    (FIRST_LISTENER..).zip(0..count.min(MAX_LISTENERS)).map(|(number, _)| take_listener(number)).collect()
}

fn take_listener(number: i32) -> std::io::Result<Listener> {
    use std::os::fd::AsRawFd;
    let socket: OwnedFd = sys::descriptors::inherited(number)?;
    let address: SockaddrStorage = socket::getsockname(socket.as_raw_fd())?;
    if address.family() == Some(AddressFamily::Unix) {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        return Ok(Listener::Unix(listener));
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(listener))
}

impl Service {
    /// `queue_directory`.
    #[must_use]
    pub fn queue_directory(&self) -> PathBuf {
        self.config.get(param::QUEUE_DIRECTORY)
    }

    /// Why a program ends that cannot open the queue.
    #[must_use]
    pub fn without_queue(&self, error: &std::io::Error) -> Fatal {
        Fatal::new(format!("open {}: {error}", self.queue_directory().display()))
    }

    /// Where the socket of another service is: `queue_directory/private/NAME`, or `public/NAME`.
    #[must_use]
    pub fn socket_of(&self, private: bool, service: &str) -> PathBuf {
        ipc::socket_path(Path::new(&self.queue_directory()), private, service)
    }

    /// The client of this instance's cleanup service.
    #[must_use]
    pub fn cleanup(&self) -> ipc::cleanup::Client {
        let name = self.config.get(param::CLEANUP_SERVICE_NAME);
        ipc::cleanup::Client::new(self.socket_of(false, &name))
    }

    /// The client of this instance's queue manager.
    #[must_use]
    pub fn queue_manager(&self) -> ipc::queue_manager::Client {
        let name = self.config.get(param::QUEUE_SERVICE_NAME);
        ipc::queue_manager::Client::new(self.socket_of(false, &name))
    }

    /// How many open files the system would allow this process; none where it does not say.
    #[must_use]
    pub fn most_files() -> Option<u64> {
        sys::process::most_files().ok()
    }

    /// Lets this process have as many open files as the system allows it, for who has one for each message or session;
    /// gives the number. What it starts would inherit that, which some programs do not expect.
    #[must_use]
    pub fn allow_most_files(&self) -> Option<u64> {
        let allowed = sys::process::allow_most_files();
        allowed.inspect_err(|error| log::warning!("raise the limit of open files: {error}")).ok()
    }

    /// Phase 2: becomes `mail_owner` where master.cf says so and this process is root's, and confines the process for
    /// good. The `serve_…` functions call it; a program with a loop of its own (qmgr, pickup) calls it itself.
    ///
    /// # Errors
    /// A system call that fails. The program must end then.
    pub fn drop_privileges(&self) -> Result<(), Fatal> {
        if let Some(owner) = &self.owner {
            sys::credentials::drop_privileges(owner.uid, owner.gid, &[owner.gid])?;
        }
        if self.unprivileged {
            crate::sandbox::forbid_new_privileges()?;
        }
        self.sandbox.finish()
    }
}
