//! Putting a new index into the place of the old one.
//!
//! The new index is written to `FILE.new` beside `FILE`. That file is also the lock: whoever holds its lock, and finds that
//! the name still belongs to the file it has locked, is alone. A run that dies leaves at most a `FILE.new`, which the next
//! one overwrites. (A lock on the index itself would be lost with the first replacement, and every user who may read the
//! index could hold it.)

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
        // An index that is a symbolic link stays one.
        let index = index.canonicalize().unwrap_or_else(|_| index.to_owned());
        let mut temporary = index.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        loop {
            let file = lock(&temporary).map_err(|error| cannot_lock(&temporary, &error))?;
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

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
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
