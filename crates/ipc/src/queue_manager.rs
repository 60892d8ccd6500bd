//! cleanup, postqueue, postsuper and `postroad flush` → qmgr, over `public/qmgr`.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use mail::QueueId;
use serde::{Deserialize, Serialize};

use crate::frame;

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
    connection: Mutex<Option<UnixStream>>,
}

impl Client {
    /// A client of the queue manager at this socket; connects when there is something to say.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, connection: Mutex::new(None) }
    }

    /// Says a word, on a new connection if the old one is gone.
    ///
    /// # Errors
    /// What connect or write say. Cleanup takes no notice: a queued message waits for the scan at qmgr's start.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = connection.as_ref()
            && frame::send(socket, word, None).is_ok()
        {
            return Ok(());
        }
        let socket = UnixStream::connect(&self.socket)?;
        // A queue manager that is stuck must not hold mail back at the door.
        socket.set_write_timeout(Some(std::time::Duration::from_secs(1)))?;
        frame::send(&socket, word, None)?;
        *connection = Some(socket);
        Ok(())
    }
}
