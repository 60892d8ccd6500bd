//! Which errors take the place of which calls.

use std::collections::BTreeMap;
use std::fmt;

use scenarios::Tracing;

/// The calls that are recorded: those of [`ERRORS`].
pub(super) const CALLS: &str = "open,openat,write,writev,pwrite64,pwritev,read,pread64,fsync,fdatasync,rename,\
    renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,chmod,fchmod,fchmodat,ftruncate,fallocate,stat,lstat,\
    fstat,newfstatat,statx,getdents64,socket,accept4,pipe2,connect,sendto,sendmsg,recvfrom,recvmsg,clone,clone3,\
    flock,poll,ppoll,epoll_wait,fcntl,setsockopt,socketpair,chdir,setpgid,dup2,execve,pidfd_open,sync_file_range";

/// More of them, which a program makes when it starts.
pub(super) const CALLS_OF_A_START: &str = "bind,listen,signalfd4,eventfd2,chown,fchown,fchownat";

/// Those that confine a daemon.
pub(super) const CALLS_OF_THE_SANDBOX: &str = "prctl,prlimit64,seccomp,landlock_create_ruleset,landlock_add_rule,landlock_restrict_self,sched_setscheduler";

const STORE: &[&str] = &["ENOSPC", "EIO", "EDQUOT", "EINTR"];
const SYNC: &[&str] = &["EIO", "ENOSPC", "EDQUOT"];
const NAME: &[&str] = &["EIO", "EROFS", "ENOSPC"];
const DESCRIPTOR: &[&str] = &["EMFILE", "ENFILE"];
const TALK: &[&str] = &["ECONNRESET", "EINTR", "ENOBUFS"];

/// The errors of each call.
const ERRORS: [(&str, &[&str]); 66] = [
    ("open", &["ENOSPC", "EMFILE", "ENFILE", "EDQUOT", "EROFS", "EIO"]),
    ("openat", &["ENOSPC", "EMFILE", "ENFILE", "EDQUOT", "EROFS", "EIO"]),
    ("write", STORE),
    ("writev", STORE),
    ("pwrite64", STORE),
    ("pwritev", STORE),
    ("read", &["EIO", "EINTR"]),
    ("pread64", &["EIO", "EINTR"]),
    ("fsync", SYNC),
    ("fdatasync", SYNC),
    ("rename", NAME),
    ("renameat", NAME),
    ("renameat2", NAME),
    ("link", NAME),
    ("linkat", NAME),
    ("unlink", NAME),
    ("unlinkat", NAME),
    ("mkdir", NAME),
    ("mkdirat", NAME),
    ("chmod", NAME),
    ("fchmod", NAME),
    ("fchmodat", NAME),
    ("ftruncate", NAME),
    ("fallocate", NAME),
    ("stat", &["EIO"]),
    ("lstat", &["EIO"]),
    ("fstat", &["EIO"]),
    ("newfstatat", &["EIO"]),
    ("statx", &["EIO"]),
    ("getdents64", &["EIO"]),
    ("socket", DESCRIPTOR),
    ("accept4", DESCRIPTOR),
    ("pipe2", DESCRIPTOR),
    ("connect", &["ECONNREFUSED", "EAGAIN"]),
    ("sendto", TALK),
    ("sendmsg", TALK),
    ("recvfrom", TALK),
    ("recvmsg", &["ECONNRESET", "EINTR"]),
    ("clone", &["EAGAIN"]),
    ("clone3", &["EAGAIN"]),
    ("flock", &["ENOLCK", "EINTR"]),
    ("poll", &["EINTR"]),
    ("ppoll", &["EINTR"]),
    ("pidfd_open", DESCRIPTOR),
    ("setpgid", &["EACCES"]),
    ("dup2", &["EIO"]),
    ("execve", &["EIO", "EAGAIN"]),
    ("bind", &["EADDRINUSE", "EACCES"]),
    ("listen", &["EADDRINUSE"]),
    ("setsockopt", &["ENOBUFS"]),
    ("socketpair", DESCRIPTOR),
    ("signalfd4", DESCRIPTOR),
    ("eventfd2", DESCRIPTOR),
    ("fcntl", &["EMFILE"]),
    ("chdir", &["EIO", "EACCES"]),
    ("chown", NAME),
    ("fchown", NAME),
    ("fchownat", NAME),
    ("prctl", &["EPERM"]),
    ("prlimit64", &["EPERM"]),
    ("seccomp", &["ENOMEM"]),
    ("landlock_create_ruleset", &["EMFILE"]),
    ("landlock_add_rule", &["ENOMEM"]),
    ("landlock_restrict_self", &["EPERM"]),
    ("sched_setscheduler", &["EPERM"]),
    ("sync_file_range", SYNC),
];

/// What the C library says to an error.
const CAUSES: [(&str, &str); 16] = [
    ("ENOSPC", "No space left on device"),
    ("EIO", "nput/output error"),
    ("EDQUOT", "quota exceeded"),
    ("EMFILE", "Too many open files"),
    ("ENFILE", "Too many open files in system"),
    ("EROFS", "Read-only file system"),
    ("ECONNRESET", "onnection"),
    ("ENOBUFS", "No buffer space"),
    ("ECONNREFUSED", "Connection refused"),
    ("EAGAIN", "temporarily unavailable"),
    ("ENOLCK", "No locks available"),
    ("EADDRINUSE", "already in use"),
    ("EACCES", "ermission denied"),
    ("EINTR", "Interrupted"),
    ("EPERM", "peration not permitted"),
    ("ENOMEM", "annot allocate memory"),
];

/// One fault.
pub(super) struct Point {
    call: String,
    error: &'static str,
    number: usize,
    /// Every call from this one on.
    lasts: bool,
}

/// The points of a program that makes so many calls of each kind.
pub(super) fn points_of(calls: &BTreeMap<String, usize>, all: bool) -> Vec<Point> {
    let mut points = Vec::new();
    for (call, most) in calls {
        let errors = ERRORS.iter().find(|(name, _)| name == call).map_or(&[][..], |(_, errors)| errors);
        let point = |error, number, lasts| Point { call: call.clone(), error, number, lasts };
        if !all {
            points.extend(one_of(call, errors).map(|error| point(error, 1, error != "EINTR")));
            continue;
        }
        for error in errors {
            points.extend((1..=*most).map(|number| point(error, number, false)));
            // What is interrupted for ever is a machine that hangs.
            if *error != "EINTR" {
                points.push(point(error, 1, true));
                points.push(point(error, 2, true));
            }
        }
    }
    points
}

/// The error of a call in the short run: each error has its turn at some of the calls. What is interrupted is of interest
/// only where nothing else can happen.
fn one_of(call: &str, errors: &[&'static str]) -> Option<&'static str> {
    let lasting: Vec<_> = errors.iter().filter(|error| **error != "EINTR").collect();
    let place = ERRORS.iter().position(|(name, _)| *name == call).unwrap_or_default();
    lasting.get(place % lasting.len().max(1)).or(errors.first().as_ref()).copied().copied()
}

impl Point {
    /// The name of the call that fails.
    pub(super) fn call(&self) -> &str {
        &self.call
    }

    /// The name of the error.
    pub(super) fn error(&self) -> &str {
        self.error
    }

    pub(super) fn tracing(&self) -> Tracing {
        Tracing {
            calls: self.call.clone(),
            fault: Some(format!("{}:error={}", self.call, self.error)),
            when: format!("{}{}", self.number, if self.lasts { "+" } else { "" }),
            ..Tracing::default()
        }
    }

    /// The same, after so many calls of each kind.
    pub(super) fn behind(mut self, calls: &BTreeMap<String, usize>) -> Self {
        self.number += calls.get(&self.call).copied().unwrap_or(0);
        self
    }

    /// Whether it lies behind so many calls of each kind.
    pub(super) fn is_after(&self, calls: &BTreeMap<String, usize>) -> bool {
        self.number > calls.get(&self.call).copied().unwrap_or(0)
    }

    /// Whether a command cannot even say what it suffers from.
    pub(super) fn silences(&self) -> bool {
        self.call == "write" && self.lasts
    }

    /// Whether every call fails from this one on.
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }

    /// What the log says of it.
    pub(super) fn cause(&self) -> &'static str {
        CAUSES.iter().find(|(error, _)| *error == self.error).map_or("?", |(_, cause)| cause)
    }

    /// Whether a line of the log says what failed and why: the cause, and before it a path, a table, or who was at the
    /// other end. Of a connection that the other end breaks in a conversation it is said that it is lost, with whom, and when.
    pub(super) fn is_told_by(&self, line: &str) -> bool {
        // What is said before there is a log has no date and no name.
        let text = line.split_once("]: ").or_else(|| line.split_once("fatal: ")).map_or("", |(_, text)| text);
        if self.error == "ECONNRESET"
            && ["lost connection ", "HANGUP "].iter().any(|word| text.contains(word))
        {
            return true;
        }
        let Some((before, _)) = text.rsplit_once(self.cause()) else { return false };
        const OBJECTS: [&str; 16] = [
            "/",
            "folder ",
            "bind ",
            "table ",
            "connection",
            "client",
            "service",
            "reply to ",
            "descriptor",
            "look",
            "thread",
            "sandbox",
            "transport",
            "sockets",
            "_connect error to",
            "_accept error from",
        ];
        OBJECTS.iter().any(|object| before.contains(object))
    }

    /// Whether one of these lines says so.
    pub(super) fn is_told_in(&self, log: &str) -> bool {
        log.lines().any(|line| self.is_told_by(line))
    }

    /// What is interrupted is done again, and nobody need know.
    pub(super) fn is_worth_a_line(&self) -> bool {
        self.error != "EINTR"
    }

    /// Whether a client may be told this: not for good, and a full disk by its name.
    pub(super) fn may_be_answered(&self, reply: &str) -> bool {
        match reply.split_whitespace().collect::<Vec<_>>()[..] {
            // The connection is gone, or a command ended with a status that asks to try again.
            ["lost", ..] | ["sendmail", "75" | "71", ..] => true,
            [code, "4.3.1", ..] => code == "452" && ["ENOSPC", "EDQUOT"].contains(&self.error),
            [code, dsn, ..] => ["421", "450", "451", "454"].contains(&code) && dsn.starts_with("4."),
            _ => false,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{} {}", self.call, self.number, if self.lasts { "+" } else { "" }, self.error)
    }
}
