//! Lines gathered in memory, and the file, syslog and standard error they are written to.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::order::Gathered;
use super::{Destination, Level};

/// What is kept in memory at most while the disk or syslog does not take it; beyond it lines are counted, not kept.
const MAX_PENDING: usize = 4 * 1024 * 1024;

/// The longest line, as in Postfix; the rest is cut.
const MAX_LINE: usize = 2048;

const SYSLOG: &str = "/dev/log";

/// A syslog facility: RFC 5424 section 6.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// `mail`.
    pub const MAIL: Self = Self(2);

    /// From the name that `syslog_facility` may have.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMES: [&str; 12] = [
            "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
            "ftp",
        ];
        let known = NAMES.iter().zip(0..).find(|(known, _)| **known == name).map(|(_, number)| Self(number));
        let local = || {
            let digit = name.strip_prefix("local").filter(|rest| rest.len() == 1)?.parse::<u8>().ok()?;
            (digit < 8).then_some(Self(16 + digit))
        };
        known.or_else(local)
    }
}

/// A line's place in [`Pending`].
#[derive(Debug, Clone, Copy)]
struct Mark {
    severity: u8,
    /// Where the line ends in the text; its newline is the last byte.
    end: usize,
    /// Where `name[pid]: text` begins, behind the time and the host.
    tag: usize,
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: String,
    marks: Vec<Mark>,
    lost: usize,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.lost == 0
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        let marks =
            if text.is_empty() { Vec::new() } else { vec![Mark { severity: 6, end: text.len(), tag: 0 }] };
        Self { text: text.to_owned(), marks, lost: 0 }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// The gathering side: formats lines as they are made.
#[derive(Debug)]
pub(super) struct Pending {
    gathered: Gathered,
    host: String,
    /// `name[pid]: `
    tag: String,
    name_length: usize,
    zone: TimeZone,
    /// The second whose text `stamp` holds: most lines share it with the line before.
    second: i64,
    stamp: String,
    /// The writer waits for a line, and nobody has woken it yet.
    asleep: bool,
}

impl Pending {
    pub(super) fn new(destination: &Destination) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
        let host = host.split('.').next().unwrap_or_default().to_owned();
        let tag = format!("{}[{}]: ", destination.name, std::process::id());
        let zone = super::zone();
        let name_length = destination.name.len();
        Self {
            gathered: Gathered::default(),
            host,
            tag,
            name_length,
            zone,
            second: i64::MIN,
            stamp: String::new(),
            asleep: false,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.gathered.usual.is_empty() && self.gathered.last.is_empty()
    }

    /// The writer waits from now on, or works again.
    pub(super) const fn set_asleep(&mut self, asleep: bool) {
        self.asleep = asleep;
    }

    /// Adds a line; tells whether the writer waits for it and must be woken.
    /// `name` stands for the process's own. `is_last`: it is the last one of a message.
    pub(super) fn push(
        &mut self,
        level: Level,
        name: Option<&str>,
        text: fmt::Arguments<'_>,
        is_last: bool,
    ) -> bool {
        self.stamp_now();
        let Gathered { usual, last } = &mut self.gathered;
        let batch = if is_last { last } else { usual };
        if batch.text.len() > MAX_PENDING {
            batch.lost += 1;
            return false;
        }
        let out = &mut batch.text;
        out.push_str(&self.stamp);
        out.push_str(&self.host);
        out.push(' ');
        let tag = out.len();
        match name {
            Some(name) => {
                out.push_str(name);
                out.push_str(&self.tag[self.name_length..]);
            }
            None => out.push_str(&self.tag),
        }
        out.push_str(level.prefix());
        // Writing into a String does not fail; a Display that does has said what it could.
        let begin = out.len();
        let _ = Printable { out, room: MAX_LINE }.write_fmt(text);
        if let Cow::Owned(readable) = config::without_numbers(&out[begin..]) {
            out.replace_range(begin.., &readable);
        }
        out.push('\n');
        batch.marks.push(Mark { severity: level.severity(), end: out.len(), tag });
        std::mem::take(&mut self.asleep)
    }

    /// Hands over what there is and goes on with the emptied batch.
    pub(super) fn take(&mut self, emptied: Batch) -> Gathered {
        std::mem::replace(&mut self.gathered, Gathered { usual: emptied, last: Batch::default() })
    }

    fn stamp_now(&mut self) {
        let now = Timestamp::now();
        if now.as_second() != self.second {
            self.second = now.as_second();
            self.stamp.clear();
            let local = now.to_zoned(self.zone.clone());
            let _ = write!(self.stamp, "{} ", local.strftime("%b %e %H:%M:%S"));
        }
    }
}

/// Passes text on with its control characters shown as `?`.
struct Printable<'a> {
    out: &'a mut String,
    room: usize,
}

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(self.room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.room -= end;
        let text = &text[..end];
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            self.out.extend(text.chars().map(|c| if c.is_control() { '?' } else { c }));
        } else {
            self.out.push_str(text);
        }
        Ok(())
    }
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Sinks {
    file: Option<File>,
    facility: Facility,
    stderr: bool,
    /// `program: ` for standard error.
    program: String,
    syslog: Option<UnixDatagram>,
    spare: Batch,
}

impl Sinks {
    pub(super) fn new(destination: Destination) -> Self {
        let program = destination.name.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            file: destination.file,
            facility: destination.facility,
            stderr: destination.stderr,
            program,
            syslog: None,
            spare: Batch::default(),
        }
    }

    pub(super) fn replace_file(&mut self, file: File) {
        self.file = Some(file);
    }

    /// An emptied batch, whose memory is used again.
    pub(super) fn spare(&mut self) -> Batch {
        std::mem::take(&mut self.spare)
    }

    /// Writes all lines. Where nothing takes them they are gone: logging never holds mail back.
    pub(super) fn write(&mut self, mut batch: Batch) {
        if batch.lost > 0 {
            let _ = writeln!(
                batch.text,
                "(here {} log lines were lost: the log could not be written)",
                batch.lost
            );
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(batch.text.as_bytes());
        } else {
            self.write_syslog(&batch);
        }
        if self.stderr {
            self.write_stderr(&batch);
        }
        batch.text.clear();
        batch.text.shrink_to(64 * 1024);
        batch.marks.clear();
        batch.lost = 0;
        self.spare = batch;
    }

    fn write_syslog(&mut self, batch: &Batch) {
        let mut start = 0;
        let mut record = String::new();
        for mark in &batch.marks {
            let line = &batch.text[start..mark.end - 1];
            // RFC 3164: priority, time, tag; the host is the daemon's to add.
            let stamp = line.get(..16).unwrap_or_default();
            record.clear();
            let priority = self.facility.0 * 8 + mark.severity;
            let _ = write!(record, "<{priority}>{stamp}{}", &batch.text[mark.tag..mark.end - 1]);
            start = mark.end;
            if !self.send_syslog(record.as_bytes()) {
                return;
            }
        }
    }

    /// Sends one record, on a new socket if the syslog daemon was restarted.
    fn send_syslog(&mut self, record: &[u8]) -> bool {
        for _ in 0..2 {
            if self.syslog.is_none() {
                let socket = UnixDatagram::unbound().and_then(|s| s.connect(SYSLOG).map(|()| s));
                self.syslog = socket.ok();
            }
            match &self.syslog {
                None => return false,
                Some(socket) if socket.send(record).is_ok() => return true,
                Some(_) => self.syslog = None,
            }
        }
        false
    }

    fn write_stderr(&self, batch: &Batch) {
        let mut out = String::new();
        let mut start = 0;
        for mark in &batch.marks {
            let text = &batch.text[mark.tag.max(start)..mark.end];
            let text = text.split_once("]: ").map_or(text, |(_, text)| text);
            let _ = write!(out, "{}: {text}", self.program);
            start = mark.end;
        }
        let _ = std::io::stderr().lock().write_all(out.as_bytes());
    }
}

/// A line of a process that has not set up its log.
pub(super) fn to_stderr(level: Level, text: fmt::Arguments<'_>) {
    let _ = writeln!(
        std::io::stderr().lock(),
        "{}{}",
        level.prefix(),
        config::without_numbers(&text.to_string())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_form_of_postfix_and_cannot_be_forged() {
        let name = "postroad/smtpd".to_owned();
        let destination = Destination { name, file: None, facility: Facility::MAIL, stderr: false };
        let mut pending = Pending::new(&destination);
        pending.set_asleep(true);
        assert!(pending.push(Level::Warning, None, format_args!("{} said {:?}", "peer", "x"), false));
        assert!(!pending.push(Level::Info, None, format_args!("evil\nline\x1b {}", "y".repeat(5000)), false));
        let missing = std::io::Error::from_raw_os_error(2);
        assert!(!pending.push(Level::Info, None, format_args!("open x: {missing}; y"), false));
        let batch = pending.take(Batch::default()).usual;
        let lines: Vec<&str> = batch.text.lines().collect();
        let expected = format!("postroad/smtpd[{}]: warning: peer said \"x\"", std::process::id());
        assert!(lines[0].ends_with(&expected), "{}", lines[0]);
        assert_eq!(&lines[0][3..4], " ");
        assert!(lines[1].contains("evil?line? yyy") && lines[1].len() < 2200);
        assert!(lines[2].ends_with(": open x: No such file or directory; y"), "{}", lines[2]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn facilities_are_known_by_name() {
        assert_eq!(Facility::from_name("mail"), Some(Facility(2)));
        assert_eq!(Facility::from_name("local7"), Some(Facility(23)));
        assert_eq!(Facility::from_name("local8"), None);
        assert_eq!(Facility::from_name("male"), None);
    }
}
