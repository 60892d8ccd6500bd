//! The desk where users of the machine hand over submissions, at pickup's second socket.
//!
//! Whoever may run a program may come here with anything, as often as he likes and as slowly. So who somebody is, the kernel
//! says; a user has few places, all have some, and no place is kept for long; what is not as it should be is answered with
//! the one word for no. Who is turned away, for whatever reason, puts his message into `maildrop/`, so that nobody who fills
//! the desk keeps others from sending mail.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ipc::log;
use mail::submission::{Arriving, NOT_TAKEN, TAKEN};
use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, getsockopt, recv};
use service::{Connection, Stream};

use super::submission::{Failure, Submitter};

/// Who may be here at a time.
const PLACES: usize = 64;

/// Who of one user may be here at a time.
const PLACES_OF_A_USER: usize = 16;

/// How long a submission may take to arrive: its sender has it ready. Shorter than master's patience with a stop.
const ARRIVAL: Duration = Duration::from_secs(3);

/// How much is read at once: most submissions.
const PIECE: usize = 16 * 1024;

/// The desk.
pub(super) struct Desk {
    pub(super) submitter: Arc<Submitter>,
    /// Whether anybody may hand over anything. Where only some users may submit mail postdrop sees to that, which can look
    /// them up.
    pub(super) is_open: bool,
    /// Who is here. The connection of one who has gone is gone as well.
    pub(super) present: Mutex<Vec<(u32, Weak<Stream>)>>,
}

impl Desk {
    /// Whether there is a place for this client, who takes it then.
    pub(super) fn admits(&self, connection: &Connection) -> bool {
        let Some(uid) = peer(connection).and_then(user_of) else { return false };
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.retain(|(_, stream)| stream.strong_count() > 0);
        let of_user = present.iter().filter(|(other, _)| *other == uid).count();
        if !self.is_open || present.len() >= PLACES || of_user >= PLACES_OF_A_USER {
            return false;
        }
        present.push((uid, Arc::downgrade(&connection.stream)));
        true
    }

    /// Takes what the client has, and answers when it is in the queue.
    pub(super) fn serve(&self, connection: &Connection) {
        let Some((client, uid)) = peer(connection).and_then(|client| Some((client, user_of(client)?))) else {
            return;
        };
        let answer = if self.take(client, uid) { TAKEN } else { NOT_TAKEN };
        // A client that is gone has no use for it.
        let _ = (&*client).write_all(&[answer]);
    }

    fn take(&self, client: &UnixStream, uid: u32) -> bool {
        let arrived = match arrive(client) {
            Ok(arrived) => arrived,
            // He went, or was slow. It is no news: a client that is stopped does that.
            Err(_) => return false,
        };
        // Who has turned to maildrop/ meanwhile would send it twice; who sends more knows another protocol.
        if !waits_in_silence(client) {
            return false;
        }
        match self.submitter.submit_handed(arrived, uid) {
            Ok(()) => true,
            // Whoever likes to see lines in the log may write anything here.
            Err(Failure::Malformed(_)) => false,
            Err(Failure::Later(why)) => {
                log::warning!("submission of user {uid}: {why}; it is left to its submitter");
                false
            }
        }
    }
}

fn peer(connection: &Connection) -> Option<&UnixStream> {
    match &*connection.stream {
        Stream::Unix(client) => Some(client),
        Stream::Tcp(_) => None,
    }
}

/// As whom the client has connected.
fn user_of(client: &UnixStream) -> Option<u32> {
    getsockopt(client, PeerCredentials).ok().map(|credentials| credentials.uid())
}

/// Reads until the submission is whole.
fn arrive(client: &UnixStream) -> io::Result<Arriving> {
    let (deadline, mut left) = (Instant::now() + ARRIVAL, ARRIVAL);
    let (mut arriving, mut piece) = (Arriving::default(), [0; PIECE]);
    loop {
        client.set_read_timeout(Some(left))?;
        let count = match (&*client).read(&mut piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        if arriving.take(&piece[..count]).map_err(io::Error::other)? {
            return Ok(arriving);
        }
        left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Whether the client is there and has said nothing more.
fn waits_in_silence(client: &UnixStream) -> bool {
    use std::os::fd::AsRawFd as _;
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(client.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
}
