//! Why a command ends without having done its work, and the exit code that says so (sysexits.h).

use std::fmt;
use std::io::Write as _;

use nix::syslog::{Facility, LogFlags, Severity};

/// What kind of failure; the numbers of sysexits.h, which mail programs look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Wrong options or arguments (`EX_USAGE`).
    Usage = 64,
    /// The message cannot be taken as it is (`EX_DATAERR`).
    Data = 65,
    /// The invoking user is unknown (`EX_NOUSER`).
    NoUser = 67,
    /// Not offered, or the mail system does not do it now (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A bug, or something the system should provide is missing (`EX_SOFTWARE`).
    Software = 70,
    /// The system refused something basic (`EX_OSERR`).
    System = 71,
    /// Try again later; nothing was taken (`EX_TEMPFAIL`).
    Temporary = 75,
    /// The user may not do this (`EX_NOPERM`).
    NotPermitted = 77,
    /// The configuration cannot be used (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The kind of failure that another program of the suite ended with.
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        use Exit::{Config, Data, NoUser, NotPermitted, Software, System, Temporary, Unavailable, Usage};
        let all = [Usage, Data, NoUser, Unavailable, Software, System, Temporary, NotPermitted, Config];
        all.into_iter().find(|exit| *exit as i32 == code)
    }
}

/// The end of a command: the exit code and the one line that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// Operation, object, cause.
    pub(crate) text: String,
}

impl Failure {
    /// A failure with its reason.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Tells the user and the mail log, and gives the code to end with.
    pub(crate) fn report(&self, program: &str) -> u8 {
        say(program, Severity::LOG_CRIT, "fatal", &self.text);
        self.exit as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Tells the user and the mail log of something that does not stop the program.
pub(crate) fn warn(program: &str, text: &str) {
    say(program, Severity::LOG_WARNING, "warning", text);
}

/// Standard error and syslog. The C library's syslog is used, not the log of the daemons: this program may be set-gid,
/// and its C library already knows which parts of the environment not to trust then.
fn say(program: &str, severity: Severity, word: &str, text: &str) {
    let text: String =
        config::without_numbers(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    // Nobody can be told that standard error is closed.
    let _ = std::io::stderr().write_all(format!("{program}: {word}: {text}\n").as_bytes());
    let ident = format!("postroad/{program}");
    if let Ok(ident) = std::ffi::CString::new(ident) {
        let ident: &'static std::ffi::CStr = Box::leak(ident.into_boxed_c_str());
        let _ = nix::syslog::openlog(Some(ident), LogFlags::LOG_PID, Facility::LOG_MAIL);
        let _ = nix::syslog::syslog(severity, &format!("{word}: {text}"));
    }
}
