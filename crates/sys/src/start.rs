//! The start of a program that is started for each message.
//!
//! What the standard library does before `main` costs such a program a tenth of its time, most of it to learn where the main
//! thread's stack ends, for a sentence instead of a plain SIGSEGV should it overflow. A program that is made by
//! [`program!`](crate::program) begins with what is to be seen of it from outside, and with nothing else.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::IntoRawFd;

use nix::libc::{self, c_int};
use nix::sys::signal::{SigHandler, Signal, signal};

/// The code of a program that panicked, as the standard library has it.
const PANICKED: u8 = 101;

/// Makes this `fn() -> u8` the program, in a file that begins with `#![no_main]`; the number is the exit code.
#[macro_export]
macro_rules! program {
    ($body:path) => {
        #[cfg(not(target_env = "gnu"))]
        compile_error!(
            "only with glibc does the standard library know the arguments of a program without its own start"
        );
        // The one function of this name, with the C library's prototype: `no_main` leaves it to the program, and a second
        // one would not link. It uses neither of its arguments.
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: ::core::ffi::c_int,
            _: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            $crate::start::run($body)
        }
    };
}

/// Ends the process with what `body` returns. Standard input, output and error are there for it, and SIGPIPE is ignored.
pub fn run(body: fn() -> u8) -> c_int {
    if open_missing().is_err() {
        // What it would open might become its standard output.
        std::process::abort();
    }
    // SAFETY: no function of this process is made a handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    // No panic may reach the C library, which called this.
    let code = std::panic::catch_unwind(body).unwrap_or(PANICKED);
    // Also writes what standard output still has.
    std::process::exit(c_int::from(code))
}

/// Opens /dev/null where the parent has left one of the first three descriptors closed.
fn open_missing() -> io::Result<()> {
    let mut asked = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: writes into that many entries, and only tells of descriptors which are not open.
    if unsafe { libc::poll(asked.as_mut_ptr(), 3, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for _ in asked.iter().filter(|asked| asked.revents & libc::POLLNVAL != 0) {
        // It gets the lowest number that is free, and keeps it.
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?.into_raw_fd();
        // SAFETY: takes three numbers; a program that is run in this one's place is to have it as well.
        unsafe { libc::fcntl(null, libc::F_SETFD, 0) };
    }
    Ok(())
}
