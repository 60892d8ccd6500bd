//! The SMTP server.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::daemon("smtpd", smtpd::run)
}
