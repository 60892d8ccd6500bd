//! One connection to a policy service.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use service::Stream;

use super::service::{Endpoint, Service};

/// The longest answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// A connection that may carry many requests, one after the other.
pub(super) struct Connection {
    stream: Stream,
    opened: Instant,
    requests: u64,
}

impl Connection {
    /// Connects; every step has the service's timeout.
    pub(super) fn open(service: &Service, queue_directory: &Path) -> io::Result<Self> {
        let stream = match &service.endpoint {
            Endpoint::Inet { host, port } => Stream::Tcp(connect(host, *port, service.timeout)?),
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(queue_directory.join(path))?),
        };
        Ok(Self { stream, opened: Instant::now(), requests: 0 })
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.opened)
    }

    pub(super) const fn requests(&self) -> u64 {
        self.requests
    }

    /// Sends a request; gives what stands after `action=`.
    pub(super) fn ask(&mut self, request: &str, timeout: Duration) -> io::Result<String> {
        self.requests += 1;
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))?;
        let mut stream = &self.stream;
        stream.write_all(request.as_bytes())?;
        read_action(BufReader::new(stream))
    }
}

/// Reads an answer up to its empty line.
pub(crate) fn read_action(reader: impl BufRead) -> io::Result<String> {
    let mut reader = reader.take(MAX_ANSWER);
    let mut action = None;
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("action=") {
            action = Some(value.trim().to_owned());
        }
    }
    action.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the answer has no action= line"))
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
