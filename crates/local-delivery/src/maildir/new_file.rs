//! The file of a message on its way into a Maildir: nobody who looks into `new/` sees it before it is whole.
//!
//! It has no name until then (`O_TMPFILE`, then `linkat`): nothing of it stays behind, whatever ends this process or the
//! machine, and its name is made in one folder. That takes fewer changes of the disk than a name in `tmp/` that is moved,
//! and no lock of the whole file system, which every move from one folder to another takes. File systems that know no
//! such files (NFS, some FUSE) have it in `tmp/`, as the format's definition says.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::libc;
use nix::unistd::linkat;

/// Whether the kernel gives a file a name by its descriptor alone: Linux 6.10 does, for who opened the file.
static LINKS_DESCRIPTORS: AtomicBool = AtomicBool::new(true);

/// A file that is being written. Dropped before it has its place, it is gone.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    /// The Maildir.
    pub(super) folder: &'a Path,
    pub(super) file: File,
    /// What it is to be called in `new/`.
    name: String,
    /// Where it is until then, if it needs a name.
    in_tmp: Option<PathBuf>,
}

/// Why there is no file.
#[derive(Debug)]
pub(super) struct Unmade {
    pub(super) why: io::Error,
    /// In which folder of the Maildir it was to be made.
    pub(super) folder: &'static str,
}

impl<'a> NewFile<'a> {
    /// One without a name where the file system knows such, otherwise one in `tmp/`.
    ///
    /// # Errors
    /// What the system says: `NotFound` where a folder is missing, `AlreadyExists` for a name that `tmp/` has.
    pub(super) fn make(folder: &'a Path, name: String) -> Result<Self, Unmade> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        match options.open(folder.join("new")) {
            Ok(file) => Ok(Self { folder, file, name, in_tmp: None }),
            // The second is what is said where the flag is not known: who may write to a folder?
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                Self::in_tmp(folder, name)
            }
            Err(why) => Err(Unmade { why, folder: "new" }),
        }
    }

    /// One in `tmp/`: new, nobody else's, not through a link.
    ///
    /// # Errors
    /// As [`NewFile::make`].
    pub(super) fn in_tmp(folder: &'a Path, name: String) -> Result<Self, Unmade> {
        let path = folder.join("tmp").join(&name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(|why| Unmade { why, folder: "tmp" })?;
        Ok(Self { folder, file, name, in_tmp: Some(path) })
    }

    pub(super) fn is_in_tmp(&self) -> bool {
        self.in_tmp.is_some()
    }

    /// Whether one in `tmp/` may get the place that this one did not, or tells what is wrong: not every file system and
    /// not every kernel lets a file without a name have one. What ails the disk ails both.
    pub(super) fn needs_tmp(&self, error: &io::Error) -> bool {
        let is_of_disk =
            matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT | libc::EROFS));
        self.in_tmp.is_none() && !is_of_disk
    }

    /// Where it is when it is whole.
    pub(super) fn place(&self) -> PathBuf {
        self.folder.join("new").join(&self.name)
    }

    /// Gives it its place, through the descriptor of `new/` if there is one. Never replaces what is there.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn publish(&mut self, new: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let place = if new.is_some() { PathBuf::from(&self.name) } else { self.place() };
        let at = new.unwrap_or(AT_FDCWD);
        match &self.in_tmp {
            None => link(self.file.as_fd(), at, &place),
            Some(path) => rename(path, at, &place).map(|()| self.in_tmp = None),
        }
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.in_tmp {
            // Best effort: what stays in tmp/ is no mail.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Gives a file its first name.
fn link(file: BorrowedFd<'_>, at: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    if LINKS_DESCRIPTORS.load(Ordering::Relaxed) {
        match linkat(file, "", at, place, AtFlags::AT_EMPTY_PATH) {
            // A kernel that asks for a right which this thread has not while it acts as a user; or `new/` is gone.
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
    }
    link_by_path(file, at, place)?;
    LINKS_DESCRIPTORS.store(false, Ordering::Relaxed);
    Ok(())
}

fn link_by_path(file: BorrowedFd<'_>, at: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, path.as_str(), at, place, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Renames without ever replacing what is there.
fn rename(path: &Path, at: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, path, at, place, RenameFlags::RENAME_NOREPLACE) {
        // A file system without the flag (NFS, some FUSE): a link fails where the name exists, too.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            linkat(AT_FDCWD, path, at, place, AtFlags::empty())?;
            // The mail is there: an error would bring it once more. The name that stays in tmp/ is no mail.
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A Maildir with both folders.
    fn maildir() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("tmp")).unwrap();
        std::fs::create_dir(home.path().join("new")).unwrap();
        home
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    /// Both kinds of file.
    fn kinds(home: &Path) -> [NewFile<'_>; 2] {
        let nameless = NewFile::make(home, "nameless".to_owned()).unwrap();
        assert!(!nameless.is_in_tmp(), "the file system of the tests knows files without names");
        [nameless, NewFile::in_tmp(home, "in-tmp".to_owned()).unwrap()]
    }

    #[test]
    fn a_file_is_seen_when_it_has_its_place() {
        let home = maildir();
        for mut file in kinds(home.path()) {
            file.file.write_all(b"text").unwrap();
            assert!(!file.place().exists());
            file.publish(None).unwrap();
            let place = file.place();
            drop(file);
            assert_eq!(std::fs::read(place).unwrap(), b"text");
        }
        assert!(names(&home.path().join("tmp")).is_empty());
    }

    #[test]
    fn one_that_is_dropped_is_gone() {
        let home = maildir();
        drop(kinds(home.path()));
        assert!(names(&home.path().join("tmp")).is_empty() && names(&home.path().join("new")).is_empty());
    }

    #[test]
    fn a_name_in_new_is_never_replaced() {
        let home = maildir();
        for mut file in kinds(home.path()) {
            std::fs::write(file.place(), "theirs").unwrap();
            assert_eq!(file.publish(None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(file.place()).unwrap(), b"theirs");
        }
        assert!(names(&home.path().join("tmp")).is_empty());
    }

    #[test]
    fn a_descriptor_of_the_folder_does_as_well_as_its_path() {
        let home = maildir();
        let new = File::open(home.path().join("new")).unwrap();
        for mut file in kinds(home.path()) {
            file.publish(Some(new.as_fd())).unwrap();
            assert!(file.place().is_file());
        }
    }

    #[test]
    fn a_kernel_that_does_not_link_descriptors_is_asked_by_path() {
        let home = maildir();
        let [file, _] = kinds(home.path());
        link_by_path(file.file.as_fd(), AT_FDCWD, &file.place()).unwrap();
        assert!(file.place().is_file());
    }
}
