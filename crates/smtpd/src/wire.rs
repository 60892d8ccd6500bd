//! The connection with its time limits.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use ipc::log;
use net::tls::Info;
use net::tls::server::Session;
use service::Stream;

use crate::tls::{Raw, Tls};

/// Address space for a handshake; only what is touched is memory.
const HANDSHAKE_STACK: usize = 512 * 1024;

/// Why there is no more to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The client went away.
    Connection,
    /// `smtpd_timeout` is over.
    Patience,
}

/// `smtpd_timeout`, and what it is the limit of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The limit.
    pub(crate) timeout: Duration,
    /// With `smtpd_per_request_deadline`, of a whole command, message or reply rather than of one read or write; and then the rate in
    /// bytes per second at which content earns more time, `smtpd_min_data_rate`.
    pub(crate) deadline: Option<u32>,
}

/// A client that has said nothing for so long will go on saying nothing, as most do that are idle: there is time to make it
/// cheap.
const IDLE: Duration = Duration::from_secs(1);

/// How long a client may take to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A client's byte stream. The kernel keeps the time: there is no call for it per line.
pub(crate) struct Wire<'a> {
    socket: Paced<'a>,
    tls: Option<Session>,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(stream: &'a Stream, patience: Patience) -> io::Result<Self> {
        let socket = Paced::new(stream, patience)
            .inspect_err(|error| service::tell_own_trouble(&"a client", error))?;
        Ok(Self { socket, tls: None })
    }

    /// A new command begins, with all the time there is.
    pub(crate) fn new_request(&mut self) {
        self.socket.start_over();
    }

    /// The session is over: what is left to say must not take long.
    pub(crate) fn hurry(&mut self) {
        self.socket.ends = Some(Instant::now() + LAST_WORDS);
    }

    /// Reads what has come, or waits for it; content earns time.
    pub(crate) fn read(&mut self, buffer: &mut [u8], is_content: bool) -> Result<usize, Lost> {
        loop {
            let read = match &mut self.tls {
                Some(tls) => tls.read(&mut self.socket, buffer),
                None => self.socket.read(buffer),
            };
            match read {
                Ok(0) => return Err(Lost::Connection),
                Ok(count) => {
                    if is_content {
                        self.socket.earn(count);
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let written = match &mut self.tls {
            Some(tls) => tls.write_all(&mut self.socket, bytes),
            None => self.socket.write_all(bytes),
        };
        written.map_err(|error| lost(&error))
    }

    /// The server's side of a handshake with `client`, who is named in the log. From there on, all is encrypted.
    pub(crate) fn encrypt(&mut self, tls: &Tls, client: &str) -> Result<Info, Lost> {
        let deadline = Instant::now() + tls.patience;
        // Public-key cryptography needs a deep stack, once. On a thread of its own it is given back; here it would stay with the
        // session as long as that lives.
        let stream = self.socket.stream;
        let session = thread::scope(|scope| {
            let speaker = log::speaker();
            let handshake = || {
                log::speak_as(speaker);
                tls.context.handshake(&mut Raw(stream), &client, deadline)
            };
            let thread = thread::Builder::new().stack_size(HANDSHAKE_STACK).spawn_scoped(scope, handshake);
            thread.map_or_else(
                |error| {
                    log::warning!("start a thread for TLS: {error}; {client} is turned away");
                    Err(error.to_string())
                },
                |thread| thread.join().unwrap_or_else(|_| Err("panic".into())),
            )
        });
        let Ok(session) = session else { return Err(Lost::Connection) };
        // The handshake had time limits of its own.
        self.socket.set_both().map_err(|error| lost(&error))?;
        let info = session.info().clone();
        self.tls = Some(session);
        self.new_request();
        Ok(info)
    }

    /// Whether what is in the socket is TLS, which nobody else can read.
    pub(crate) const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.hurry();
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.socket);
        }
    }
}

/// The socket. With a deadline, each call to the kernel has what is left of the time: what TLS takes for one record may come in
/// as many pieces as a client likes.
struct Paced<'a> {
    stream: &'a Stream,
    patience: Patience,
    /// What the kernel was told last, of reading and of writing.
    read_limit: Duration,
    write_limit: Duration,
    ends: Option<Instant>,
    /// The client has been silent for [`IDLE`].
    idle: bool,
}

impl<'a> Paced<'a> {
    fn new(stream: &'a Stream, patience: Patience) -> io::Result<Self> {
        let limit = patience.timeout;
        let mut paced =
            Self { stream, patience, read_limit: limit, write_limit: limit, ends: None, idle: false };
        paced.set_both()?;
        Ok(paced)
    }

    fn set_both(&mut self) -> io::Result<()> {
        (self.read_limit, self.write_limit) = (self.patience.timeout.min(IDLE), self.patience.timeout);
        self.stream.set_read_timeout(Some(self.read_limit))?;
        self.stream.set_write_timeout(Some(self.write_limit))
    }

    fn start_over(&mut self) {
        if self.patience.deadline.is_some() {
            self.ends = Some(Instant::now() + self.patience.timeout);
        }
    }

    /// What is left of the time.
    fn left(&self) -> io::Result<Duration> {
        let Some(ends) = self.ends else { return Ok(self.patience.timeout) };
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// A client that sends fast enough is not cut off in the middle of a large message.
    fn earn(&mut self, count: usize) {
        if let (Some(ends), Some(rate)) = (&mut self.ends, self.patience.deadline) {
            let earned = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(rate.max(1));
            let latest = Instant::now() + self.patience.timeout;
            *ends = (*ends + Duration::from_secs_f64(earned)).min(latest);
        }
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            let limit = match (self.idle, self.ends) {
                (false, _) => left.min(IDLE),
                (true, Some(_)) => left,
                (true, None) => left.saturating_sub(IDLE).max(Duration::from_millis(1)),
            };
            if differs(self.read_limit, limit) {
                self.stream.set_read_timeout(Some(limit))?;
                self.read_limit = limit;
            }
            let mut stream = self.stream;
            match stream.read(buffer) {
                Err(error) if is_timeout(&error) && !self.idle && left > IDLE => {
                    self.idle = true;
                    service::rest();
                }
                read => {
                    self.idle = false;
                    return read;
                }
            }
        }
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = self.left()?;
        if differs(self.write_limit, limit) {
            self.stream.set_write_timeout(Some(limit))?;
            self.write_limit = limit;
        }
        let mut stream = self.stream;
        stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel counts in ticks: a change of less than a second is not worth a call, but near the end.
fn differs(set: Duration, limit: Duration) -> bool {
    set != limit && (set.abs_diff(limit) >= Duration::from_secs(1) || limit < Duration::from_secs(1))
}

fn lost(error: &io::Error) -> Lost {
    if is_timeout(error) {
        return Lost::Patience;
    }
    service::tell_own_trouble(&"a client", error);
    Lost::Connection
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
