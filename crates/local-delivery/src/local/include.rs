//! `:include:/file`: reads lists of destinations, with the rights of whoever could have changed them.
//!
//! In a user's `.forward`, and in an alias database that is a user's, the file is opened as that user. Root's database
//! may name a file that somebody else keeps, such as the manager of a mailing list. Opened as root, his file could be a
//! link to any other, whose lines would come back to him as bounces. So each component of the path is looked at, links
//! followed one by one, and the file is opened as the first owner found who is not root: whoever owns a folder or link
//! can only send us where he could go himself. Somebody who changes a component between the look and the open is such an
//! owner, and was found.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use ipc::log;
use mail::Dsn;
use nix::libc;
use nix::unistd::Uid;

use crate::failure::Failure;

/// The largest list, in bytes: far more than the destinations that are taken from it.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Reads an `:include:` file; the caller's guard decides with whose rights.
///
/// # Errors
/// [`unusable`]: its keeper hears of it by the mail that comes back. [`unreadable`]: the system is in trouble.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.display();
    let failed = |error: &io::Error| unreadable(error, format_args!("cannot open include file {name}"));
    let file = open(path).map_err(|error| failed(&error))?;
    let stat = file.metadata().map_err(|error| failed(&error))?;
    let wrong = |what: &str| unusable(format_args!(":include: file {name} {what}"));
    if !stat.is_file() {
        return Err(wrong("is not a regular file"));
    }
    if stat.mode() & 0o002 != 0 {
        return Err(wrong("is world writable"));
    }
    if stat.len() > MAX_SIZE {
        return Err(wrong("is larger than 16 MiB"));
    }
    let mut text = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut text).map_err(|error| failed(&error))?;
    Ok(text)
}

/// A list that cannot be used: the log says why, and the sender hears that it is not his fault.
pub(super) fn unusable(why: fmt::Arguments<'_>) -> Failure {
    log::warning!("{why}");
    Failure::bounce(Dsn::new(5, 3, 5), "mail system configuration error")
}

/// A list that could not be read: for now, where it is a disk or the descriptors that failed and not who keeps the list.
pub(super) fn unreadable(error: &io::Error, operation: fmt::Arguments<'_>) -> Failure {
    let failure = Failure::of_named_file(error, operation);
    if failure.is_temporary() { failure } else { unusable(format_args!("{}", failure.text)) }
}

/// Opens a file for reading that may turn out to be a FIFO or a terminal, without waiting for it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The first owner along `path` who is not root; root where there is none.
///
/// # Errors
/// A component cannot be looked at, or there are too many links.
pub(super) fn least_trusted_owner(path: &Path) -> io::Result<Uid> {
    let mut at = PathBuf::from("/");
    // What is still to be walked, the next component last.
    let mut ahead: Vec<PathBuf> = components(path);
    let mut links = 0;
    while let Some(component) = ahead.pop() {
        if component == Path::new("/") {
            at = component;
            continue;
        }
        if component == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(component);
        let stat = std::fs::symlink_metadata(&next)?;
        if stat.uid() != 0 {
            return Ok(Uid::from_raw(stat.uid()));
        }
        if stat.file_type().is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            ahead.extend(components(&std::fs::read_link(&next)?));
        } else {
            at = next;
        }
    }
    Ok(Uid::from_raw(0))
}

/// The components of a path, the first one last.
fn components(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let mut parts: Vec<PathBuf> = parts.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_a_regular_file_that_not_everybody_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        assert_eq!(read(&path).unwrap_err().dsn, Dsn::new(5, 3, 5));
        std::fs::write(&path, "alice\n").unwrap();
        assert_eq!(read(&path).unwrap(), b"alice\n");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(read(&path).unwrap_err().dsn, Dsn::new(5, 3, 5));
        assert_eq!(read(folder.path()).unwrap_err().dsn, Dsn::new(5, 3, 5));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&fifo).unwrap_err().dsn, Dsn::new(5, 3, 5));
    }

    #[test]
    fn a_disk_in_trouble_bounces_nothing() {
        let dsn = |errno| unreadable(&io::Error::from_raw_os_error(errno), format_args!("open")).dsn;
        for errno in [libc::EIO, libc::EMFILE, libc::ENFILE, libc::ENOSPC, libc::EINTR, libc::ESTALE] {
            assert_eq!(dsn(errno).class(), 4, "{}", io::Error::from_raw_os_error(errno));
        }
        assert_eq!(dsn(libc::ENOENT), Dsn::new(5, 3, 5));
        assert_eq!(dsn(libc::EACCES), Dsn::new(5, 3, 5));
    }

    #[test]
    fn whoever_could_send_us_elsewhere_is_found() {
        if !nix::unistd::geteuid().is_root() {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(least_trusted_owner(folder.path()).unwrap(), nix::unistd::geteuid());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(1234), None).unwrap();
        symlink("/etc", theirs.join("link")).unwrap();
        symlink(&theirs, folder.path().join("indirect")).unwrap();
        let owner = |path: &str| least_trusted_owner(&folder.path().join(path)).unwrap().as_raw();
        assert_eq!(owner("theirs/link/passwd"), 1234);
        assert_eq!(owner("indirect/link/passwd"), 1234);
        assert_eq!(owner("indirect/../theirs/link/passwd"), 1234);
        assert_eq!(least_trusted_owner(Path::new("/etc/passwd")).unwrap().as_raw(), 0);
        symlink("loop", folder.path().join("loop")).unwrap();
        assert!(least_trusted_owner(&folder.path().join("loop")).is_err());
    }
}
