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
use crate::format::mark::{LIFE_SIZE, MARK_SIZE, Place};
use crate::root::Folders;
use crate::{Active, QueueError, Stored};

/// A message that was taken up: the only handle that changes a queue file after its commit.
///
/// The descriptor that agents are handed is open for reading only; one for writing is opened when the first result has
/// to be recorded, which most messages never need: they are delivered and removed.
#[derive(Debug)]
pub struct Message {
    /// Its id.
    pub id: QueueId,
    folders: Folders,
    lies_in: Folder,
    stored: Stored,
    writer: Option<File>,
    /// The number of this queue manager's life.
    life: u32,
    tail: Tail,
}

/// What may lie on the disk behind the end of a queue file, where the file system shows it when the file grows and the
/// power goes before what was written is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing: the file was made or appended to while this process had the queue.
    Clean,
    /// Perhaps records that an earlier one appended and a power cut took back.
    Unknown,
}

impl Message {
    pub(crate) fn new(
        id: QueueId,
        folders: Folders,
        lies_in: Folder,
        stored: Stored,
        life: u32,
        tail: Tail,
    ) -> Self {
        Self { id, folders, lies_in, stored, writer: None, life, tail }
    }

    /// Where it lies unless the operator has moved it: `active/`, or `incoming/`, where [`Active::claim`] has left it.
    #[must_use]
    pub fn lies_in(&self) -> Folder {
        self.lies_in
    }

    /// As [`Active::settle`].
    ///
    /// # Errors
    /// As [`Active::settle`].
    pub fn settle(&mut self) -> Result<(), QueueError> {
        self.move_to(Folder::Active)?;
        self.lies_in = Folder::Active;
        Ok(())
    }

    /// Whether nothing can lie behind the end of the file: who drops the handle tells [`Active::reopen`] so.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tail == Tail::Clean
    }

    /// The descriptor to hand to an agent: the file, read-only.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.stored.file()
    }

    /// Records the state of a recipient.
    ///
    /// # Errors
    /// What opening or writing says. A number that the message does not have is ignored.
    pub fn mark(&mut self, index: u32, state: RecipientState) -> Result<(), QueueError> {
        self.append(&[], &[(index, state)])
    }

    /// Records an attempt.
    ///
    /// # Errors
    /// What opening or writing says.
    pub fn append_attempt(&mut self, attempt: &Attempt) -> Result<(), QueueError> {
        self.append(std::slice::from_ref(attempt), &[])
    }

    /// Records attempts, then the states of recipients, with one write at the end of the journal.
    ///
    /// # Errors
    /// What opening or writing says.
    pub fn append(
        &mut self,
        attempts: &[Attempt],
        marks: &[(u32, RecipientState)],
    ) -> Result<(), QueueError> {
        let begin = self.find_journal_end()?;
        let mut records = Vec::with_capacity(LIFE_SIZE + marks.len() * MARK_SIZE);
        if begin.life != self.life {
            begin.push_life(self.life, &mut records);
        }
        attempts.iter().for_each(|attempt| encode(attempt, &mut records));
        let end =
            |records: &[u8]| Place { life: self.life, offset: begin.offset + records.len() as u64, ..begin };
        for (index, state) in marks {
            end(&records).push_mark(*index, *state, &mut records);
        }
        let end = end(&records);
        self.write(&records, begin.offset)?;
        self.stored.note_appended(end, marks)
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

    /// Puts the message aside until its next attempt, into `deferred/`.
    ///
    /// The time is kept as the file's modification time, as in Postfix, and nowhere else in the file: a start with a million
    /// deferred messages then opens none of them. It is set before the rename, so that no scan finds the message
    /// due at once; where it is lost (a copied queue, a power cut), the message is tried early.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the operator took the message away; otherwise what the system says, and the
    /// message is still where it was ([`Active::claim`], [`Active::reclaim`]).
    pub fn defer(self, next_attempt: SystemTime) -> Result<(), QueueError> {
        let since = next_attempt.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = TimeSpec::from_duration(since);
        futimens(self.stored.reader(), &time, &time)
            .map_err(|errno| self.stored.failed("set the next attempt of", errno.into()))?;
        self.move_to(Folder::Deferred)
    }

    /// Puts the message on hold, into `hold/`.
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
        Active::with_life(self.folders, self.life).remove(self.id, self.lies_in).map(drop)
    }

    fn move_to(&self, folder: Folder) -> Result<(), QueueError> {
        self.folders.get(self.lies_in).rename(self.id, self.folders.get(folder))
    }

    /// Where the whole records of the journal end. What a crash left of a torn one is cut off, so that an append never
    /// leaves a piece of it behind a whole record; and before the first append to a file behind whose end a power cut may
    /// have left something, this life is begun in it.
    fn find_journal_end(&mut self) -> Result<Place, QueueError> {
        let end = self.stored.tail()?.end;
        if end.offset < self.stored.file_size() {
            self.tail = Tail::Unknown;
            self.open_writer()?;
            if let Some(writer) = &self.writer {
                writer.set_len(end.offset).map_err(|error| self.stored.failed("truncate", error))?;
            }
        }
        // One that says so has begun it with a file of which it knew, or was synced.
        if self.tail == Tail::Unknown && end.life != self.life {
            return self.begin_life(end);
        }
        self.tail = Tail::Clean;
        Ok(end)
    }

    /// Writes down that a life begins, and waits until that lasts: no mark of an earlier one counts from there on, wherever
    /// the file's end may be after a power cut.
    fn begin_life(&mut self, mut end: Place) -> Result<Place, QueueError> {
        let mut record = Vec::with_capacity(LIFE_SIZE);
        end.push_life(self.life, &mut record);
        self.write(&record, end.offset)?;
        if let Some(writer) = &self.writer {
            writer.sync_data().map_err(|error| self.stored.failed("sync", error))?;
        }
        end = Place { life: self.life, offset: end.offset + LIFE_SIZE as u64, ..end };
        self.stored.note_appended(end, &[])?;
        self.tail = Tail::Clean;
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
