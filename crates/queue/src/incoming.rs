//! Cleanup's side: a message is written and committed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mail::{Envelope, Notify, QueueId, Recipient};
use nix::sys::stat::{Mode, fchmod};

use crate::QueueError;
use crate::folder::Directory;
use crate::format::envelope::{RecipientState, encode_message, encode_recipient};
use crate::format::head::{HEAD_SIZE, Head, MAX_ENVELOPE, MAX_MESSAGE_RECORDS, MAX_RECIPIENTS};

/// What is collected before it is written: a message that fits is one write.
const BUFFER_SIZE: usize = 64 * 1024;

/// A piece of content that is written as it lies rather than copied: a write costs less than that.
const LARGE_PIECE: usize = 32 * 1024;

/// A message whose file is larger is not lent: memory is for what is gone in a moment.
const MOST_LENT: u64 = 256 * 1024;

/// So many are written to memory at a time: they never fill more than 64 MiB.
const MOST_IN_MEMORY: usize = 256;

/// A buffer of this size at most is kept by its thread for the next message: most mail is smaller.
const KEPT_BUFFER: usize = 8 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The power to bring messages into the queue, and nothing else. Cheap to clone; threads share it without a lock, so
/// that many commits wait for the same commit of the file system's journal.
#[derive(Clone, Debug)]
pub struct Incoming(Arc<Places>);

#[derive(Debug)]
struct Places {
    incoming: Arc<Directory>,
    hold: Arc<Directory>,
    name_survives_fsync: bool,
    /// Messages that are being written, or are and wait to be durable.
    writers: AtomicUsize,
}

impl Incoming {
    pub(crate) fn new(incoming: Arc<Directory>, hold: Arc<Directory>, name_survives_fsync: bool) -> Self {
        Self(Arc::new(Places { incoming, hold, name_survives_fsync, writers: AtomicUsize::new(0) }))
    }

    /// How many messages are being written, or are and wait to be durable.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.0.writers.load(Ordering::Relaxed)
    }

    /// Makes all last that was changed before in the journal of the file system, as a name in a Maildir is.
    ///
    /// # Errors
    /// What the system says: it is not known what lasts.
    pub fn commit_journal(&self) -> io::Result<()> {
        self.0.incoming.commit()
    }

    /// Begins a message. `hold` sends it to `hold/` rather than to qmgr.
    ///
    /// Nothing is on disk before the buffer overflows or the message is committed: a message that is refused for its
    /// content costs the file system nothing.
    ///
    /// # Errors
    /// A part of the envelope that is too large for the format.
    pub fn create(&self, id: QueueId, envelope: &Envelope, hold: bool) -> Result<Writer, QueueError> {
        let mut message_records = Vec::with_capacity(256);
        encode_message(envelope, &mut message_records)?;
        if message_records.len() as u64 > MAX_MESSAGE_RECORDS {
            return Err(QueueError::Oversized("envelope"));
        }
        self.0.writers.fetch_add(1, Ordering::Relaxed);
        let mut writer = Writer {
            places: Arc::clone(&self.0),
            id,
            hold,
            stage: Stage::Envelope(Records { message: message_records, ..Records::default() }),
            buffer: SPARE.take(),
            written: 0,
            content_size: 0,
            content_checksum: crc32fast::Hasher::new(),
            in_memory: false,
            file: None,
            broken: false,
        };
        envelope.recipients.iter().try_for_each(|recipient| writer.add_recipient(recipient))?;
        Ok(writer)
    }
}

/// A message that is being written. Dropped before [`Writer::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    places: Arc<Places>,
    id: QueueId,
    hold: bool,
    stage: Stage,
    /// What follows the `written` bytes.
    buffer: Vec<u8>,
    written: u64,
    content_size: u64,
    content_checksum: crc32fast::Hasher,
    /// It may be lent.
    in_memory: bool,
    file: Option<(File, Lies)>,
    /// A write failed: what is in the file is not the message.
    broken: bool,
}

/// Where the file was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    Incoming,
    Hold,
    Memory,
}

#[derive(Debug)]
enum Stage {
    /// Recipients may still be added.
    Envelope(Records),
    /// The place of every part is known; the checksum was fed the envelope.
    Content { head: Head, envelope_checksum: crc32fast::Hasher },
}

#[derive(Debug, Default)]
struct Records {
    message: Vec<u8>,
    recipients: Vec<u8>,
    count: u32,
    /// The numbers of those that are reported and not delivered to ([`Notify::EXPANDED`]).
    expanded: Vec<u32>,
}

impl Writer {
    /// Adds a recipient.
    ///
    /// # Errors
    /// When content was already written: the recipients stand before it in the file.
    pub fn add_recipient(&mut self, recipient: &Recipient) -> Result<(), QueueError> {
        let Stage::Envelope(records) = &mut self.stage else {
            return Err(QueueError::Oversized("a list of recipients that goes on after the content began"));
        };
        encode_recipient(recipient, &mut records.recipients)?;
        if recipient.notify.contains(Notify::EXPANDED) {
            records.expanded.push(records.count);
        }
        records.count += 1;
        let size = records.message.len() + records.recipients.len();
        if records.count > MAX_RECIPIENTS || size as u64 > MAX_ENVELOPE {
            return Err(QueueError::Oversized("the list of recipients"));
        }
        Ok(())
    }

    /// Puts another envelope, with its recipients, in the place of the one that was begun with: a rule may say so when
    /// it sees the content. What was written of that moves to its new place.
    ///
    /// # Errors
    /// What reading or writing the file says; the message can then only be dropped.
    pub fn replace_envelope(&mut self, envelope: &Envelope) -> Result<(), QueueError> {
        let mut records = Records::default();
        encode_message(envelope, &mut records.message)?;
        let before = std::mem::replace(&mut self.stage, Stage::Envelope(records));
        envelope.recipients.iter().try_for_each(|recipient| self.add_recipient(recipient))?;
        let Stage::Content { head: before, .. } = before else { return Ok(()) };
        let unwritten = std::mem::take(&mut self.buffer);
        self.lay_out();
        let Stage::Content { head, .. } = &self.stage else { return Ok(()) };
        let (from, to) = (before.content_offset, head.content_offset);
        if self.written == 0 {
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            self.buffer.extend_from_slice(unwritten.get(start..).unwrap_or_default());
            return Ok(());
        }
        let moved = self.written.saturating_sub(from);
        self.move_within(from, to, moved)?;
        let front = std::mem::replace(&mut self.buffer, unwritten);
        self.write_at(&front, 0)?;
        self.written = to + moved;
        Ok(())
    }

    /// Moves a part of the file, in pieces, from the end that is not overwritten before it was read.
    fn move_within(&mut self, from: u64, to: u64, length: u64) -> Result<(), QueueError> {
        let piece_size = BUFFER_SIZE as u64;
        let pieces = length.div_ceil(piece_size);
        let mut piece = vec![0; BUFFER_SIZE];
        for number in 0..pieces {
            let start = piece_size * if to > from { pieces - 1 - number } else { number };
            let size = usize::try_from((length - start).min(piece_size)).unwrap_or(BUFFER_SIZE);
            if let Some((file, _)) = &self.file {
                let read = file.read_exact_at(&mut piece[..size], from + start);
                read.map_err(|error| self.failed("read", error))?;
            }
            self.write_at(&piece[..size], to + start)?;
        }
        // What is left behind the content would be taken for a journal.
        let Some((file, _)) = &self.file else { return Ok(()) };
        let cut = file.set_len(to + length);
        cut.map_err(|error| self.failed("truncate", error))
    }

    /// Has the message written to memory, from which it may be lent, as long as it is not too large for that; to the disk like
    /// any other where too many are, or the system has no memory for it.
    pub fn write_to_memory(&mut self) {
        if self.file.is_none() && self.places.writers.load(Ordering::Relaxed) <= MOST_IN_MEMORY {
            self.file = sys::lent::make("message").ok().map(|file| (file, Lies::Memory));
            self.in_memory = self.file.is_some();
        }
    }

    /// Whether it may be lent.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.in_memory && !self.hold
    }

    /// Sends the message to `hold/` after all: a rule may say so when it sees the content.
    pub fn set_hold(&mut self) {
        self.hold = true;
    }

    /// How much content was written so far.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.content_size
    }

    /// Appends content, with LF line ends.
    ///
    /// # Errors
    /// What creating or writing the file says; the message can then only be dropped.
    pub fn append(&mut self, content: &[u8]) -> Result<(), QueueError> {
        self.lay_out();
        self.content_checksum.update(content);
        self.content_size += content.len() as u64;
        if content.len() >= LARGE_PIECE || self.buffer.len() + content.len() > BUFFER_SIZE {
            self.write_out()?;
        }
        if content.len() < LARGE_PIECE {
            self.buffer.extend_from_slice(content);
            return Ok(());
        }
        let at = self.written;
        self.write_at(content, at)?;
        self.written += content.len() as u64;
        Ok(())
    }

    /// Writes the message whole into memory, to be lent to qmgr. Nobody may be told that it is taken.
    ///
    /// # Errors
    /// What the system says.
    pub fn lend(mut self) -> Result<Lent, QueueError> {
        self.complete()?;
        let Some((file, _)) = self.file.take_if(|(_, lies)| *lies == Lies::Memory) else {
            return Err(self.failed("lend", io::Error::other("it was not written to memory")));
        };
        sys::lent::seal(&file).map_err(|error| self.failed("seal", error))?;
        Ok(Lent { writer: self, file: Arc::new(file) })
    }

    /// Makes the message durable and hands it to qmgr: the size of its content.
    ///
    /// Five system calls for a message below 32 KiB: create, write, chmod, fsync, close. The order is what a crash
    /// respects: the head is written after everything it vouches for, the mode says ready after the head, and
    /// nothing is acknowledged before fsync returned. The chmod stands before the fsync, because a mode that a power cut takes
    /// back would hide a message that was acknowledged; and it is fsync rather than fdatasync, because the latter
    /// need not write the mode. A qmgr that sees the file before it is durable does no harm: the worst is a
    /// message that is delivered and not acknowledged, as after a connection that breaks before the reply.
    ///
    /// # Errors
    /// What the system says; the file is then removed.
    pub fn commit(mut self) -> Result<u64, QueueError> {
        self.leave_memory()?;
        self.complete()?;
        self.make_durable()
    }

    /// Writes the message whole.
    fn complete(&mut self) -> Result<(), QueueError> {
        self.lay_out();
        if self.broken {
            let source = io::Error::other("an earlier write to it failed");
            return Err(QueueError::new("commit", self.directory().path_of(self.id), source));
        }
        self.write_head_last()
    }

    /// Makes the message ready, in its folder, and waits for the disk: the size of its content.
    fn make_durable(&mut self) -> Result<u64, QueueError> {
        let moved = self.make_ready()?;
        let (directory, id) = (self.directory(), self.id);
        let failed = |operation| move |error| QueueError::new(operation, directory.path_of(id), error);
        let Some((file, _)) = &self.file else { return Ok(self.content_size) };
        file.sync_all().map_err(failed("sync"))?;
        // One that qmgr has found and removed meanwhile lasts where it was delivered, if the names last that were changed until then.
        let removed = || file.metadata().map(|stat| stat.nlink() == 0).map_err(failed("stat"));
        if moved || !self.places.name_survives_fsync || removed()? {
            directory.sync(id)?;
        }
        self.file = None;
        Ok(self.content_size)
    }

    /// From now on the message is on the disk: what was written of it to memory moves there.
    fn leave_memory(&mut self) -> Result<(), QueueError> {
        self.in_memory = false;
        let Some((memory, Lies::Memory)) = &self.file else { return Ok(()) };
        let memory = memory.try_clone().map_err(|error| self.failed("read", error))?;
        self.file = None;
        self.copy(&memory)
    }

    /// Writes what is in this file, its first piece last: the head comes after all that it vouches for.
    fn copy(&mut self, memory: &File) -> Result<(), QueueError> {
        let piece_size = BUFFER_SIZE as u64;
        let size = memory.metadata().map_err(|error| self.failed("read", error))?.len();
        let mut piece = vec![0; BUFFER_SIZE.min(usize::try_from(size).unwrap_or(BUFFER_SIZE))];
        for start in (piece_size..size).step_by(BUFFER_SIZE).chain([0]) {
            let length = usize::try_from((size - start).min(piece_size)).unwrap_or(BUFFER_SIZE);
            memory.read_exact_at(&mut piece[..length], start).map_err(|error| self.failed("read", error))?;
            self.write_at(&piece[..length], start)?;
        }
        Ok(())
    }

    fn failed(&mut self, operation: &'static str, error: io::Error) -> QueueError {
        self.broken = true;
        QueueError::new(operation, self.directory().path_of(self.id), error)
    }

    /// Fixes where everything goes, with an empty head in front. Called once recipients are complete.
    fn lay_out(&mut self) {
        let Stage::Envelope(records) = &mut self.stage else { return };
        let records = std::mem::take(records);
        let states = usize::try_from(records.count).unwrap_or(usize::MAX);
        self.buffer.reserve(HEAD_SIZE + states + records.message.len() + records.recipients.len());
        self.buffer.resize(HEAD_SIZE, 0);
        self.buffer.resize(HEAD_SIZE + states, RecipientState::Pending.byte());
        for index in records.expanded {
            let state = usize::try_from(index).ok().and_then(|index| self.buffer.get_mut(HEAD_SIZE + index));
            if let Some(state) = state {
                *state = RecipientState::Delivered.byte();
            }
        }
        self.buffer.extend_from_slice(&records.message);
        let recipients_offset = self.buffer.len() as u64;
        self.buffer.extend_from_slice(&records.recipients);
        let mut envelope_checksum = crc32fast::Hasher::new();
        envelope_checksum.update(&records.message);
        envelope_checksum.update(&records.recipients);
        let head = Head {
            recipients: records.count,
            recipients_offset,
            content_offset: self.buffer.len() as u64,
            content_size: 0,
            content_checksum: 0,
            envelope_checksum: 0,
        };
        self.stage = Stage::Content { head, envelope_checksum };
    }

    /// Writes what is left and the head: in one write, where nothing was written yet.
    fn write_head_last(&mut self) -> Result<(), QueueError> {
        let Stage::Content { head, envelope_checksum } = &self.stage else { return Ok(()) };
        let content_checksum = self.content_checksum.clone().finalize();
        let head = Head { content_size: self.content_size, content_checksum, ..*head };
        let bytes = head.sealed(envelope_checksum.clone()).encode();
        if self.written == 0 {
            self.buffer[..HEAD_SIZE].copy_from_slice(&bytes);
            return self.write_out();
        }
        self.write_out()?;
        self.write_at(&bytes, 0)
    }

    /// Ready, and in its place: whether it had to be moved there.
    fn make_ready(&mut self) -> Result<bool, QueueError> {
        let directory = Arc::clone(self.directory());
        let Some((file, lies)) = &mut self.file else { return Ok(false) };
        let moved = self.hold && *lies == Lies::Incoming;
        if moved {
            self.places.incoming.rename(self.id, &self.places.hold)?;
            *lies = Lies::Hold;
        }
        fchmod(&*file, Mode::S_IRWXU)
            .map_err(|errno| QueueError::new("make ready", directory.path_of(self.id), errno.into()))?;
        Ok(moved)
    }

    fn write_out(&mut self) -> Result<(), QueueError> {
        let buffer = std::mem::take(&mut self.buffer);
        let at = self.written;
        self.write_at(&buffer, at)?;
        self.written += buffer.len() as u64;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), QueueError> {
        if self.in_memory && offset + bytes.len() as u64 > MOST_LENT {
            self.leave_memory()?;
        }
        if self.file.is_none() {
            let lies = if self.hold { Lies::Hold } else { Lies::Incoming };
            self.file = Some((self.directory().create(self.id).inspect_err(|_| self.broken = true)?, lies));
        }
        let Some((file, _)) = &self.file else { return Ok(()) };
        let written = file.write_all_at(bytes, offset);
        written.map_err(|error| self.failed("write", error))
    }

    /// Where the message will be in the end.
    fn directory(&self) -> &Arc<Directory> {
        if self.hold { &self.places.hold } else { &self.places.incoming }
    }
}

/// A message that is whole, in memory only, and lent to qmgr. Dropped, it is gone unless it was delivered.
#[derive(Debug)]
pub struct Lent {
    writer: Writer,
    file: Arc<File>,
}

impl Lent {
    /// What is lent.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Brings the message into `incoming/` and makes it durable, which all see who have the file ([`sys::lent`]): the size
    /// of its content.
    ///
    /// # Errors
    /// What the system says; nothing is left in `incoming/`.
    pub fn store(self) -> Result<u64, QueueError> {
        let Self { mut writer, file } = self;
        writer.in_memory = false;
        let stored = writer.copy(&file).and_then(|()| writer.make_durable());
        // Who waits for it and is not told puts the delivery off.
        let _ = if stored.is_ok() { sys::lent::note_stored(&file) } else { sys::lent::note_given_up(&file) };
        stored
    }

    /// It was delivered: the size of its content.
    #[must_use]
    pub fn delivered(self) -> u64 {
        self.writer.content_size
    }
}

impl Write for Writer {
    /// As [`Writer::append`]; the error carries the [`QueueError`], and its kind says `StorageFull` for a full disk.
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.append(content).map_err(|error| {
            let kind = match &error {
                QueueError::NoSpace { .. } => io::ErrorKind::StorageFull,
                QueueError::Io { source, .. } => source.kind(),
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })?;
        Ok(content.len())
    }

    /// Does nothing: what counts is [`Writer::commit`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.places.writers.fetch_sub(1, Ordering::Relaxed);
        if self.buffer.capacity() <= KEPT_BUFFER {
            self.buffer.clear();
            SPARE.set(std::mem::take(&mut self.buffer));
        }
        let directory = match &self.file {
            Some((_, Lies::Incoming)) => &self.places.incoming,
            Some((_, Lies::Hold)) => &self.places.hold,
            Some((_, Lies::Memory)) | None => return,
        };
        // What cannot be removed stays with its mode of 0600, is ignored, and goes with the next recovery.
        let _ = directory.unlink(self.id);
    }
}
