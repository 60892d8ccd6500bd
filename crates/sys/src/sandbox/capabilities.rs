//! Capabilities: the parts that root's power is made of.

use std::io;

use nix::libc;

/// A capability; the number is the kernel's (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// To give files to others.
    Chown = 0,
    /// To read, write and enter regardless of modes.
    DacOverride = 1,
    /// To read and enter regardless of modes.
    DacReadSearch = 2,
    /// To do with files what only their owner may.
    Fowner = 3,
    /// To keep the set-id bits of files that are written to.
    Fsetid = 4,
    /// To send signals to processes of others.
    Kill = 5,
    /// To change the group and the supplementary groups.
    Setgid = 6,
    /// To change the user.
    Setuid = 7,
    /// To change the root directory.
    SysChroot = 18,
}

#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// Gives up all capabilities but these, for this thread and those that it starts, whether it has them or not.
///
/// `for_good` also empties the bounding set, so that no program that is executed gets others; only root can do that, and
/// from anybody else it is not asked.
///
/// # Errors
/// What `capset` or `prctl` says.
pub fn keep_only(kept: &[Capability], for_good: bool) -> io::Result<()> {
    let held = held()?;
    if for_good && nix::unistd::Uid::effective().is_root() {
        let unused: libc::c_ulong = 0;
        for number in 0..64 as libc::c_ulong {
            // SAFETY: the call takes numbers, which the C library reads as `unsigned long`. It fails with EINVAL beyond the
            // last capability that the kernel knows.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, unused, unused, unused) } < 0 {
                break;
            }
        }
    }
    let wanted = kept.iter().fold(0_u64, |set, capability| set | 1 << (*capability as u8));
    let set = held & wanted;
    let part = |shift: u32| {
        let bits = u32::try_from(set >> shift & u64::from(u32::MAX)).unwrap_or(0);
        Part { effective: bits, permitted: bits, inheritable: 0 }
    };
    let mut header = Header { version: VERSION, process: 0 };
    let parts = [part(0), part(32)];
    // SAFETY: the structures are laid out as the kernel reads them, two parts for version 3. It writes to the header where
    // it does not know that version.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, parts.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The permitted capabilities of this thread, a bit for each.
///
/// # Errors
/// What `capget` says.
pub fn held() -> io::Result<u64> {
    let mut header = Header { version: VERSION, process: 0 };
    let mut parts = [Part { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: the kernel fills in two parts, as version 3 has them, and the header where it does not know that version.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, parts.as_mut_ptr()) } {
        0 => Ok(u64::from(parts[0].permitted) | u64::from(parts[1].permitted) << 32),
        _ => Err(io::Error::last_os_error()),
    }
}
