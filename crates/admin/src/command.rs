//! How the commands of the queue begin and end: the instance they are about, and the exit code that says why they failed.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use config::{Config, Severity, Snapshot, param};
use ipc::log;
use nix::unistd::{getegid, geteuid, getgid, getuid, setresgid, setresuid};

/// What kind of failure; the numbers of sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Wrong options or arguments (`EX_USAGE`).
    Usage = 64,
    /// Not a queue file (`EX_DATAERR`).
    Data = 65,
    /// No such message, no such file (`EX_NOINPUT`).
    NoInput = 66,
    /// The mail system is down, or did not do what it was asked (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The system refused something (`EX_OSERR`).
    System = 71,
    /// The user may not do this (`EX_NOPERM`).
    NotPermitted = 77,
    /// The configuration cannot be used (`EX_CONFIG`).
    Config = 78,
}

/// Why a command ends without having done its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// What went wrong while output was written; a reader that closed the pipe has seen what it wanted.
    pub(crate) fn of_output(error: &io::Error) -> Option<Self> {
        let text = || format!("write the output: {error}");
        (error.kind() != io::ErrorKind::BrokenPipe).then(|| Self::new(Exit::System, text()))
    }
}

/// Parses the command line, runs the command, and tells why it failed.
pub(crate) fn run<T: Parser>(program: &str, command: impl FnOnce(T) -> Result<(), Failure>) -> ExitCode {
    let arguments = match T::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody can be told that standard error is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    log::init_command(program);
    match command(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::fatal!("{}", failure.text);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// The configuration of the instance that `-c`, else `MAIL_CONFIG`, else the default says. A mistake in it is told, and
/// keeps nobody from the queue.
pub(crate) fn configuration(directory: Option<PathBuf>) -> Result<Config, Failure> {
    let environment = || std::env::var_os("MAIL_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = directory.or_else(environment).unwrap_or_else(|| default_directory().to_owned());
    give_up_rights_for(&directory)?;
    load(&directory)
}

fn default_directory() -> &'static Path {
    Path::new(param::CONFIG_DIRECTORY.row().default)
}

fn load(directory: &Path) -> Result<Config, Failure> {
    let is_error = |remark: &config::Diagnostic| remark.severity == Severity::Error;
    let (snapshot, _) = Snapshot::read(directory).map_err(|remarks| {
        let first = remarks.into_iter().find(is_error);
        Failure::new(Exit::Config, first.map_or_else(String::new, |remark| remark.to_string()))
    })?;
    // What daemons do is none of a command's business.
    let snapshot = Snapshot { master_cf: Vec::new(), ..snapshot };
    let (config, remarks) = Config::inspect(directory, &snapshot, &[]);
    remarks.iter().filter(|remark| is_error(remark)).for_each(|remark| log::warning!("{remark}"));
    Ok(config)
}

/// A set-gid program believes the default instance and those that its main.cf lists; for another one it may do what
/// its user may do. Otherwise anybody could have it talk to any socket that its group may talk to.
fn give_up_rights_for(directory: &Path) -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    let has_rights_of_others = geteuid() != uid || getegid() != gid;
    if !has_rights_of_others || uid.is_root() || is_trusted(directory) {
        return Ok(());
    }
    let given_up = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
    given_up.map_err(|error| Failure::new(Exit::System, format!("give up set-gid rights: {error}")))
}

fn is_trusted(directory: &Path) -> bool {
    directory == default_directory()
        // A main.cf that cannot be read lists nobody.
        || load(default_directory()).is_ok_and(|config| {
            let listed = config.get(param::ALTERNATE_CONFIG_DIRECTORIES).into_iter();
            listed.chain(config.get(param::MULTI_INSTANCE_DIRECTORIES)).any(|item| Path::new(&item) == directory)
        })
}

/// `1 message`, `2 messages`: as log tools read it.
pub(crate) fn messages(count: u64) -> String {
    format!("{count} message{}", if count == 1 { "" } else { "s" })
}

/// An operation of the queue crate that failed.
pub(crate) fn queue_failed(exit: Exit) -> impl Fn(&dyn Display) -> Failure {
    move |error| Failure::new(exit, error.to_string())
}
