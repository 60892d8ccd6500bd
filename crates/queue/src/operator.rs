//! Postsuper's side: the operator holds, releases, requeues, expires and deletes messages while qmgr runs.
//!
//! Each operation is one rename or unlink. Qmgr holds an open descriptor of what it is delivering, so that its marks and
//! journal records go with the file, and takes a message that is gone from where it took it up as taken away by the operator.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mail::QueueId;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::Mode;

use crate::folder::{Directory, Folder, Names, Scan, is_ready};
use crate::format::head::Flags;
use crate::root::Folders;
use crate::{QueueError, Root, Stored};

/// The operator's power over the queue.
#[derive(Clone, Debug)]
pub struct Operator {
    root: Root,
    folders: Folders,
}

/// What [`Operator::repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Messages that were in the wrong folder.
    pub moved: u64,
    /// Names in the queue that are no queue ids, relative to the queue directory; left alone.
    pub strangers: Vec<String>,
}

impl Operator {
    pub(crate) fn new(root: Root, folders: Folders) -> Self {
        Self { root, folders }
    }

    /// The ids of a folder, in no order.
    pub fn ids(&self, folder: Folder) -> impl Iterator<Item = Result<QueueId, QueueError>> + use<> {
        Names::new(Arc::clone(self.folders.get(folder)))
    }

    /// Removes a message from the first of these folders that has it: which one that was.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where none has it; [`QueueError::NotReady`] while it is being written.
    pub fn delete(&self, id: QueueId, from: &[Folder]) -> Result<Folder, QueueError> {
        self.in_first(id, from, |folder| self.folders.get(folder).unlink(id))
    }

    /// Removes what a program that has ended since began to write under this name and did not finish, if there is such.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_unfinished(&self, id: QueueId, folder: Folder) -> Result<(), QueueError> {
        let names = self.folders.get(folder);
        match names.stat(id) {
            Ok(stat) if !is_ready(&stat) => names.unlink(id),
            Ok(_) | Err(QueueError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts a message on hold.
    ///
    /// # Errors
    /// As [`Operator::delete`].
    pub fn hold(&self, id: QueueId, from: &[Folder]) -> Result<Folder, QueueError> {
        self.in_first(id, from, |folder| self.folders.get(folder).rename(id, self.folders.get(Folder::Hold)))
    }

    /// Gives a message to qmgr as if it had just arrived, its history kept: for release from hold, and to have it
    /// routed anew. Qmgr is to be told to look (`Rescan`).
    ///
    /// # Errors
    /// As [`Operator::delete`].
    pub fn requeue(&self, id: QueueId, from: &[Folder]) -> Result<Folder, QueueError> {
        self.in_first(id, from, |folder| {
            self.folders.get(folder).rename(id, self.folders.get(Folder::Incoming))
        })
    }

    /// As [`Operator::requeue`], and the content filter of the message is decided anew.
    ///
    /// # Errors
    /// As [`Operator::delete`].
    pub fn requeue_anew(&self, id: QueueId, from: &[Folder]) -> Result<Folder, QueueError> {
        self.in_first(id, from, |folder| {
            let directory = self.folders.get(folder);
            match Self::set_flag(directory, id, Flags::REQUEUED) {
                // Whoever takes it up will say so.
                Ok(()) | Err(QueueError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
            directory.rename(id, self.folders.get(Folder::Incoming))
        })
    }

    fn set_flag(directory: &Directory, id: QueueId, flag: Flags) -> Result<(), QueueError> {
        let file = Arc::new(directory.open_write(id)?);
        let stored = Stored::open(Arc::clone(&file), directory.path_of(id).into())?;
        let flags = stored.flags().with(flag);
        file.write_all_at(&[flags.byte()], Flags::OFFSET).map_err(|error| stored.failed("write", error))
    }

    /// Has a message returned to its sender at its next attempt.
    ///
    /// # Errors
    /// As [`Operator::delete`]; a damaged file is left alone.
    pub fn expire(&self, id: QueueId, from: &[Folder]) -> Result<Folder, QueueError> {
        self.in_first(id, from, |folder| Self::set_flag(self.folders.get(folder), id, Flags::EXPIRE))
    }

    /// Removes files that were never finished and that nobody has touched for `age`: how many.
    ///
    /// # Errors
    /// The first operation that failed, other than on a file that is gone.
    pub fn purge(&self, age: Duration) -> Result<u64, QueueError> {
        let now = SystemTime::now();
        let mut removed = 0;
        for folder in [Folder::Incoming, Folder::Hold] {
            for entry in Scan::new(Arc::clone(self.folders.get(folder))) {
                let entry = entry?;
                if !entry.ready && now.duration_since(entry.modified).is_ok_and(|since| since >= age) {
                    self.folders.get(folder).unlink(entry.id)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Moves messages that are in the wrong folder of a hashed one to where they belong: after a restore, or when an
    /// operator has moved files by hand. What is no message is named and left.
    ///
    /// # Errors
    /// The first operation that failed.
    pub fn repair(&self) -> Result<Repaired, QueueError> {
        let mut repaired = Repaired::default();
        for folder in Folder::ALL {
            let mut places = vec![folder.as_str().into()];
            if folder.slots() > 1 {
                places.extend((0..folder.slots()).map(|slot| folder.slot_path(slot)));
            }
            for place in places {
                self.repair_place(folder, &place, &mut repaired)?;
            }
        }
        Ok(repaired)
    }

    fn repair_place(
        &self,
        folder: Folder,
        place: &std::path::Path,
        repaired: &mut Repaired,
    ) -> Result<(), QueueError> {
        let path = self.root.path().join(place);
        let failed = |errno: Errno| QueueError::new("read the folder", path.clone(), errno.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let from = openat(AT_FDCWD, &path, flags, Mode::empty()).map_err(failed)?;
        let names = Dir::openat(&from, ".", flags, Mode::empty()).map_err(failed)?;
        for entry in names {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let is_slot = folder.slots() > 1
                && place.as_os_str() == folder.as_str()
                && (0..folder.slots()).any(|slot| folder.slot_path(slot).file_name() == Some(name));
            if is_slot {
                continue;
            }
            let Some(id) = name.to_str().and_then(|name| name.parse::<QueueId>().ok()) else {
                repaired.strangers.push(place.join(name).display().to_string());
                continue;
            };
            if folder.slot_path(folder.slot_of(id)) != place {
                renameat(&from, name, self.folders.get(folder).slot(id), id.as_str())
                    .map_err(|errno| QueueError::new("move", path.join(name), errno.into()))?;
                repaired.moved += 1;
            }
        }
        Ok(())
    }

    /// Makes what was done last through a power cut: once, after many operations. What is lost otherwise is no message, but
    /// one that the operator held would be delivered, and one that was deleted would be back.
    ///
    /// # Errors
    /// The first folder that could not be synced.
    pub fn sync(&self) -> Result<(), QueueError> {
        Folder::ALL.iter().try_for_each(|folder| self.folders.get(*folder).sync_all())
    }

    /// Tries an operation in each folder until one has the message.
    fn in_first(
        &self,
        id: QueueId,
        from: &[Folder],
        operation: impl Fn(Folder) -> Result<(), QueueError>,
    ) -> Result<Folder, QueueError> {
        for folder in from {
            let done = match self.folders.get(*folder).stat(id) {
                Ok(stat) if !is_ready(&stat) => Err(QueueError::NotReady(id)),
                Ok(_) => operation(*folder),
                Err(error) => Err(error),
            };
            match done {
                Err(error) if error.is_missing() => {}
                result => return result.map(|()| *folder),
            }
        }
        Err(QueueError::NotFound(id))
    }
}
