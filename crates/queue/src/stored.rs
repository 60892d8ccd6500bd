//! A queue file that was opened and understood.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use mail::{Body, Client, DsnReturn, Envelope, Notify, Origin, Recipient, Trace};
use nix::sys::stat::fstat;

use crate::folder::{is_ready, modified};
use crate::format::attempt::Attempt;
use crate::format::envelope::{MAX_RECORD, RecipientState, decode_message, decode_recipient, take_record};
use crate::format::fields::Fields;
use crate::format::head::{Flags, HEAD_SIZE, Head, sealed_part};
use crate::format::mark::{Place, Short};
use crate::journal::Record;
use crate::{Content, Damage, Journal, QueueError};

/// What the first read asks for: head, envelope and, of a small message, the content in one call.
pub(crate) const FIRST_READ: usize = 8 * 1024;

/// What a later read asks for.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A recipient of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecipient {
    /// Its number: what outcomes and journal records name it by.
    pub index: u32,
    /// What is still owed to it.
    pub state: RecipientState,
    /// Address, history and requests.
    pub recipient: Recipient,
}

/// An open queue file whose head and envelope passed their checksum.
///
/// In memory is what the message has once; recipients are read when they are asked for, as many as are asked for.
#[derive(Debug)]
pub struct Stored {
    file: Arc<File>,
    path: Box<Path>,
    head: Head,
    flags: Flags,
    envelope: Envelope,
    file_size: u64,
    modified: SystemTime,
    ready: bool,
    /// The file's first bytes, at most up to the content.
    prefix: Vec<u8>,
    /// The journal, where the first read brought all of it and nothing was appended since.
    journal: Vec<u8>,
    /// What the journal comes to, once that was looked up.
    tail: OnceCell<Tail>,
    /// A recipient's number and the offset of its record: where the last reading of recipients ended.
    cursor: Cell<(u32, u64)>,
}

/// What a journal comes to.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// Where the next record goes.
    pub(crate) end: Place,
    /// The byte of each recipient's state, where the journal says anything of states.
    states: Option<Vec<u8>>,
}

impl Stored {
    /// A queue file outside of a queue, as postcat is given one; `path` is for errors.
    ///
    /// # Errors
    /// What reading says, or what is wrong with the bytes.
    pub fn from_file(file: File, path: &Path) -> Result<Self, QueueError> {
        Self::open(Arc::new(file), path.into())
    }

    /// Reads and checks head and envelope. `path` is for errors.
    pub(crate) fn open(file: Arc<File>, path: Box<Path>) -> Result<Self, QueueError> {
        let failed = |operation, error| QueueError::new(operation, path.to_path_buf(), error);
        let stat = fstat(&*file).map_err(|errno| failed("stat", errno.into()))?;
        let file_size = u64::try_from(stat.st_size).unwrap_or_default();
        // On the stack: what is kept is a small part of it, and must not leave a hole in the heap for each message.
        let mut buffer = [0; FIRST_READ];
        let size = FIRST_READ.min(usize::try_from(file_size).unwrap_or(FIRST_READ));
        let read = read_up_to(&file, &mut buffer[..size], 0).map_err(|error| failed("read", error))?;
        let bytes = &buffer[..read];

        let damaged = |damage| QueueError::Damaged { path: path.to_path_buf(), damage };
        let head = Head::decode(bytes, file_size).map_err(damaged)?;
        let flags = Flags::from_head(bytes);
        let content = usize::try_from(head.content_offset).unwrap_or(usize::MAX);
        let prefix = bytes[..content.min(read)].to_vec();
        let journal = usize::try_from(head.journal_offset()).ok().and_then(|start| bytes.get(start..));
        let journal = journal.filter(|_| read as u64 == file_size).unwrap_or_default().to_vec();
        let cursor = Cell::new((0, head.recipients_offset));
        let envelope = Envelope::new(mail::Address::null(), Vec::new(), std::time::Duration::ZERO);
        let (modified, ready) = (modified(&stat), is_ready(&stat));
        let mut stored = Self {
            file,
            path,
            head,
            flags,
            envelope,
            file_size,
            modified,
            ready,
            prefix,
            journal,
            tail: OnceCell::new(),
            cursor,
        };
        stored.read_envelope()?;
        Ok(stored)
    }

    /// Reverse path.
    #[must_use]
    pub fn sender(&self) -> &mail::Address {
        &self.envelope.sender
    }

    /// When the message began to arrive.
    #[must_use]
    pub fn arrival(&self) -> SystemTime {
        self.envelope.arrived_at()
    }

    /// How it entered the mail system.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.envelope.origin
    }

    /// The client that sent it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.envelope.client
    }

    /// ENVID as received.
    #[must_use]
    pub fn envid(&self) -> Option<&str> {
        self.envelope.envid.as_deref()
    }

    /// RET as received.
    #[must_use]
    pub fn ret(&self) -> Option<DsnReturn> {
        self.envelope.ret
    }

    /// BODY as received.
    #[must_use]
    pub fn body(&self) -> Body {
        self.envelope.body
    }

    /// The message needs SMTPUTF8.
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.envelope.smtputf8
    }

    /// Whether what becomes of it is reported in any case.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.envelope.trace
    }

    /// `transport:nexthop` where the message goes whatever its recipients are.
    #[must_use]
    pub fn content_filter(&self) -> Option<&str> {
        self.envelope.content_filter.as_deref()
    }

    /// The records of the message itself: everything but the recipients, whose list is empty here.
    #[must_use]
    pub fn envelope_without_recipients(&self) -> &Envelope {
        &self.envelope
    }

    /// How many recipients it has, whatever their state.
    #[must_use]
    pub fn recipient_count(&self) -> u32 {
        self.head.recipients
    }

    /// How many recipients were expanded on arrival ([`Notify::EXPANDED`]): they are reported, not delivered to.
    ///
    /// # Errors
    /// What reading says.
    pub fn expanded_count(&self) -> Result<u32, QueueError> {
        /// Recipients that are in memory at a time.
        const BATCH: usize = 1000;
        let total = usize::try_from(self.head.recipients).unwrap_or(usize::MAX);
        // None of them was ever to be delivered to: in most messages the states alone tell that there is none.
        if self.states(0, total)?.iter().all(|state| *state == RecipientState::Pending.byte()) {
            return Ok(0);
        }
        let (mut count, mut next) = (0, 0);
        while next < self.head.recipients {
            let batch = self.recipients_from(next, BATCH)?;
            let Some(last) = batch.last() else { break };
            next = last.index.saturating_add(1);
            let expanded = batch.iter().filter(|stored| stored.recipient.notify.contains(Notify::EXPANDED));
            count += u32::try_from(expanded.count()).unwrap_or(u32::MAX);
        }
        Ok(count)
    }

    /// The size of the content.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.head.content_size
    }

    /// The operator wants the message returned at its next attempt (`postsuper -e`).
    #[must_use]
    pub fn is_forced_to_expire(&self) -> bool {
        self.flags.has(Flags::EXPIRE)
    }

    /// The operator put it back into the queue, to go through whatever content filter there is by now.
    #[must_use]
    pub fn is_requeued(&self) -> bool {
        self.flags.has(Flags::REQUEUED)
    }

    /// The sender was told that the message is late.
    #[must_use]
    pub fn delay_was_reported(&self) -> bool {
        self.flags.has(Flags::DELAY_REPORTED)
    }

    /// The file's modification time when it was opened: in `deferred/`, when the message is to be tried next.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// The mode says that the writer has finished.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Where the parts begin, in the order of the file: envelope, recipients' records, content, journal.
    #[must_use]
    pub fn offsets(&self) -> [u64; 4] {
        [
            self.head.envelope_offset(),
            self.head.recipients_offset,
            self.head.content_offset,
            self.head.journal_offset(),
        ]
    }

    /// The content, on the same descriptor.
    #[must_use]
    pub fn content(&self) -> Content {
        Content::new(Arc::clone(&self.file), self.head.content_offset, self.head.content_size)
    }

    /// The attempts so far, oldest first.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.file), self.journal_begin(), self.file_size, self.journal.clone())
    }

    fn journal_begin(&self) -> Place {
        Place { message: self.head.envelope_checksum, life: 0, offset: self.head.journal_offset() }
    }

    /// The last attempt for each recipient that had one: one entry in memory for each of them.
    ///
    /// # Errors
    /// What reading says.
    pub fn last_attempts(&self) -> Result<BTreeMap<u32, Attempt>, QueueError> {
        let mut last = BTreeMap::new();
        let tail = self.read_tail(|attempt| {
            if attempt.recipient < self.head.recipients {
                last.insert(attempt.recipient, attempt);
            }
        })?;
        // Who asks for these asks for the states next.
        self.tail.get_or_init(|| tail);
        Ok(last)
    }

    /// At most `max` recipients in the order of the envelope, from number `index` on. Going on where the last call
    /// ended costs nothing; going back reads the envelope from its beginning.
    ///
    /// # Errors
    /// What reading says, or a malformed record.
    pub fn recipients_from(&self, index: u32, max: usize) -> Result<Vec<StoredRecipient>, QueueError> {
        let left = usize::try_from(self.head.recipients.saturating_sub(index)).unwrap_or(usize::MAX);
        let wanted = max.min(left);
        let states = self.states(index, wanted)?;
        let mut found = Vec::with_capacity(wanted.min(1024));
        let (mut number, mut offset) = self.cursor.get();
        if number > index {
            (number, offset) = (0, self.head.recipients_offset);
        }
        let mut refill = Vec::new();
        let mut window = Window { offset: 0, bytes: &self.prefix };
        while found.len() < wanted {
            let Some((kind, record, size)) = window.record_at(offset) else {
                if !refill.is_empty() && window.offset == offset {
                    return Err(self.damaged(Damage::Envelope("recipient beyond the end of the envelope")));
                }
                refill = self.read_envelope_from(offset)?;
                window = Window { offset, bytes: &refill };
                continue;
            };
            if number >= index {
                let recipient = decode_recipient(kind, record).map_err(|damage| self.damaged(damage))?;
                let state = states
                    .get(found.len())
                    .map_or(RecipientState::Pending, |b| RecipientState::from_byte(*b));
                found.push(StoredRecipient { index: number, state, recipient });
            }
            number += 1;
            offset += size;
        }
        self.cursor.set((number, offset));
        Ok(found)
    }

    /// Compares the content with its checksum.
    ///
    /// # Errors
    /// What reading says, or that they differ.
    pub fn verify_content(&self) -> Result<(), QueueError> {
        let mut checksum = crc32fast::Hasher::new();
        self.read_range(self.head.content_offset, self.head.content_size, |bytes| checksum.update(bytes))?;
        if checksum.finalize() == self.head.content_checksum {
            return Ok(());
        }
        Err(self.damaged(Damage::ContentChecksum))
    }

    /// The open file itself, for who hands it on after this value has gone to another thread.
    #[must_use]
    pub fn share(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The descriptor of the file, for reading.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn reader(&self) -> &Arc<File> {
        &self.file
    }

    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }

    pub(crate) fn set_flags(&mut self, flags: Flags) {
        self.flags = flags;
    }

    /// What the journal comes to; it is read once.
    pub(crate) fn tail(&self) -> Result<&Tail, QueueError> {
        if let Some(tail) = self.tail.get() {
            return Ok(tail);
        }
        let tail = self.read_tail(drop)?;
        Ok(self.tail.get_or_init(|| tail))
    }

    /// Reads the journal to its end.
    fn read_tail(&self, mut each: impl FnMut(Attempt)) -> Result<Tail, QueueError> {
        let mut states = None;
        let mut journal = self.journal();
        while let Some(record) = journal.next_record() {
            match record.map_err(|error| self.failed("read", error))? {
                Record::Attempt(attempt) => each(attempt),
                Record::Short(Short::Mark(index, state)) => self.overlay(&mut states, index, state)?,
                Record::Short(_) => {}
            }
        }
        Ok(Tail { end: journal.end(), states })
    }

    /// Puts a state in its place; a number that the message does not have is ignored.
    fn overlay(&self, states: &mut Option<Vec<u8>>, index: u32, state: u8) -> Result<(), QueueError> {
        let all = match states {
            Some(all) => all,
            None => {
                let count = usize::try_from(self.head.recipients).unwrap_or(usize::MAX);
                states.insert(self.first_states(0, count)?)
            }
        };
        if let Some(place) = usize::try_from(index).ok().and_then(|index| all.get_mut(index)) {
            *place = state;
        }
        Ok(())
    }

    /// Keeps what is in memory in step with a journal that was just written: it ends there, and has these states besides.
    pub(crate) fn note_appended(
        &mut self,
        end: Place,
        marks: &[(u32, RecipientState)],
    ) -> Result<(), QueueError> {
        let mut states = self.tail.take().and_then(|tail| tail.states);
        for (index, state) in marks {
            self.overlay(&mut states, *index, state.byte())?;
        }
        self.file_size = end.offset;
        self.journal = Vec::new();
        self.tail = OnceCell::from(Tail { end, states });
        Ok(())
    }

    /// Feeds the envelope to its checksum, then takes the records of the message from it.
    fn read_envelope(&mut self) -> Result<(), QueueError> {
        let start = self.head.envelope_offset();
        let mut checksum = crc32fast::Hasher::new();
        let in_memory = self.slice(start, self.head.content_offset);
        if let Some(bytes) = in_memory {
            checksum.update(bytes);
        } else {
            let size = self.head.content_offset.saturating_sub(start);
            self.read_range(start, size, |bytes| checksum.update(bytes))?;
        }
        checksum.update(sealed_part(&self.prefix));
        if checksum.finalize() != self.head.envelope_checksum {
            return Err(self.damaged(Damage::EnvelopeChecksum));
        }
        let mut read = Vec::new();
        let bytes = match self.slice(start, self.head.recipients_offset) {
            Some(bytes) => bytes,
            None => {
                let size = self.head.recipients_offset.saturating_sub(start);
                self.read_range(start, size, |bytes| read.extend_from_slice(bytes))?;
                &read
            }
        };
        self.envelope = decode_message(bytes).map_err(|damage| self.damaged(damage))?;
        Ok(())
    }

    /// The bytes between two offsets, if the first read brought them.
    fn slice(&self, start: u64, end: u64) -> Option<&[u8]> {
        self.prefix.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    fn states(&self, index: u32, count: usize) -> Result<Vec<u8>, QueueError> {
        let Some(states) = &self.tail()?.states else { return self.first_states(index, count) };
        let states = usize::try_from(index).ok().and_then(|index| states.get(index..)?.get(..count));
        Ok(states.unwrap_or_default().to_vec())
    }

    /// The states without what the journal says.
    fn first_states(&self, index: u32, count: usize) -> Result<Vec<u8>, QueueError> {
        let start = HEAD_SIZE as u64 + u64::from(index);
        if let Some(states) = self.slice(start, start + count as u64) {
            return Ok(states.to_vec());
        }
        let mut states = Vec::new();
        self.read_range(start, count as u64, |bytes| states.extend_from_slice(bytes))?;
        Ok(states)
    }

    /// Recipients' records from an offset on, at least one whole record if the envelope has one.
    fn read_envelope_from(&self, offset: u64) -> Result<Vec<u8>, QueueError> {
        let left = self.head.content_offset.saturating_sub(offset);
        let mut bytes = Vec::new();
        self.read_range(offset, left.min(MAX_RECORD as u64), |part| bytes.extend_from_slice(part))?;
        Ok(bytes)
    }

    /// Reads `size` bytes in pieces.
    fn read_range(&self, offset: u64, size: u64, mut take: impl FnMut(&[u8])) -> Result<(), QueueError> {
        let mut buffer = vec![0; READ_SIZE.min(usize::try_from(size).unwrap_or(READ_SIZE))];
        let mut done = 0;
        while done < size {
            let wanted = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
            let read = read_up_to(&self.file, &mut buffer[..wanted], offset + done)
                .map_err(|error| self.failed("read", error))?;
            if read == 0 {
                return Err(self.damaged(Damage::Truncated));
            }
            take(&buffer[..read]);
            done += read as u64;
        }
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> QueueError {
        QueueError::Damaged { path: self.path.to_path_buf(), damage }
    }

    pub(crate) fn failed(&self, operation: &'static str, error: std::io::Error) -> QueueError {
        QueueError::new(operation, self.path.to_path_buf(), error)
    }
}

/// Bytes of the envelope in memory, and where in the file they begin.
struct Window<'a> {
    offset: u64,
    bytes: &'a [u8],
}

impl<'a> Window<'a> {
    /// The record at an offset of the file with its whole size, if all of it is here.
    fn record_at(&self, offset: u64) -> Option<(u8, Fields<'a>, u64)> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let mut fields = Fields::new(self.bytes.get(start..)?);
        let before = fields.left();
        let (kind, record) = take_record(&mut fields)?;
        Some((kind, record, (before - fields.left()) as u64))
    }
}

/// Fills the buffer as far as the file goes.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
