//! A file in `maildrop/`, where pickup finds it.
//!
//! | step | on disk | a crash leaves |
//! |---|---|---|
//! | create, mode 0600, a name nobody has | an unfinished file | what pickup ignores, and removes when it is old |
//! | write | | the same |
//! | mode 0744: finished | | a whole message, or one without its trailer, which pickup sets aside: nothing was promised |
//! | fsync, of the folder too where its file system needs it | | the whole message |
//!
//! The exit code 0 comes after the last step. A finished file is readable by all because pickup is another user than
//! the one who owns it; nobody else can get at it, as the folder lets only its owner search it and its group create.

use std::ffi::CString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mail::QueueId;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// The mode while the file is written.
const UNFINISHED: u32 = 0o600;

/// The mode of a finished file: the owner's x says so.
const FINISHED: u32 = 0o744;

/// A file being written. Dropped before [`Maildrop::commit`], or ended by a signal, it is removed.
#[derive(Debug)]
pub(crate) struct Maildrop {
    file: File,
    path: PathBuf,
    committed: bool,
}

impl Maildrop {
    /// Makes a new file.
    ///
    /// # Errors
    /// What `open` says; `PermissionDenied` for those who need postdrop to do this for them.
    pub(crate) fn create(queue_directory: &Path) -> io::Result<Self> {
        let path = folder(queue_directory).join(QueueId::generate(SystemTime::now()).as_str());
        // A limit to the size of files ends this with an error, not with a death that leaves a piece behind.
        SigSet::from(Signal::SIGXFSZ).thread_block()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(UNFINISHED).custom_flags(OFlag::O_NOFOLLOW.bits());
        let name = CString::new(path.as_os_str().as_bytes())?;
        let file = sys::unfinished::make(name, || options.open(&path))?;
        Ok(Self { file, path, committed: false })
    }

    /// Makes what was written a message, for good.
    ///
    /// # Errors
    /// What `fchmod` or `fsync` says; the file is gone then.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        sys::unfinished::keep();
        // Before the fsync, which makes both last: afterwards it would need another one.
        self.file.set_permissions(Permissions::from_mode(FINISHED))?;
        self.file.sync_all()?;
        if !sys::fs::name_survives_fsync(&self.file)? {
            self.sync_name()?;
        }
        self.committed = true;
        Ok(())
    }

    /// The folder may be written but not read by the group, and only who can read a folder can sync it.
    fn sync_name(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(&self.path);
        match sys::fs::sync_directory(folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(nix::unistd::syncfs(&self.file)?),
            result => result,
        }
    }
}

impl Write for Maildrop {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Maildrop {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed is unfinished, or has no trailer; pickup deals with both.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn folder(queue_directory: &Path) -> PathBuf {
    queue_directory.join("maildrop")
}

/// Tells pickup that there is mail. Never waits: where nobody listens, pickup finds the mail when it starts, and where
/// too many have called, it is awake.
///
/// # Errors
/// That nobody listens.
pub(crate) fn wake_pickup(queue_directory: &Path) -> io::Result<()> {
    let path = queue_directory.join("public/pickup");
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(&path)?) {
        Ok(()) => {
            let _ = nix::unistd::write(&socket, b"W");
            Ok(())
        }
        Err(nix::errno::Errno::EAGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn queue() -> tempfile::TempDir {
        let queue = tempfile::tempdir().unwrap();
        std::fs::create_dir(queue.path().join("maildrop")).unwrap();
        std::fs::create_dir(queue.path().join("public")).unwrap();
        queue
    }

    fn files(queue: &Path) -> Vec<(u32, Vec<u8>)> {
        let entries = std::fs::read_dir(folder(queue)).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| {
                (
                    std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                    std::fs::read(path).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_message_is_unfinished_until_it_is_committed() {
        let queue = queue();
        let mut file = Maildrop::create(queue.path()).unwrap();
        file.write_all(b"hello").unwrap();
        assert_eq!(files(queue.path()), [(UNFINISHED, b"hello".to_vec())]);
        file.commit().unwrap();
        assert_eq!(files(queue.path()), [(FINISHED, b"hello".to_vec())]);
    }

    #[test]
    fn a_message_that_is_given_up_leaves_nothing() {
        let queue = queue();
        let mut file = Maildrop::create(queue.path()).unwrap();
        file.write_all(b"hello").unwrap();
        drop(file);
        assert_eq!(files(queue.path()), []);
    }

    #[test]
    fn pickup_is_woken_if_it_is_there() {
        let queue = queue();
        assert!(wake_pickup(queue.path()).is_err());
        let listener = UnixListener::bind(queue.path().join("public/pickup")).unwrap();
        // More than its queue takes: the surplus must not wait.
        for _ in 0..200 {
            wake_pickup(queue.path()).unwrap();
        }
        drop(listener);
        assert!(wake_pickup(queue.path()).is_err());
    }
}
