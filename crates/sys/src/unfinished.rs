//! A file that does not outlive its maker: who is ended by a signal in the midst of the work removes it first.
//!
//! One file at a time for a process. What nobody can defend against, SIGKILL and a power cut, leaves it.

use std::ffi::{CString, c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{io, mem, ptr};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// Those that end a program whose user, terminal or machine has had enough of it.
const ENDINGS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGXCPU];

/// The path of the file, or null. What it points to is never freed: a handler may have it at any time.
static PATH: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// Has `make` make the file at `path`, which is removed if a signal ends this process before [`keep`] is called. Signals
/// that are ignored stay so.
///
/// # Errors
/// What `make` says, and what `sigaction` says.
pub fn make<T>(path: CString, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let endings: SigSet = ENDINGS.into_iter().collect();
    // Nobody is ended between the making and the note of it.
    let mask = endings.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let made = make().and_then(|made| {
        PATH.store(path.into_raw(), Ordering::SeqCst);
        ENDINGS.into_iter().filter(|signal| !is_ignored(*signal)).try_for_each(catch)?;
        Ok(made)
    });
    mask.thread_set_mask()?;
    made
}

/// From here on the file stays.
pub fn keep() {
    PATH.store(ptr::null_mut(), Ordering::SeqCst);
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a sigaction of zeros is one; the call without an action to set only fills it in.
    let action = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal as c_int, ptr::null(), &raw mut action);
        action
    };
    action.sa_sigaction == libc::SIG_IGN
}

fn catch(signal: Signal) -> io::Result<()> {
    // The handler is gone when it runs: what it raises ends the process.
    let action = SigAction::new(SigHandler::Handler(remove), SaFlags::SA_RESETHAND, SigSet::empty());
    // SAFETY: the handler makes nothing but async-signal-safe calls.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

extern "C" fn remove(signal: c_int) {
    let path = PATH.swap(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: both calls are async-signal-safe; the path is a C string that is never freed.
    unsafe {
        if !path.is_null() {
            libc::unlink(path);
        }
        libc::raise(signal);
    }
}
