//! Makes new names in a folder durable, one `fsync` for all the deliveries that wait for the same folder.
//!
//! Contract: [`FolderSync::sync`] returns success only after an `fsync` of the folder that *began* after the caller's
//! rename. A thread that finds one under way waits for the next, which it or another waiter performs for all of them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A folder: device and inode.
type Folder = (u64, u64);

/// The folders that are being synced now; nothing is kept of the others.
#[derive(Debug, Default)]
pub struct FolderSync {
    folders: Mutex<HashMap<Folder, Arc<Rounds>>>,
}

/// The syncs of one folder, numbered from 1.
#[derive(Debug, Default)]
struct Rounds {
    state: Mutex<State>,
    /// Threads wait for the end of an even or of an odd round: only the one under way and the next are ever waited for,
    /// so that the end of a round wakes those it is for, and one of the others to perform the next.
    ended: [Condvar; 2],
}

#[derive(Debug, Default)]
struct State {
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// The latest round that failed, and how.
    failed: Option<(u64, i32)>,
}

impl FolderSync {
    /// Makes the names durable that the caller has put into `folder`.
    ///
    /// # Errors
    /// What `fsync` says.
    pub fn sync(&self, folder: &File, identity: (u64, u64)) -> io::Result<()> {
        let rounds = Arc::clone(lock(&self.folders).entry(identity).or_default());
        let result = rounds.sync(folder);
        let mut folders = lock(&self.folders);
        // The map's own reference and this one: nobody else waits for the folder, and nobody can come meanwhile.
        if Arc::strong_count(&rounds) == 2 {
            folders.remove(&identity);
        }
        result
    }
}

impl Rounds {
    fn sync(&self, folder: &File) -> io::Result<()> {
        let mut state = lock(&self.state);
        // A round that has begun may have passed the caller's name already: the next one counts.
        let wanted = state.begun + 1;
        while state.ended < wanted {
            if state.begun > state.ended {
                state = self.condition(wanted).wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                state = self.perform(state, folder);
            }
        }
        match state.failed {
            Some((round, error)) if round >= wanted => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
    }

    /// Performs the next round.
    fn perform<'a>(&'a self, mut state: MutexGuard<'a, State>, folder: &File) -> MutexGuard<'a, State> {
        state.begun += 1;
        let round = state.begun;
        drop(state);
        let result = folder.sync_all();
        let mut state = lock(&self.state);
        state.ended = round;
        if let Err(error) = result {
            state.failed = Some((round, error.raw_os_error().unwrap_or(nix::libc::EIO)));
        }
        self.condition(round).notify_all();
        self.condition(round + 1).notify_one();
        state
    }

    fn condition(&self, round: u64) -> &Condvar {
        &self.ended[usize::from(round % 2 == 1)]
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
