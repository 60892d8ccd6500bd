//! The SMTP server.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon_with_judgement(
        "smtpd",
        |asked| {
            let mut found = service::judge(&asked.config);
            found.extend(smtpd::judge(&asked.config));
            found
        },
        smtpd::run,
    )
}
