//! A connection to one address: bound to the source address that was asked for, and given up in time.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use config::cause as reason;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

/// Connects to a TCP port, from the address `source` where there is one.
///
/// # Errors
/// What the system says; `TimedOut` where nobody answers within `patience`.
pub(crate) fn tcp(
    address: SocketAddr,
    source: Option<&BoundSocket>,
    patience: Option<Duration>,
) -> io::Result<TcpStream> {
    let socket = match source {
        Some(bound) => bound.socket.try_clone()?,
        None => new_socket(address.ip())?,
    };
    connect(&socket, &SockaddrStorage::from(address), patience)?;
    let stream = TcpStream::from(socket);
    // A command or a reply is one write: nothing is gained by holding it back.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a UNIX socket.
///
/// # Errors
/// As [`tcp`].
pub(crate) fn unix(path: &Path, patience: Option<Duration>) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(&socket, &socket::UnixAddr::new(path)?, patience)?;
    Ok(UnixStream::from(socket))
}

/// A socket with a source address, that is not connected yet.
pub(crate) struct BoundSocket {
    socket: OwnedFd,
}

/// Gives a new socket the source address.
///
/// # Errors
/// What the system says to it, as for an address that this host does not have.
pub(crate) fn bind(source: IpAddr) -> io::Result<BoundSocket> {
    let socket = new_socket(source)?;
    // The port is chosen when it is known whom the connection goes to: more connections than ports are possible then.
    let _ = socket::setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    Ok(BoundSocket { socket })
}

fn new_socket(ip: IpAddr) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(family, SockType::Stream, flags, None)?)
}

/// Connects a non-blocking socket and makes it a blocking one.
fn connect(
    socket: &OwnedFd,
    address: &dyn socket::SockaddrLike,
    patience: Option<Duration>,
) -> io::Result<()> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    match socket::connect(socket.as_raw_fd(), address) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS | Errno::EINTR) => {
            await_connection(socket, deadline)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlag::from_bits_truncate(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

fn await_connection(socket: &OwnedFd, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Errno::ETIMEDOUT.into());
        }
        // Rounded up, so that the last millisecond is not spent in a loop.
        let wait = left.map(|left| left + Duration::from_millis(1));
        let wait =
            wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut polled, wait) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                return match socket::getsockopt(socket, sockopt::SocketError)? {
                    0 => Ok(()),
                    errno => Err(Errno::from_raw(errno).into()),
                };
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_has_the_source_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = bind("127.0.0.2".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let _stream = tcp(address, Some(&source), Some(Duration::from_secs(5))).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.2");
        assert!(bind("192.0.2.77".parse().unwrap()).is_err());
    }

    #[test]
    fn what_refuses_or_is_silent_is_said_in_the_systems_words() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = tcp(address, None, Some(Duration::from_secs(5))).unwrap_err();
        assert_eq!(reason(&error), "Connection refused");
        let error = unix(Path::new("/nowhere/at/all"), None).unwrap_err();
        assert_eq!(reason(&error), "No such file or directory");
        assert_eq!(reason(&Errno::ETIMEDOUT.into()), "Connection timed out");
    }
}
