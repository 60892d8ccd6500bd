//! A file system that nothing was ever deleted on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::shell::{Result, command, target};

/// Bytes of an image; sparse, so that it costs what is written.
const SIZE: u64 = 4 << 30;

/// Files that there is room for by default: one for each 16 KiB.
const FILES: u64 = SIZE >> 14;

/// Bytes that a file takes, however small it is, with its inode.
const LEAST_PER_FILE: u64 = 4096 + 256;

/// A mounted ext4 image; unmounted and removed when dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts one with room for so many small files, at least.
    pub fn fresh(files: usize) -> Result<Self> {
        let files = FILES.max(files as u64 * 5 / 4);
        let base = target().join("bench").join(std::process::id().to_string());
        let disk = Self { image: base.with_extension("img"), mount: base.with_extension("mnt") };
        fs::create_dir_all(&disk.mount).map_err(|e| format!("create {}: {e}", disk.mount.display()))?;
        let file = File::create(&disk.image).map_err(|e| format!("create {}: {e}", disk.image.display()))?;
        file.set_len(SIZE.max(files * LEAST_PER_FILE * 5 / 4))
            .map_err(|e| format!("grow {}: {e}", disk.image.display()))?;
        let (image, mount) = (disk.image.display().to_string(), disk.mount.display().to_string());
        // Tables are written now, not by a kernel thread while the clock runs.
        let tables = "lazy_itable_init=0,lazy_journal_init=0";
        quiet("mkfs.ext4", &["-q", "-F", "-E", tables, "-N", &files.to_string(), &image])?;
        quiet("mount", &["-o", "loop", &image, &mount])?;
        Ok(disk)
    }

    /// Has it take a great many files in little time, none of which is safe until [`Self::remount`]: a million calls of
    /// `fsync` would be what takes the time of a benchmark.
    pub fn hurry(&self) -> Result<()> {
        self.mount_with("loop,nobarrier,data=writeback,commit=600")
    }

    /// Has the system forget what it remembers of the files, as after a boot; what was written is on the disk below.
    pub fn remount(&self) -> Result<()> {
        self.mount_with("loop")
    }

    fn mount_with(&self, options: &str) -> Result<()> {
        let (image, mount) = (self.image.display().to_string(), self.mount.display().to_string());
        quiet("umount", &[&mount])?;
        // Otherwise it would be written while the clock runs.
        File::open(&self.image).and_then(|file| file.sync_all()).map_err(|e| format!("sync {image}: {e}"))?;
        quiet("mount", &["-o", options, &image, &mount])
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = quiet("umount", &[&self.mount.display().to_string()]);
        let _ = fs::remove_dir(&self.mount);
        let _ = fs::remove_file(&self.image);
    }
}

fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    let output = command(program, arguments).output().map_err(|e| format!("run {program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
