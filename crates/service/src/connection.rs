//! A client's connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

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
