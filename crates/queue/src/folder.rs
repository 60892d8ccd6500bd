//! The folders of the queue, hashed or flat, held open: a handle that has no descriptor of a folder has no power there.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::QueueId;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::QueueError;

/// How many folders a hashed one has.
///
/// Threads that create files in one folder wait for its lock, so `incoming/` has several; the folders that messages are
/// renamed to are spread the same way.
pub(crate) const SLOTS: u8 = 16;

/// A part of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// Committed; qmgr has not seen it yet, or is delivering it since a moment.
    Incoming,
    /// Being delivered.
    Active,
    /// Waiting for the next attempt.
    Deferred,
    /// Kept back by the operator or a rule.
    Hold,
    /// Damaged.
    Corrupt,
}

impl Folder {
    /// Every folder, in the order in which a message may move from one to the next; a reader that goes this way and
    /// looks at `deferred/` after `active/` misses little of what moves meanwhile.
    pub const ALL: [Self; 5] = [Self::Incoming, Self::Active, Self::Deferred, Self::Hold, Self::Corrupt];

    /// Its name under `queue_directory`, and in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Hold => "hold",
            Self::Corrupt => "corrupt",
        }
    }

    /// How many folders it is made of.
    pub(crate) const fn slots(self) -> u8 {
        match self {
            Self::Incoming | Self::Active | Self::Deferred => SLOTS,
            Self::Hold | Self::Corrupt => 1,
        }
    }

    /// The path of one of its folders under `queue_directory`.
    pub(crate) fn slot_path(self, slot: u8) -> PathBuf {
        if self.slots() == 1 { self.as_str().into() } else { format!("{}/{slot:X}", self.as_str()).into() }
    }

    /// Which of its folders a message belongs into.
    pub(crate) fn slot_of(self, id: QueueId) -> u8 {
        id.spread() % self.slots()
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Folder {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|folder| folder.as_str() == name).ok_or(())
    }
}

/// An open folder of the queue, with the system calls that are made in it.
#[derive(Debug)]
pub(crate) struct Directory {
    folder: Folder,
    slots: Vec<Slot>,
}

/// One of its folders.
#[derive(Debug)]
struct Slot {
    /// For errors.
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    pub(crate) fn open(root: &Path, folder: Folder) -> Result<Self, QueueError> {
        let open = |slot| {
            let path = root.join(folder.slot_path(slot));
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match nix::fcntl::open(&path, flags, Mode::empty()) {
                Ok(fd) => Ok(Slot { path, fd }),
                Err(errno) => Err(QueueError::new("open the folder", path, errno.into())),
            }
        };
        let slots = (0..folder.slots()).map(open).collect::<Result<_, _>>()?;
        Ok(Self { folder, slots })
    }

    /// The path of a message here: for errors, and never to open it.
    pub(crate) fn path_of(&self, id: QueueId) -> PathBuf {
        self.slot_of(id).path.join(id.as_str())
    }

    pub(crate) fn slot(&self, id: QueueId) -> BorrowedFd<'_> {
        self.slot_of(id).fd.as_fd()
    }

    fn slot_of(&self, id: QueueId) -> &Slot {
        // `slots` has as many entries as `Folder::slots` says, and `slot_of` stays below that.
        &self.slots[usize::from(self.folder.slot_of(id))]
    }

    pub(crate) fn create(&self, id: QueueId) -> Result<File, QueueError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(self.slot(id), id.as_str(), flags, mode)
            .map(File::from)
            .map_err(|errno| self.error("create", id, errno))
    }

    pub(crate) fn open_read(&self, id: QueueId) -> Result<File, QueueError> {
        self.open_file(id, OFlag::O_RDONLY)
    }

    pub(crate) fn open_write(&self, id: QueueId) -> Result<File, QueueError> {
        self.open_file(id, OFlag::O_RDWR)
    }

    fn open_file(&self, id: QueueId, access: OFlag) -> Result<File, QueueError> {
        let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let opened = |flags| openat(self.slot(id), id.as_str(), flags, Mode::empty());
        // When a message was last read is of no interest, and to note it is a change of the inode for the journal: with
        // the time of its next attempt ahead, at every reading. Only its owner, and root, may ask for that.
        opened(flags | OFlag::O_NOATIME)
            .or_else(|errno| if errno == nix::errno::Errno::EPERM { opened(flags) } else { Err(errno) })
            .map(File::from)
            .map_err(|errno| self.error("open", id, errno))
    }

    pub(crate) fn rename(&self, id: QueueId, to: &Self) -> Result<(), QueueError> {
        renameat(self.slot(id), id.as_str(), to.slot(id), id.as_str())
            .map_err(|errno| self.error("move from", id, errno))
    }

    pub(crate) fn unlink(&self, id: QueueId) -> Result<(), QueueError> {
        unlinkat(self.slot(id), id.as_str(), UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| self.error("remove", id, errno))
    }

    pub(crate) fn stat(&self, id: QueueId) -> Result<FileStat, QueueError> {
        fstatat(self.slot(id), id.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("stat", id, errno))
    }

    pub(crate) fn sync(&self, id: QueueId) -> Result<(), QueueError> {
        nix::unistd::fsync(self.slot(id)).map_err(|errno| self.error("sync the folder of", id, errno))
    }

    /// Makes all names of the file system last that were changed until now, where it has a journal that keeps their order
    /// ([`sys::fs::ordering_device`]): a folder is changed after them, and that change is waited for. Without it, XFS
    /// takes a folder to be clean that was committed since its last change, and does nothing.
    pub(crate) fn commit(&self) -> io::Result<()> {
        let folder = &self.slots[0].fd;
        futimens(folder, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
        Ok(nix::unistd::fsync(folder)?)
    }

    /// Syncs every one of its folders.
    pub(crate) fn sync_all(&self) -> Result<(), QueueError> {
        self.slots.iter().try_for_each(|slot| {
            nix::unistd::fsync(&slot.fd)
                .map_err(|errno| QueueError::new("sync the folder", slot.path.clone(), errno.into()))
        })
    }

    fn error(&self, operation: &'static str, id: QueueId, errno: nix::errno::Errno) -> QueueError {
        if errno == nix::errno::Errno::ENOENT {
            return QueueError::NotFound(id);
        }
        QueueError::new(operation, self.path_of(id), io::Error::from(errno))
    }

    /// The names of one of its folders.
    fn names(&self, slot: usize) -> Result<nix::dir::OwningIter, QueueError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = self.slots.get(slot).map(|slot| Dir::openat(&slot.fd, ".", flags, Mode::empty()));
        match opened {
            Some(Ok(dir)) => Ok(dir.into_iter()),
            Some(Err(errno)) => Err(self.scan_error(slot, errno)),
            None => Err(self.scan_error(slot, nix::errno::Errno::ENOENT)),
        }
    }

    fn scan_error(&self, slot: usize, errno: nix::errno::Errno) -> QueueError {
        let path = self.slots.get(slot).map_or_else(|| self.folder.as_str().into(), |slot| slot.path.clone());
        QueueError::new("read the folder", path, errno.into())
    }
}

/// Whether the mode says that the writer has finished.
pub(crate) fn is_ready(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
        && Mode::from_bits_truncate(stat.st_mode).contains(Mode::S_IXUSR)
}

/// The modification time: of a deferred message, its next attempt.
pub(crate) fn modified(stat: &FileStat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    UNIX_EPOCH + Duration::new(seconds.min(crate::format::attempt::LATEST), nanos)
}

/// A message found by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: QueueId,
    /// The file's modification time; in `deferred/` this is when the message is to be tried next.
    pub modified: SystemTime,
    /// The writer has finished.
    pub ready: bool,
    /// The size of the whole file.
    pub file_size: u64,
    /// The file has another name somewhere.
    pub(crate) has_second_name: bool,
}

/// The ids of a folder, in no order, read as they are asked for.
///
/// A million names are never in memory at once: they are taken in batches, and each batch is sorted by inode number,
/// because a directory of ext4 lists its names in hash order and looking at a million inodes in that order is a million
/// random reads.
#[derive(Debug)]
pub(crate) struct Names {
    directory: Arc<Directory>,
    slot: usize,
    open: Option<nix::dir::OwningIter>,
    batch: VecDeque<(u64, QueueId)>,
}

impl Names {
    const BATCH: usize = 4096;

    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, slot: 0, open: None, batch: VecDeque::new() }
    }

    fn fill(&mut self) -> Result<(), QueueError> {
        while self.batch.is_empty() && self.slot < self.directory.slots.len() {
            let mut names = match self.open.take() {
                Some(names) => names,
                None => self.directory.names(self.slot).inspect_err(|_| self.slot += 1)?,
            };
            let batch = names.by_ref().take(Self::BATCH).collect::<Vec<_>>();
            if batch.len() == Self::BATCH {
                self.open = Some(names);
            } else {
                self.slot += 1;
            }
            for entry in batch {
                let entry = entry.map_err(|errno| self.directory.scan_error(self.slot, errno))?;
                let id = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
                self.batch.extend(id.map(|id| (entry.ino(), id)));
            }
            self.batch.make_contiguous().sort_unstable_by_key(|(inode, _)| *inode);
        }
        Ok(())
    }
}

impl Iterator for Names {
    type Item = Result<QueueId, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            return Some(Err(error));
        }
        self.batch.pop_front().map(|(_, id)| Ok(id))
    }
}

/// The messages of a folder with what their inodes say, read as they are asked for; no file is opened.
#[derive(Debug)]
pub struct Scan(Names);

impl Scan {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self(Names::new(directory))
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let id = match self.0.next()? {
                Ok(id) => id,
                Err(error) => return Some(Err(error)),
            };
            match self.0.directory.stat(id) {
                // Moved or removed since its name was read, or a file in the wrong slot: not a message of this place.
                Err(error) if error.is_missing() => {}
                Err(error) => return Some(Err(error)),
                Ok(stat) => return Some(Ok(entry(id, &stat))),
            }
        }
    }
}

pub(crate) fn entry(id: QueueId, stat: &FileStat) -> Entry {
    let file_size = u64::try_from(stat.st_size).unwrap_or_default();
    Entry {
        id,
        modified: modified(stat),
        ready: is_ready(stat),
        file_size,
        has_second_name: stat.st_nlink > 1,
    }
}
