//! cleanup, postqueue, postsuper and `postroad flush` → qmgr, over `public/qmgr`.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mail::QueueId;
use serde::{Deserialize, Serialize};

use crate::frame;
use crate::outbox::Outbox;

/// What qmgr is told. None of it is answered: what a lost word would have started, the next scan does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// This message was committed to `incoming/`.
    Arrived(QueueId),
    /// Try everything that is deferred now (`postqueue -f`).
    Flush,
    /// Try this message now (`postqueue -i`).
    FlushMessage(QueueId),
    /// Try the mail for this domain now (`postqueue -s`).
    FlushSite(String),
    /// The operator moved files into `incoming/` (`postsuper -H`, `-r`): look there.
    Rescan,
}

/// A lasting connection to qmgr, shared by the threads of a process.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    outbox: Outbox,
    connection: Mutex<Option<UnixStream>>,
}

/// A queue manager that is stuck must not hold mail back at the door.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

impl Client {
    /// A client of the queue manager at this socket; connects when there is something to say.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, outbox: Outbox::default(), connection: Mutex::new(None) }
    }

    /// Says a word, on a new connection if the old one is gone.
    ///
    /// # Errors
    /// What connect or write say, to one of the threads whose words were to be sent. Cleanup takes no notice: a queued
    /// message waits for the scan at qmgr's start.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        self.outbox.say(
            |out| frame::push_message(out, word),
            |words| {
                // Who sends is alone: the lock is free.
                let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some(self.send(words, kept.take())?);
                Ok(())
            },
        )
    }

    /// Sends over this connection or, where it is gone, over a new one.
    fn send(&self, words: &[u8], connection: Option<UnixStream>) -> io::Result<UnixStream> {
        if let Some(mut socket) = connection
            && socket.write_all(words).is_ok()
        {
            return Ok(socket);
        }
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        socket.write_all(words)?;
        Ok(socket)
    }
}
