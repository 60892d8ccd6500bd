//! `.forward`: what a user says about his own mail. Everything here happens as that user.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipc::log;
use mail::{Dsn, QueueId};
use nix::libc;

use super::include;
use crate::failure::{Failure, describe};
use crate::rights::User;

/// The largest file, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// Reads the first of `paths` that exists; `None` where there is none, or one that must not be believed: mail then goes
/// to the mailbox, and the log says why.
///
/// # Errors
/// A deferral: the home directory could not be looked at for now.
pub(super) fn read(
    id: QueueId,
    user: &User,
    paths: impl Iterator<Item = String>,
) -> Result<Option<Vec<u8>>, Failure> {
    for path in paths {
        let path = Path::new(&path);
        // Only a file of his own says where his mail goes.
        if std::fs::symlink_metadata(path).is_ok_and(|stat| stat.is_symlink()) {
            warn_of(id, path, "is a symbolic link");
            return Ok(None);
        }
        match include::open(path) {
            Ok(file) => return read_open(id, user, path, &file),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let text = format!("cannot open file {}: {}", path.display(), describe(&error));
                return Err(Failure::defer(Dsn::new(4, 3, 0), text));
            }
        }
    }
    Ok(None)
}

/// Not there, or in a place where this user may not look and so cannot have put anything.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENAMETOOLONG))
}

fn read_open(id: QueueId, user: &User, path: &Path, file: &File) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |error: io::Error| {
        let text = format!("error reading forwarding file {}: {}", path.display(), describe(&error));
        Failure::defer(Dsn::new(4, 3, 0), text)
    };
    let stat = file.metadata().map_err(failed)?;
    let doubt = if !stat.is_file() {
        "is not a regular file".to_owned()
    } else if stat.uid() != 0 && stat.uid() != user.uid.as_raw() {
        format!("has bad owner uid {}", stat.uid())
    } else if stat.mode() & 0o002 != 0 {
        "is world writable".to_owned()
    } else if stat.len() > MAX_SIZE {
        "is larger than 1 MiB".to_owned()
    } else {
        let mut text = Vec::new();
        file.take(MAX_SIZE).read_to_end(&mut text).map_err(failed)?;
        return Ok(Some(text));
    };
    warn_of(id, path, &doubt);
    Ok(None)
}

fn warn_of(id: QueueId, path: &Path, doubt: &str) {
    log::warning!("{id}: file {} {doubt}; it is not used, mail goes to the mailbox", path.display());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Home {
        folder: tempfile::TempDir,
        user: User,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let uid = nix::unistd::geteuid();
            let home = folder.path().to_owned();
            let (gid, shell) = (nix::unistd::getegid(), "/bin/sh".into());
            Self { folder, user: User { name: "me".into(), uid, gid, home, shell } }
        }

        fn path(&self, name: &str) -> String {
            self.folder.path().join(name).to_string_lossy().into_owned()
        }

        fn read(&self, names: &[&str]) -> Option<Vec<u8>> {
            let id = QueueId::generate(std::time::SystemTime::now());
            read(id, &self.user, names.iter().map(|name| self.path(name))).unwrap()
        }
    }

    #[test]
    fn the_first_file_that_exists_counts() {
        let home = Home::new();
        assert_eq!(home.read(&[".forward+x", ".forward"]), None);
        std::fs::write(home.path(".forward"), "bob\n").unwrap();
        assert_eq!(home.read(&[".forward+x", ".forward"]).unwrap(), b"bob\n");
        std::fs::write(home.path(".forward+x"), "").unwrap();
        assert_eq!(home.read(&[".forward+x", ".forward"]).unwrap(), b"");
    }

    #[test]
    fn what_others_could_have_made_is_not_believed() {
        let home = Home::new();
        let path = home.path(".forward");
        std::fs::write(&path, "bob\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(home.read(&[".forward"]), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(home.read(&[".forward"]), None);
        std::fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(Path::new(&path), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(home.read(&[".forward"]), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(home.path("elsewhere"), "bob\n").unwrap();
        symlink(home.path("elsewhere"), &path).unwrap();
        assert_eq!(home.read(&[".forward"]), None);
        if home.user.uid.is_root() {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "bob\n").unwrap();
            std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
            assert_eq!(home.read(&[".forward"]), None);
        }
    }
}
