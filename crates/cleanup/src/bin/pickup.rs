//! The pickup daemon; see pickup(8).

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon("pickup", cleanup::pickup::run)
}
