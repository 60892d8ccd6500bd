//! master: owns the listening sockets, starts the programs of master.cf, restarts what fails, reloads, drains.
//!
//! Contract: one thread, one loop, no mail. It reads the configuration once for each generation and hands every child
//! the text it checked, so that a child never goes by a file that was changed since. Listening sockets stay open from
//! one generation to the next: no client is turned away by a reload. A program is started when there is something for
//! it to do (a client waits at its socket, or its wake-up column says so) and then keeps running.

mod child;
mod notifier;
mod operator;
mod service;
mod sockets;
mod startup;
mod supervisor;

use std::ffi::OsString;
use std::process::ExitCode;

use ipc::log;

/// Runs master with the arguments `-c DIR [-f]`; `-f` keeps it in the foreground with its log on standard error, too.
///
/// Descriptor 3, where it is open, is where the outcome of the start is reported: nothing for success, else the reason.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let result = startup::prepare(arguments).and_then(supervisor::Supervisor::run);
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal!("{error}");
            startup::report_failure(&error);
            ExitCode::FAILURE
        }
    };
    log::flush();
    code
}
