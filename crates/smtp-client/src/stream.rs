//! The byte stream to a server: over TCP or a UNIX socket, encrypted or not, each wait limited.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use net::tls::client::{Context, Peer, Policy, Socket, TlsError, TlsStream};
use nix::sys::socket::{MsgFlags, send};

/// The least time that a system call is given to end in: none means for ever.
const LEAST: Duration = Duration::from_millis(1);

/// How many times a read may be begun until its time is over, where the socket waits for less than that.
const MOST_WAITS: u32 = 64;

/// A socket of either kind.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum Channel {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
    /// TLS did not come about: nothing can be said any more.
    Closed,
}

/// A channel with its time limits.
#[derive(Debug)]
pub(crate) struct Stream {
    channel: Channel,
    limit: Limit,
    /// What the socket was told last of reading and of writing.
    told: (Option<Duration>, Option<Duration>),
}

/// What the socket is about to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Read,
    Write,
}

/// How long the work of the moment may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Each read and write.
    Each(Duration),
    /// All until this moment.
    Until(Instant),
}

/// Why a read or write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other side is gone.
    Lost,
    /// It took too long.
    TimedOut,
    /// This host has trouble of its own, which has this number.
    Own(i32),
}

impl Stream {
    pub(crate) fn new(plain: Plain, limit: Limit) -> Self {
        Self { channel: Channel::Plain(plain), limit, told: (None, None) }
    }

    /// What follows is limited like this.
    pub(crate) fn limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Reads what is there, at least one byte.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let (end, mut patience) = (self.limit.end(), self.limit.patience());
        loop {
            self.prepare(Act::Read, patience)?;
            let read = match &mut self.channel {
                Channel::Plain(plain) => plain.read(buffer),
                Channel::Tls(tls) => tls.read(buffer),
                Channel::Closed => return Err(Broken::Lost),
            };
            match read {
                Ok(0) => return Err(Broken::Lost),
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if self.waits_on(&error, end) => {
                    patience = end.saturating_duration_since(Instant::now());
                }
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        // Most writes find room at once, and need no time limit.
        if let Channel::Plain(plain) = &self.channel {
            bytes = &bytes[plain.write_at_once(bytes)..];
        }
        while !bytes.is_empty() {
            self.prepare(Act::Write, self.limit.patience())?;
            let written = match &mut self.channel {
                Channel::Plain(plain) => plain.write(bytes),
                Channel::Tls(tls) => tls.write(bytes),
                Channel::Closed => return Err(Broken::Lost),
            };
            match written {
                Ok(0) => return Err(Broken::Lost),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        if let Channel::Tls(tls) = &mut self.channel {
            self.told = (None, None);
            return tls.flush().map_err(|error| broken(&error));
        }
        Ok(())
    }

    /// Tells the socket how long it may wait for what comes next, where it knows nothing that serves.
    ///
    /// Stages of a session differ in how long they may take. Over a socket without TLS a read that waits for less than that
    /// is begun again, so that a session soon has told the least of its times, and then tells nothing any more.
    fn prepare(&mut self, act: Act, patience: Duration) -> Result<(), Broken> {
        if patience.is_zero() {
            return Err(Broken::TimedOut);
        }
        let wanted = Some(patience);
        let known = if act == Act::Read { self.told.0 } else { self.told.1 };
        let serves = |told: Duration| told <= patience && told >= patience / MOST_WAITS;
        let repeats = act == Act::Read && matches!(self.channel, Channel::Plain(_));
        if known == wanted || repeats && known.is_some_and(serves) {
            return Ok(());
        }
        let told = match (&self.channel, act) {
            (Channel::Plain(plain), Act::Read) => {
                self.told.0 = wanted;
                plain.set_read_patience(patience)
            }
            (Channel::Plain(plain), Act::Write) => {
                self.told.1 = wanted;
                plain.set_write_patience(patience)
            }
            // Reading may write here, and the other way round.
            (Channel::Tls(tls), _) => {
                self.told = (wanted, wanted);
                tls.socket().set_patience(patience)
            }
            (Channel::Closed, _) => Ok(()),
        };
        told.map_err(|error| broken(&error))
    }

    /// Whether a read that came to nothing is to be begun again.
    fn waits_on(&self, error: &io::Error, end: Instant) -> bool {
        matches!(self.channel, Channel::Plain(_)) && broken(error) == Broken::TimedOut && Instant::now() < end
    }

    /// Begins TLS. A failure leaves nothing that could be spoken over.
    pub(crate) fn start_tls(
        &mut self,
        context: &Context,
        policy: &Policy,
        peer: &Peer<'_>,
        time: Duration,
    ) -> Result<(), TlsError> {
        self.told = (None, None);
        match std::mem::replace(&mut self.channel, Channel::Closed) {
            Channel::Plain(plain) => {
                let tls = context.handshake(plain, policy, peer, Instant::now() + time)?;
                self.channel = Channel::Tls(Box::new(tls));
                Ok(())
            }
            other => {
                self.channel = other;
                Err(TlsError::Handshake("TLS inside of TLS".to_owned()))
            }
        }
    }

    /// The encryption, where there is one.
    pub(crate) fn tls(&self) -> Option<&TlsStream<Plain>> {
        match &self.channel {
            Channel::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// Ends it, with TLS's good-bye.
    pub(crate) fn close(&mut self) {
        if let Channel::Tls(tls) = &mut self.channel {
            let _ = tls.socket().set_patience(Duration::from_secs(1));
            tls.close();
        }
        self.channel = Channel::Closed;
    }
}

impl Limit {
    /// How long what begins at this moment may take.
    fn patience(self) -> Duration {
        match self {
            Self::Each(time) => time,
            Self::Until(end) => end.saturating_duration_since(Instant::now()),
        }
    }

    /// When what begins at this moment must have ended.
    fn end(self) -> Instant {
        match self {
            Self::Each(time) => Instant::now() + time,
            Self::Until(end) => end,
        }
    }
}

fn broken(error: &io::Error) -> Broken {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::TimedOut,
        _ => {
            error.raw_os_error().filter(|_| service::is_own_trouble(error)).map_or(Broken::Lost, Broken::Own)
        }
    }
}

impl Plain {
    /// Writes what there is room for; what is wrong shows itself when the rest is written.
    fn write_at_once(&self, bytes: &[u8]) -> usize {
        let descriptor = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        send(descriptor, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).unwrap_or(0)
    }

    fn set_read_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience.max(LEAST));
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(patience),
            Self::Unix(stream) => stream.set_read_timeout(patience),
        }
    }

    fn set_write_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience.max(LEAST));
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(patience),
            Self::Unix(stream) => stream.set_write_timeout(patience),
        }
    }
}

impl Socket for Plain {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_patience(patience)?;
        self.set_write_patience(patience)
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_waits_no_longer_than_the_limit() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut stream = Stream::new(Plain::Unix(here), Limit::Each(Duration::from_millis(50)));
        assert_eq!(stream.write(&vec![b'x'; 16 * 1024 * 1024]), Err(Broken::TimedOut));
        drop(there);
        assert_eq!(stream.write(b"x"), Err(Broken::Lost));
    }

    #[test]
    fn a_read_waits_as_long_as_its_limit_whatever_the_socket_was_told_before() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut stream = Stream::new(Plain::Unix(here), Limit::Each(Duration::from_secs(300)));
        there.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 1]), Ok(1));
        let mut times_out = |limit| {
            stream.limit(limit);
            stream.read(&mut [0; 1])
        };
        assert_eq!(times_out(Limit::Each(Duration::from_millis(20))), Err(Broken::TimedOut));
        assert_eq!(times_out(Limit::Until(Instant::now())), Err(Broken::TimedOut));
        for limit in [Duration::from_secs(1), Duration::from_millis(1)] {
            let began = Instant::now();
            assert_eq!(times_out(Limit::Each(limit)), Err(Broken::TimedOut));
            assert!(began.elapsed() >= limit);
        }
        // What the socket was told last is far less than this.
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            there.write_all(b"x")
        });
        assert_eq!(times_out(Limit::Each(Duration::from_secs(60))), Ok(1));
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_reader_that_takes_its_time_gets_all_of_it() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut stream = Stream::new(Plain::Unix(here), Limit::Each(Duration::from_secs(60)));
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).map(|_| all)
        });
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        stream.write(&sent).unwrap();
        drop(stream);
        assert!(reader.join().unwrap().unwrap() == sent);
    }
}
