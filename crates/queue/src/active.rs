//! Qmgr's side: messages are found, taken up, and recovered after a crash.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mail::QueueId;

use crate::folder::{Folder, Scan};
use crate::message::Tail;
use crate::root::Folders;
use crate::{Damage, Message, QueueError, Stored};

/// The power over committed messages. There is one holder in a running system: qmgr.
#[derive(Clone, Debug)]
pub struct Active {
    folders: Folders,
    /// Tells what this process writes from what an earlier one has written.
    life: u32,
}

/// What [`Active::recover`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that were being delivered when the system went down; they are in `incoming/` now.
    pub resumed: u64,
    /// Files that were never finished and never acknowledged, removed.
    pub removed: u64,
}

impl Active {
    pub(crate) fn new(folders: Folders) -> Self {
        // The keys of each are random.
        let random = RandomState::new().build_hasher().finish().to_le_bytes();
        let [one, two, three, four, ..] = random;
        Self::with_life(folders, u32::from_le_bytes([one, two, three, four]).max(1))
    }

    pub(crate) fn with_life(folders: Folders, life: u32) -> Self {
        Self { folders, life }
    }

    /// Takes up a message: `deferred/` → `active/`, while one that has just come stays in `incoming/`, since most are
    /// delivered in a moment, and a rename costs as much as reading them does. One that is not is to be moved by
    /// [`Active::settle`]; [`Message::lies_in`] tells. Three system calls or four: open, stat, read, rename.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] and [`QueueError::NotReady`] are no failures: forget the message, or come again.
    /// [`QueueError::Damaged`] has moved the file to `corrupt/`.
    pub fn claim(&self, id: QueueId) -> Result<Message, QueueError> {
        self.claim_checked(id, false)
    }

    /// As [`Active::claim`], but that every message is moved, and compares the content with its checksum: for every
    /// message that was found by a scan after the system came up, since a power cut may have torn what was not yet
    /// acknowledged.
    ///
    /// # Errors
    /// As [`Active::claim`].
    pub fn claim_verified(&self, id: QueueId) -> Result<Message, QueueError> {
        self.claim_checked(id, true)
    }

    /// Takes up a message that is lent ([`crate::Lent`]) and has no name in the queue: it is only read.
    ///
    /// # Errors
    /// What reading says, or what is wrong with the bytes.
    pub fn claim_lent(&self, id: QueueId, file: File) -> Result<Message, QueueError> {
        let path = self.folders.get(Folder::Incoming).path_of(id);
        let stored = Stored::open(Arc::new(file), path.into())?;
        Ok(self.message(id, Folder::Incoming, stored, Tail::Clean))
    }

    /// Takes up the file of a message that was lent, and now is in `incoming/`.
    ///
    /// # Errors
    /// As [`Active::claim`].
    pub fn attach(&self, id: QueueId) -> Result<Message, QueueError> {
        self.reopen(id, Folder::Incoming, true)
    }

    /// Takes up a message that is in `active/` already: what was put down without [`Message::defer`], or could not be
    /// moved. It goes by way of `deferred/`: in a folder that cannot be changed nothing could be recorded, and the message
    /// would be delivered again each time.
    ///
    /// # Errors
    /// As [`Active::claim`].
    pub fn reclaim(&self, id: QueueId) -> Result<Message, QueueError> {
        self.folders.get(Folder::Active).rename(id, self.folders.get(Folder::Deferred))?;
        self.claim(id)
    }

    /// Moves a message that was taken up where it lay: `incoming/` → `active/`.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the operator took the message away; otherwise what the system says, and the
    /// message is where it was.
    pub fn settle(&self, id: QueueId) -> Result<(), QueueError> {
        self.folders.get(Folder::Incoming).rename(id, self.folders.get(Folder::Active))
    }

    /// Opens a message again that was taken up, lies in `lies_in`, and whose handle was dropped, wherever the operator may
    /// have moved it meanwhile: what was delivered must be recorded there too. `is_clean`: what the dropped handle said.
    ///
    /// # Errors
    /// As [`Active::claim`].
    pub fn reopen(&self, id: QueueId, lies_in: Folder, is_clean: bool) -> Result<Message, QueueError> {
        let tail = if is_clean { Tail::Clean } else { Tail::Unknown };
        let elsewhere = [Folder::Active, Folder::Hold, Folder::Incoming, Folder::Deferred];
        for folder in iter::once(lies_in).chain(elsewhere.into_iter().filter(|folder| *folder != lies_in)) {
            match self.open(folder, id, false) {
                Err(QueueError::NotFound(_)) => {}
                result => return result.map(|stored| self.message(id, lies_in, stored, tail)),
            }
        }
        Err(QueueError::NotFound(id))
    }

    /// Removes a message that was taken up and lies there: nothing is owed to any recipient. `false`: it is not there any
    /// more, since an operator has moved or deleted it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, id: QueueId, lies_in: Folder) -> Result<bool, QueueError> {
        match self.folders.get(lies_in).unlink(id) {
            Err(error) if error.is_missing() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Looks at a message in `deferred/` and leaves it there.
    ///
    /// # Errors
    /// As [`Active::claim`], but that nothing is moved.
    pub fn peek(&self, id: QueueId) -> Result<Stored, QueueError> {
        let directory = self.folders.get(Folder::Deferred);
        Stored::open(Arc::new(directory.open_read(id)?), directory.path_of(id).into())
    }

    /// The messages of a folder.
    #[must_use]
    pub fn scan(&self, folder: Folder) -> Scan {
        Scan::new(Arc::clone(self.folders.get(folder)))
    }

    /// Puts the queue in order before qmgr takes up anything: what was being delivered goes back to `incoming/`, and
    /// unfinished files that nobody has touched for `age` are removed. Cleanup may be running already.
    ///
    /// # Errors
    /// The first operation that failed, other than on a file that is gone.
    pub fn recover(&self, age: Duration) -> Result<Recovered, QueueError> {
        let mut recovered = Recovered::default();
        let (active, incoming) = (self.folders.get(Folder::Active), self.folders.get(Folder::Incoming));
        for entry in self.scan(Folder::Active) {
            let entry = entry?;
            let id = entry.id;
            if self.leave_one_name(Folder::Active, &entry)? != Folder::Active {
                continue;
            }
            match active.rename(id, incoming) {
                Err(error) if error.is_missing() => {}
                result => {
                    result?;
                    recovered.resumed += 1;
                }
            }
        }
        recovered.removed += self.remove_unfinished(Folder::Incoming, age)?;
        recovered.removed += self.remove_unfinished(Folder::Hold, age)?;
        Ok(recovered)
    }

    /// Removes what a dead writer left, and the empty files that a power cut makes of commits it interrupts.
    fn remove_unfinished(&self, folder: Folder, age: Duration) -> Result<u64, QueueError> {
        let now = SystemTime::now();
        let mut removed = 0;
        for entry in self.scan(folder) {
            let entry = entry?;
            self.leave_one_name(folder, &entry)?;
            let old = now.duration_since(entry.modified).is_ok_and(|since| since >= age);
            if entry.ready && entry.file_size > 0 || !old {
                continue;
            }
            match self.folders.get(folder).unlink(entry.id) {
                Err(error) if error.is_missing() => {}
                result => {
                    result?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    pub(crate) fn folders(&self) -> &Folders {
        &self.folders
    }

    fn claim_checked(&self, id: QueueId, verify: bool) -> Result<Message, QueueError> {
        let (from, stored) = match self.open(Folder::Incoming, id, verify) {
            Err(QueueError::NotFound(_)) => (Folder::Deferred, self.open(Folder::Deferred, id, verify)?),
            result => (Folder::Incoming, result?),
        };
        if from == Folder::Incoming && !verify {
            // Only of what cleanup has told a moment ago it is known that no earlier process has appended to it.
            return Ok(self.message(id, from, stored, Tail::Clean));
        }
        self.folders.get(from).rename(id, self.folders.get(Folder::Active))?;
        Ok(self.message(id, Folder::Active, stored, Tail::Unknown))
    }

    fn message(&self, id: QueueId, lies_in: Folder, stored: Stored, tail: Tail) -> Message {
        Message::new(id, self.folders.clone(), lies_in, stored, self.life, tail)
    }

    fn open(&self, folder: Folder, id: QueueId, verify: bool) -> Result<Stored, QueueError> {
        let directory = self.folders.get(folder);
        let file = Arc::new(directory.open_read(id)?);
        let stored = Stored::open(file, directory.path_of(id).into()).and_then(|stored| {
            if stored.is_ready() && verify {
                stored.verify_content()?;
            }
            Ok(stored)
        });
        match stored {
            Ok(stored) if stored.is_ready() => Ok(stored),
            Ok(_) => Err(QueueError::NotReady(id)),
            Err(QueueError::Damaged { damage, .. }) => Err(self.set_aside(folder, id, damage)),
            Err(error) => Err(error),
        }
    }

    /// Moves a damaged file to `corrupt/`, unless cleanup is still at work on it.
    fn set_aside(&self, folder: Folder, id: QueueId, damage: Damage) -> QueueError {
        let (directory, corrupt) = (self.folders.get(folder), self.folders.get(Folder::Corrupt));
        match directory.stat(id) {
            Err(error) => return error,
            Ok(stat) if !crate::folder::is_ready(&stat) => return QueueError::NotReady(id),
            Ok(_) => {}
        }
        match directory.rename(id, corrupt) {
            Ok(()) => QueueError::Damaged { path: corrupt.path_of(id), damage },
            Err(error) => error,
        }
    }
}
