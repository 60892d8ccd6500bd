//! Starting programs with chosen descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, Uid};

/// Starts `command` with `descriptors` at the numbers 3, 4, 5 … in their order.
///
/// # Errors
/// What `fork` or `exec` says.
pub fn spawn_with_descriptors(command: &mut Command, descriptors: &[OwnedFd]) -> io::Result<Child> {
    let end = 3 + RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    // Copies above every number of the row, so that placing one never overwrites another that is still to be placed.
    let copies =
        descriptors.iter().map(|descriptor| copy_from(descriptor, end)).collect::<io::Result<Vec<_>>>()?;
    // What is free of the row is taken meanwhile: else the standard library's pipe, by which it learns that the program
    // could not be executed, would be there, and overwritten.
    let mut fillers = Vec::new();
    if let Some(copy) = copies.first() {
        while fillers.last().is_none_or(|filler: &OwnedFd| filler.as_raw_fd() < end) {
            fillers.push(copy_from(copy, 3)?);
        }
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
    drop((copies, fillers));
    child
}

/// A copy at the first free number from `lowest` on.
fn copy_from(descriptor: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes three numbers; makes a new descriptor from one that is open as long as the borrow lasts.
    let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above and known to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// What a program may do that is started for somebody else. Each part is optional.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// It sees nothing but this folder, which becomes its root and its working directory.
    pub chroot: Option<CString>,
    /// It is this user with this group and no other, for good.
    pub identity: Option<(Uid, Gid)>,
    /// It runs in this folder, which that user must be able to enter.
    pub directory: Option<CString>,
    /// No file that it writes gets larger: a write beyond fails, and no signal is sent.
    pub file_size_limit: Option<u64>,
}

/// Has `command` start within these bounds; they are laid down in the order of the fields.
pub fn confine(command: &mut Command, confinement: Confinement) {
    // SAFETY: between fork and exec only system calls are made, with memory that was allocated before; an error is a
    // number. The C library's setgroups, setresgid and setresuid tell all threads, of which the child has one.
    unsafe { command.pre_exec(move || lay_down(&confinement)) };
}

fn lay_down(confinement: &Confinement) -> io::Result<()> {
    if let Some(root) = &confinement.chroot {
        nix::unistd::chroot(root.as_c_str())?;
        nix::unistd::chdir(c"/")?;
    }
    if let Some((uid, gid)) = confinement.identity {
        crate::credentials::drop_privileges(uid, gid, &[gid])?;
    }
    if let Some(directory) = &confinement.directory {
        nix::unistd::chdir(directory.as_c_str())?;
    }
    if let Some(limit) = confinement.file_size_limit {
        setrlimit(Resource::RLIMIT_FSIZE, limit, limit)?;
        // SAFETY: the program that is executed next inherits that the signal is ignored; no handler is installed.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// A descriptor that becomes readable when the process with this number, a child of ours, has ended.
///
/// # Errors
/// `ESRCH` where there is none; what else `pidfd_open` says.
pub fn handle_of(process: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above and known to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
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

/// Has this thread, and those that it starts from here on, not interrupt others when they wake up (`SCHED_BATCH`). Programs
/// that pass work on to each other wake each other all the time, mostly somebody who is just about to wait: he may
/// finish first. Their share of the processor stays the same. What an operator has set instead is left alone.
///
/// # Errors
/// What the system says. Everything works as well, at a higher price.
pub fn interrupt_nobody() -> io::Result<()> {
    // SAFETY: takes a number, 0 for this thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy != libc::SCHED_OTHER {
        return if policy < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one structure that outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel deliver a SIGTERM to this process when its parent ends.
///
/// # Errors
/// What `prctl` says.
pub fn end_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)
}

/// How many open files the system would allow this process.
///
/// # Errors
/// What the system says.
pub fn most_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map(|(_, most)| most).map_err(io::Error::from)
}

/// Lets this process have as many open files as the system allows it, and gives that number.
///
/// # Errors
/// What the system says.
pub fn allow_most_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::descriptors::memory_file;

    #[test]
    fn a_confined_program_stays_within_its_bounds() {
        let mut command = Command::new("/bin/sh");
        let script = "pwd; head -c 3000 /dev/zero > large; wc -c < large; rm large";
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
        let folder = std::env::temp_dir().join(format!("sys-confine-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let directory = CString::new(folder.to_str().unwrap()).unwrap();
        let bounds =
            Confinement { directory: Some(directory), file_size_limit: Some(1000), ..Default::default() };
        confine(&mut command, bounds);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(text, format!("{}\n1000\n", folder.display()));
        std::fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn who_interrupts_nobody_starts_threads_that_do_not_either() {
        // SAFETY: takes a number, 0 for this thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        std::thread::scope(|scope| {
            let before = policy();
            scope.spawn(move || {
                interrupt_nobody().unwrap();
                let expected = if before == libc::SCHED_OTHER { libc::SCHED_BATCH } else { before };
                assert_eq!(policy(), expected);
                std::thread::spawn(move || assert_eq!(policy(), expected)).join().unwrap();
            });
            assert_eq!(policy(), before);
        });
    }

    #[test]
    fn the_handle_of_a_process_tells_its_end() {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, poll};
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = handle_of(i32::try_from(child.id()).unwrap()).unwrap();
        let ended =
            |timeout: u16| poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
        assert_eq!(ended(10), 0);
        drop(child.stdin.take());
        assert_eq!(ended(10_000), 1);
        assert!(child.wait().unwrap().success());
        assert!(handle_of(-1).is_err());
    }

    #[test]
    fn a_confined_program_is_another_user_in_another_root() {
        if !Uid::effective().is_root() {
            return;
        }
        let nobody = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "id -u; id -G; pwd"]).stdout(Stdio::piped());
        let bounds =
            Confinement { chroot: Some(c"/".to_owned()), identity: Some(nobody), ..Confinement::default() };
        confine(&mut command, bounds);
        assert_eq!(command.output().unwrap().stdout, b"65534\n65534\n/\n");
        let mut command = Command::new("/bin/true");
        let bounds = Confinement { chroot: Some(c"/nonexistent".to_owned()), ..Confinement::default() };
        confine(&mut command, bounds);
        assert!(command.spawn().is_err());
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_wherever_its_descriptors_go() {
        let given: Vec<OwnedFd> =
            (0..8).map(|_| copy_from(&memory_file("given", b"").unwrap().into(), 100).unwrap()).collect();
        let kept = given[0].try_clone().unwrap();
        assert!(spawn_with_descriptors(&mut Command::new("/nonexistent"), &given).is_err());
        assert_eq!(std::fs::File::from(kept).metadata().unwrap().len(), 0);
    }

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
