//! A client's connection.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::log;

/// A connection that was accepted, and who is at the other end.
#[derive(Debug)]
pub struct Connection {
    /// The stream; shared, so that a drain can end a wait for input.
    pub stream: std::sync::Arc<Stream>,
    /// The client's address; none for a UNIX socket.
    pub peer: Option<SocketAddr>,
    /// The address the client connected to; none for a UNIX socket.
    pub local: Option<SocketAddr>,
}

/// A byte stream to a client. Reads and writes go through a shared reference, as they do for the sockets in it.
#[derive(Debug)]
pub enum Stream {
    /// From an `inet` service.
    Tcp(TcpStream),
    /// From a `unix` service.
    Unix(UnixStream),
}

impl Stream {
    /// How long a read may wait; `None` for ever.
    ///
    /// # Errors
    /// What `setsockopt` says; a duration of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// How long a write may wait; `None` for ever.
    ///
    /// # Errors
    /// What `setsockopt` says; a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(timeout),
            Self::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Another descriptor of the same connection, for a program that shall speak with the client.
    ///
    /// # Errors
    /// What the system says: too many are open.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.try_clone()?.into(),
            Self::Unix(stream) => stream.try_clone()?.into(),
        })
    }

    /// Ends the connection in both directions, whoever else has a descriptor of it.
    pub fn end(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }

    /// Ends the waiting for input: the reader sees the end of the stream.
    pub fn end_input(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Read),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Read),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(bytes),
            Stream::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the log say why the connection of a client is lost, where that is neither the client's doing nor the network's.
pub fn tell_own_trouble(client: &dyn fmt::Display, error: &io::Error) {
    if is_own_trouble(error) {
        log::warning!("connection of {client}: {error}");
    }
}

/// Whether a connection is lost by trouble of this host: not by the other side, nor by the network, nor by time.
#[must_use]
pub fn is_own_trouble(error: &io::Error) -> bool {
    use ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
        NotConnected, TimedOut, WouldBlock,
    };
    let is_theirs = matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
            | WouldBlock
    );
    // What TLS says of the other side has no number.
    error.raw_os_error().is_some() && !is_theirs
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn trouble_is_our_own_where_neither_the_other_side_nor_the_network_nor_time_has_part_in_it() {
        let is_own = |number| is_own_trouble(&io::Error::from_raw_os_error(number));
        assert!([libc::ENOBUFS, libc::ENOMEM, libc::EIO, libc::EMFILE].into_iter().all(is_own));
        let theirs = [libc::ECONNRESET, libc::EPIPE, libc::EHOSTUNREACH, libc::ETIMEDOUT, libc::EAGAIN];
        assert!(!theirs.into_iter().any(is_own));
        assert!(!is_own_trouble(&io::Error::other("a certificate that nobody vouches for")));
    }
}
