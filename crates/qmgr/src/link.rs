//! A lasting connection to an agent or to bounce: requests go out from the loop, replies come in by a thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ipc::frame::{self, Receiver};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a program may take to read what it is told. Its reader does nothing else, so a program that takes longer
/// is stuck, and its deliveries are given to its successor.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection. Dropping it closes it.
pub(crate) struct Link {
    socket: UnixStream,
    /// Tells this connection from its predecessors and successors.
    pub(crate) number: u64,
    /// Requests that have not been answered to the end.
    pub(crate) outstanding: usize,
    /// The other end has said that it is there.
    pub(crate) greeted: bool,
    /// When it was connected to.
    pub(crate) since: Instant,
}

/// What a connection has to say.
pub(crate) enum Heard<T> {
    /// Replies that came in together.
    Replies(Vec<T>),
    /// The other end is gone; why, where it was not a plain end.
    Closed(Option<io::Error>),
}

impl Link {
    /// Connects, and has `heard` called with what comes in, on a thread of the connection's own.
    pub(crate) fn connect<T: DeserializeOwned + Send + 'static>(
        path: &Path,
        number: u64,
        now: Instant,
        heard: impl Fn(Heard<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let reading = socket.try_clone()?;
        let thread = std::thread::Builder::new().name("link".into()).stack_size(256 * 1024);
        thread.spawn(move || listen(&reading, &heard))?;
        Ok(Self { socket, number, outstanding: 0, greeted: false, since: now })
    }

    /// Sends a request with a descriptor of its queue file.
    pub(crate) fn send(&mut self, request: &impl Serialize, file: BorrowedFd<'_>) -> io::Result<()> {
        frame::send(&self.socket, request, Some(file))?;
        self.outstanding += 1;
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Wakes the reading thread, which holds the socket as well.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn listen<T: DeserializeOwned>(socket: &UnixStream, heard: &impl Fn(Heard<T>)) {
    let mut receiver = Receiver::of_conversation();
    loop {
        let closed = match receiver.next_message::<T>(socket) {
            Ok(Some(first)) => {
                let mut replies = vec![first];
                while receiver.has_frame() {
                    match receiver.next_message(socket) {
                        Ok(Some(reply)) => replies.push(reply),
                        // It shows itself again at the next turn.
                        Ok(None) | Err(_) => break,
                    }
                }
                heard(Heard::Replies(replies));
                continue;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        heard(Heard::Closed(closed));
        return;
    }
}
