//! Looking at the queue without touching it: showq, postcat, bounce.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mail::QueueId;

use crate::folder::{Folder, Names};
use crate::root::Folders;
use crate::{QueueError, Stored};

/// The power to read any message of the queue.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    folders: Folders,
    maildrop: PathBuf,
}

/// A finished file in `maildrop/`, which no program but pickup takes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Its file name.
    pub name: String,
    /// Who submitted it: the owner of the file.
    pub uid: u32,
    /// When it was finished.
    pub modified: SystemTime,
    /// The size of the file.
    pub file_size: u64,
}

impl ReadOnly {
    pub(crate) fn new(folders: Folders, maildrop: PathBuf) -> Self {
        Self { folders, maildrop }
    }

    /// The local submissions that pickup has not taken yet.
    ///
    /// # Errors
    /// What reading the folder says.
    pub fn submissions(&self) -> Result<impl Iterator<Item = Submission> + use<>, QueueError> {
        let failed = |error: io::Error| QueueError::new("read the folder", self.maildrop.clone(), error);
        let entries = fs::read_dir(&self.maildrop).map_err(failed)?;
        Ok(entries.filter_map(|entry| {
            let entry = entry.ok()?;
            // A file that pickup has removed meanwhile has no metadata, and nothing to list.
            let found = entry.metadata().ok()?;
            let finished = found.is_file() && found.mode() & 0o100 != 0;
            let name = entry.file_name().into_string().ok().filter(|_| finished)?;
            let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(Submission { name, uid: found.uid(), modified, file_size: found.len() })
        }))
    }

    /// The ids of a folder, in no order, read from the disk as they are asked for.
    pub fn ids(&self, folder: Folder) -> impl Iterator<Item = Result<QueueId, QueueError>> + use<> {
        Names::new(Arc::clone(self.folders.get(folder)))
    }

    /// Opens a message of a folder.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where it is not there (any more); what is wrong with a damaged one.
    pub fn open(&self, folder: Folder, id: QueueId) -> Result<Stored, QueueError> {
        let directory = self.folders.get(folder);
        Stored::open(Arc::new(directory.open_read(id)?), directory.path_of(id).into())
    }

    /// Opens a message wherever it is. A message that moves while it is looked for is looked for once more.
    ///
    /// # Errors
    /// As [`ReadOnly::open`].
    pub fn find(&self, id: QueueId) -> Result<(Folder, Stored), QueueError> {
        for folder in Folder::ALL.into_iter().chain(Folder::ALL) {
            match self.open(folder, id) {
                Err(QueueError::NotFound(_)) => {}
                result => return result.map(|stored| (folder, stored)),
            }
        }
        Err(QueueError::NotFound(id))
    }
}
