//! `qmgr`: the queue manager. See the library for the contract.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::daemon("qmgr", qmgr::run)
}
