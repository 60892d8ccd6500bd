//! What `postroad` asks of a running master, over `private/master`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use config::{Config, param};
use ipc::frame::{self, Receiver};
use ipc::master::{Answer, Request, SOCKET};

use crate::sockets::remove_stale;
use crate::supervisor::Supervisor;

/// How long an operator's program may take to say all that it wants, and at each read of the answer.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Operator {
    listener: UnixListener,
}

/// Somebody who asked and waits for the answer.
pub(crate) struct Asker(UnixStream);

impl Operator {
    pub(crate) fn listen(config: &Config) -> io::Result<Self> {
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let path = ipc::socket_path(&queue_directory, true, SOCKET);
        // The instance's lock is held, so a socket at this name is a dead one's.
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("bind {}: {e}", path.display())))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes one request. Whoever connects and says nothing, or nonsense, is dropped.
    pub(crate) fn accept(&self) -> Option<(Request, Asker)> {
        let (socket, _) = self.listener.accept().ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        let request = Receiver::new().next_message_by(&socket, Instant::now() + PATIENCE).ok().flatten()?;
        Some((request, Asker(socket)))
    }
}

impl Asker {
    pub(crate) fn answer(&self, answer: &Answer) {
        // Who asked may be gone; what was asked is done all the same.
        let _ = frame::send(&self.0, answer, None);
    }
}

impl Supervisor {
    /// Does what an operator asks.
    pub(crate) fn obey(&mut self, request: Request) -> Answer {
        match request {
            Request::Reload => match self.reload() {
                Ok(lines) => Answer::Done(lines),
                Err(lines) => Answer::Failed(lines),
            },
            Request::Stop => {
                self.stop();
                Answer::Done(Vec::new())
            }
            Request::Abort => {
                self.abort();
                Answer::Done(Vec::new())
            }
            Request::Status => Answer::Done(self.status()),
            Request::ReopenLog => match self.reopen_log() {
                Ok(()) => Answer::Done(Vec::new()),
                Err(error) => Answer::Failed(vec![error.to_string()]),
            },
        }
    }
}
