//! `master`: supervises the mail system. See the library for the contract.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    master::run(std::env::args_os().skip(1))
}
