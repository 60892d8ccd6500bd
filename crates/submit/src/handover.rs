//! A submission goes straight to a pickup that runs, over the socket that it has for users.
//!
//! What comes of it is one bit: pickup has said that the message is in the queue for good, or the message goes on through
//! `maildrop/`, as if nothing had been tried. Where pickup has read all of it and then never answers, nobody knows whether it
//! is in the queue: it goes through `maildrop/` then, too, since twice is the lesser evil.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mail::submission::{SOCKET_FOLDER, TAKEN, handed};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// How long pickup may take to read a submission. One that stands still has not begun with it, and does not when the
/// client is gone.
const READING: Duration = Duration::from_secs(5);

/// How long a pickup that has read it may take until it is in the queue: tables and disks may be slow.
const COMMITTING: Duration = Duration::from_secs(300);

/// Hands the submission over; `true` means that it is in the queue for good.
pub(crate) fn hand_over(queue_directory: &Path, submission: &[u8]) -> bool {
    let Some(bytes) = handed(submission) else { return false };
    // A user who may not come near the socket, a mail system that is down: whatever it is, the other way tells of it.
    try_hand_over(&queue_directory.join(SOCKET_FOLDER).join("pickup"), &bytes).unwrap_or(false)
}

fn try_hand_over(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut pickup = connected(path)?;
    send(&mut pickup, bytes)?;
    if !wait(&pickup, PollFlags::POLLIN, READING)?
        && (sys::descriptors::unread_by_peer(&pickup)? > 0 || !wait(&pickup, PollFlags::POLLIN, COMMITTING)?)
    {
        return Ok(false);
    }
    let mut answer = [0];
    pickup.read_exact(&mut answer)?;
    Ok(answer == [TAKEN])
}

/// Never waits: where too many others do, the other way is the faster one.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn send(pickup: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match pickup.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait(pickup, PollFlags::POLLOUT, READING)? {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until pickup takes or says something, or is gone; `false` when it does not for that long. A signal that does not end
/// this process begins the time anew, rather than that each submission asks a clock.
fn wait(pickup: &UnixStream, what: PollFlags, patience: Duration) -> io::Result<bool> {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    loop {
        let mut wanted = [PollFd::new(pickup.as_fd(), what)];
        match poll(&mut wanted, patience) {
            Err(Errno::EINTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Whether a submission is handed over to a pickup that does this.
    fn handed_to(size: usize, pickup: impl FnOnce(UnixStream) + Send) -> bool {
        let queue = tempfile::tempdir().unwrap();
        std::fs::create_dir(queue.path().join(SOCKET_FOLDER)).unwrap();
        let listener = UnixListener::bind(queue.path().join(SOCKET_FOLDER).join("pickup")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| pickup(listener.accept().unwrap().0));
            hand_over(queue.path(), &vec![b'x'; size])
        })
    }

    fn read_all(pickup: &mut UnixStream, size: usize) {
        let mut bytes = vec![0; 4 + size];
        pickup.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, handed(&vec![b'x'; size]).unwrap());
    }

    #[test]
    fn a_submission_is_handed_over_when_pickup_says_so_and_never_otherwise() {
        // More than a socket holds.
        let size = mail::submission::MAX_HANDED;
        assert!(handed_to(size, |mut pickup| {
            read_all(&mut pickup, size);
            pickup.write_all(b"+").unwrap();
        }));
        assert!(!handed_to(100, |mut pickup| {
            read_all(&mut pickup, 100);
            pickup.write_all(b"-").unwrap();
        }));
        assert!(!handed_to(100, |mut pickup| read_all(&mut pickup, 100)));
        assert!(!handed_to(size, drop));
        assert!(!handed_to(100, |mut pickup| pickup.write_all(b"?").unwrap()));
    }

    #[test]
    fn where_nobody_is_or_everybody_waits_nothing_is_waited_for() {
        let queue = tempfile::tempdir().unwrap();
        assert!(!hand_over(queue.path(), b"x"));
        std::fs::create_dir(queue.path().join(SOCKET_FOLDER)).unwrap();
        let path = queue.path().join(SOCKET_FOLDER).join("pickup");
        let listener = UnixListener::bind(&path).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| connected(&path).ok()).take(1000).collect();
        assert!(waiting.len() < 1000 && !hand_over(queue.path(), b"x"));
        drop(listener);
        assert!(!hand_over(queue.path(), b"x"));
    }
}
