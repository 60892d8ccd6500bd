//! What the C library's allocator and the kernel are told of memory.

use std::ffi::{c_int, c_void};
use std::ptr;

use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};

/// Memory is given back in pages of this size at least; where pages are larger, code stays.
const PAGE: usize = 4096;

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

/// What only the start of a process needed, for the moment from which on it serves: free parts of the heap, the code that ran so
/// far, and what lies below the caller on the main thread's stack. Code that is needed again is mapped again, from the file
/// that it comes from.
pub fn settle() {
    give_back();
    crate::stack::give_back_start();
    // SAFETY: the function has the type that is called for, reads what it is given during the call alone, and does not unwind.
    let _ = unsafe { libc::dl_iterate_phdr(Some(forget_code), ptr::null_mut()) };
}

/// Unmaps the pages of the first object's code, which is the program itself. Ends the iteration.
unsafe extern "C" fn forget_code(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the C library gives a whole description of an object, with as many headers as it says.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let is_only_code = header.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X;
        let (Ok(start), Ok(size)) = (usize::try_from(base + header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        // Whole pages within the segment: what shares a page with others stays.
        let (start, end) = (start.next_multiple_of(PAGE), (start + size) & !(PAGE - 1));
        let Some(address) = ptr::NonNull::new(ptr::with_exposed_provenance_mut(start)) else { continue };
        if is_only_code && start < end {
            // SAFETY: the pages are a segment of this program that nobody can write to, so that they are as they are in its
            // file, from which the kernel takes them again at the next touch. Where the system refuses, nothing changes.
            let _ = unsafe { madvise(address, end - start, MmapAdvise::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_on_after_it_has_settled() {
        let kept: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        settle();
        settle();
        assert!(kept.iter().enumerate().all(|(n, text)| *text == n.to_string()));
    }
}
