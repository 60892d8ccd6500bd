//! The queue directory: where it is, what is in it, and the handles it gives out.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use crate::folder::{Directory, Folder};
use crate::{Active, Incoming, Maildrop, Operator, QueueError, ReadOnly};

/// An existing queue directory.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
    name_survives_fsync: bool,
}

/// To whom the folders belong, where the instance was started by root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `mail_owner`.
    pub uid: u32,
    /// The group of `mail_owner`.
    pub gid: u32,
    /// `setgid_group`, that may put mail into `maildrop/` and talk to the sockets of `public/`.
    pub submission_gid: u32,
}

/// A folder that had another owner or mode than it must have, and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The folder.
    pub path: PathBuf,
    /// User and group before and now, where they differ.
    pub owner: Option<[(u32, u32); 2]>,
    /// The mode before and now, where they differ.
    pub mode: Option<[u32; 2]>,
}

/// Says that this process alone takes up messages, as long as it lives.
#[derive(Debug)]
pub struct Ownership(#[expect(dead_code, reason = "held for its lock")] File);

impl Root {
    /// Opens the queue at `queue_directory`.
    ///
    /// # Errors
    /// What the system says of that directory.
    pub fn open(queue_directory: &Path) -> io::Result<Self> {
        // Not to read it: who works in some of its folders need not list the others.
        let directory =
            File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(queue_directory)?;
        let name_survives_fsync = sys::fs::name_survives_fsync(directory)?;
        Ok(Self { path: queue_directory.to_owned(), name_survives_fsync })
    }

    /// Makes what is missing of the queue directory, and sets owner and mode of its folders. For who has nothing to tell of it.
    ///
    /// # Errors
    /// As [`Root::mend`].
    pub fn prepare(queue_directory: &Path, owner: Option<Owner>) -> Result<Self, QueueError> {
        Self::mend(queue_directory, owner).map(|(root, _)| root)
    }

    /// Makes what is missing of the queue directory, and sets owner and mode of its folders; what of those that were there
    /// was not as it must be. For master, at start.
    ///
    /// # Errors
    /// The operation and the path that failed.
    pub fn mend(queue_directory: &Path, owner: Option<Owner>) -> Result<(Self, Vec<Mended>), QueueError> {
        let user = owner.map(|owner| (owner.uid, owner.gid));
        let submission = owner.map(|owner| (owner.uid, owner.submission_gid));
        let mut folders = vec![(queue_directory.to_owned(), 0o755, None)];
        for folder in Folder::ALL {
            folders.push((queue_directory.join(folder.as_str()), 0o700, user));
            let slots = (0..folder.slots()).map(|slot| queue_directory.join(folder.slot_path(slot)));
            folders.extend(slots.map(|slot| (slot, 0o700, user)));
        }
        folders.extend([
            // Anybody of the set-gid group may put a file into maildrop/ and none may list it or remove another's.
            (queue_directory.join("maildrop"), 0o1730, submission),
            (queue_directory.join("public"), 0o710, submission),
            // Every user's way to pickup. Nobody but master makes sockets there, so that no other process is taken for it.
            (queue_directory.join(mail::submission::SOCKET_FOLDER), 0o755, None),
            (queue_directory.join("private"), 0o700, user),
            (queue_directory.join("pid"), 0o755, None),
        ]);
        let mut mended = Vec::new();
        for (path, mode, owner) in folders {
            mended.extend(make(&path, mode, owner)?);
        }
        let root = Self::open(queue_directory);
        root.map(|root| (root, mended)).map_err(|e| QueueError::new("open", queue_directory.to_owned(), e))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cleanup's power: to bring messages into the queue.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn incoming(&self) -> Result<Incoming, QueueError> {
        let (incoming, hold) = (self.directory(Folder::Incoming)?, self.directory(Folder::Hold)?);
        Ok(Incoming::new(incoming, hold, self.name_survives_fsync))
    }

    /// Pickup's power: to take submissions out of `maildrop/`.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn maildrop(&self) -> Result<Maildrop, QueueError> {
        Maildrop::open(&self.path)
    }

    /// Qmgr's power: to take up, change, move and remove messages.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn active(&self) -> Result<Active, QueueError> {
        Ok(Active::new(Folders::open(self)?))
    }

    /// Waits until no other queue manager is left, then keeps others waiting: one whose master was killed has some seconds
    /// for its deliveries, and two of them would take messages out of each other's hands. `waiting` is called before a wait.
    ///
    /// # Errors
    /// `active/` cannot be opened or locked.
    pub fn own(&self, waiting: impl FnOnce()) -> Result<Ownership, QueueError> {
        let path = self.path.join(Folder::Active.as_str());
        let lock = File::open(&path).and_then(|directory| {
            match directory.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    directory.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => {}
            }
            Ok(directory)
        });
        lock.map(Ownership).map_err(|error| QueueError::new("lock", path, error))
    }

    /// To look at messages.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn read_only(&self) -> Result<ReadOnly, QueueError> {
        Ok(ReadOnly::new(Folders::open(self)?, self.path.join("maildrop")))
    }

    /// Postsuper's power: to hold, release, requeue and delete messages while qmgr runs.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn operator(&self) -> Result<Operator, QueueError> {
        Ok(Operator::new(self.clone(), Folders::open(self)?))
    }

    fn directory(&self, folder: Folder) -> Result<Arc<Directory>, QueueError> {
        Directory::open(&self.path, folder).map(Arc::new)
    }
}

/// Every folder, open.
#[derive(Clone, Debug)]
pub(crate) struct Folders([Arc<Directory>; Folder::ALL.len()]);

impl Folders {
    fn open(root: &Root) -> Result<Self, QueueError> {
        let [incoming, active, deferred, hold, corrupt] = Folder::ALL.map(|folder| root.directory(folder));
        Ok(Self([incoming?, active?, deferred?, hold?, corrupt?]))
    }

    pub(crate) fn get(&self, folder: Folder) -> &Arc<Directory> {
        let [incoming, active, deferred, hold, corrupt] = &self.0;
        match folder {
            Folder::Incoming => incoming,
            Folder::Active => active,
            Folder::Deferred => deferred,
            Folder::Hold => hold,
            Folder::Corrupt => corrupt,
        }
    }
}

/// Makes a folder unless it is there, and gives it the right mode and owner either way; what was not right of one that was
/// there.
fn make(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<Option<Mended>, QueueError> {
    let failed = |operation| move |error| QueueError::new(operation, path.to_owned(), error);
    let is_new = match fs::DirBuilder::new().recursive(false).mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        result => result.map(|()| true).map_err(failed("make the folder"))?,
    };
    // By a descriptor: a name could lead elsewhere a moment later.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = File::options().read(true).custom_flags(flags.bits()).open(path).map_err(failed("open"))?;
    let before = folder.metadata().map_err(failed("stat"))?;
    let mut mended = Mended { path: path.to_owned(), owner: None, mode: None };
    if let Some((uid, gid)) = owner
        && (before.uid(), before.gid()) != (uid, gid)
    {
        fchown(&folder, Some(uid), Some(gid)).map_err(failed("change the owner of"))?;
        mended.owner = Some([(before.uid(), before.gid()), (uid, gid)]);
    }
    // After fchown, which clears the set-gid bit; not where the mode is right, so that a second start changes nothing.
    let found = folder.metadata().map_err(failed("stat"))?;
    if found.permissions().mode() & 0o7777 != mode {
        folder.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("change the mode of"))?;
    }
    let mode_before = before.permissions().mode() & 0o7777;
    mended.mode = Some([mode_before, mode]).filter(|[before, now]| before != now);
    let is_mended = !is_new && (mended.owner.is_some() || mended.mode.is_some());
    Ok(is_mended.then_some(mended))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    use super::*;

    /// Most folders are `mail_owner`'s, who is not to have root change what is not his.
    #[test]
    fn a_link_in_the_place_of_a_folder_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let [path, other, victim] = ["deferred", "other", "victim"].map(|name| root.path().join(name));
        for folder in [&path, &victim] {
            fs::DirBuilder::new().mode(0o711).create(folder).unwrap();
        }
        std::os::unix::fs::symlink(&victim, &other).unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = || renameat2(AT_FDCWD, &path, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
                // Not every file system can do that.
                while !is_over.load(Ordering::Relaxed) && exchange().is_ok() {
                    for folder in [&path, &other] {
                        let link = fs::symlink_metadata(folder).unwrap().is_symlink();
                        (!link)
                            .then(|| fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap());
                    }
                }
            });
            (0..5000).for_each(|_| drop(make(&path, 0o700, None)));
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o711);
    }

    #[test]
    fn a_folder_that_was_put_right_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mend = || Root::mend(folder.path(), None).unwrap().1;
        // What was missing is made without a word.
        assert_eq!(mend(), []);
        let hold = folder.path().join("hold");
        fs::set_permissions(&hold, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(mend(), [Mended { path: hold.clone(), owner: None, mode: Some([0o777, 0o700]) }]);
        assert_eq!(fs::metadata(&hold).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(mend(), []);
    }

    #[test]
    fn a_second_queue_manager_waits_for_the_end_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::prepare(folder.path(), None).unwrap();
        let first = root.own(|| panic!("nobody is there to wait for")).unwrap();
        let (waits, is_waiting) = channel();
        let second = thread::spawn(move || root.own(|| waits.send(()).unwrap()).map(drop));
        is_waiting.recv().unwrap();
        drop(first);
        second.join().unwrap().unwrap();
    }
}
