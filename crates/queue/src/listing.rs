//! Looking at the queue without touching it: showq, postcat, bounce.

use std::sync::Arc;

use mail::QueueId;

use crate::folder::{Folder, Names};
use crate::root::Folders;
use crate::{QueueError, Stored};

/// The power to read any message of the queue.
#[derive(Clone, Debug)]
pub struct ReadOnly(Folders);

impl ReadOnly {
    pub(crate) fn new(folders: Folders) -> Self {
        Self(folders)
    }

    /// The ids of a folder, in no order, read from the disk as they are asked for.
    pub fn ids(&self, folder: Folder) -> impl Iterator<Item = Result<QueueId, QueueError>> + use<> {
        Names::new(Arc::clone(self.0.get(folder)))
    }

    /// Opens a message of a folder.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where it is not there (any more); what is wrong with a damaged one.
    pub fn open(&self, folder: Folder, id: QueueId) -> Result<Stored, QueueError> {
        let directory = self.0.get(folder);
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
