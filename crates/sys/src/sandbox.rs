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

/// Leaves this process none of these.
///
/// # Errors
/// What `setrlimit` says.
pub fn do_without(resources: &[Resource]) -> io::Result<()> {
    resources.iter().try_for_each(|resource| setrlimit(*resource, 0, 0)).map_err(io::Error::from)
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
