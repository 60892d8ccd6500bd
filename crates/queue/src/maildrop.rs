//! Pickup's side: the submissions of local users.
//!
//! Anybody may have written these files, at any name, and may still hold them open. So they are opened without following
//! links and without waiting, and looked at through the descriptor; what they say is for pickup to doubt.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, fchown, unlinkat};

use crate::QueueError;
use crate::folder::modified;

/// How long a file may stay unfinished before its writer is taken for dead.
const ABANDONED: Duration = Duration::from_hours(24);

/// The power to take finished files out of `maildrop/`, and nothing else.
#[derive(Clone, Debug)]
pub struct Maildrop(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    maildrop: OwnedFd,
    corrupt: OwnedFd,
    path: PathBuf,
}

/// What a file in `maildrop/` is.
#[derive(Debug)]
pub enum Dropped {
    /// A finished submission.
    Finished {
        /// It, open for reading.
        file: File,
        /// Who submitted it: the owner of the file.
        uid: u32,
        /// When it was finished.
        modified: SystemTime,
        /// Its size.
        size: u64,
    },
    /// Still being written, or gone.
    NotYet,
    /// Its writer died long ago.
    Abandoned,
    /// No file that postdrop makes; and why not.
    Suspicious(&'static str),
}

impl Maildrop {
    pub(crate) fn open(root: &Path) -> Result<Self, QueueError> {
        let open = |name| {
            let path = root.join(name);
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::fcntl::open(&path, flags, Mode::empty())
                .map_err(|errno| QueueError::new("open the folder", path, errno.into()))
        };
        let (maildrop, corrupt) = (open("maildrop")?, open("corrupt")?);
        Ok(Self(Arc::new(Folders { maildrop, corrupt, path: root.join("maildrop") })))
    }

    /// The names of its files, in no order, at most `most` of them.
    ///
    /// # Errors
    /// What reading the folder says.
    pub fn names(&self, most: usize) -> Result<Vec<OsString>, QueueError> {
        let failed = |error: io::Error| QueueError::new("read the folder", self.0.path.clone(), error);
        let entries = fs::read_dir(&self.0.path).map_err(failed)?;
        entries.take(most).map(|entry| entry.map(|entry| entry.file_name()).map_err(failed)).collect()
    }

    /// Opens a file and says what it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn take_up(&self, name: &OsStr) -> Result<Dropped, QueueError> {
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = match openat(&self.0.maildrop, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(Dropped::NotYet),
            Err(Errno::ELOOP) => return Ok(Dropped::Suspicious("a symbolic link")),
            Err(Errno::ENXIO) => return Ok(Dropped::Suspicious("not a regular file")),
            // It is given to all to read when it is finished.
            Err(Errno::EACCES) => return Ok(self.unreadable(name)),
            Err(errno) => return Err(self.error("open", name, errno)),
        };
        let found =
            file.metadata().map_err(|error| QueueError::new("stat", self.0.path.join(name), error))?;
        let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(if !found.is_file() {
            Dropped::Suspicious("not a regular file")
        } else if found.nlink() != 1 {
            Dropped::Suspicious("a file with several names")
        } else if found.mode() & 0o100 != 0 {
            Dropped::Finished { file, uid: found.uid(), modified, size: found.len() }
        } else {
            unfinished(modified)
        })
    }

    fn unreadable(&self, name: &OsStr) -> Dropped {
        match fstatat(&self.0.maildrop, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if !is_regular(&found) => Dropped::Suspicious("not a regular file"),
            Ok(found) => unfinished(modified(&found)),
            Err(_) => Dropped::NotYet,
        }
    }

    /// Begins a submission that another mail system took, for the user `uid`; pickup leaves it alone before
    /// [`Maildrop::finish`]. A file of that name that was begun before is begun anew.
    ///
    /// # Errors
    /// What the system says; a finished file of that name is an error.
    pub fn begin(&self, name: &OsStr, uid: u32) -> Result<File, QueueError> {
        match self.take_up(name)? {
            Dropped::NotYet | Dropped::Abandoned => {}
            _ => return Err(self.error("begin", name, Errno::EEXIST)),
        }
        match unlinkat(&self.0.maildrop, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.error("begin", name, errno)),
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.0.maildrop, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.error("create", name, errno))?;
        match fchown(&file, Some(Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::EPERM) => Ok(File::from(file)),
            Err(errno) => Err(self.error("change the owner of", name, errno)),
        }
    }

    /// Gives a file that was begun and synced to pickup; one that pickup has taken already is no error.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self, name: &OsStr) -> Result<(), QueueError> {
        let mode = Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IROTH;
        match fchmodat(&self.0.maildrop, name, mode, FchmodatFlags::FollowSymlink) {
            Ok(()) => nix::unistd::fsync(&self.0.maildrop).map_err(|errno| self.error("sync", name, errno)),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.error("finish", name, errno)),
        }
    }

    /// Removes a file that is in the queue now, or was abandoned.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, name: &OsStr) -> Result<(), QueueError> {
        unlinkat(&self.0.maildrop, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| self.error("remove", name, errno))
    }

    /// Moves what is no submission to `corrupt/`, where the operator finds it.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_aside(&self, name: &OsStr) -> Result<(), QueueError> {
        renameat(&self.0.maildrop, name, &self.0.corrupt, name)
            .map_err(|errno| self.error("move to corrupt/", name, errno))
    }

    fn error(&self, operation: &'static str, name: &OsStr, errno: Errno) -> QueueError {
        QueueError::new(operation, self.0.path.join(name), errno.into())
    }
}

fn is_regular(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

fn unfinished(modified: SystemTime) -> Dropped {
    let is_old = modified.elapsed().is_ok_and(|age| age > ABANDONED);
    if is_old { Dropped::Abandoned } else { Dropped::NotYet }
}
