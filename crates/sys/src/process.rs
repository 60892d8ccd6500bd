//! Starting programs with chosen descriptors.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::libc;

/// Starts `command` with `descriptors` at the numbers 3, 4, 5 … in their order.
///
/// # Errors
/// What `fork` or `exec` says.
pub fn spawn_with_descriptors(command: &mut Command, descriptors: &[OwnedFd]) -> io::Result<Child> {
    let count = RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    // Copies above every number of the row, so that placing one never overwrites another that is still to be placed.
    let mut copies = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor from an open one.
        let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3 + count) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: made by the call above and known to nobody else.
        copies.push(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) });
    }
    let placed: Vec<(RawFd, RawFd)> = (3..).zip(copies.iter().map(AsRawFd::as_raw_fd)).collect();
    // SAFETY: between fork and exec only dup2, which is async-signal-safe, is called; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for (number, copy) in &placed {
                if libc::dup2(*copy, *number) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop(copies);
    child
}

/// Has `command` start in a session of its own, without a terminal: a daemon.
pub fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
}

/// Forbids this process and what it starts to gain rights by executing a file (`no_new_privs`).
///
/// # Errors
/// What `prctl` says.
pub fn forbid_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Has the kernel deliver a SIGTERM to this process when its parent ends.
///
/// # Errors
/// What `prctl` says.
pub fn end_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::descriptors::memory_file;

    #[test]
    fn a_child_finds_its_descriptors_in_a_row() {
        let first = memory_file("first", b"").unwrap();
        let second = memory_file("second", b"").unwrap();
        let mut command = Command::new("readlink");
        command.args(["/proc/self/fd/3", "/proc/self/fd/4"]).stdout(Stdio::piped());
        let child = spawn_with_descriptors(&mut command, &[first.into(), second.into()]).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(text.contains("first") && text.contains("second"), "{text}");
    }
}
