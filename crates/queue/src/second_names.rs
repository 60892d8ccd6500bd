//! Messages with two names, which a power cut can make of a rename where a file system does not write it as one change.
//!
//! Each name would be delivered by itself, and a rename of one to the other does nothing and says that all is well
//! (POSIX). One of them is removed before anything is taken up. No program makes a second name, so that the number of
//! links, which a scan knows anyway, tells whether there is one.

use mail::QueueId;

use crate::folder::{Entry, Folder};
use crate::root::Folders;
use crate::{Active, QueueError};

impl Active {
    /// Leaves a message that was found in this folder one name, and says in which folder: `hold/` before all others,
    /// since what the operator wanted to stay must not go, and then the one it was found in.
    pub(crate) fn leave_one_name(&self, found: Folder, entry: &Entry) -> Result<Folder, QueueError> {
        if !entry.has_second_name {
            return Ok(found);
        }
        let folders = self.folders();
        let kept = if inode(folders, Folder::Hold, entry.id)?.is_some() { Folder::Hold } else { found };
        let inode_kept = inode(folders, kept, entry.id)?;
        for folder in Folder::ALL {
            if folder != kept && inode_kept.is_some() && inode(folders, folder, entry.id)? == inode_kept {
                folders.get(folder).unlink(entry.id)?;
            }
        }
        Ok(kept)
    }
}

fn inode(folders: &Folders, folder: Folder, id: QueueId) -> Result<Option<u64>, QueueError> {
    match folders.get(folder).stat(id) {
        Ok(found) => Ok(Some(found.st_ino)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
