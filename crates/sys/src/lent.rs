//! Files in memory that a program lends to others: what they hold does not change any more, and they tell whether it is on a
//! disk as well.
//!
//! Both are told by seals of the file (`memfd_create(2)`), which whoever has a descriptor can see, and nobody can take back.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file that can never be executed: what Linux 6.3 and later want to be told, and some are configured to insist on.
const MFD_NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(8);

/// Whether the kernel knows that flag.
static KNOWS_NOEXEC: AtomicBool = AtomicBool::new(true);

/// A new one, to be written; `name` is what `/proc` shows.
///
/// # Errors
/// What `memfd_create` says.
pub fn make(name: &str) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if KNOWS_NOEXEC.load(Ordering::Relaxed) {
        match memfd_create(name, flags | MFD_NOEXEC_SEAL) {
            Err(Errno::EINVAL) => KNOWS_NOEXEC.store(false, Ordering::Relaxed),
            made => return Ok(made?.into()),
        }
    }
    Ok(memfd_create(name, flags)?.into())
}

/// It is written: from now on nobody changes it.
///
/// # Errors
/// What `fcntl` says.
pub fn seal(file: &File) -> io::Result<()> {
    add(file, SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK)
}

/// What it holds is on a disk from now on, and lasts.
///
/// # Errors
/// What `fcntl` says.
pub fn note_stored(file: &File) -> io::Result<()> {
    add(file, SealFlag::F_SEAL_SEAL)
}

/// What it holds does not come to a disk.
///
/// # Errors
/// What `fcntl` says.
pub fn note_given_up(file: &File) -> io::Result<()> {
    add(file, SealFlag::F_SEAL_FUTURE_WRITE)
}

/// Whether somebody has said so.
///
/// # Errors
/// What `fcntl` says.
pub fn is_given_up(file: &File) -> io::Result<bool> {
    Ok(SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?)
        .contains(SealFlag::F_SEAL_FUTURE_WRITE))
}

/// Whether this is such a file, and nobody has said that what it holds is on a disk.
///
/// # Errors
/// What `fcntl` says.
pub fn is_only_here(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_GET_SEALS) {
        Ok(seals) => Ok(!SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SEAL)),
        // A file of a disk has no seals.
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn add(file: &File, seals: SealFlag) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_sealed_stays_as_it_is_and_tells_whether_it_is_stored() {
        let mut file = make("lent").unwrap();
        file.write_all(b"as it is").unwrap();
        seal(&file).unwrap();
        assert!(file.write_all(b"more").is_err() && file.set_len(1).is_err());
        KNOWS_NOEXEC.store(false, Ordering::Relaxed);
        assert!(make("as of an older kernel").is_ok());
        let shared = file.try_clone().unwrap();
        assert!(is_only_here(&shared).unwrap() && !is_given_up(&shared).unwrap());
        note_given_up(&file).unwrap();
        assert!(is_only_here(&shared).unwrap() && is_given_up(&shared).unwrap());
        note_stored(&file).unwrap();
        assert!(!is_only_here(&shared).unwrap());
    }

    #[test]
    fn a_file_of_a_disk_is_not_only_here() {
        assert!(!is_only_here(&File::open("Cargo.toml").unwrap()).unwrap());
    }
}
