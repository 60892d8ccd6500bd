//! Makes new names in a folder durable, one `fsync` for all the deliveries that wait for the same folder.
//!
//! Contract: [`FolderSync::sync`] returns success only after an `fsync` of the folder that *began* after the caller's
//! rename. A thread that finds one under way waits for the next, which it or another waiter performs for all of them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A folder: device and inode.
type Identity = (u64, u64);

/// The folders that are being synced now; nothing is kept of the others.
#[derive(Debug, Default)]
pub(crate) struct FolderSync {
    folders: Mutex<HashMap<Identity, Arc<Folder>>>,
}

#[derive(Debug, Default)]
struct Folder {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// Threads that wait for another's sync to end.
    waiting: usize,
    /// The latest round that failed, and how.
    failed: Option<(u64, i32)>,
}

impl FolderSync {
    /// Makes the names durable that the caller has put into `folder`, whose device and inode are `identity`.
    ///
    /// # Errors
    /// What `fsync` says.
    pub(crate) fn sync(&self, folder: &File, identity: (u64, u64)) -> io::Result<()> {
        let shared = Arc::clone(lock(&self.folders).entry(identity).or_default());
        let result = shared.sync(folder);
        let mut folders = lock(&self.folders);
        // Two are the map's and this one: nobody else is at it.
        if Arc::strong_count(&shared) == 2 {
            folders.remove(&identity);
        }
        result
    }
}

impl Folder {
    fn sync(&self, file: &File) -> io::Result<()> {
        let mut rounds = lock(&self.rounds);
        // A round that has begun may have passed the caller's name already: the next one counts.
        let wanted = rounds.begun + 1;
        while rounds.ended < wanted {
            if rounds.begun > rounds.ended {
                rounds.waiting += 1;
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                rounds.waiting -= 1;
            } else {
                rounds.begun += 1;
                drop(rounds);
                let result = file.sync_all();
                rounds = lock(&self.rounds);
                rounds.ended = rounds.begun;
                if let Err(error) = result {
                    rounds.failed = Some((rounds.ended, error.raw_os_error().unwrap_or(nix::libc::EIO)));
                }
                if rounds.waiting > 0 {
                    self.ended.notify_all();
                }
            }
        }
        match rounds.failed {
            Some((round, error)) if round >= wanted => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
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
