//! cleanup, postqueue, postsuper and `postroad flush` → qmgr, over `public/qmgr`.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
///
/// Threads that say something while another one is sending leave their words with it: they go out together.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that wait to be sent.
    waiting: Vec<u8>,
    /// A thread is sending, and looks for more when it is done.
    sending: bool,
    connection: Option<UnixStream>,
}

/// A queue manager that is stuck must not hold mail back at the door.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

impl Client {
    /// A client of the queue manager at this socket; connects when there is something to say.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, state: Mutex::new(State::default()) }
    }

    /// Says a word, on a new connection if the old one is gone.
    ///
    /// # Errors
    /// What connect or write say, to one of the threads whose words were to be sent. Cleanup takes no notice: a queued
    /// message waits for the scan at qmgr's start.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        let mut state = self.lock();
        frame::push_message(&mut state.waiting, word)?;
        if state.sending {
            return Ok(());
        }
        state.sending = true;
        let mut result = Ok(());
        while !state.waiting.is_empty() {
            let (words, connection) = (std::mem::take(&mut state.waiting), state.connection.take());
            drop(state);
            let sent = self.send(&words, connection);
            state = self.lock();
            match sent {
                Ok(connection) => state.connection = Some(connection),
                Err(error) => result = Err(error),
            }
        }
        state.sending = false;
        result
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
