//! The system's clock.

use std::io;

use nix::libc;

/// Whether the kernel is told that its clock agrees with the world's.
///
/// # Errors
/// What `adjtimex` says; a container may forbid the question.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all-zero is a valid `timex`, and asks for nothing to be changed.
    let mut question: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the structure that it is given.
    match unsafe { libc::adjtimex(&raw mut question) } {
        -1 => Err(io::Error::last_os_error()),
        state => Ok(state != libc::TIME_ERROR),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_can_be_asked() {
        // Either answer is right; a sandbox may refuse.
        drop(super::is_synchronised());
    }
}
