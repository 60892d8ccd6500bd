//! What a file system promises about durability.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, major, minor};
use nix::sys::statfs::{self, FsType};
use nix::unistd::linkat;

/// File systems whose journal carries a new file's name together with its inode, so that `fsync` of the file makes the
/// name durable as well: ext2-4, XFS, Btrfs. On any other the folder is synced too.
const NAME_FOLLOWS_INODE: [FsType; 3] =
    [statfs::EXT4_SUPER_MAGIC, statfs::XFS_SUPER_MAGIC, statfs::BTRFS_SUPER_MAGIC];

/// Whether the name of a file newly created on the file system of `file` survives a power cut once the file was synced.
///
/// It says nothing about a later rename: that needs [`sync_directory`] everywhere.
///
/// # Errors
/// What `fstatfs` says.
pub fn name_survives_fsync(file: impl AsFd) -> io::Result<bool> {
    Ok(NAME_FOLLOWS_INODE.contains(&statfs::fstatfs(&file)?.filesystem_type()))
}

/// The device of the file system of `folder`, where that has a journal that keeps changes of names in the order in which
/// they were made: what happened later never survives a power cut without what happened earlier, be it by different
/// processes. So it is with ext3, ext4 and XFS; of ext4 it is seen under `/proc` that it was not made without a journal.
///
/// # Errors
/// What `stat` or `statfs` says.
pub fn ordering_device(folder: &Path) -> io::Result<Option<u64>> {
    // By name: who is confined to other files may ask, and not open.
    let (kind, device) = (statfs::statfs(folder)?.filesystem_type(), fs::metadata(folder)?.dev());
    let orders = match kind {
        statfs::EXT4_SUPER_MAGIC => has_journal(device),
        kind => kind == statfs::XFS_SUPER_MAGIC,
    };
    Ok(orders.then_some(device))
}

/// Whether [`ordering_device`] may know the file system of `file`, by its kind alone: a confined process does not see whether ext4
/// has its journal.
///
/// # Errors
/// What `fstatfs` says.
pub fn may_order_changes(file: impl AsFd) -> io::Result<bool> {
    let kind = statfs::fstatfs(&file)?.filesystem_type();
    Ok(kind == statfs::EXT4_SUPER_MAGIC || kind == statfs::XFS_SUPER_MAGIC)
}

/// Whether the journal of ext3 and ext4 works for this device.
fn has_journal(device: u64) -> bool {
    let Ok(link) = fs::read_link(format!("/sys/dev/block/{}:{}", major(device), minor(device))) else {
        return false;
    };
    let Some(name) = link.file_name().and_then(|name| name.to_str()) else { return false };
    let journals = fs::read_dir("/proc/fs/jbd2").into_iter().flatten().flatten();
    // DEVICE-INODE of the journal; a device of its own goes by another name, and counts for none here.
    let mut names = journals.filter_map(|journal| journal.file_name().into_string().ok());
    names.any(|journal| journal.rsplit_once('-').is_some_and(|(device, _)| device == name))
}

/// Has the data of a file on the disk when it returns, so that no change of names after it can survive a power cut
/// without that data, where [`ordering_device`] knows the file system. Nothing else is promised: neither the file nor its
/// name lasts before something later is synced, and on other file systems nothing at all.
///
/// # Errors
/// What `sync_file_range` says, which is also what writing the data has come to.
pub fn write_out(file: impl AsFd) -> io::Result<()> {
    let all =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no memory is handed over, and the descriptor is open as long as the borrow lasts.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, all) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a file without a name surely gets one: not every kernel names a descriptor, and the other way needs `/proc`, which
/// who has changed its root directory may not see.
static CAN_NAME: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").exists());

/// Makes a file that has no name, in the folder at `path`, open for reading and writing; `None` where the file system knows
/// no such files, or where it could get no name.
///
/// # Errors
/// What `openat` says.
pub fn make_nameless(at: impl AsFd, path: &Path, mode: Mode) -> io::Result<Option<File>> {
    if !*CAN_NAME {
        return Ok(None);
    }
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    match openat(at, path, flags, mode) {
        Ok(file) => Ok(Some(file.into())),
        // The second is what is said where the flag is not known: nobody may write to a folder.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the kernel gives a file a name by its descriptor alone: Linux 6.10 does, for who opened the file.
static NAMES_DESCRIPTORS: AtomicBool = AtomicBool::new(true);

/// Gives a file a name, also its first one ([`make_nameless`]). Never replaces what is there.
///
/// # Errors
/// What `linkat` says.
pub fn give_name(file: impl AsFd, at: impl AsFd, name: &Path) -> io::Result<()> {
    if NAMES_DESCRIPTORS.load(Ordering::Relaxed) {
        match linkat(file.as_fd(), "", at.as_fd(), name, AtFlags::AT_EMPTY_PATH) {
            // A kernel that wants a right for it which this thread has not; or the folder is gone.
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
    }
    name_by_path(file.as_fd(), at.as_fd(), name)?;
    NAMES_DESCRIPTORS.store(false, Ordering::Relaxed);
    Ok(())
}

fn name_by_path(file: BorrowedFd<'_>, at: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    Ok(linkat(AT_FDCWD, &path_of_descriptor(file), at, name, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// The path by which this process finds a file that it has open, whether or not it has a name.
#[must_use]
pub fn path_of_descriptor(file: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What `open` or `fsync` says.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_without_a_name_gets_one_and_takes_nobodys() {
        let folder = std::env::temp_dir().join(format!("sys-nameless-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let make = || make_nameless(AT_FDCWD, &folder, Mode::S_IRUSR | Mode::S_IWUSR).unwrap().unwrap();
        for name in ["by-descriptor", "by-path"] {
            let mut file = make();
            file.write_all(b"text").unwrap();
            assert!(!folder.join(name).exists() && fs::read(path_of_descriptor(&file)).unwrap() == b"text");
            match name {
                "by-path" => name_by_path(file.as_fd(), AT_FDCWD, &folder.join(name)).unwrap(),
                _ => give_name(&file, AT_FDCWD, &folder.join(name)).unwrap(),
            }
            assert_eq!(fs::read(folder.join(name)).unwrap(), b"text");
            let error = give_name(make(), AT_FDCWD, &folder.join(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_can_be_synced_and_asked() {
        let folder = std::env::temp_dir();
        sync_directory(&folder).unwrap();
        name_survives_fsync(File::open(&folder).unwrap()).unwrap();
    }

    #[test]
    fn only_a_file_system_with_a_journal_keeps_an_order() {
        assert_eq!(ordering_device(Path::new("/proc")).unwrap(), None);
        let folder = std::env::temp_dir();
        if let Some(device) = ordering_device(&folder).unwrap() {
            assert_eq!(device, fs::metadata(&folder).unwrap().dev());
        }
    }

    #[test]
    fn data_is_written_out_of_files_and_not_of_pipes() {
        let path = std::env::temp_dir().join(format!("sys-fs-{}", std::process::id()));
        fs::write(&path, "x").unwrap();
        write_out(File::open(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert!(write_out(read).is_err());
    }
}
