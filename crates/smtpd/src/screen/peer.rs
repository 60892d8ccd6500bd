//! One client under test.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use service::{Connection, Stream};

use super::block_lists::Score;
use super::passed::Passed;
use super::refusing::Refusing;

/// A client under test.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) ip: IpAddr,
    pub(super) shown: Shown,
    pub(super) began: Instant,
    /// When what it is waited for is over.
    pub(super) deadline: Instant,
    pub(super) stage: Stage,
}

/// How far it is.
pub(super) enum Stage {
    /// A proxy is to say whose connection this is; what it has said.
    Proxy(Vec<u8>),
    /// It is waited for, and block lists are asked.
    Tests(Tests),
    /// It has failed, and is told so when it names recipients.
    Refused(Box<Refusing>),
}

/// The tests of a client, and what came of them.
#[derive(Default)]
pub(super) struct Tests {
    /// It was never here, or nothing is remembered of it.
    pub(super) is_new: bool,
    pub(super) passed: Passed,
    pub(super) greeting: bool,
    pub(super) block_lists: bool,
    /// It has spoken before its turn.
    pub(super) spoke: bool,
    pub(super) score: Score,
    /// What it is told at each recipient, once something is to be enforced.
    pub(super) refusal: Option<String>,
    /// It came to an address where nobody becomes known as good.
    pub(super) vetoed: bool,
}

/// `[address]:port`
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown(pub(super) SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", self.0.ip().to_canonical(), self.0.port())
    }
}

impl Peer {
    pub(super) fn new(connection: Connection, now: Instant) -> Self {
        let address = connection.peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
        Self {
            ip: address.ip().to_canonical(),
            shown: Shown(address),
            connection,
            began: now,
            deadline: now,
            stage: Stage::Tests(Tests::default()),
        }
    }

    /// The connection is another's, as a proxy says.
    pub(super) fn is_from(&mut self, peer: SocketAddr, local: SocketAddr) {
        (self.connection.peer, self.connection.local) = (Some(peer), Some(local));
        (self.ip, self.shown) = (peer.ip().to_canonical(), Shown(peer));
    }

    /// Whether what the client says is of interest now.
    pub(super) const fn is_heard(&self) -> bool {
        match &self.stage {
            Stage::Proxy(_) | Stage::Refused(_) => true,
            Stage::Tests(tests) => tests.greeting && !tests.spoke,
        }
    }

    /// What has come; `None` where there is nothing yet, nothing where the client is gone. `peek` leaves it there.
    pub(super) fn read<'b>(&self, buffer: &'b mut [u8], peek: bool) -> Option<&'b [u8]> {
        let flags = MsgFlags::MSG_DONTWAIT | if peek { MsgFlags::MSG_PEEK } else { MsgFlags::empty() };
        match recv(self.as_fd().as_raw_fd(), buffer, flags) {
            Ok(count) => Some(&buffer[..count]),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Err(error) => {
                service::tell_own_trouble(&self.shown, &error.into());
                Some(&[])
            }
        }
    }

    /// Says something short; false where it finds no room, which it does with every client that reads.
    pub(super) fn say(&self, text: &str) -> bool {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match send(self.as_fd().as_raw_fd(), text.as_bytes(), flags) {
                Ok(count) => return count == text.len(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(error) => {
                    service::tell_own_trouble(&self.shown, &error.into());
                    return false;
                }
            }
        }
    }

    /// Takes what the client has sent out of the way, so that the system does not reset the connection before the last
    /// words are read.
    pub(super) fn close(self) {
        let mut buffer = [0; 4096];
        let _ = self.read(&mut buffer, false);
        self.connection.stream.end();
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.connection.stream.as_ref() {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
