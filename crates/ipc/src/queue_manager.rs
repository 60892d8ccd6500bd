//! cleanup, postqueue, postsuper and `postroad flush` → qmgr, over `public/qmgr`.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::QueueId;
use serde::{Deserialize, Serialize};
use sys::descriptors::send_with_descriptors;

use crate::frame;
use crate::offers::Offers;
use crate::outbox::{Outbox, Words};

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
    /// The file that comes with this word is this message, whole, in memory only ([`sys::lent`]): who brought it waits for an
    /// [`Answer`], for a moment.
    Offered(QueueId),
    /// This message was offered and stays: now it is in `incoming/`, durable.
    Stored(QueueId),
    /// This message was offered and stays, but could not be stored: nobody was told that it is taken.
    Withdrawn(QueueId),
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
    /// Nothing is owed to any recipient, and the queue never had it.
    Delivered {
        /// That lasts when something lasts which is changed later, in a journal that keeps the order of changes. Otherwise it lasts.
        relies_on_order: bool,
    },
    /// It stays for now, or nobody knows: who brought it stores it, and says so ([`Word::Stored`]).
    Kept,
}

/// A lasting connection to qmgr, shared by the threads of a process.
pub struct Client {
    socket: PathBuf,
    outbox: Outbox<Said>,
    connection: Mutex<Option<UnixStream>>,
    /// Of a client that offers messages, and so listens to answers.
    offers: Option<Arc<Offers>>,
}

/// Words, and the files that go with them.
#[derive(Default)]
struct Said {
    words: Vec<u8>,
    files: Vec<Arc<File>>,
}

impl Words for Said {
    fn size(&self) -> usize {
        self.words.size()
    }

    fn reuse(&mut self) {
        self.words.reuse();
        self.files.clear();
    }
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
    /// called; it is called for what was delivered, before who waits is told.
    #[must_use]
    pub fn that_offers(self, commit: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { offers: Some(Arc::new(Offers::new(Box::new(commit)))), ..self }
    }

    /// Offers a message that is whole and in memory only, and waits until it is known what becomes of it, or for so long. What
    /// is said to be delivered lasts.
    ///
    /// # Errors
    /// What `commit` says of a message that is delivered: it is not known whether it lasts.
    pub fn offer(&self, id: QueueId, file: &Arc<File>, patience: Duration) -> Result<Fate, String> {
        let Some((offers, told)) = self.offers.as_ref().and_then(|offers| Some((offers, offers.expect(id)?)))
        else {
            return Ok(Fate::Kept);
        };
        let put = |said: &mut Said| {
            frame::push_message(&mut said.words, &Word::Offered(id))?;
            said.files.push(Arc::clone(file));
            Ok(())
        };
        // What could not be said may have been another's word; who waits for an answer to it is told that there is none.
        match self.say_all(put) {
            Ok(()) => offers.wait(id, &told, patience),
            Err(_) => {
                offers.forget(id);
                Ok(Fate::Kept)
            }
        }
    }

    /// Says a word, on a new connection if the old one is gone.
    ///
    /// # Errors
    /// What connect or write say, to one of the threads whose words were to be sent. Cleanup takes no notice: a queued
    /// message waits for the scan at qmgr's start.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        self.say_all(|said| frame::push_message(&mut said.words, word))
    }

    fn say_all(&self, put: impl FnOnce(&mut Said) -> io::Result<()>) -> io::Result<()> {
        self.outbox.say(put, |said| {
            // Who sends is alone: the lock is free.
            let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some(self.send(said, kept.take())?);
            Ok(())
        })
    }

    /// Sends over this connection or, where it is gone, over a new one.
    fn send(&self, said: &Said, connection: Option<UnixStream>) -> io::Result<UnixStream> {
        let send = |socket: &UnixStream| send_with_descriptors(socket, &said.words, &said.files);
        if let Some(socket) = connection {
            if send(&socket).is_ok() {
                return Ok(socket);
            }
            // Ends the thread that listens at it.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let connected = self.connect().and_then(|socket| match send(&socket) {
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
