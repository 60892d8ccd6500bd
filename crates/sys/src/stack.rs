//! A thread's stack, as memory: what a deep call has touched stays with the thread until it ends, however long it waits.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, ptr};

use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};
use nix::unistd::{getpid, gettid};

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

/// What a thread is to do.
type Life = Box<dyn FnOnce() + Send>;

/// Starts a thread with a stack of this size, of which [`give_back`] knows where it ends. Nobody waits for its end.
///
/// Why not the standard library's: each of its threads has a second stack for the signal that tells of an overflow of the first,
/// which is a third of what it costs to make a thread. Here an overflow ends the process at the guard page, without those words.
///
/// # Errors
/// Why no thread could be made.
pub fn spawn(size: usize, life: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let remembering: Life = Box::new(move || {
        let here = 0_u8;
        let top = ptr::from_ref(&here).addr();
        LOWEST.set(top.saturating_sub(size.saturating_sub(RESERVED)));
        life();
    });
    let life = Box::into_raw(Box::new(remembering));
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are used from their initialisation to their destruction only; `live` gets what it takes, and is the
    // only one to have it where a thread was made.
    let error = unsafe {
        match libc::pthread_attr_init(attributes.as_mut_ptr()) {
            0 => {
                libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
                libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), size);
                let error = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), live, life.cast());
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                error
            }
            error => error,
        }
    };
    if error == 0 {
        return Ok(());
    }
    // SAFETY: there is no thread that has it.
    drop(unsafe { Box::from_raw(life) });
    Err(io::Error::from_raw_os_error(error))
}

/// A thread's life. A panic that nobody has caught ends it, as it would that of another thread; it has been told of.
extern "C" fn live(life: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it, for this thread alone.
    let life = unsafe { Box::from_raw(life.cast::<Life>()) };
    let _ = catch_unwind(AssertUnwindSafe(life));
    ptr::null_mut()
}

/// On the main thread, gives back what deeper calls have touched; on others, nothing.
pub(crate) fn give_back_start() {
    if gettid() == getpid() {
        let here = 0_u8;
        // The main thread's stack grows on demand, and the kernel leaves room for it: nothing else is there.
        LOWEST.set(ptr::from_ref(&here).addr().saturating_sub(2 * DEEPEST));
        give_back();
        LOWEST.set(0);
    }
}

/// Gives back what deeper calls have touched. Costs nothing on a thread whose stack is not known.
// Within its caller's frame, what lies below a variable could be the caller's.
#[inline(never)]
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
    // SAFETY: the range is within this thread's stack, by `spawn` or `give_back_start`, and ends below the frame of this
    // function and of what it calls: nothing in it is in use. Memory that is touched there again is zeroed, and no frame
    // relies on what was there. Where the system refuses, it stays as it was.
    let _ = unsafe { madvise(address, end - start, MmapAdvise::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[inline(never)]
    fn touch(depth: usize) -> usize {
        let block = std::hint::black_box([1_u8; 2048]);
        let deeper = if depth == 0 { 0 } else { touch(depth - 1) };
        deeper + usize::from(block[depth % 2048])
    }

    #[test]
    fn a_thread_works_on_after_it_has_given_back_its_stack() {
        let (sender, done) = mpsc::channel();
        let work = move || {
            let kept: Vec<usize> = (0..50)
                .map(|depth| {
                    let sum = touch(depth);
                    give_back();
                    sum
                })
                .collect();
            sender.send(kept).unwrap();
        };
        spawn(512 * 1024, work).unwrap();
        assert_eq!(done.recv().unwrap(), (1..51).collect::<Vec<_>>());
        // Here it is not known, and nothing happens.
        give_back();
        assert_eq!(touch(9), 10);
    }

    #[test]
    fn a_panic_ends_the_thread_alone_and_what_it_had_is_dropped() {
        let (sender, done) = mpsc::channel::<()>();
        spawn(64 * 1024, move || {
            let _held = sender;
            panic!("told to");
        })
        .unwrap();
        assert_eq!(done.recv(), Err(mpsc::RecvError));
    }
}
