//! `qmgr`: the queue manager. See the library for the contract.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon("qmgr", qmgr::run)
}
