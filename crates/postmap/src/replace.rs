//! Putting a new index into the place of the old one.
//!
//! The new index is written to `FILE.new` beside `FILE`. That file is also the lock: whoever holds its lock, and finds that
//! the name still belongs to the file it has locked, is alone. A run that dies leaves at most a `FILE.new`, which the next
//! one overwrites. (A lock on the index itself would be lost with the first replacement, and every user who may read the
//! index could hold it.)
//!
//! In a folder where others may write, neither name is to be trusted: an index that is somebody else's link, and a
//! `FILE.new` that is somebody else's, or has a second name, are refused.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::Failure;

pub(crate) struct Replacement {
    index: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Replacement {
    /// Waits until no other run works on `index`.
    pub(crate) fn begin(index: &Path) -> Result<Self, Failure> {
        refuse_foreign_link(index)?;
        // An index that is a symbolic link stays one.
        let index = index.canonicalize().unwrap_or_else(|_| index.to_owned());
        let mut temporary = index.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        loop {
            let file = lock(&temporary).map_err(|error| cannot_lock(&temporary, &error))?;
            refuse_foreign(&file, &temporary)?;
            if is_still_named(&file, &temporary) {
                return Ok(Self { index, temporary, file });
            }
        }
    }

    /// The index that is to be replaced, if there is one.
    pub(crate) fn old(&self) -> Result<Option<File>, Failure> {
        match File::open(&self.index) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io("open", &self.index, &error)),
        }
    }

    /// Makes `bytes` the index. It keeps its owner and mode; if there was none, it gets `mode`.
    pub(crate) fn commit(mut self, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let failed = |operation, error| Failure::io(operation, &self.temporary, &error);
        self.file.set_len(0).map_err(|error| failed("truncate", error))?;
        self.file.write_all(bytes).map_err(|error| failed("write", error))?;
        let old = std::fs::metadata(&self.index).ok();
        if let Some(old) = &old {
            // Only root may give files away; for others the index becomes theirs.
            let _ = fchown(&self.file, Some(old.uid()), Some(old.gid()));
        }
        let mode = old.map_or(mode, |old| old.mode() & 0o777);
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(|error| failed("chmod", error))?;
        self.file.sync_data().map_err(|error| failed("sync", error))?;
        std::fs::rename(&self.temporary, &self.index)
            .map_err(|error| Failure::io("replace", &self.index, &error))?;
        let folder = self.index.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The index is complete either way; after a crash the old one might be back, whose source is then newer.
        let _ = sys::fs::sync_directory(folder.unwrap_or(Path::new(".")));
        Ok(())
    }

    /// Leaves the index as it is.
    pub(crate) fn abandon(self) {
        // Whatever remains is overwritten by the next run.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// What a link of somebody else's leads to would be replaced, whatever it is.
fn refuse_foreign_link(index: &Path) -> Result<(), Failure> {
    match std::fs::symlink_metadata(index) {
        Ok(found) if found.is_symlink() && !is_ours(found.uid()) => Err(Failure::new(format!(
            "{}: a symbolic link of uid {}; remove it",
            index.display(),
            found.uid()
        ))),
        _ => Ok(()),
    }
}

/// Who owns the file, or another name of it, could write to the index that it becomes.
fn refuse_foreign(file: &File, path: &Path) -> Result<(), Failure> {
    let found = file.metadata().map_err(|error| Failure::io("stat", path, &error))?;
    if is_ours(found.uid()) && found.nlink() <= 1 && found.is_file() {
        return Ok(());
    }
    let (owner, names) = (found.uid(), found.nlink());
    let path = path.display();
    Err(Failure::new(format!(
        "{path}: a file of uid {owner} with {names} names, not of this command; remove it"
    )))
}

fn is_ours(owner: u32) -> bool {
    owner == 0 || owner == sys::credentials::file_user().as_raw()
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    file.lock()?;
    Ok(file)
}

/// Postfix overwrites an index, for which a right to the index is enough.
fn cannot_lock(path: &Path, error: &io::Error) -> Failure {
    match (Failure::io("create", path, error), error.kind()) {
        (Failure::Fatal(text), io::ErrorKind::PermissionDenied) => Failure::Fatal(format!(
            "{text} (an index is replaced, not overwritten: whoever makes it must be allowed to write to its folder)"
        )),
        (failure, _) => failure,
    }
}

/// Whether another run has not meanwhile made the locked file its index, or removed it.
fn is_still_named(file: &File, path: &Path) -> bool {
    let (Ok(locked), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (locked.dev(), locked.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    fn refusal(index: &Path) -> String {
        match Replacement::begin(index) {
            Err(Failure::Fatal(text)) => text,
            _ => String::new(),
        }
    }

    #[test]
    fn what_another_has_put_in_the_way_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (index, target) = (folder.path().join("table.db"), folder.path().join("target"));
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, &index).unwrap();
        lchown(&index, Some(4321), None).unwrap();
        assert!(refusal(&index).contains("a symbolic link of uid 4321"), "{}", refusal(&index));
        std::fs::remove_file(&index).unwrap();
        let temporary = folder.path().join("table.db.new");
        std::fs::hard_link(&target, &temporary).unwrap();
        assert!(refusal(&index).contains("with 2 names"), "{}", refusal(&index));
        std::fs::remove_file(&temporary).unwrap();
        std::fs::write(&temporary, "").unwrap();
        chown(&temporary, Some(4321), None).unwrap();
        assert!(refusal(&index).contains("a file of uid 4321"), "{}", refusal(&index));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
