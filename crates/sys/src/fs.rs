//! What a file system promises about durability.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{self, FsType};

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
    let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(file, wait | libc::SYNC_FILE_RANGE_WRITE)
}

/// Has the disk begin with what [`write_out`] waits for, so that it can be at several files at a time.
///
/// # Errors
/// What `sync_file_range` says. What writing the data comes to later is [`write_out`]'s to say.
pub fn begin_write_out(file: impl AsFd) -> io::Result<()> {
    sync_file_range(file, libc::SYNC_FILE_RANGE_WRITE)
}

fn sync_file_range(file: impl AsFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is handed over, and the descriptor is open as long as the borrow lasts.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
    use super::*;

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
        let file = File::open(&path).unwrap();
        begin_write_out(&file).unwrap();
        write_out(&file).unwrap();
        fs::remove_file(&path).unwrap();
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert!(begin_write_out(&read).is_err() && write_out(&read).is_err());
    }
}
