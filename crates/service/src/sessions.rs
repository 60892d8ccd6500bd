//! Serving clients that connect: a thread per session, and no more sessions than master.cf allows.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ipc::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Fatal;
use crate::connection::{Connection, Stream};
use crate::lifecycle::Lifecycle;
use crate::startup::{Listener, Service};
use crate::workers::Workers;

/// How long to wait after `accept` failed for want of descriptors or memory.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// The sessions there are, so that a drain can end their waiting.
type Open = Arc<Mutex<HashMap<u64, Weak<Stream>>>>;

impl Service {
    /// Phases 2 to 4 of a program that serves connections: calls `session` for each, on a thread of its own.
    ///
    /// While as many sessions as master.cf allows are open, further clients wait in the listening socket's queue. When
    /// the service drains, `session` sees the end of its input once it has read what was sent; it may look at
    /// [`Lifecycle::draining`] to say good-bye.
    ///
    /// # Errors
    /// Dropping privileges or polling failed.
    pub fn serve_sessions(
        self,
        session: impl Fn(&Lifecycle, Connection) + Send + Sync + 'static,
    ) -> Result<(), Fatal> {
        self.drop_privileges()?;
        let lifecycle = Arc::clone(&self.lifecycle);
        let mut sessions = self.sessions(session);
        lifecycle.ready();
        while !lifecycle.draining() {
            let listeners = if sessions.are_full() { &[][..] } else { &self.listeners[..] };
            for ready in wait_for_input(listeners, &lifecycle)? {
                if let Some(connection) = accept_one(&listeners[ready]) {
                    sessions.start(connection);
                }
            }
        }
        sessions.drain(self.listeners)
    }

    /// Phases 3 and 4 for a program that decides itself which clients get a session, and when.
    pub fn sessions(&self, session: impl Fn(&Lifecycle, Connection) + Send + Sync + 'static) -> Sessions {
        let (lifecycle, open, limit) = (Arc::clone(&self.lifecycle), Open::default(), self.max_sessions);
        let workers = {
            let (lifecycle, open) = (Arc::clone(&lifecycle), Arc::clone(&open));
            Workers::new(move |(number, connection): (u64, Connection)| {
                let _ended = SessionEnd { lifecycle: &lifecycle, open: &open, number, limit };
                session(&lifecycle, connection);
            })
        };
        Sessions { workers, open, lifecycle, limit, next: 0 }
    }
}

/// Ends a session's bookkeeping, also when the session panicked.
struct SessionEnd<'a> {
    lifecycle: &'a Lifecycle,
    open: &'a Open,
    number: u64,
    limit: Option<u32>,
}

impl Drop for SessionEnd<'_> {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        let left = self.lifecycle.end();
        // The acceptor waits for this when it was full or drains; otherwise it need not be disturbed.
        if self.lifecycle.draining() || self.limit.is_some_and(|most| left + 1 >= most) {
            self.lifecycle.wake();
        }
    }
}

/// The sessions of a service.
pub struct Sessions {
    workers: Workers<(u64, Connection)>,
    open: Open,
    lifecycle: Arc<Lifecycle>,
    limit: Option<u32>,
    next: u64,
}

impl Sessions {
    /// Whether there are as many as master.cf allows. [`Lifecycle::wake_descriptor`] becomes readable when one ends.
    #[must_use]
    pub fn are_full(&self) -> bool {
        self.limit.is_some_and(|most| self.lifecycle.busy() >= most)
    }

    /// Begins a session.
    pub fn start(&mut self, connection: Connection) {
        self.next += 1;
        let number = self.next;
        let weak = Arc::downgrade(&connection.stream);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, weak);
        self.lifecycle.begin();
        if let Err(error) = self.workers.run((number, connection)) {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            self.lifecycle.end();
            log::warning!("start a session thread: {error}; the client is turned away");
        }
    }

    /// Closes the listening sockets, and waits for the sessions to end.
    ///
    /// # Errors
    /// Polling failed.
    pub fn drain(self, listeners: Vec<Listener>) -> Result<(), Fatal> {
        let tcp = listeners.iter().any(|l| matches!(l, Listener::Tcp(_)));
        drop(listeners);
        while self.lifecycle.busy() > 0 {
            // A network client that is only waiting is told to come again; a program of the suite closes by itself, but
            // knows nothing of a service that retires.
            if tcp && self.lifecycle.stopping() || self.lifecycle.retired() {
                let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.values().filter_map(Weak::upgrade).for_each(|stream| stream.end_input());
            }
            let _ = wait_for_input(&[], &self.lifecycle)?;
        }
        Ok(())
    }
}

/// Takes one client, if one waits. Others make the socket ready again; the limit is looked at in between.
#[must_use]
pub fn accept_one(listener: &Listener) -> Option<Connection> {
    match accept(listener) {
        Ok(connection) => Some(connection),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => None,
        Err(error) => {
            log::warning!("accept connection at {listener}: {error}; trying again");
            std::thread::sleep(ACCEPT_BACK_OFF);
            None
        }
    }
}

fn accept(listener: &Listener) -> io::Result<Connection> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept()?;
            let local = stream.local_addr().ok();
            Ok(Connection { stream: Arc::new(Stream::Tcp(stream)), peer: Some(peer), local })
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept()?;
            Ok(Connection { stream: Arc::new(Stream::Unix(stream)), peer: None, local: None })
        }
    }
}

/// Waits until a listener has a client or the lifecycle wants attention; gives the listeners that have one.
pub(crate) fn wait_for_input(listeners: &[Listener], lifecycle: &Lifecycle) -> io::Result<Vec<usize>> {
    let descriptors = listeners.iter().map(AsFd::as_fd).chain([lifecycle.wake_descriptor()]);
    let mut wanted: Vec<PollFd<'_>> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // At rest for as long as it takes: a wake-up comes after its reason, and stays until it is taken. While sessions are to end,
    // a second at most.
    let patience = if lifecycle.draining() { PollTimeout::from(1000_u16) } else { PollTimeout::NONE };
    match poll(&mut wanted, patience) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    if wanted.last().is_some_and(ready) {
        lifecycle.quiet();
    }
    Ok((0..listeners.len()).filter(|n| ready(&wanted[*n])).collect())
}
