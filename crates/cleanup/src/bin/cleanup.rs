//! The cleanup daemon; see cleanup(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    service::daemon("cleanup", cleanup::run)
}
