//! A thread's stack, as memory: what a deep call has touched stays with the thread until it ends, however long it waits.

use std::cell::Cell;
use std::thread::{self, JoinHandle};
use std::{io, ptr};

use nix::sys::mman::{MmapAdvise, madvise};

/// Memory is given back in pages of this size; where pages are larger, nothing is.
const PAGE: usize = 4096;

/// What is left alone below the caller: it is in use as soon as the next function is called.
const IN_USE: usize = 1024;

/// The stack is not searched for touched memory further down than this.
const DEEPEST: usize = 128 * 1024;

/// What of a stack's size is not relied on: the C library keeps the thread's own variables and a guard in it.
const RESERVED: usize = 64 * 1024;

thread_local! {
    /// The lowest address of this thread's stack that may be given back; 0 where it is not known.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Starts a thread with a stack of this size, of which [`give_back`] knows where it ends.
///
/// # Errors
/// Why no thread could be made.
pub fn spawn(size: usize, life: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let remembering = move || {
        let here = 0_u8;
        let top = ptr::from_ref(&here).addr();
        LOWEST.set(top.saturating_sub(size.saturating_sub(RESERVED)));
        life();
    };
    thread::Builder::new().stack_size(size).spawn(remembering)
}

/// Gives back what deeper calls have touched. Costs nothing on a thread whose stack is not known.
pub fn give_back() {
    let here = 0_u8;
    let here = ptr::from_ref(&here);
    let lowest = LOWEST.get();
    let end = here.addr().saturating_sub(IN_USE) & !(PAGE - 1);
    let start = end.saturating_sub(DEEPEST).max(lowest).next_multiple_of(PAGE);
    if lowest == 0 || start >= end {
        return;
    }
    let Some(address) = ptr::NonNull::new(here.cast_mut().with_addr(start).cast()) else { return };
    // SAFETY: the range is within this thread's stack, by `spawn`, and ends below the frame of this function and of
    // what it calls: nothing in it is in use. Memory that is touched there again is zeroed, and no frame relies on what
    // was there. Where the system refuses, it stays as it was.
    let _ = unsafe { madvise(address, end - start, MmapAdvise::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn touch(depth: usize) -> usize {
        let block = std::hint::black_box([1_u8; 2048]);
        let deeper = if depth == 0 { 0 } else { touch(depth - 1) };
        deeper + usize::from(block[depth % 2048])
    }

    #[test]
    fn a_thread_works_on_after_it_has_given_back_its_stack() {
        let work = || {
            let kept: Vec<usize> = (0..50)
                .map(|depth| {
                    let sum = touch(depth);
                    give_back();
                    sum
                })
                .collect();
            assert_eq!(kept, (1..51).collect::<Vec<_>>());
        };
        spawn(512 * 1024, work).unwrap().join().unwrap();
        // Here it is not known, and nothing happens.
        give_back();
        assert_eq!(touch(9), 10);
    }
}
