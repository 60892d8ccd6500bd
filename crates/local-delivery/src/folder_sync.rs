//! Makes new names in a folder durable, one `fsync` for all the deliveries that wait for the same folder.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sys::shared_sync::SharedSync;

/// A folder: device and inode.
type Identity = (u64, u64);

/// The folders that are being synced now; nothing is kept of the others.
#[derive(Debug, Default)]
pub(crate) struct FolderSync {
    folders: Mutex<HashMap<Identity, Arc<SharedSync>>>,
}

impl FolderSync {
    /// Makes the names durable that the caller has put into `folder`, whose device and inode are `identity`.
    ///
    /// # Errors
    /// What `fsync` says.
    pub(crate) fn sync(&self, folder: &File, identity: (u64, u64)) -> io::Result<()> {
        let new = || Arc::new(SharedSync::new(Duration::ZERO));
        let shared = Arc::clone(lock(&self.folders).entry(identity).or_insert_with(new));
        let result = shared.sync(|_| true, || folder.sync_all());
        let mut folders = lock(&self.folders);
        // Two are the map's and this one: nobody else is at it.
        if Arc::strong_count(&shared) == 2 {
            folders.remove(&identity);
        }
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn many_threads_share_rounds_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let sync = FolderSync::default();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (sync, path) = (&sync, folder.path());
                scope.spawn(move || {
                    let file = File::open(path).unwrap();
                    let stat = file.metadata().unwrap();
                    for n in 0..50 {
                        std::fs::write(path.join(format!("{thread}-{n}")), "x").unwrap();
                        sync.sync(&file, (stat.dev(), stat.ino())).unwrap();
                    }
                });
            }
        });
        assert!(lock(&sync.folders).is_empty());
    }

    #[test]
    fn a_failed_sync_is_told() {
        // A pipe cannot be synced.
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert!(FolderSync::default().sync(&File::from(read), (1, 1)).is_err());
    }
}
