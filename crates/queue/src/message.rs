//! A message in qmgr's hands.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use mail::QueueId;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::folder::Folder;
use crate::format::attempt::{Attempt, encode};
use crate::format::envelope::RecipientState;
use crate::format::head::Flags;
use crate::root::Folders;
use crate::{Active, QueueError, Stored};

/// A message in `active/`: the only handle that changes a queue file after its commit.
///
/// The descriptor that agents are handed is open for reading only; one for writing is opened when the first result has
/// to be recorded, which most messages never need: they are delivered and removed.
#[derive(Debug)]
pub struct Message {
    /// Its id.
    pub id: QueueId,
    folders: Folders,
    stored: Stored,
    writer: Option<File>,
    /// Where the next journal record goes, once that was looked up.
    journal_end: Option<u64>,
}

impl Message {
    pub(crate) fn new(id: QueueId, folders: Folders, stored: Stored) -> Self {
        Self { id, folders, stored, writer: None, journal_end: None }
    }

    /// The descriptor to hand to an agent: the file, read-only.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.stored.file()
    }

    /// Overwrites the state of a recipient.
    ///
    /// # Errors
    /// What opening or writing says. A number that the message does not have is ignored.
    pub fn mark(&mut self, index: u32, state: RecipientState) -> Result<(), QueueError> {
        let Some(offset) = self.stored.state_offset(index) else { return Ok(()) };
        self.write(&[state.byte()], offset)?;
        self.stored.note_state(offset, state);
        Ok(())
    }

    /// Records an attempt in the journal.
    ///
    /// # Errors
    /// What opening or writing says.
    pub fn append_attempt(&mut self, attempt: &Attempt) -> Result<(), QueueError> {
        self.append_attempts(std::slice::from_ref(attempt))
    }

    /// Records attempts in the journal, with one write.
    ///
    /// # Errors
    /// What opening or writing says.
    pub fn append_attempts(&mut self, attempts: &[Attempt]) -> Result<(), QueueError> {
        let mut records = Vec::new();
        attempts.iter().for_each(|attempt| encode(attempt, &mut records));
        let end = self.find_journal_end()?;
        self.write(&records, end)?;
        let end = end + records.len() as u64;
        self.journal_end = Some(end);
        self.stored.note_file_size(end);
        Ok(())
    }

    /// Notes that the sender was told about the delay.
    ///
    /// # Errors
    /// What opening or writing says.
    pub fn note_delay_reported(&mut self) -> Result<(), QueueError> {
        let flags = self.stored.flags().with(Flags::DELAY_REPORTED);
        self.write(&[flags.byte()], Flags::OFFSET)?;
        self.stored.set_flags(flags);
        Ok(())
    }

    /// Puts the message aside until its next attempt: `active/` → `deferred/`.
    ///
    /// The time is kept as the file's modification time, as in Postfix, and nowhere else in the file: a start with a million
    /// deferred messages then opens none of them. It is set before the rename, so that no scan finds the message
    /// due at once; where it is lost (a copied queue, a power cut), the message is tried early.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the operator took the message away; otherwise what the system says, and the
    /// message is still in `active/` ([`crate::Active::reclaim`]).
    pub fn defer(self, next_attempt: SystemTime) -> Result<(), QueueError> {
        let since = next_attempt.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = TimeSpec::from_duration(since);
        futimens(self.stored.reader(), &time, &time)
            .map_err(|errno| self.stored.failed("set the next attempt of", errno.into()))?;
        self.move_to(Folder::Deferred)
    }

    /// Puts the message on hold: `active/` → `hold/`.
    ///
    /// # Errors
    /// As [`Message::defer`].
    pub fn hold(self) -> Result<(), QueueError> {
        self.move_to(Folder::Hold)
    }

    /// Removes the message: nothing is owed to any recipient.
    ///
    /// # Errors
    /// What the system says; a message that is gone already is no error.
    pub fn remove(self) -> Result<(), QueueError> {
        Active::new(self.folders).remove(self.id)
    }

    fn move_to(&self, folder: Folder) -> Result<(), QueueError> {
        self.folders.get(Folder::Active).rename(self.id, self.folders.get(folder))
    }

    /// Where the whole records of the journal end. What a crash left of a torn one is cut off, so that an append never
    /// leaves a piece of it behind a whole record.
    fn find_journal_end(&mut self) -> Result<u64, QueueError> {
        if let Some(end) = self.journal_end {
            return Ok(end);
        }
        let mut journal = self.stored.journal();
        for attempt in journal.by_ref() {
            attempt.map_err(|error| self.stored.failed("read", error))?;
        }
        let end = journal.end();
        if end < self.stored.file_size() {
            self.open_writer()?;
            if let Some(writer) = &self.writer {
                writer.set_len(end).map_err(|error| self.stored.failed("truncate", error))?;
            }
        }
        self.journal_end = Some(end);
        Ok(end)
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), QueueError> {
        self.open_writer()?;
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.write_all_at(bytes, offset).map_err(|error| self.stored.failed("write", error))
    }

    /// Opens the file for writing, wherever the operator may have moved it meanwhile: what was delivered must be
    /// recorded there too.
    fn open_writer(&mut self) -> Result<(), QueueError> {
        if self.writer.is_some() {
            return Ok(());
        }
        for folder in [Folder::Active, Folder::Hold, Folder::Incoming, Folder::Deferred] {
            match self.folders.get(folder).open_write(self.id) {
                Err(error) if error.is_missing() => {}
                result => {
                    self.writer = Some(result?);
                    return Ok(());
                }
            }
        }
        Err(QueueError::NotFound(self.id))
    }
}

impl Deref for Message {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        &self.stored
    }
}
