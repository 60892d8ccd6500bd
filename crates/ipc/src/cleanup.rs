//! smtpd, pickup, bounce and local → cleanup: one message after another over a connection that stays open.
//!
//! The client sends [`Begin`], content, [`End`]; a small message is one write. Cleanup answers once, after the end:
//! committed, or refused. Whoever drops the connection before [`End`] has sent nothing. A message streams, so a
//! connection carries one at a time and a client keeps several; they are not multiplexed.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mail::{Address, Dsn, Envelope, QueueId};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Frame, Receiver};

/// How much is gathered before it is sent.
const CHUNK: usize = 64 * 1024;

/// A message that becomes larger than this is taken for a large one.
const SMALL: usize = 16 * 1024;

/// The memory for it that is kept: there is room for an end as well.
const MOST_KEPT: usize = CHUNK + 1024;

/// The most idle connections a client keeps.
const MAX_IDLE: usize = 64;

/// The first frame of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The name the message will have in the queue; the client has made and logged it.
    pub id: QueueId,
    /// Sender, recipients and the rest of the envelope.
    pub envelope: Envelope,
    /// What cleanup is to do.
    pub options: Options,
    /// The submitter's full name, for a `From:` header that is missing; empty where it is not known.
    pub full_name: String,
}

/// What cleanup does to a message; the negation of Postfix's `receive_override_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, each a word of receive_override_options"
)]
pub struct Options {
    /// Header and body checks (`no_header_body_checks` clears it).
    pub filter: bool,
    /// Virtual aliases, canonical forms, automatic copies (`no_address_mappings` clears it).
    pub map_addresses: bool,
    /// `enable_original_recipient` and the like are looked at; otherwise the recipients are taken as they are.
    pub record_original: bool,
    /// Into the hold queue.
    pub hold: bool,
    /// Whoever brings it can wait for a moment until it is delivered, so that it need not be synced before.
    pub can_wait: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter: true, map_addresses: true, record_original: true, hold: false, can_wait: false }
    }
}

/// What was decided about a message when all of its content was known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Into the hold queue.
    pub hold: bool,
    /// `transport:nexthop` of a content filter.
    pub filter: Option<String>,
    /// Who gets it instead of all others.
    pub redirect: Option<Address>,
    /// Who gets it besides, unseen.
    pub bcc: Option<Address>,
}

/// What follows the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The message is whole: commit it.
    Commit(Late),
    /// The client gives up; the connection stays good.
    Abort,
}

/// Cleanup's answer to [`End::Commit`]. [`End::Abort`] is not answered.
pub type Answer = Result<Committed, Refusal>;

/// The message is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The size of the content as it is queued, in bytes.
    pub size: u64,
}

/// Why cleanup did not take a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Larger than `message_size_limit`.
    TooBig,
    /// More `Received:` headers than `hopcount_limit`.
    TooManyHops,
    /// No space for it on the queue's file system.
    NoSpace,
    /// A table could not be asked, the disk failed: try again.
    Temporary(String),
    /// Header or body checks, or a limit, refuse it for good, with this text.
    Rejected(Dsn, String),
}

impl Refusal {
    /// The enhanced status code.
    #[must_use]
    pub const fn dsn(&self) -> Dsn {
        match self {
            Self::TooBig => Dsn::new(5, 3, 4),
            Self::TooManyHops => Dsn::new(5, 4, 0),
            Self::NoSpace => Dsn::new(4, 3, 1),
            Self::Temporary(_) => Dsn::new(4, 3, 0),
            Self::Rejected(dsn, _) => *dsn,
        }
    }
}

impl fmt::Display for Refusal {
    /// The words that a client is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig => f.write_str("message file too big"),
            Self::TooManyHops => f.write_str("too many hops"),
            Self::NoSpace => f.write_str("queue file write error: no space left"),
            Self::Temporary(_) => f.write_str("queue file write error"),
            Self::Rejected(_, text) => f.write_str(text),
        }
    }
}

/// Why a submission failed.
#[derive(Debug)]
pub enum CleanupError {
    /// Cleanup cannot be reached, or went away before it answered: nothing is known to be queued.
    Unreachable(io::Error),
    /// Cleanup answered no.
    Refused(Refusal),
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cleanup service: {error}"),
            Self::Refused(Refusal::Temporary(cause)) => write!(f, "cleanup service: {cause}"),
            Self::Refused(refusal) => write!(f, "cleanup service: {refusal}"),
        }
    }
}

impl std::error::Error for CleanupError {}

/// The way to cleanup: keeps connections open from one message to the next. Shared by all threads of a process.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    out: Vec<u8>,
    receiver: Receiver,
}

impl Client {
    /// A client of the cleanup service at this socket; connects when the first message comes.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { socket, idle: Mutex::new(Vec::new()) }) }
    }

    /// Begins a message. Nothing is sent before 64 KiB are gathered or the message is committed.
    ///
    /// # Errors
    /// An envelope beyond the frame limit.
    pub fn begin(
        &self,
        id: QueueId,
        envelope: &Envelope,
        options: Options,
    ) -> Result<Submission, CleanupError> {
        self.begin_as("", id, envelope, options)
    }

    /// As [`Client::begin`], for a submitter whose full name is known.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub fn begin_as(
        &self,
        full_name: &str,
        id: QueueId,
        envelope: &Envelope,
        options: Options,
    ) -> Result<Submission, CleanupError> {
        #[derive(Serialize)]
        struct Borrowed<'a>(QueueId, &'a Envelope, Options, &'a str);
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (kept, mut out) = match idle {
            Some(mut connection) => {
                let out = std::mem::take(&mut connection.out);
                (Some(connection), out)
            }
            None => (None, Vec::new()),
        };
        out.clear();
        // Field by field a `Begin`, without a copy of the envelope.
        let begin = Borrowed(id, envelope, options, full_name);
        frame::push_message(&mut out, &begin).map_err(CleanupError::Unreachable)?;
        Ok(Submission { client: self.clone(), connection: kept, out, started: false })
    }

    fn connect(&self) -> io::Result<Connection> {
        let socket = UnixStream::connect(&self.shared.socket).map_err(|e| {
            io::Error::new(e.kind(), format!("connect to {}: {e}", self.shared.socket.display()))
        })?;
        Ok(Connection { socket, out: Vec::new(), receiver: Receiver::of_conversation() })
    }

    fn keep(&self, mut connection: Connection) {
        connection.out.clear();
        connection.out.shrink_to(MOST_KEPT);
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

/// One message on its way to cleanup. Write its content, lines ended by LF; dropping it unfinished sends nothing on.
#[derive(Debug)]
pub struct Submission {
    client: Client,
    connection: Option<Connection>,
    out: Vec<u8>,
    /// Something of this message is on the wire, so another connection can no longer be tried.
    started: bool,
}

impl Write for Submission {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        if self.out.len() + frame::HEAD >= CHUNK {
            self.transmit()?;
        }
        if self.out.len() + content.len() > SMALL {
            // All that it will need, and no more: it is kept for the next message.
            self.out.reserve_exact(MOST_KEPT.saturating_sub(self.out.len()));
        }
        let taken = content.len().min(CHUNK - frame::HEAD - self.out.len());
        frame::push_content(&mut self.out, &content[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Submission {
    /// Ends the message and waits until it is durable.
    ///
    /// # Errors
    /// [`CleanupError::Refused`] with cleanup's reason; [`CleanupError::Unreachable`] where no answer came.
    pub fn commit(self) -> Result<Committed, CleanupError> {
        self.commit_with(Late::default())
    }

    /// As [`Submission::commit`], with what was decided at the end.
    ///
    /// # Errors
    /// As [`Submission::commit`].
    pub fn commit_with(mut self, late: Late) -> Result<Committed, CleanupError> {
        let answer = self.exchange(late).map_err(CleanupError::Unreachable)?;
        if let Some(mut connection) = self.connection.take() {
            connection.out = std::mem::take(&mut self.out);
            self.client.keep(connection);
        }
        answer.map_err(CleanupError::Refused)
    }

    fn exchange(&mut self, late: Late) -> io::Result<Answer> {
        frame::push_message(&mut self.out, &End::Commit(late))?;
        let first_try = !self.started && self.connection.is_some();
        let sent = self.out.len();
        match self.transmit_keeping().and_then(|()| self.answer()) {
            // A connection that idled may have been closed by a cleanup that has since been replaced. It closes
            // only between messages, so nothing of this one was taken: once more, on a new connection.
            Err(error) if first_try && is_closed(&error) && self.out.len() == sent => {
                self.connection = Some(self.client.connect()?);
                self.transmit_keeping()?;
                self.answer()
            }
            result => result,
        }
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match connection.receiver.next_message(&connection.socket)? {
            Some(answer) => Ok(answer),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn transmit(&mut self) -> io::Result<()> {
        let first_try = !self.started && self.connection.is_some();
        match self.transmit_keeping() {
            Err(error) if first_try && is_closed(&error) => {
                self.connection = Some(self.client.connect()?);
                self.transmit_keeping()?;
            }
            result => result?,
        }
        self.out.clear();
        self.started = true;
        Ok(())
    }

    fn transmit_keeping(&mut self) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(self.client.connect()?);
        }
        let connection = self.connection.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        sys::descriptors::send_with_descriptor(&connection.socket, &self.out, None)
    }
}

/// The peer closed the connection before it had read the end of the message, so it cannot have committed it: a send
/// fails with EPIPE, or the answer with ECONNRESET because bytes were left unread. A plain end of file is not among
/// them: a cleanup that died there may have committed, and to send again would deliver twice.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Cleanup's end of a connection.
#[derive(Debug)]
pub struct Server {
    socket: UnixStream,
    receiver: Receiver,
    out: Vec<u8>,
}

/// What a client sent behind [`Begin`].
#[derive(Debug)]
pub enum Part<'a> {
    /// The next bytes of the content.
    Content(&'a [u8]),
    /// The end.
    End(End),
}

impl Server {
    /// Serves the client at the other end.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, receiver: Receiver::new(), out: Vec::new() }
    }

    /// Waits for the next message; `None` when the client closed.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` for garbage.
    pub fn next_message(&mut self) -> io::Result<Option<Begin>> {
        self.receiver.next_message(&self.socket)
    }

    /// The next part of the message.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when the client went away before the end.
    pub fn next_part(&mut self) -> io::Result<Part<'_>> {
        match self.receiver.next_frame(&self.socket)? {
            Some(Frame::Content(content)) => Ok(Part::Content(content)),
            Some(Frame::Message(body)) => Ok(Part::End(frame::decode(body)?)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Answers [`End::Commit`].
    ///
    /// # Errors
    /// What the socket says.
    pub fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.out.clear();
        frame::push_message(&mut self.out, answer)?;
        (&self.socket).write_all(&self.out)
    }

    /// The socket, for the skeleton to shut down when it drains.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, SystemTime};

    use mail::Address;

    use super::*;

    fn envelope() -> Envelope {
        Envelope::new(Address::new("a@b").unwrap(), vec![], Duration::from_secs(1))
    }

    #[test]
    fn messages_follow_each_other_and_survive_a_replaced_server() {
        let folder = tempfile_folder();
        let listener = UnixListener::bind(folder.join("cleanup")).unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut server = Server::new(listener.accept().unwrap().0);
                let begin = server.next_message().unwrap().unwrap();
                assert_eq!(begin.envelope, envelope());
                let mut size = 0;
                while let Part::Content(content) = server.next_part().unwrap() {
                    size += content.len() as u64;
                }
                server.answer(&Ok(Committed { size })).unwrap();
            }
        });
        let client = Client::new(folder.join("cleanup"));
        // The second finds its connection closed; it can go over a new one because none of it was sent before its end.
        for size in [300_000_usize, 10] {
            let id = QueueId::generate(SystemTime::now());
            let mut submission = client.begin(id, &envelope(), Options::default()).unwrap();
            submission.write_all(&vec![b'x'; size]).unwrap();
            assert_eq!(submission.commit().unwrap().size, size as u64);
        }
        server.join().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile_folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ipc-cleanup-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        folder
    }
}
