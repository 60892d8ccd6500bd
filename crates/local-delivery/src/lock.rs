//! Locks of an mbox file: `fcntl`, `flock` and lock files, as `mailbox_delivery_lock` names them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ipc::log;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::failure::describe;

/// How mailboxes are locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locking {
    /// `fcntl`: taken as a lock of the open file, not of the process. It conflicts with other programs' `fcntl` locks
    /// all the same, and holds between the threads of this one.
    pub(crate) fcntl: bool,
    /// `flock`.
    pub(crate) flock: bool,
    /// `dotlock`: a file `MAILBOX.lock`.
    pub(crate) dotlock: bool,
    /// `deliver_lock_attempts` times `deliver_lock_delay`: how long to wait in all.
    pub(crate) patience: Duration,
    /// `deliver_lock_delay`: the longest pause between two attempts.
    pub(crate) delay: Duration,
    /// `stale_lock_time`: an older lock file was left by a crash.
    pub(crate) stale: Duration,
}

impl Locking {
    /// Reads the words of `mailbox_delivery_lock`.
    ///
    /// # Errors
    /// The word that is no kind of lock.
    pub(crate) fn from_words(
        words: &[String],
        attempts: u32,
        delay: Duration,
        stale: Duration,
    ) -> Result<Self, String> {
        let patience = delay.saturating_mul(attempts.max(1));
        let mut locking = Self { fcntl: false, flock: false, dotlock: false, patience, delay, stale };
        for word in words {
            match word.as_str() {
                "fcntl" => locking.fcntl = true,
                "flock" => locking.flock = true,
                "dotlock" => locking.dotlock = true,
                _ => return Err(word.clone()),
            }
        }
        Ok(locking)
    }

    /// Waits for the locks on the open file.
    ///
    /// # Errors
    /// `WouldBlock` after [`Locking::patience`].
    pub(crate) fn lock_file(&self, file: File) -> io::Result<Locked> {
        let mut file = Locked::without_lock(file);
        if self.fcntl {
            self.retry(|| change_fcntl(&file, libc::F_WRLCK))?;
            file.fcntl = true;
        }
        if self.flock {
            self.retry(|| match file.try_lock() {
                Ok(()) => Ok(()),
                Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => Err(error),
            })?;
            file.flock = true;
        }
        Ok(file)
    }

    /// Makes the lock file of the mailbox at `path`, waiting while another holds it.
    ///
    /// # Errors
    /// What creating it says; `WouldBlock` after [`Locking::patience`].
    pub(crate) fn make_lock_file(&self, path: &Path) -> io::Result<LockFile> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        self.retry(|| match create_lock_file(&lock) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_stale(&lock)?;
                Err(io::ErrorKind::WouldBlock.into())
            }
            result => result,
        })?;
        Ok(LockFile(lock))
    }

    fn remove_stale(&self, lock: &Path) -> io::Result<()> {
        let Ok(stat) = std::fs::symlink_metadata(lock) else { return Ok(()) };
        let age = stat.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_some_and(|age| age > self.stale) {
            match std::fs::remove_file(lock) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Tries at once, then after short and growing pauses: another delivery usually takes a millisecond.
    fn retry(&self, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(1);
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(self.delay.max(Duration::from_millis(1)));
        }
    }
}

/// An open file and the locks on it, which go when it goes. Closing the file would not do: a command that another thread is
/// starting has it open as well until it runs.
#[derive(Debug)]
pub(crate) struct Locked {
    file: File,
    fcntl: bool,
    flock: bool,
}

impl Locked {
    /// One that needs none: what is not a mailbox.
    pub(crate) const fn without_lock(file: File) -> Self {
        Self { file, fcntl: false, flock: false }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A lock that cannot be given back goes when the last who has the file open closes it, which is at once.
        if self.flock {
            let _ = self.file.unlock();
        }
        if self.fcntl {
            let _ = change_fcntl(&self.file, libc::F_UNLCK);
        }
    }
}

fn change_fcntl(file: &File, to: libc::c_int) -> io::Result<()> {
    let whole =
        libc::flock { l_type: short(to)?, l_whence: short(libc::SEEK_SET)?, l_start: 0, l_len: 0, l_pid: 0 };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Err(Errno::EAGAIN | Errno::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The C library declares the constants wider than the fields they go into.
fn short(constant: libc::c_int) -> io::Result<libc::c_short> {
    constant.try_into().map_err(io::Error::other)
}

fn create_lock_file(lock: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    options.open(lock).map(drop)
}

/// Removes the lock file when it goes.
#[derive(Debug)]
pub(crate) struct LockFile(PathBuf);

impl Drop for LockFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            // One that was taken for stale and removed by another is gone already.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let lock = self.0.display();
                log::warning!(
                    "remove lock file {lock}: {}; it holds mail up until it is stale",
                    describe(&error)
                );
            }
            _ => {}
        }
    }
}

/// Whether the path still names this open file: a mail reader may have replaced the mailbox while we waited.
///
/// # Errors
/// What `fstat` says.
pub(crate) fn is_still_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locking(words: &[&str]) -> Locking {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let second = Duration::from_millis(50);
        Locking::from_words(&words, 2, second, Duration::from_secs(500)).unwrap()
    }

    #[test]
    fn every_kind_of_lock_excludes_a_second_open_file() {
        for kind in ["fcntl", "flock"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("box");
            let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
            // As the child has it that another thread forks, until a command runs in it.
            let _of_a_child = first.try_clone().unwrap();
            let first = locking(&[kind]).lock_file(first).unwrap();
            let error = locking(&[kind]).lock_file(second.try_clone().unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{kind}");
            drop(first);
            locking(&[kind]).lock_file(second).unwrap();
        }
    }

    #[test]
    fn a_lock_file_is_waited_for_removed_and_taken_over_when_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("box");
        let mut locking = locking(&["dotlock"]);
        let held = locking.make_lock_file(&path).unwrap();
        assert_eq!(locking.make_lock_file(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        let held = locking.make_lock_file(&path).unwrap();
        locking.stale = Duration::ZERO;
        std::thread::sleep(Duration::from_millis(20));
        let again = locking.make_lock_file(&path).unwrap();
        drop((held, again));
        assert!(!folder.path().join("box.lock").exists());
    }

    #[test]
    fn an_unknown_word_is_named() {
        let words = ["fcntl".to_owned(), "fnctl".to_owned()];
        let second = Duration::from_secs(1);
        assert_eq!(Locking::from_words(&words, 1, second, second), Err("fnctl".to_owned()));
    }
}
