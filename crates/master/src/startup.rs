//! From the command line to a [`Supervisor`]: configuration, lock, log, signals, sockets.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use config::{Config, Diagnostic, Severity, Snapshot, param};
use ipc::log;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::notifier::Notifier;
use crate::supervisor::Supervisor;

/// Where `postroad start` waits to hear how the start went.
const REPORT: i32 = 3;

static REPORT_TO: Mutex<Option<File>> = Mutex::new(None);

/// The command line.
pub(crate) struct Options {
    /// Where main.cf and master.cf are.
    pub(crate) directory: PathBuf,
    /// Log to standard error as well, and let the programs write there.
    pub(crate) foreground: bool,
}

/// The configuration of one generation.
pub(crate) struct Generation {
    pub(crate) config: Config,
    pub(crate) snapshot: Snapshot,
}

/// Does all that can fail before the first program is started.
pub(crate) fn prepare(arguments: impl Iterator<Item = OsString>) -> io::Result<Supervisor> {
    close_inherited()?;
    if let Ok(report) = sys::descriptors::inherited(REPORT) {
        *REPORT_TO.lock().unwrap_or_else(PoisonError::into_inner) = Some(File::from(report));
    }
    // Who starts us may have any; what is secret is made with its own mode.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let mut options = parse(arguments)?;
    options.foreground &= !Notifier::is_expected();
    let (generation, problems) = read_generation(&options.directory).map_err(|problems| refuse(&problems))?;
    let queue_directory: PathBuf = generation.config.get(param::QUEUE_DIRECTORY);
    let lock = lock_pid_file(&queue_directory)?;
    let log_file = open_log(&generation.config)?;
    // Before the log starts its thread: a thread that does not block a signal is the one to be killed by it.
    let signals = take_signals()?;
    start_log(&generation.config, log_file.as_ref(), options.foreground)?;
    problems.iter().for_each(log_diagnostic);
    Supervisor::new(options, generation, lock, log_file, signals)
}

/// Closes what whoever starts us has open besides the way of the report: daemons would have it, too.
fn close_inherited() -> io::Result<()> {
    match sys::descriptors::close_inherited(REPORT.unsigned_abs() + 1) {
        // A kernel before 5.9 cannot.
        Err(e) if e.kind() != io::ErrorKind::Unsupported => {
            Err(io::Error::new(e.kind(), format!("close inherited descriptors: {e}")))
        }
        _ => Ok(()),
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> io::Result<Options> {
    let mut options = Options { directory: PathBuf::from("/etc/postroad"), foreground: false };
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-c") => options.directory = arguments.next().ok_or_else(usage)?.into(),
            Some("-f") => options.foreground = true,
            _ => return Err(usage()),
        }
    }
    Ok(options)
}

fn usage() -> io::Error {
    io::Error::other("usage: master [-c config_dir] [-f]; use `postroad start`")
}

/// Reads and checks main.cf and master.cf.
pub(crate) fn read_generation(directory: &Path) -> Result<(Generation, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (snapshot, mut problems) = Snapshot::read_to_run(directory)?;
    let (config, more) = Config::from_snapshot(directory, &snapshot, &[])?;
    problems.extend(more);
    ask_programs(&config, &snapshot, &mut problems)?;
    Ok((Generation { config, snapshot }, problems))
}

/// Has the programs judge what only they know.
fn ask_programs(
    config: &Config,
    snapshot: &Snapshot,
    problems: &mut Vec<Diagnostic>,
) -> Result<(), Vec<Diagnostic>> {
    let found = ipc::check::ask_all(config, snapshot).map_err(|error| {
        let file = config.directory().join("master.cf");
        vec![Diagnostic { severity: Severity::Error, file, line: 0, text: error.to_string() }]
    })?;
    if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(found);
    }
    problems.extend(found);
    Ok(())
}

fn refuse(problems: &[Diagnostic]) -> io::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    io::Error::other(lines.join("\n"))
}

pub(crate) fn log_diagnostic(problem: &Diagnostic) {
    match problem.severity {
        Severity::Error => log::error!("{problem}"),
        Severity::Warning => log::warning!("{problem}"),
        Severity::Note => log::info!("{problem}"),
    }
}

/// Takes the lock that says that this instance runs; it is held as long as the file is open.
fn lock_pid_file(queue_directory: &Path) -> io::Result<File> {
    let path = ipc::master::pid_file(queue_directory);
    let at = |what: &'static str| {
        let path = path.display().to_string();
        move |e: io::Error| io::Error::new(e.kind(), format!("{what} {path}: {e}"))
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(at("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = std::fs::read_to_string(&path).unwrap_or_default();
            let text = format!("the mail system is already running, pid {}", owner.trim());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Err(TryLockError::Error(error)) => return Err(at("lock")(error)),
    }
    let own = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(own.as_bytes())).map_err(at("write"))?;
    Ok(file)
}

/// Opens `maillog_file`; `None` where lines go to syslog.
pub(crate) fn open_log(config: &Config) -> io::Result<Option<File>> {
    let path: PathBuf = config.get(param::MAILLOG_FILE);
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    // The table of parameters keeps it to what a log may be.
    let mode = u32::from_str_radix(&config.get(param::MAILLOG_FILE_PERMISSIONS), 8).unwrap_or(0o600);
    let file = OpenOptions::new().append(true).create(true).mode(mode).open(&path);
    file.map(Some).map_err(|e| io::Error::new(e.kind(), format!("open maillog_file {}: {e}", path.display())))
}

/// Another descriptor of the log, for somebody else.
pub(crate) fn copy_of_log(file: &File) -> io::Result<File> {
    file.try_clone()
        .map_err(|e| io::Error::new(e.kind(), format!("duplicate the descriptor of maillog_file: {e}")))
}

fn start_log(config: &Config, file: Option<&File>, foreground: bool) -> io::Result<()> {
    let facility = config.get(param::SYSLOG_FACILITY);
    log::init_daemon(log::Destination {
        name: format!("{}/master", config.get(param::SYSLOG_NAME)),
        file: file.map(copy_of_log).transpose()?,
        facility: log::Facility::from_name(&facility).unwrap_or(log::Facility::MAIL),
        stderr: foreground,
    });
    Ok(())
}

/// Signals arrive through a descriptor: the loop handles them between two steps, never within one.
fn take_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|s| set.add(s));
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = set.thread_block().and_then(|()| SignalFd::with_flags(&set, flags));
    signals.map_err(|e| io::Error::other(format!("open a descriptor for signals: {}", io::Error::from(e))))
}

/// Tells `postroad start` that the mail system is up.
pub(crate) fn report_success() {
    drop(REPORT_TO.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Tells `postroad start` why it is not.
pub(crate) fn report_failure(error: &io::Error) {
    if let Some(mut report) = REPORT_TO.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Who started us may be gone; the log has the reason as well.
        let _ = writeln!(report, "{}", config::cause(error));
    }
}
