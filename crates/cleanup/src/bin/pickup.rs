//! The pickup daemon; see pickup(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    service::daemon("pickup", cleanup::pickup::run)
}
