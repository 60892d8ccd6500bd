//! What the kernel holds a process to for good: files and ports by Landlock, system calls by seccomp, capabilities,
//! and limits.
//!
//! Contract: everything here only takes rights away, and holds for what the process starts as well. What the kernel
//! does not know is reported, never taken for done. Landlock and capabilities are properties of a thread that those it
//! starts inherit, so both are for a process that has one thread yet; the filter of system calls reaches all threads.

pub mod calls;
pub mod capabilities;
pub mod files;

use std::io;

use nix::sys::resource::{Resource, setrlimit};

/// Lays down the limits that fit every daemon: no core dump, which would put mail and keys on disk, no message queues,
/// no real-time priority, no memory that is kept from being swapped.
///
/// There is none of processes, since the kernel counts the threads of all programs of a user together, and none of the
/// size of files, since the mail log is a file that grows.
///
/// # Errors
/// What `setrlimit` says.
pub fn limit_resources() -> io::Result<()> {
    let none =
        [Resource::RLIMIT_CORE, Resource::RLIMIT_MSGQUEUE, Resource::RLIMIT_RTPRIO, Resource::RLIMIT_MEMLOCK];
    none.into_iter().try_for_each(|resource| setrlimit(resource, 0, 0)).map_err(io::Error::from)
}

/// What this kernel lacks of it, for the log and for `postroad status`; empty where it has everything.
#[must_use]
pub fn lacking() -> Vec<String> {
    let files = match files::version() {
        None => Some("Landlock, so daemons are not confined to their files and ports".to_owned()),
        Some(version) if version < files::WHOLE => Some(format!(
            "a part of Landlock (version {version} of {}), so daemons are confined to less",
            files::WHOLE
        )),
        Some(_) => None,
    };
    let calls =
        (!calls::are_filtered()).then(|| "seccomp, so daemons are not confined to system calls".to_owned());
    files.into_iter().chain(calls).collect()
}

#[cfg(test)]
mod tests;
