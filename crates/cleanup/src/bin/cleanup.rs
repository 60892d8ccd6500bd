//! The cleanup daemon; see cleanup(8).

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon("cleanup", cleanup::run)
}
