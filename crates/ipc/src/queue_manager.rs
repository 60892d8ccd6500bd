//! cleanup, postqueue, postsuper and `postroad flush` → qmgr, over `public/qmgr`.

use std::fmt;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::QueueId;
use serde::{Deserialize, Serialize};

use crate::frame;
use crate::offers::Offers;
use crate::outbox::Outbox;

/// What qmgr is told. Only an offer is answered: what a lost word would have started, the next scan does.
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
    /// This message is whole in `incoming/`, and not synced: who brought it waits for an [`Answer`], for a moment.
    Offered(QueueId),
}

/// What qmgr says of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The message.
    pub id: QueueId,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Nothing is owed to any recipient, and the queue has it no more. Where its delivery relies on the order of a journal,
    /// it lasts when the removal does.
    Removed,
    /// It stays for now, or nobody knows: it lasts when its file is synced.
    Kept,
}

/// A lasting connection to qmgr, shared by the threads of a process.
pub struct Client {
    socket: PathBuf,
    outbox: Outbox,
    connection: Mutex<Option<UnixStream>>,
    /// Of a client that offers messages, and so listens to answers.
    offers: Option<Arc<Offers>>,
}

/// A queue manager that is stuck must not hold mail back at the door.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

impl Client {
    /// A client of the queue manager at this socket; connects when there is something to say.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, outbox: Outbox::default(), connection: Mutex::new(None), offers: None }
    }

    /// The same, but that it may offer messages. `commit` makes all last that was changed on the file system until it is
    /// called; it is called for what qmgr has removed, before who waits is told.
    #[must_use]
    pub fn that_offers(self, commit: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { offers: Some(Arc::new(Offers::new(Box::new(commit)))), ..self }
    }

    /// Offers a message that is whole in `incoming/` and not synced, and waits until it is known what becomes of it, or
    /// for so long. What is said to be removed lasts where it was delivered.
    ///
    /// # Errors
    /// What `commit` says of a message that is removed: it is not known whether it lasts.
    pub fn offer(&self, id: QueueId, patience: Duration) -> Result<Fate, String> {
        let Some(offers) = &self.offers else { return Ok(Fate::Kept) };
        let told = offers.expect(id);
        // What could not be said may have been another's word; who waits for an answer to it is told that there is none.
        let said = self.say(&Word::Offered(id));
        let told = said.ok().and_then(|()| told.recv_timeout(patience).ok());
        offers.forget(id);
        told.unwrap_or(Ok(Fate::Kept))
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
        if let Some(mut socket) = connection {
            if socket.write_all(words).is_ok() {
                return Ok(socket);
            }
            // Ends the thread that listens at it.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let connected = self.connect().and_then(|mut socket| match socket.write_all(words) {
            Ok(()) => Ok(socket),
            Err(error) => {
                let _ = socket.shutdown(Shutdown::Both);
                Err(error)
            }
        });
        if let (Err(_), Some(offers)) = (&connected, &self.offers) {
            offers.give_up();
        }
        connected
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let socket = UnixStream::connect(&self.socket)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        if let Some(offers) = &self.offers {
            let (listening, offers) = (socket.try_clone()?, Arc::clone(offers));
            let thread = std::thread::Builder::new().name("answers".into()).stack_size(128 * 1024);
            thread.spawn(move || offers.listen(&listening))?;
        }
        Ok(socket)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).finish_non_exhaustive()
    }
}
