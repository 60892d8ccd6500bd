//! The mail log: where lines go, and ([`verbs`]) the words of it that log tools read.
//!
//! A daemon's lines are gathered by a thread of their own that writes what has come together in one call, so that a
//! message never waits for its log. A command writes at once, to standard error and syslog. Lines have the form of
//! Postfix's: `Mmm dd hh:mm:ss host syslog_name/program[pid]: text`.
//!
//! What log tools need of the order of a message's lines, which many programs write, is kept by time ([`order`]): who says
//! something later in a message's life holds its lines back for a while.

mod order;
mod sink;
mod verbs;
mod zone;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

pub use sink::Facility;
pub use verbs::*;
pub use zone::{now, zone};

use order::{Gathered, Held};
use sink::{Pending, Sinks};

/// How bad a line is; the word before its text, and the syslog severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Normal work.
    Info,
    /// Something an operator may want to look at.
    Warning,
    /// Something is wrong; the program goes on.
    Error,
    /// Something is wrong and the program ends.
    Fatal,
    /// A bug.
    Panic,
}

impl Level {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Info => "",
            Self::Warning => "warning: ",
            Self::Error => "error: ",
            Self::Fatal => "fatal: ",
            Self::Panic => "panic: ",
        }
    }

    /// The severity of RFC 5424 section 6.2.1.
    const fn severity(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
            Self::Fatal | Self::Panic => 2,
        }
    }
}

/// Where the lines of this process go.
#[derive(Debug)]
pub struct Destination {
    /// `syslog_name/program`.
    pub name: String,
    /// The file that `maillog_file` names, open for appending; syslog where there is none.
    pub file: Option<File>,
    /// `syslog_facility`.
    pub facility: Facility,
    /// Whether lines go to standard error, too.
    pub stderr: bool,
}

struct Log {
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// Lines that wait for their time, and where they go then.
    sinks: Mutex<(Held, Sinks)>,
    /// A thread writes; otherwise each line is written where it is made.
    gathered: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// Logs an informational line; formats like `format!`.
#[macro_export]
macro_rules! info {
    ($($part:tt)*) => { $crate::log::line($crate::log::Level::Info, ::std::format_args!($($part)*)) };
}

/// Logs a warning; formats like `format!`.
#[macro_export]
macro_rules! warning {
    ($($part:tt)*) => { $crate::log::line($crate::log::Level::Warning, ::std::format_args!($($part)*)) };
}

/// Logs an error that the program survives; formats like `format!`.
#[macro_export]
macro_rules! error {
    ($($part:tt)*) => { $crate::log::line($crate::log::Level::Error, ::std::format_args!($($part)*)) };
}

/// Logs the error a program ends with; formats like `format!`. The caller ends it.
#[macro_export]
macro_rules! fatal {
    ($($part:tt)*) => { $crate::log::line($crate::log::Level::Fatal, ::std::format_args!($($part)*)) };
}

pub use crate::{error, fatal, info, warning};

/// Starts a daemon's log: lines are gathered and written by a thread. Later calls change nothing.
pub fn init_daemon(destination: Destination) {
    let log = Arc::new(Log::new(destination, true));
    if LOG.set(Arc::clone(&log)).is_ok() {
        let shared = Arc::clone(&log);
        // Without the thread the lines would stay in memory; then each caller writes them (see `line`).
        let writer = std::thread::Builder::new().name("log".into()).stack_size(128 * 1024);
        match writer.spawn(move || shared.write_as_they_come()) {
            Ok(writer) => *log.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer),
            Err(error) => {
                log.gathered.store(false, Ordering::Relaxed);
                let text =
                    format_args!("start the thread of the log: {error}; each line is written as it comes");
                line(Level::Warning, text);
            }
        }
    }
}

/// Starts a command's log: `PROGRAM: text` to standard error, and to syslog under `postroad/PROGRAM`, at once.
/// Later calls change nothing.
pub fn init_command(program: &str) {
    let name = format!("postroad/{program}");
    let destination = Destination { name, file: None, facility: Facility::MAIL, stderr: true };
    let _ = LOG.set(Arc::new(Log::new(destination, false)));
}

/// Writes from now on to another file (after log rotation).
pub fn replace_file(file: File) {
    if let Some(log) = LOG.get() {
        flush();
        log.sinks.lock().unwrap_or_else(PoisonError::into_inner).1.replace_file(file);
    }
}

/// Writes what is still in memory; called before a daemon ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.write_pending();
    }
}

thread_local! {
    /// In place of the process's own name, where it is set.
    static SPEAKER: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// This thread's lines are logged under another name (`syslog_name/program`) from now on: for a process that does the
/// work of several of Postfix's, whose lines log tools tell apart by it.
pub fn speak_as(name: Option<Arc<str>>) {
    SPEAKER.with(|speaker| *speaker.borrow_mut() = name);
}

/// As whom this thread logs, if not as the process: for a thread that works for it.
#[must_use]
pub fn speaker() -> Option<Arc<str>> {
    SPEAKER.with(|speaker| speaker.borrow().clone())
}

/// Logs one line. Control characters in it are shown as `?`, so that no peer can forge a line.
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    say(level, text, false);
}

/// `is_last`: the last line of a message.
fn say(level: Level, text: fmt::Arguments<'_>, is_last: bool) {
    let Some(log) = LOG.get() else {
        // Before the log is set up, or in a test: standard error.
        sink::to_stderr(level, text);
        return;
    };
    let wake = SPEAKER.with(|speaker| {
        let speaker = speaker.try_borrow().ok();
        let name = speaker.as_ref().and_then(|speaker| speaker.as_deref());
        log.pending.lock().unwrap_or_else(PoisonError::into_inner).push(level, name, text, is_last)
    });
    if !log.gathered.load(Ordering::Relaxed) || matches!(level, Level::Fatal | Level::Panic) {
        log.write_pending();
    } else if wake {
        log.arrived.notify_one();
    }
}

impl Log {
    fn new(destination: Destination, gathered: bool) -> Self {
        let (pending, held) = (Pending::new(&destination), Held::new(&destination.name));
        Self {
            pending: Mutex::new(pending),
            arrived: Condvar::new(),
            sinks: Mutex::new((held, Sinks::new(destination))),
            gathered: AtomicBool::new(gathered),
            writer: Mutex::new(None),
        }
    }

    /// The writer thread's life. It pauses a moment after each write: lines of the next few milliseconds then share
    /// one call instead of waking it one by one.
    fn write_as_they_come(&self) {
        let mut next = None;
        loop {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.set_asleep(true);
            let is_empty = |pending: &mut Pending| pending.is_empty();
            let mut pending = match next {
                None => self.arrived.wait_while(pending, is_empty).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = Instant::saturating_duration_since(&due, Instant::now());
                    let waited = self.arrived.wait_timeout_while(pending, left, is_empty);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            pending.set_asleep(false);
            drop(pending);
            next = self.write_due();
            std::thread::sleep(order::STEP);
        }
    }

    /// Takes all lines, and writes those whose time has come; when the next one's does.
    fn write_due(&self) -> Option<Instant> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, sinks) = &mut *sinks;
        let due = held.due(self.take(sinks), Instant::now());
        due.into_iter().for_each(|batch| sinks.write(batch));
        held.next()
    }

    /// Takes all lines and writes them; the sinks' lock is taken first so that batches keep their order.
    fn write_pending(&self) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, sinks) = &mut *sinks;
        let all = held.end(self.take(sinks));
        all.into_iter().for_each(|batch| sinks.write(batch));
    }

    fn take(&self, sinks: &mut Sinks) -> Gathered {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take(sinks.spare())
    }
}
