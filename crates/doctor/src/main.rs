//! `doctor`: looks for what is wrong with a mail system. See `doctor(8)`.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    doctor::run()
}
