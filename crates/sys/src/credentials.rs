//! Who a thread or a process acts as.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use nix::libc;
use nix::unistd::{self, Gid, Uid};

thread_local! {
    /// Whether this thread is known to have no supplementary groups. Only [`AsUser`] gives a thread any of its own.
    static HAS_NO_GROUPS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread opens, makes and removes files as another user, and holds none of root's rights over
/// files (the kernel takes them from a thread whose file-system uid leaves 0). Other threads are not touched.
///
/// Only file access changes: signals, ports and the like keep root's identity, which is why commands are never run
/// under this guard but by a process that has become the user for good.
#[derive(Debug)]
pub struct AsUser {
    /// The thread acts as somebody else, and is to become root again.
    changed: bool,
    groups_changed: bool,
    /// A guard restores the thread it was made on, so it must stay there.
    _this_thread: PhantomData<*const ()>,
}

impl AsUser {
    /// Acts on files as `uid`, `gid` and the supplementary `groups`, if this process is root's; an ordinary user's
    /// process may only name itself.
    ///
    /// # Errors
    /// `EPERM` where the process may not become that user.
    pub fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<Self> {
        if !Uid::effective().is_root() {
            return if uid == Uid::effective() {
                Ok(Self { changed: false, groups_changed: false, _this_thread: PhantomData })
            } else {
                Err(io::Error::from_raw_os_error(libc::EPERM))
            };
        }
        // To the kernel the group itself counts for files as if it were among the supplementary ones.
        let groups_changed = groups.iter().any(|group| *group != gid);
        // Nothing is changed, and so nothing to be restored, where this fails.
        if groups_changed {
            set_thread_groups(groups)?;
        } else if !HAS_NO_GROUPS.get() {
            set_thread_groups(&[])?;
        }
        let guard = Self { changed: true, groups_changed, _this_thread: PhantomData };
        unistd::setfsgid(gid);
        unistd::setfsuid(uid);
        // Neither call fails. Asking once more tells whether it took.
        if file_user() == uid && file_group() == gid {
            Ok(guard)
        } else {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }
}

/// The user as whom this thread acts on files: who an [`AsUser`] says, or the effective one.
#[must_use]
pub fn file_user() -> Uid {
    // No user has this number, so that the call changes nothing and answers with the present value.
    unistd::setfsuid(Uid::from_raw(u32::MAX))
}

/// The same for the group.
fn file_group() -> Gid {
    unistd::setfsgid(Gid::from_raw(u32::MAX))
}

impl Drop for AsUser {
    fn drop(&mut self) {
        if self.changed {
            // Root's effective uid is what lets it become others at all.
            let root = Uid::from_raw(0);
            unistd::setfsuid(root);
            unistd::setfsgid(Gid::effective());
            let groups_remain = self.groups_changed && set_thread_groups(&[]).is_err();
            if groups_remain || file_user() != root {
                // A thread of root's that keeps a user's identity or groups could make files with them: never go on.
                std::process::abort();
            }
        }
    }
}

/// Sets the supplementary groups of this thread alone; the C library's function would change all threads.
fn set_thread_groups(groups: &[Gid]) -> io::Result<()> {
    let ids: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the kernel reads `ids.len()` ids from the pointer, of 32 bits on each architecture of 64.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, ids.len(), ids.as_ptr()) };
    if result == 0 {
        HAS_NO_GROUPS.set(groups.is_empty());
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the whole process another user for good: groups, gid, uid, and no way back.
///
/// # Errors
/// What the system calls say, and `EPERM` where there is a way back; the process must end then.
pub fn drop_privileges(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    unistd::setgroups(groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    if !uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
        // They came back. Without a text, which a child between fork and exec could not allocate.
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_thread_acts_as_the_user_while_the_guard_lives() {
        if !Uid::effective().is_root() {
            assert!(AsUser::become_user(Uid::from_raw(0), Gid::from_raw(0), &[]).is_err());
            return;
        }
        let folder = tempfile_folder();
        let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        std::os::unix::fs::chown(&folder, Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
        {
            let _guard = AsUser::become_user(uid, gid, &[]).unwrap();
            std::fs::write(folder.join("theirs"), "x").unwrap();
            assert_eq!(file_user(), uid);
            assert!(std::fs::read("/etc/shadow").is_err(), "root's rights over files must be gone");
        }
        std::fs::write(folder.join("ours"), "x").unwrap();
        let owner = |name: &str| std::fs::metadata(folder.join(name)).unwrap().uid();
        assert_eq!((owner("theirs"), owner("ours")), (65_534, 0));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn groups_count_while_the_guard_lives_and_no_longer() {
        if !Uid::effective().is_root() {
            return;
        }
        let (uid, gid, other) = (Uid::from_raw(65_534), Gid::from_raw(65_534), Gid::from_raw(61_005));
        let folder = tempfile_folder();
        let [of_group, of_other] = [gid, other].map(|group| {
            let path = folder.join(group.to_string());
            std::fs::write(&path, "x").unwrap();
            std::os::unix::fs::chown(&path, None, Some(group.as_raw())).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o040)).unwrap();
            path
        });
        let may_read = |groups: &[Gid]| {
            let _guard = AsUser::become_user(uid, gid, groups).unwrap();
            [&of_group, &of_other].map(|path| std::fs::read(path).is_ok())
        };
        // A thread may begin with whatever groups its process was started with.
        set_thread_groups(&[other]).unwrap();
        assert_eq!(may_read(&[]), [true, false]);
        for _ in 0..2 {
            assert_eq!(may_read(&[gid]), [true, false]);
            assert_eq!(may_read(&[other]), [true, true]);
            assert_eq!(may_read(&[gid, other]), [true, true]);
            assert_eq!(may_read(&[gid]), [true, false]);
        }
        assert_eq!((file_user(), file_group()), (Uid::effective(), Gid::effective()));
        let guard = std::panic::catch_unwind(|| {
            let _guard = AsUser::become_user(uid, gid, &[other]).unwrap();
            std::panic::resume_unwind(Box::new("told to"));
        });
        assert!(guard.is_err() && unistd::getgroups().unwrap().is_empty());
        assert_eq!((file_user(), file_group()), (Uid::effective(), Gid::effective()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn groups_that_the_system_refuses_are_an_error() {
        if !Uid::effective().is_root() {
            return;
        }
        let too_many = vec![Gid::from_raw(61_005); 65_537];
        let refused = AsUser::become_user(Uid::from_raw(65_534), Gid::from_raw(65_534), &too_many);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!((file_user(), file_group()), (Uid::effective(), Gid::effective()));
    }

    fn tempfile_folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!(
            "sys-credentials-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir(&folder).unwrap();
        folder
    }
}
