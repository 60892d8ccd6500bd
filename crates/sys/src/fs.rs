//! What a file system promises about durability.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

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
}
