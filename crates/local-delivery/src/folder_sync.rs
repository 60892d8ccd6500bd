//! Makes new names in a folder durable, one `fsync` for all the deliveries that wait for the same folder.
//!
//! Contract: [`FolderSync::sync`] returns success only after an `fsync` of the folder that *began* after the caller's
//! rename. A thread that finds one under way waits for the next, which it or another waiter performs for all of them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A folder: device and inode.
type Folder = (u64, u64);

/// The folders that are being synced now; nothing is kept of the others.
#[derive(Debug, Default)]
pub struct FolderSync {
    rounds: Mutex<HashMap<Folder, Rounds>>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// Threads that wait for this folder, the one that syncs included; the last removes the entry.
    waiting: usize,
    /// The latest round that failed, and how.
    failed: Option<(u64, i32)>,
}

impl FolderSync {
    /// Makes the names durable that the caller has put into `folder`.
    ///
    /// # Errors
    /// What `fstat` or `fsync` says.
    pub fn sync(&self, folder: &File, identity: (u64, u64)) -> io::Result<()> {
        let mut rounds = self.lock();
        let entry = rounds.entry(identity).or_default();
        entry.waiting += 1;
        // A round that has begun may have passed the caller's name already: the next one counts.
        let wanted = entry.begun + 1;
        loop {
            let entry = rounds.entry(identity).or_default();
            if entry.ended >= wanted {
                break;
            }
            if entry.begun > entry.ended {
                rounds = self.finished.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            entry.begun += 1;
            drop(rounds);
            let result = folder.sync_all();
            rounds = self.lock();
            let entry = rounds.entry(identity).or_default();
            entry.ended = entry.begun;
            if let Err(error) = result {
                entry.failed = Some((entry.ended, error.raw_os_error().unwrap_or(nix::libc::EIO)));
            }
            self.finished.notify_all();
        }
        let result = match rounds.entry(identity).or_default().failed {
            Some((round, error)) if round >= wanted => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        };
        self.leave(&mut rounds, identity);
        result
    }

    fn leave(&self, rounds: &mut HashMap<Folder, Rounds>, identity: Folder) {
        if let Some(entry) = rounds.get_mut(&identity) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                rounds.remove(&identity);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Folder, Rounds>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        assert!(sync.lock().is_empty());
    }

    #[test]
    fn a_failed_sync_is_told() {
        // A pipe cannot be synced.
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert!(FolderSync::default().sync(&File::from(read), (1, 1)).is_err());
    }
}
