//! What the C library's allocator is told.

use nix::libc;

/// Bounds the number of heaps. Threads that allocate what other threads free leave holes in each of theirs; a program
/// whose threads mostly wait loses nothing by sharing few. To be called before threads are started: those that run
/// may go by the former number for a while.
pub fn share_heaps(most: u16) {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers, and sets a word that other threads see before or after.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::from(most));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}

/// Gives what is free in the heaps back to the system. Takes a millisecond for some megabytes: for after a peak.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
