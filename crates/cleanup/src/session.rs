//! One connection: message after message from a program of the suite.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::cleanup::{Answer, Begin, Committed, End, Late, Refusal};
use ipc::frame::{self, Frame, Receiver};
use ipc::log;
use ipc::queue_manager::{self, Fate, Word};
use mail::{Envelope, QueueId};
use queue::{Incoming, QueueError, Writer};
use service::{Connection, Stream};

use crate::clock::Clock;
use crate::message::{Buffers, Given, Message, Sink};
use crate::prospects::Prospects;
use crate::rules::Rules;

/// The longest that a client waits for its message to be delivered instead of stored. It is qmgr who knows what takes long,
/// and says so; this is for a queue manager that says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all sessions share.
pub(crate) struct Door {
    pub(crate) rules: Rules,
    pub(crate) incoming: Incoming,
    pub(crate) queue_manager: queue_manager::Client,
    /// `early_delivery_concurrency`; 0 for never.
    pub(crate) early_delivery_concurrency: usize,
    pub(crate) prospects: Prospects,
}

impl Door {
    /// Whether so many messages come at a time that the disk would hold them up (a client that sends one after another
    /// would only wait for each delivery), and mail like this is delivered at once.
    fn is_to_offer(&self) -> bool {
        (1..=self.incoming.in_hand()).contains(&self.early_delivery_concurrency) && self.prospects.are_good()
    }
}

/// Serves a client until it closes, or breaks the protocol.
pub(crate) fn serve(door: &Door, connection: &Connection) {
    let Stream::Unix(socket) = connection.stream.as_ref() else {
        log::warning!("cleanup is a service for programs of this host; use type unix for it in master.cf");
        return;
    };
    let session = Session {
        door,
        socket,
        receiver: Receiver::of_conversation(),
        clock: Clock::new(door.rules.zone.clone()),
        buffers: Buffers::default(),
        reply: Vec::new(),
    };
    match session.run() {
        Ok(()) => {}
        // A client that dies in the middle of a message has said what there is to say.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {}
        Err(error) => log::warning!("cleanup client: {error}"),
    }
}

struct Session<'a> {
    door: &'a Door,
    socket: &'a UnixStream,
    receiver: Receiver,
    clock: Clock,
    buffers: Buffers,
    reply: Vec<u8>,
}

impl Session<'_> {
    fn run(mut self) -> io::Result<()> {
        while let Some(begin) = self.receiver.next_message::<Begin>(self.socket)? {
            let id = begin.id;
            let can_wait = begin.options.can_wait;
            let mut draft = Draft { door: self.door, id, writer: None, held: false, can_wait, untold: None };
            let Some(answer) = self.take(begin, &mut draft)? else { continue };
            let answered = self.answer(&answer);
            if let Some(word) = draft.untold.take() {
                // A queue manager that is not there finds the message when it starts.
                let _ = self.door.queue_manager.say(&word);
            }
            answered?;
        }
        Ok(())
    }

    /// Takes one message; there is no answer to one that the client gives up.
    fn take(&mut self, begin: Begin, draft: &mut Draft<'_>) -> io::Result<Option<Answer>> {
        let Begin { id, envelope, options, full_name } = begin;
        let given = Given { id, envelope, options, full_name };
        let mut message = Message::begin(&self.door.rules, &mut self.clock, &mut self.buffers, given);
        loop {
            let Some(frame) = self.receiver.next_frame(self.socket)? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match frame {
                // After a refusal the client goes on until its end; only then it listens.
                Frame::Content(content) => {
                    if let Ok(taken) = &mut message
                        && let Err(refusal) = taken.take(content, draft)
                    {
                        message = Err(refusal);
                        draft.writer = None;
                    }
                }
                Frame::Message(body) => {
                    return match frame::decode(body)? {
                        End::Abort => Ok(None),
                        End::Commit(late) => {
                            Ok(Some(message.and_then(|message| finish(message, &late, draft))))
                        }
                    };
                }
            }
        }
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.reply.clear();
        frame::push_message(&mut self.reply, answer)?;
        let mut socket = self.socket;
        socket.write_all(&self.reply)
    }
}

/// The content is complete. A message that a check discards is answered like one that is queued.
fn finish(mut message: Message<'_>, late: &Late, draft: &mut Draft<'_>) -> Answer {
    message.decide_late(late, draft)?;
    let size = if message.finish(draft)? { draft.commit()? } else { message.size() };
    Ok(Committed { size })
}

/// A message on its way into the queue. Dropped before it is committed, it leaves nothing.
struct Draft<'a> {
    door: &'a Door,
    id: QueueId,
    writer: Option<Writer>,
    held: bool,
    /// It may be offered to qmgr before it is in the queue.
    can_wait: bool,
    /// What qmgr does not know: that it is in `incoming/`.
    untold: Option<Word>,
}

impl Sink for Draft<'_> {
    fn open(&mut self, envelope: &Envelope, hold: bool) -> Result<(), Refusal> {
        self.held = hold;
        let writer = self.door.incoming.create(self.id, envelope, hold);
        let mut writer = writer.map_err(|error| refusal(self.id, &error))?;
        if self.can_wait && !hold && self.door.is_to_offer() {
            writer.write_to_memory();
        }
        self.writer = Some(writer);
        Ok(())
    }

    fn append(&mut self, content: &[u8]) -> Result<(), Refusal> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.append(content).map_err(|error| refusal(self.id, &error))
    }

    fn replace_envelope(&mut self, envelope: &Envelope) -> Result<(), Refusal> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.replace_envelope(envelope).map_err(|error| refusal(self.id, &error))
    }

    fn hold(&mut self) {
        self.held = true;
        if let Some(writer) = &mut self.writer {
            writer.set_hold();
        }
    }
}

impl Draft<'_> {
    fn commit(&mut self) -> Result<u64, Refusal> {
        let Some(writer) = self.writer.take() else {
            return Err(Refusal::Temporary("the message was never begun".into()));
        };
        if writer.is_in_memory() {
            return self.offer(writer);
        }
        let size = writer.commit().map_err(|error| refusal(self.id, &error))?;
        self.untold = (!self.held).then_some(Word::Arrived(self.id));
        Ok(size)
    }

    /// Has the message delivered before it is acknowledged, where that takes a moment only: what nobody waits for any more
    /// when it is acknowledged need not be in the queue.
    fn offer(&mut self, writer: Writer) -> Result<u64, Refusal> {
        let lent = writer.lend().map_err(|error| refusal(self.id, &error))?;
        let fate = self.door.queue_manager.offer(self.id, lent.file(), PATIENCE);
        self.door.prospects.note(fate.clone().unwrap_or(Fate::Kept));
        match fate {
            Ok(Fate::Kept) => {
                let stored = lent.store();
                let word = if stored.is_ok() { Word::Stored } else { Word::Withdrawn };
                self.untold = Some(word(self.id));
                stored.map_err(|error| refusal(self.id, &error))
            }
            Ok(Fate::Delivered { .. }) => Ok(lent.delivered()),
            Err(error) => {
                log::warning!("{}: commit of its delivery: {error}; it may come again", self.id);
                Err(Refusal::Temporary(error))
            }
        }
    }
}

fn refusal(id: QueueId, error: &QueueError) -> Refusal {
    log::warning!("{id}: {error}");
    match error {
        QueueError::NoSpace { .. } => Refusal::NoSpace,
        error => Refusal::Temporary(error.to_string()),
    }
}
